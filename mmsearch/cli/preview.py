"""Thumbnails in a terminal that shows true colour, two pixels a character."""

import io
import os
import sys

from mmsearch.cli.output import say

_COLUMNS = 48


def print_preview(thumbnail: bytes) -> None:
    """Print a WebP thumbnail in half blocks; say so where there is none or the terminal cannot."""
    if os.environ.get("COLORTERM") not in ("truecolor", "24bit"):
        say("  (no preview: this terminal does not say that it shows true colour)")
        return
    if not thumbnail:
        say("  (no preview: it has no picture)")
        return
    from PIL import Image

    with Image.open(io.BytesIO(thumbnail)) as picture:
        height = max(2, round(picture.height * _COLUMNS / picture.width / 2) * 2)
        small = picture.convert("RGB").resize((_COLUMNS, height))
    pixels = [small.getpixel((x, y)) for y in range(height) for x in range(_COLUMNS)]
    for top in range(0, height, 2):
        upper = pixels[top * _COLUMNS : (top + 1) * _COLUMNS]
        lower = pixels[(top + 1) * _COLUMNS : (top + 2) * _COLUMNS]
        row = "".join(
            f"\x1b[38;2;{_rgb(above)};48;2;{_rgb(below)}m▀"
            for above, below in zip(upper, lower, strict=True)
        )
        sys.stdout.write(f"  {row}\x1b[0m\n")


def _rgb(pixel: object) -> str:
    if not isinstance(pixel, tuple):
        raise TypeError(f"an RGB pixel is a tuple, got {pixel!r}")
    return ";".join(str(value) for value in pixel)
