"""What the index does not keep of a segment, made from its file again.

path, locator -> a worker -> the picture in full, or where its words stand on the page
"""

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.errors import UnreadableFile
from mmsearch.indexers.discover import spellings
from mmsearch.indexers.readers.pictures import bounded_size
from mmsearch.indexers.sandbox import ReadTask, Sandbox
from mmsearch.values import Kind, Locator, PlacedWord, ReadPolicy

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
    file = _file_of(path)
    policy = ReadPolicy(ocr=False, max_pixels=max_pixels, max_frames=1)
    only = None if kind is Kind.IMAGE else locator
    task = ReadTask(file, kind, policy, only=only, whole=kind is Kind.VIDEO)
    for segment in sandbox.read_one(task):
        if segment.pixels is not None:
            return _webp(segment.pixels[0])
    raise UnreadableFile(path, f"there is no {locator or 'picture'} in it any more")


def words_on(path: str, kind: Kind, locator: Locator, sandbox: Sandbox) -> list[PlacedWord]:
    """Return the words of a page of a PDF and where they stand; none of scans and other kinds.

    path: as the manifest has it
    Raises UnreadableFile where the file is gone or cannot be read.
    """
    if kind is not Kind.PDF:
        return []
    policy = ReadPolicy(ocr=False)
    task = ReadTask(_file_of(path), kind, policy, only=locator, placed=True)
    [said] = sandbox.read_one(task)
    try:  # by a worker that read a stranger's file, so nothing in it is trusted
        return [
            PlacedWord(str(text), *map(_share, sides)) for text, *sides in json.loads(said.text)
        ]
    except (ValueError, TypeError):
        raise UnreadableFile(path, "nobody can tell where its words are") from None


def _share(side: float) -> float:
    if not 0 <= side <= 1:  # neither is NaN
        raise ValueError(side)
    return side


def _file_of(path: str) -> Path:
    """Return where a file of the manifest lies. Raises UnreadableFile."""
    file = next((one for one in spellings(path) if os.path.isfile(one)), None)
    if file is None:
        raise UnreadableFile(path, "there is no such file any more")
    return file


def _webp(pixels: "Pixels") -> bytes:
    from PIL import Image

    out = io.BytesIO()
    picture = Image.fromarray(pixels)
    size = bounded_size(*picture.size, _LONGEST_SIDE)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    picture.save(out, "WEBP", quality=_QUALITY, method=2)
    return out.getvalue()
