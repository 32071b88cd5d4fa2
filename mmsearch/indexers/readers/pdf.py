"""PDF: one segment a page, with its picture and its words.

A page's words come from its text layer; where that is missing or garbage, as in
scans, they are read from the picture.
"""

import contextlib
import functools
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mmsearch.errors import UnreadableFile
from mmsearch.indexers.readers import about, ocr
from mmsearch.indexers.readers.pictures import fit, look, thumbnail
from mmsearch.values import Kind, Locator, PlacedWord, ReadPolicy, Segment, TextOrigin

if TYPE_CHECKING:
    from PIL.Image import Image

# pymupdf is only half typed
_Module: TypeAlias = Any
_Document: TypeAlias = Any
_Page: TypeAlias = Any

MOST_PLACED = 5_000  # words of one page: ten times those of a page of a book
_MAX_DPI = 200
_LONGEST_SIDE = 8192  # pixels, of a page that is a ribbon
_END_BYTES = 4096  # at the end of a file, in which its end mark is looked for
_BROKEN_WORD = re.compile(r"(?<=[^\W\d_])[-\u00ad\u2010]\n(?=[a-z\u00df-\u00ff])")
# Control characters that are no blanks, private ones, and the one for what has no meaning.
_BROKEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufffd\ue000-\uf8ff\U000f0000-\U0010ffff]"
)
_MIN_WORDS = 5  # of a text layer, under which a page with ink on it is taken for a scan
_STAMP_WORDS = 40  # under which the layer of a page that is one picture is not what it says
_MOST_OF_A_PAGE = 0.7


def read(path: Path, policy: ReadPolicy, *, page: int | None = None) -> Iterator[Segment]:
    """Yield the pages in order, or the one page that is asked for.

    Raises UnreadableFile where it is encrypted, no PDF, without pages, or lacks that page.
    Beyond ``policy.max_pages`` pages are left out.
    """
    with _opened(path) as document:
        numbers = _page_numbers(path, document, policy, page)
        metadata = document.metadata or {}
        names = (about.name_words(path), metadata.get("title"), metadata.get("author"))
        for number in numbers:
            yield _segment(document[number - 1], number, names, policy)


def num_pages(path: Path, policy: ReadPolicy) -> int:
    """Return how many pages `read` would yield. Raises UnreadableFile as it does."""
    with _opened(path) as document:
        return len(_page_numbers(path, document, policy, None))


def placed_words(path: Path, policy: ReadPolicy, page: int) -> list[PlacedWord]:
    """Return the words of a page's text layer as it is shown, at most `MOST_PLACED` of them.

    A scan has none. Raises UnreadableFile as `read` does.
    """
    pymupdf = _pymupdf()
    with _opened(path) as document:
        [number] = _page_numbers(path, document, policy, page)
        shown = document[number - 1]
        flags = pymupdf.TEXT_PRESERVE_WHITESPACE | pymupdf.TEXT_MEDIABOX_CLIP
        found = shown.get_text("words", flags=flags)[:MOST_PLACED]
        whole, turned = shown.rect, shown.rotation_matrix
        placed = []
        for left, top, right, bottom, word, *_ in found:
            box = (pymupdf.Rect(left, top, right, bottom) * turned) & whole
            if not box.is_empty:
                across, down = whole.width, whole.height
                sides = (box.x0 / across, box.y0 / down, box.x1 / across, box.y1 / down)
                placed.append(PlacedWord(word, *(round(side, 5) for side in sides)))
        return placed


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Document]:
    pymupdf = _pymupdf()
    try:
        document = pymupdf.open(path, filetype="pdf")
    except pymupdf.EmptyFileError:
        raise UnreadableFile(path, "it is empty") from None
    except pymupdf.FileDataError:
        raise UnreadableFile(path, "it is not a PDF, or damaged beyond repair") from None
    try:
        with document:
            yield document
    finally:
        # mupdf keeps up to 256 MB of what it decoded, though no other file can use it.
        pymupdf.TOOLS.store_shrink(100)


@functools.cache
def _pymupdf() -> _Module:
    """Import it, and keep its remarks on damaged files off stderr."""
    import pymupdf

    untyped: _Module = pymupdf
    untyped.TOOLS.mupdf_display_errors(False)
    untyped.TOOLS.mupdf_display_warnings(False)
    return untyped


