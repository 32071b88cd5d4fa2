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


def thumbnail(picture: "Image") -> bytes:
    """Return a WebP of it for people, its longest side at most 256 pixels."""
    from PIL import Image

    size = bounded_size(*picture.size, THUMBNAIL_SIDE)
    small = picture
    if size != picture.size:
        small = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=70, method=2)
    return buffer.getvalue()
