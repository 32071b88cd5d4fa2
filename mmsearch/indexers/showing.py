"""A segment's picture in full, made from its file again; the index keeps thumbnails only."""

import io
import os
from typing import TYPE_CHECKING

from mmsearch.errors import UnreadableFile
from mmsearch.indexers.discover import spellings
from mmsearch.indexers.readers.pictures import bounded_size
from mmsearch.indexers.sandbox import ReadTask, Sandbox
from mmsearch.values import Kind, Locator, ReadPolicy

if TYPE_CHECKING:
    from mmsearch.values import Pixels

_QUALITY = 85
_LONGEST_SIDE = 16_383  # of a WebP


def picture_of(
    path: str, kind: Kind, locator: Locator, sandbox: Sandbox, *, max_pixels: int
) -> bytes:
    """Return a page, a picture, or the middle of a clip, as WebP of at most ``max_pixels``.

    path: as the manifest has it
    Empty for a text. Raises UnreadableFile where the file is gone or cannot be read, and
    ValueError for ``max_pixels < 1``.
    """
    if max_pixels < 1:
        raise ValueError(f"a picture has at least one pixel, not {max_pixels}")
    if kind is Kind.TEXT:
        return b""
    file = next((one for one in spellings(path) if os.path.isfile(one)), None)
    if file is None:
        raise UnreadableFile(path, "there is no such file any more")
    policy = ReadPolicy(ocr=False, max_pixels=max_pixels, max_frames=1)
    only = None if kind is Kind.IMAGE else locator
    task = ReadTask(file, kind, policy, only=only, whole=kind is Kind.VIDEO)
    for segment in sandbox.read_one(task):
        if segment.pixels is not None:
            return _webp(segment.pixels[0])
    raise UnreadableFile(path, f"there is no {locator or 'picture'} in it any more")


def _webp(pixels: "Pixels") -> bytes:
    from PIL import Image

    out = io.BytesIO()
    picture = Image.fromarray(pixels)
    size = bounded_size(*picture.size, _LONGEST_SIDE)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    picture.save(out, "WEBP", quality=_QUALITY, method=2)
    return out.getvalue()
