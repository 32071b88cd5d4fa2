"""Decoded pictures on their way out of a reader: sized for the model and for people."""

import io
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmsearch.values import Pixels

MIN_SIDE = 28
"""Pixels; the patch of the vision models: a thinner picture is padded to it."""

THUMBNAIL_SIDE = 256
"""Pixels of a thumbnail's longest side."""

_LOOK_WIDTH, _LOOK_HEIGHT = 9, 8  # grey fields; each is compared with the one right of it
# Grey levels; less is what another compression makes of a plain area. Of the sample corpus,
# JPEG at quality 60 and half the size change 2 bits at most, other pictures differ in 12.
_MIN_STEP = 2
_MIN_STEPS = 8  # of 64; with less there is nothing to tell two pictures apart by


def fitted_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """Return the size within ``max_pixels`` that keeps the aspect and never enlarges."""
    scale = min(1.0, math.sqrt(max_pixels / (width * height)))
    return max(1, math.floor(width * scale)), max(1, math.floor(height * scale))


def bounded_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """Return the size whose longer side is at most ``max_side``; never enlarges."""
    scale = min(1.0, max_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def fit(picture: "Image", max_pixels: int) -> "Pixels":
    """Return an RGB picture as uint8 ``[h, w, 3]`` within the pixel budget.

    The aspect is kept; a side under 28 pixels is padded in white, because the
    patches of a vision model would not fit into it.
    """
    import numpy as np
    from PIL import Image

    # A sliver keeps its length only as far as the padding leaves room for it.
    longest = max(MIN_SIDE, max_pixels // MIN_SIDE)
    width, height = fitted_size(*bounded_size(*picture.size, longest), max_pixels)
    if (width, height) != picture.size:
        # reducing_gap: first an integer box filter, then the fine one; twice as fast.
        picture = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    if min(width, height) < MIN_SIDE:
        padded = (max(width, MIN_SIDE), max(height, MIN_SIDE))
        picture = _pad(picture, padded)
    return np.array(picture, dtype=np.uint8)


def _pad(picture: "Image", size: tuple[int, int]) -> "Image":
    from PIL import Image

    canvas = Image.new("RGB", size, "white")
    canvas.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
    return canvas


def look(pixels: "Pixels") -> int | None:
    """Return the difference hash of ``[h, w, 3]``: 64 bits, one for each step to a lighter field.

    The same picture compressed anew or made smaller differs in a few bits. None for one
    of about one shade, or with a single mark on it: all blank pages would look alike.
    """
    import numpy as np
    from PIL import Image

    grey = Image.fromarray(pixels).convert("L").convert("F")  # rounded, twice as many bits differ
    shades = np.asarray(grey.resize((_LOOK_WIDTH, _LOOK_HEIGHT), Image.Resampling.BOX))
    steps = shades[:, 1:] - shades[:, :-1]
    if (abs(steps) >= _MIN_STEP).sum() < _MIN_STEPS:
        return None
    return int.from_bytes(np.packbits(steps >= _MIN_STEP).tobytes(), "big")


def thumbnail(picture: "Image") -> bytes:
    """Return a WebP of it for people, its longest side at most 256 pixels."""
    from PIL import Image

    size = bounded_size(*picture.size, THUMBNAIL_SIDE)
    small = picture
    if size != picture.size:
        # Mostly a box filter: good enough for people, and a fifth of the time of a sinc.
        small = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=1.0)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=70, method=2)
    return buffer.getvalue()
