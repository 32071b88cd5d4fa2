"""Lay HTML out as PDF pages: one block of text a page, or one a column.

``pages/NAME.html`` is cut at ``<!-- page -->``, and each page at ``<!-- column -->``.
What does not fit is an error, so that no page is ever silently shrunk or cut off.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pymupdf
from materials import FILES, PAGES

A4 = (595.0, 842.0)
SLIDE = (720.0, 405.0)
A5 = (420.0, 595.0)
JOURNAL = (482.0, 545.0)
GUIDE = (480.0, 640.0)
PAPER = (510.0, 730.0)

# A PDF says when it was made; a fixed day keeps a rebuild identical byte for byte.
DAY = "D:20250301090000Z"

CSS = """
body { font-family: sans-serif; font-size: 13pt; line-height: 1.4; color: #22303c; }
h1 { font-size: 27pt; margin: 0 0 8pt 0; color: #1f4e72; }
h2 { font-size: 21pt; margin: 6pt 0 8pt 0; color: #1f4e72; }
h3 { font-size: 14.5pt; margin: 10pt 0 3pt 0; }
p { margin: 0 0 9pt 0; }
li { margin: 0 0 4pt 0; }
table { margin: 4pt 0 10pt 0; }
th { text-align: left; padding: 3pt 12pt 3pt 4pt; border-bottom: 1px solid #22303c;
     background-color: #e6eef4; }
td { padding: 3.5pt 12pt 2.5pt 4pt; border-bottom: 0.5px solid #b8c4ce; }
.lead { font-size: 15pt; color: #55636f; }
.small { font-size: 10pt; color: #55636f; }
.caption { font-size: 10pt; color: #55636f; }
.box { background-color: #fbeee0; padding: 6pt; }
.cover { text-align: center; padding-top: 90pt; }
.cover h1 { font-size: 38pt; }
"""

PAPER_CSS = """
body { font-family: serif; font-size: 9.6pt; line-height: 1.25; text-align: justify; }
.title { font-size: 17pt; text-align: center; font-weight: bold; line-height: 1.2; }
.authors { font-size: 10.5pt; text-align: center; }
h3 { font-size: 10.5pt; margin: 6pt 0 2pt 0; }
p { margin: 0 0 4pt 0; }
table { font-size: 8.5pt; margin: 2pt 0 6pt 0; }
th, td { padding: 1.5pt 8pt 1.5pt 2pt; border-bottom: 0.4px solid #888888; text-align: left; }
.caption { font-size: 8pt; text-align: left; }
.ref { font-size: 8.3pt; }
"""

SLIDE_CSS = """
body { font-family: sans-serif; font-size: 17pt; line-height: 1.3; color: #1d2b24; }
h1 { font-size: 38pt; margin: 0 0 10pt 0; color: #24623f; }
h2 { font-size: 25pt; margin: 0 0 8pt 0; color: #24623f; }
p { font-size: 15pt; margin: 4pt 0; }
li { margin: 0 0 8pt 0; }
table { font-size: 15pt; margin: 6pt 0 10pt 0; }
th { text-align: left; padding: 5pt 22pt 5pt 5pt; border-bottom: 1.5px solid #24623f; }
td { padding: 5pt 22pt 5pt 5pt; border-bottom: 0.5px solid #aac0b2; }
.title-slide { padding-top: 80pt; text-align: center; }
.small { font-size: 12pt; color: #55636f; }
"""

# A booklet is read from nearer: the same page, in smaller type.
BOOKLET_CSS = """
body { font-family: sans-serif; font-size: 9.8pt; line-height: 1.35; color: #22303c; }
h1 { font-size: 20pt; margin: 0 0 6pt 0; color: #7c2f28; }
h2 { font-size: 16pt; margin: 0 0 7pt 0; color: #7c2f28; }
h3 { font-size: 11.5pt; margin: 8pt 0 3pt 0; }
p { margin: 0 0 7pt 0; }
li { margin: 0 0 4pt 0; }
table { margin: 4pt 0 9pt 0; font-size: 9.2pt; }
th { text-align: left; padding: 3pt 9pt 3pt 3pt; background-color: #f3e4e1; }
td { padding: 3pt 9pt 3pt 3pt; border-bottom: 0.5px solid #ccb9b6; }
.lead { font-size: 12pt; color: #55636f; }
.small, .caption { font-size: 8.5pt; color: #55636f; }
.box { background-color: #fbeee0; padding: 5pt; }
.cover { text-align: center; padding-top: 70pt; }
.cover h1 { font-size: 36pt; }
"""


@dataclass(frozen=True)
class Sheet:
    """The paper: size and margin in points, columns, style, words and colour at the foot."""

    size: tuple[float, float] = A4
    margin: float = 56.0
    columns: int = 1
    css: str = CSS
    foot: str = ""
    strip: tuple[float, float, float] | None = None


def typeset(name: str, sheet: Sheet, pictures: Mapping[str, bytes]) -> pymupdf.Document:
    """Return ``pages/NAME.html`` laid out on ``sheet``, with the pictures that it names."""
    archive = pymupdf.Archive()
    for picture_name, png in pictures.items():
        archive.add(png, picture_name)
    document = pymupdf.open()
    html = (PAGES / f"{name}.html").read_text(encoding="utf-8")
    for number, text in enumerate(html.split("<!-- page -->"), start=1):
        page = document.new_page(width=sheet.size[0], height=sheet.size[1])
        blocks = text.split("<!-- column -->")
        for where, block in zip(_boxes(sheet, blocks), blocks, strict=True):
            spare, scale = page.insert_htmlbox(
                where, block, css=sheet.css, archive=archive, scale_low=1
            )
            if spare < 0 or scale < 1:
                raise ValueError(f"{name}.html: a block of page {number} does not fit")
        if sheet.strip:
            width, height = sheet.size
            page.draw_rect((0, height - 14, width, height), color=None, fill=sheet.strip)
        if sheet.foot:
            at = pymupdf.Point(sheet.margin, sheet.size[1] - 26)
            page.insert_text(at, f"{sheet.foot}  -  {number}", fontsize=8, color=(0.4, 0.45, 0.5))
    return document


def _boxes(sheet: Sheet, blocks: list[str]) -> list[pymupdf.Rect]:
    """Return one rectangle a block: a full-width head first if there is one too many."""
    width, height = sheet.size
    top, bottom = sheet.margin, height - sheet.margin
    boxes = []
    if len(blocks) > sheet.columns:
        boxes.append(pymupdf.Rect(sheet.margin, top, width - sheet.margin, top + 92))
        top += 100
    gap = 18.0
    column = (width - 2 * sheet.margin - gap * (sheet.columns - 1)) / sheet.columns
    for k in range(sheet.columns):
        left = sheet.margin + k * (column + gap)
        boxes.append(pymupdf.Rect(left, top, left + column, bottom))
    return boxes


def write_pdf(document: pymupdf.Document, path: str, title: str, author: str) -> None:
    """Save under ``files/`` with fixed dates, small fonts and no random identifier."""
    document.subset_fonts()
    document.set_metadata(
        {"title": title, "author": author, "creationDate": DAY, "modDate": DAY, "producer": ""}
    )
    out = io.BytesIO()
    document.save(out, garbage=4, deflate=True, no_new_id=True, use_objstms=1)
    target: Path = FILES / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(out.getvalue())