def _page_numbers(path: Path, document: _Document, policy: ReadPolicy, page: int | None) -> range:
    if not document.is_pdf:  # mupdf opens HTML and pictures too, whatever it is told
        raise UnreadableFile(path, "it is not a PDF, whatever its name says")
    if document.needs_pass:
        raise UnreadableFile(path, "it is encrypted (password needed)")
    if document.is_repaired and not _has_end(path):
        # mupdf makes up blank pages for those that are missing: they would be indexed as such.
        raise UnreadableFile(path, "it is cut short (its end is missing)")
    num_pages = document.page_count
    if num_pages < 1:
        raise UnreadableFile(path, "it has no pages")
    if page is None:
        return range(1, min(num_pages, policy.max_pages) + 1)
    if page > num_pages:
        raise UnreadableFile(path, f"it has {num_pages} pages, so no page {page}")
    return range(page, page + 1)


def _has_end(path: Path) -> bool:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_BYTES))
        return b"%%EOF" in file.read()


def _segment(page: _Page, number: int, names: tuple[object, ...], policy: ReadPolicy) -> Segment:
    picture = _render(page, policy.max_pixels)
    text = _text_layer(page)
    origin = TextOrigin.LAYER if text else TextOrigin.NONE
    is_scan = _is_scant(text) or _is_garbage(text) or _is_stamped_scan(page, text)
    needs_ocr = is_scan and _has_ink(picture)
    if policy.ocr and needs_ocr:
        read = ocr.read_text(_render(page, ocr.MAX_SIDE**2, ocr.MAX_SIDE))
        if len(read.split()) > len(text.split()) or _is_garbage(text):
            text, origin = read, TextOrigin.OCR if read else TextOrigin.NONE
    label = page.get_label()
    pixels = fit(picture, policy.max_pixels)
    return Segment(
        kind=Kind.PDF,
        locator=Locator(page=number),
        text=text,
        text_origin=origin,
        about=about.join(*names, f"page {label}" if label not in ("", str(number)) else ""),
        pixels=pixels[None],
        thumbnail=thumbnail(picture),
        look=look(pixels),
        awaits_ocr=needs_ocr and not policy.ocr,
    )


def _render(page: _Page, max_pixels: int, max_side: int | None = None) -> "Image":
    """Return the page as RGB, at most at 200 dpi and within the limits, upright."""
    from PIL import Image

    pymupdf = _pymupdf()

    width, height = page.rect.width, page.rect.height  # points, after rotation
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise ValueError(f"page {page.number + 1} measures {width:g} x {height:g} points")
    # Clamped before mupdf sees it: a page of 200 inches is refused at any usual resolution.
    # Each side is floored, because mupdf rounds up and one pixel over means a resize.
    zoom = min(_MAX_DPI / 72, math.sqrt(max_pixels / (width * height)))
    zoom = min(zoom, (max_side or _LONGEST_SIDE) / max(width, height))
    zoom_x = math.floor(width * zoom) / width if width * zoom >= 1 else zoom
    zoom_y = math.floor(height * zoom) / height if height * zoom >= 1 else zoom
    matrix = pymupdf.Matrix(zoom_x, zoom_y)
    rendered = page.get_pixmap(matrix=matrix, colorspace=pymupdf.csRGB, alpha=False)
    return Image.frombytes("RGB", (rendered.width, rendered.height), rendered.samples)


def _text_layer(page: _Page) -> str:
    pymupdf = _pymupdf()
    # Without PRESERVE_LIGATURES they are spelt out: nobody types one into a search.
    flags = pymupdf.TEXT_PRESERVE_WHITESPACE | pymupdf.TEXT_MEDIABOX_CLIP
    text = page.get_text("text", flags=flags)
    return _BROKEN_WORD.sub("", text).replace("\xad", "").strip()


def _is_scant(text: str) -> bool:
    return len(text.split()) < _MIN_WORDS


def _is_stamped_scan(page: _Page, text: str) -> bool:
    """Tell a scan on which an archive printed a line of its own: one picture is the page."""
    if len(text.split()) >= _STAMP_WORDS:
        return False
    whole = abs(page.rect.get_area())
    pictures = (_pymupdf().Rect(one["bbox"]) & page.rect for one in page.get_image_info())
    return any(abs(picture.get_area()) > _MOST_OF_A_PAGE * whole for picture in pictures)


def _is_garbage(text: str) -> bool:
    """Tell a layer whose font lacks a map to Unicode.

    What comes out is U+FFFD, private characters, or an alphabet shifted by a few places,
    with control characters for its spaces: one in six.
    """
    return len(_BROKEN.findall(text)) > 0.08 * sum(map(len, text.split()))


def _has_ink(picture: "Image") -> bool:
    counts = picture.convert("L").histogram()
    shades = [shade for shade, count in enumerate(counts) if count]
    return shades[-1] - shades[0] > 32
