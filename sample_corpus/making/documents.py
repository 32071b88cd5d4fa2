"""The ten PDFs: reports, a paper, slides, manuals, a scan, turned pages, two languages."""

import io
import math

import figures
import figures_manuals
import numpy as np
import pymupdf
from layout import (
    A4,
    A5,
    BOOKLET_CSS,
    GUIDE,
    JOURNAL,
    PAPER,
    PAPER_CSS,
    SLIDE,
    SLIDE_CSS,
    Sheet,
    typeset,
    write_pdf,
)
from materials import MONO, font, grain
from PIL import Image, ImageDraw, ImageFilter
from scan_text import MINUTES


def make_documents() -> None:
    """Write every PDF under ``files/``."""
    _water_report()
    _bee_paper()
    _slides()
    _newsletter()
    _manuals()
    _park_guides()
    _tide_tables()
    _scan()


def _water_report() -> None:
    drawn = {
        "waterworks.png": figures.waterworks(),
        "leakage.png": figures.leakage(),
        "spending.png": figures.spending(),
        "projects.png": figures.projects(),
        "river.png": figures.river(),
    }
    document = typeset("water-report", Sheet(foot="Veldhaven Water, annual report 2024"), drawn)
    write_pdf(
        document,
        "reports/veldhaven-water-annual-report-2024.pdf",
        "Annual report 2024",
        "Veldhaven Water Board",
    )


def _bee_paper() -> None:
    drawn = {
        "bee-map.png": figures.bee_map(),
        "bee-age.png": figures.bee_age(),
        "bee-guilds.png": figures.bee_guilds(),
    }
    sheet = Sheet(
        size=JOURNAL,
        margin=42,
        columns=2,
        css=PAPER_CSS,
        foot="Okonjo et al., hedgerow age and bees",
    )
    write_pdf(
        typeset("bee-paper", sheet, drawn),
        "papers/hedgerow-age-wild-bees.pdf",
        "Hedgerow age, not length, predicts wild-bee richness on arable farms",
        "M. Okonjo, P. Lindqvist, R. Avelar",
    )


def _slides() -> None:
    drawn = {
        "bike-flow.png": figures.bike_flow(),
        "bike-boxes.png": figures.bike_boxes(),
        "bike-cost.png": figures.bike_cost(),
    }
    sheet = Sheet(
        size=SLIDE, margin=40, css=SLIDE_CSS, foot="Night boxes", strip=(0.14, 0.38, 0.25)
    )
    write_pdf(
        typeset("cargo-bike-slides", sheet, drawn),
        "slides/night-boxes-by-cargo-bike.pdf",
        "Night boxes by cargo bike",
        "City logistics team",
    )


def _newsletter() -> None:
    drawn = {
        "tricycle.png": figures.tricycle(),
        "bee.png": figures.bee(),
        "crossword.png": figures.crossword(),
    }
    document = typeset(
        "newsletter", Sheet(size=PAPER, margin=46, foot="The Orrin Gazette, autumn 2024"), drawn
    )
    write_pdf(
        document, "reports/orrin-gazette-autumn-2024.pdf", "The Orrin Gazette", "Riverside press"
    )


def _manuals() -> None:
    drawn = {
        "k2-front.png": figures_manuals.k2_front(),
        "k2-parts.png": figures_manuals.k2_parts(),
        "k2-pressure.png": figures_manuals.k2_pressure(),
    }
    booklet = Sheet(size=A5, margin=36, css=BOOKLET_CSS, foot="Brewmark")
    document = typeset("espresso-manual", booklet, drawn)
    write_pdf(document, "manuals/brewmark-k2-manual.pdf", "K2 owner's manual", "Brewmark")
    card = typeset("grinder-card", booklet, {"grind.png": figures_manuals.grind()})
    write_pdf(card, "manuals/g1_card.pdf", "", "Brewmark")


def _park_guides() -> None:
    spanish = {"ridge.png": figures.ridge(), "perfil.png": figures.perfil()}
    document = typeset(
        "park-guide-es", Sheet(size=GUIDE, margin=42, foot="Sierra de Altamira"), spanish
    )
    write_pdf(
        document, "guides/guia-sierra-de-altamira.pdf", "Sierra de Altamira", "Parque Natural"
    )
    document = typeset(
        "park-leaflet-en", Sheet(size=GUIDE, margin=42), {"ridge-en.png": figures.ridge_en()}
    )
    write_pdf(document, "guides/altamira-hills-leaflet.pdf", "Altamira Hills", "Parque Natural")


# ------------------------------------------------------------ turned pages


