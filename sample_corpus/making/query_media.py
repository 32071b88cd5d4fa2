"""Pictures to search with: crops, other versions and stills. They are never indexed.

Each one differs from what is in the corpus, as a person's own picture would: cut,
mirrored, faded, photographed from paper, re-encoded. queries.jsonl names them.
"""

import numpy as np
import pymupdf
from figures import leakage, tricycle
from filming import WIDE, Scene, pan, still, write_film
from layout import A5, BOOKLET_CSS, DAY
from materials import FILES, QUERIES, canvas, grain, photograph, save
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

# One still a scene: file, film, second.
STILLS = [
    ("still-burrow.jpg", "big-buck-bunny-cut.mp4", 1.2),
    ("still-whiskers.jpg", "cat-cafe.mp4", 12.0),
    ("still-squares.jpg", "shapes.mp4", 7.3),
    ("still-rule.jpg", "talk-backups.mp4", 8.0),
    ("still-bars.jpg", "bike-hire-race.mp4", 8.5),
    ("still-boat.jpg", "four-seasons.mp4", 6.0),
    ("still-ready.jpg", "install-tutorial.mp4", 13.0),
]


def make_query_media() -> None:
    """Write what the queries show, under ``queries/``; needs the built ``files/``."""
    _other_versions()
    _parts_of_questions()
    for name, film, second in STILLS:
        save(_re_encoded(still(FILES / "videos" / film, second)), QUERIES / name, quality=60)
    launch = pan(photograph("rocket.jpg"), (0.25, 0.2, 0.55), (0.2, 0.3, 0.6), WIDE)
    write_film(QUERIES / "clip-launch-pad.mp4", [Scene(2, launch)], crf=32)
    _no_answers()


def _open(path: str) -> Image.Image:
    return Image.open(FILES / "images" / path).convert("RGB")


def _re_encoded(frame: Image.Image) -> Image.Image:
    """Cut the edges off, and with them most of a caption, and change the size."""
    width, height = frame.size
    cut = frame.crop((width // 14, height // 16, width - width // 20, int(height * 0.83)))
    return cut.resize((400, 240), Image.Resampling.BICUBIC)


def _from_paper(picture: Image.Image, degrees: float, seed: int) -> Image.Image:
    """Return it as a telephone photographs a print: turned, yellowish, soft, noisy."""
    turned = picture.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor="#6f6a64")
    tint = np.asarray(turned, np.float32) * np.array([0.96, 0.91, 0.8], np.float32)
    soft = Image.fromarray(tint.astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.1))
    return grain(soft, 7, seed)


def _other_versions() -> None:
    cat = ImageOps.mirror(photograph("chelsea.png")).crop((60, 20, 420, 270))
    save(ImageEnhance.Color(cat).enhance(0.5), QUERIES / "cat-mirrored.jpg", quality=70)
    cup = photograph("coffee.png").crop((150, 40, 520, 380)).rotate(12, Image.Resampling.BICUBIC)
    save(ImageEnhance.Brightness(cup).enhance(1.2), QUERIES / "espresso-crop.jpg", quality=70)
    stars = photograph("hubble_deep_field.jpg").crop((380, 300, 900, 760))
    save(stars.convert("L").convert("RGB"), QUERIES / "stars-grey.jpg", quality=70)
    chart = _from_paper(_open("charts/ice-cream-sales-2023.png"), 3, 1)
    save(chart, QUERIES / "chart-on-paper.jpg", quality=70)
    pie = _open("charts/commute-modes.png").resize((260, 220))
    save(pie.convert("L").convert("RGB"), QUERIES / "pie-small-grey.jpg", quality=60)
    poster = _open("signs/concert-poster.jpg").convert("L").convert("RGB")
    save(_from_paper(ImageOps.invert(poster), -5, 2), QUERIES / "poster-copy.jpg", quality=60)
    plan = ImageOps.invert(_open("diagrams/library-ground-floor.png"))
    save(plan.crop((20, 30, 800, 560)), QUERIES / "plan-inverted.png")
    lamp = _open("screenshots/webshop-lamps.webp").crop((345, 130, 620, 500))
    save(lamp, QUERIES / "lamp-crop.jpg", quality=75)


def _parts_of_questions() -> None:
    save(photograph("brick.png").crop((100, 120, 420, 400)), QUERIES / "bricks.jpg", quality=70)
    save(photograph("gravel.png").crop((60, 60, 380, 380)), QUERIES / "stones.jpg", quality=60)
    save(photograph("astronaut.png").crop((60, 0, 360, 260)), QUERIES / "face.jpg", quality=75)
    save(photograph("horse.png").resize((240, 197)), QUERIES / "horse.png")
    (QUERIES / "leakage-chart.png").write_bytes(leakage())
    (QUERIES / "tricycle-drawing.png").write_bytes(tricycle())


def _no_answers() -> None:
    """Draw a guitar, and typeset a page, of which the corpus knows nothing."""
    picture, pen = canvas((360, 520), "#f4ead8")
    pen.ellipse((70, 270, 290, 490), fill="#b5702d")
    pen.ellipse((100, 190, 260, 340), fill="#b5702d")
    pen.ellipse((145, 290, 215, 360), fill="#3a2412")
    pen.rectangle((166, 40, 194, 300), fill="#5b3718")
    pen.rectangle((158, 10, 202, 60), fill="#3a2412")
    for k in range(6):
        pen.line((169 + 4 * k, 14, 169 + 4 * k, 430), fill="#e8dcc0")
    save(picture, QUERIES / "guitar-drawing.png")
    document = pymupdf.open()
    page = document.new_page(width=A5[0], height=A5[1])
    html = (
        "<h2>Shearing a sheep by hand</h2><p>Tip the ewe on her rump with her back against your "
        "knees. Begin at the brisket and shear down over the belly with long, even strokes; keep "
        "the skin tight with your free hand. Clear the crutch, then the left hind leg. Roll her on "
        "her side for the long blows along the back, and finish at the neck.</p><p>Oil the blades "
        "after every fifth animal. A fleece should come off in one piece and is thrown on the "
        "table like a bedsheet, skirted, rolled and weighed. Two and a half kilograms is a fair "
        "clip for a hill ewe.</p>"
    )
    page.insert_htmlbox(pymupdf.Rect(36, 36, A5[0] - 36, A5[1] - 36), html, css=BOOKLET_CSS)
    document.set_metadata({"creationDate": DAY, "modDate": DAY, "producer": ""})
    document.subset_fonts()
    document.save(QUERIES / "sheep-shearing.pdf", garbage=4, deflate=True, no_new_id=True)
