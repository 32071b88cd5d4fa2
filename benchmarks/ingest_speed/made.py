"""What is indexed: files made on the fly, and an embedder that only takes its time.

pictures, pages  cut from the sample corpus, so that decoding costs what it does in life
notes, specks    many small files, each unlike any other
"""

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pymupdf
from modelless import Modelless
from PIL import Image

from mmsearch.values import Item, Role

if TYPE_CHECKING:
    from mmsearch.values import Vectors

CORPUS = Path(__file__).resolve().parents[2] / "sample_corpus" / "files"
_A_FOLDER = 100  # files
_WORDS_A_PAGE = 450


class TimedEmbedder(Modelless):
    """Returns random unit vectors after ``item_s`` seconds an item.

    It sleeps, as a thread does that waits for a GPU: the cores are the readers'.
    """

    def __init__(self, *, item_s: float, dim: int = 384) -> None:
        super().__init__("timed", dim=dim, call_tokens=64, max_side=448, max_frames=8)
        self.item_s = item_s
        self._dice = np.random.default_rng(0)

    def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        if self.item_s:
            time.sleep(self.item_s * len(items))
        rows = self._dice.standard_normal((len(items), self.space.dim), dtype=np.float32)
        vectors: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return vectors


def pictures(folder: Path, num: int) -> Path:
    """Make ``num`` PNG and JPEG files, pieces of the pictures of the sample corpus."""
    dice = random.Random(1)
    originals = sorted(path for path in (CORPUS / "images").rglob("*") if path.is_file())
    folder.mkdir(parents=True)
    for number in range(num):
        original = originals[number % len(originals)]
        picture = Image.open(original).convert("RGB")
        width, height = picture.size
        left, top = dice.randrange(width // 8), dice.randrange(height // 8)
        right, bottom = width - dice.randrange(width // 8), height - dice.randrange(height // 8)
        piece = picture.crop((left, top, right, bottom))
        if original.suffix == ".png":
            piece.save(folder / f"{number:05}.png")
        else:
            piece.save(folder / f"{number:05}.jpg", quality=85)
    return folder


def pages(folder: Path, num: int, *, pages_each: int = 10) -> Path:
    """Make PDFs of ``num`` pages in all, full of words, with a text layer."""
    dice = random.Random(2)
    words = (CORPUS / "notes" / "azores-journal.md").read_text().split()
    folder.mkdir(parents=True)
    mupdf: Any = pymupdf  # only half typed
    for number in range(-(-num // pages_each)):
        with mupdf.open() as document:
            for _ in range(min(pages_each, num - number * pages_each)):
                text = " ".join(dice.choices(words, k=_WORDS_A_PAGE))
                document.new_page().insert_textbox((50, 50, 545, 792), text, fontsize=11)
            document.save(folder / f"{number:05}.pdf")
    return folder


def notes(folder: Path, num: int) -> Path:
    """Make ``num`` text files in nested folders, each with words of its own."""
    for number in range(num):
        inside = folder / f"{number // _A_FOLDER**2:03}" / f"{number // _A_FOLDER % _A_FOLDER:02}"
        if number % _A_FOLDER == 0:
            inside.mkdir(parents=True)
        (inside / f"note-{number:06}.txt").write_text(f"Note {number} of the keeper of the light.")
    return folder


def specks(folder: Path, num: int) -> Path:
    """Make ``num`` PNG files of 64 x 64 random pixels."""
    dice = np.random.default_rng(3)
    for number in range(num):
        inside = folder / f"{number // 1000:04}"
        if number % 1000 == 0:
            inside.mkdir(parents=True)
        pixels = dice.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(inside / f"{number:07}.png", compress_level=0)
    return folder