def _tide_tables() -> None:
    """Write one upright page, then wide tables drawn on portrait paper with /Rotate 90."""
    document = typeset(
        "tides",
        Sheet(foot="Port Ansel Harbour Office"),
        {"tide-curve.png": figures_manuals.tide_curve()},
    )
    for month, first_day, num_days in (("January", 0, 31), ("February", 31, 28), ("March", 59, 31)):
        wide = pymupdf.open()
        _tide_page(wide.new_page(width=A4[1], height=A4[0]), month, first_day, num_days)
        page = document.new_page(width=A4[0], height=A4[1])
        page.show_pdf_page(page.rect, wide, 0, rotate=90)
        page.set_rotation(90)
    write_pdf(document, "reports/port-ansel-tides-2025.pdf", "Tide tables 2025", "Harbour Office")


def _tide_page(page: pymupdf.Page, month: str, first_day: int, num_days: int) -> None:
    page.insert_text((50, 50), f"Port Ansel, {month} 2025", fontsize=18, fontname="hebo")
    page.insert_text((330, 50), "times in winter time, heights in metres", fontsize=9)
    for k in range(num_days):
        left, row = (50, k) if k < 16 else (440, k - 16)
        top = 92 + row * 28
        _tide_row(page, left, top, first_day + k, k + 1)
    for left in (50, 440):
        page.insert_text((left, 74), "Day   Moon", fontsize=9, fontname="hebo")
        page.insert_text((left + 75, 74), "Time and height", fontsize=9, fontname="hebo")


def _tide_row(page: pymupdf.Page, left: float, top: float, day: int, date: int) -> None:
    """Print the tides of a day: the moon brings them fifty minutes later each day."""
    moon = {12: "F", 28: "N", 42: "F", 58: "N", 72: "F", 87: "N"}.get(day, "")
    if date % 2:
        page.draw_rect((left - 4, top - 14, left + 345, top + 10), color=None, fill=(0.92, 0.95, 1))
    page.insert_text((left, top), f"{date:2d}", fontsize=11, fontname="hebo")
    page.insert_text((left + 34, top), moon, fontsize=11)
    swing = 1.65 + 0.65 * math.cos(4 * math.pi * (day - 14) / 29.53)
    minutes = (1 * 60 + 40 + day * 50.47) % 745
    tide, at = 0, minutes
    while at < 1440:
        height = 2.6 + swing * (1 if tide % 2 == 0 else -1) + 0.1 * math.sin(day + tide)
        text = f"{int(at) // 60:02d}{int(at) % 60:02d}  {height:.1f}"
        page.insert_text((left + 70 + 70 * tide, top), text, fontsize=10.5)
        tide, at = tide + 1, at + 372.5


# ------------------------------------------------------------ a scan


def _scan() -> None:
    """Write typed sheets as pictures of pages: yellowed, skewed, noisy, without text."""
    document = pymupdf.open()
    for number, (text, skew) in enumerate(zip(MINUTES, (0.7, -0.9, 0.4), strict=True)):
        jpeg = io.BytesIO()
        _typed_sheet(text, skew, seed=1976 + number).save(jpeg, "JPEG", quality=60)
        page = document.new_page(width=A4[0], height=A4[1])
        page.insert_image(page.rect, stream=jpeg.getvalue())
    write_pdf(document, "scans/scan_0031.pdf", "", "")


def _typed_sheet(text: str, skew: float, seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    sheet = Image.new("L", (1240, 1754), 255)
    pen = ImageDraw.Draw(sheet)
    face = font(31, MONO)
    for line_number, line in enumerate(text.splitlines()):
        for k, letter in enumerate(line):  # a typewriter sets no letter quite level
            at = (150 + k * 19.4, 140 + line_number * 46 + rng.normal(0, 0.8))
            pen.text(at, letter, font=face, fill=int(rng.uniform(30, 80)))
    sheet = sheet.filter(ImageFilter.GaussianBlur(0.8))
    sheet = sheet.rotate(skew, Image.Resampling.BICUBIC, fillcolor=255)
    y, x = np.mgrid[0:1754, 0:1240]
    shade = 236 - 18 * (x / 1240) ** 4 - 10 * (y / 1754) ** 6
    paper = np.asarray(sheet) / 255 * shade
    spots = rng.integers(0, (1754, 1240), size=(260, 2))
    paper[spots[:, 0], spots[:, 1]] *= 0.5
    tinted = np.stack([paper, paper * 0.975, paper * 0.9], axis=-1)
    return grain(Image.fromarray(tinted.clip(0, 255).astype(np.uint8)), 4.0, seed)
