"""A corpus that changes between runs, and an embedder that needs no model.

    Corpus(folder).change(dice)   adds, rewrites, renames, touches, breaks and deletes files

Files are small: notes of a few passages, PDFs of one to three pages, pictures of one colour.
"""

import hashlib
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelless import Modelless

from mmsearch.values import Item, Role, Text

if TYPE_CHECKING:
    from mmsearch.values import Vectors

EVERYWHERE = "lighthouse"  # a word of every text: full-text search for it finds every text
WORDS = ("cat", "dog", "chart", "pump", "museum", "river", "lemon", "rocket", "tower", "winter")
DIM = 24
MOST_FILES = 14


class HashEmbedder(Modelless):
    """Gives every text and every picture a direction of its own, the same in any batch."""

    def __init__(self, name: str = "hash") -> None:
        super().__init__(name, dim=DIM, call_tokens=24)

    def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        """Return one unit row an item."""
        import numpy as np

        rows = np.stack([self._row(item) for item in items])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def _row(self, item: Item) -> "Vectors":
        import numpy as np

        digest = hashlib.blake2b(self.space.model.encode(), digest_size=8)
        for part in item.parts:
            digest.update(part.text.encode() if isinstance(part, Text) else part.pixels.tobytes())
        seed = int.from_bytes(digest.digest(), "little")
        return np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)


class Corpus:
    """The files of a folder, and the dice that change them."""

    def __init__(self, folder: Path, *, media: bool = True) -> None:
        self.folder = folder
        self._suffixes = ("md", "txt", "pdf", "png") if media else ("md", "txt")
        self._number = 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def files(self) -> list[Path]:
        """All of them, by name."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def change(self, dice: random.Random, num_changes: int) -> list[str]:
        """Change some files; return a word for each change."""
        return [self._change(dice) for _ in range(num_changes)]

    def _change(self, dice: random.Random) -> str:
        files = self.files
        what = dice.choices(
            ("add", "rewrite", "rename", "replace", "touch", "break", "delete"),
            (4, 4, 2, 1, 1, 1, 2),
        )[0]
        if len(files) < 4 or what == "add":
            what = "add" if len(files) < MOST_FILES else "delete"
        chosen = dice.choice(files) if files else self.folder
        if what == "add":
            self._add(dice)
        elif what == "rewrite":
            self._write(chosen, dice)
        elif what == "rename":
            chosen.rename(self._new_name(dice, chosen.suffix))
        elif what == "replace":
            chosen.replace(dice.choice([file for file in files if file.suffix == chosen.suffix]))
        elif what == "touch":
            state = chosen.stat()
            os.utime(chosen, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000_007))
        elif what == "break":
            chosen.write_bytes(b"%PDF-1.7 and no more" + str(self._next()).encode())
        else:
            chosen.unlink()
        return what

    def _add(self, dice: random.Random) -> None:
        self._write(self._new_name(dice, f".{dice.choice(self._suffixes)}"), dice)

    def _new_name(self, dice: random.Random, suffix: str) -> Path:
        folder = self.folder / dice.choice(("", "below", "naïve café"))
        folder.mkdir(exist_ok=True)
        return folder / f"{dice.choice(WORDS)}-{self._next()}{suffix}"

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _write(self, path: Path, dice: random.Random) -> None:
        version = self._next()
        if path.suffix == ".pdf":
            pages = range(1, 1 + dice.randint(1, 3))
            write_pdf(path, [sentence(dice, f"version {version} page {page}") for page in pages])
        elif path.suffix == ".png":
            write_picture(path, tuple(dice.randrange(256) for _ in range(3)))
        else:
            path.write_text(
                "\n\n".join(
                    sentence(dice, f"version {version} part {part}", num_words=150)
                    for part in range(dice.randint(1, 3))
                )
            )


def sentence(dice: random.Random, beginning: str, *, num_words: int = 8) -> str:
    """Return a text that says where it is from."""
    return " ".join([beginning, EVERYWHERE, *dice.choices(WORDS, k=num_words)])


def write_pdf(path: Path, pages: Sequence[str]) -> None:
    """Write a PDF with one page a text."""
    import pymupdf

    mupdf: Any = pymupdf  # only half typed
    with mupdf.open() as document:
        for text in pages:
            page = document.new_page(width=200, height=200)
            page.insert_textbox((10, 10, 190, 190), text, fontsize=9)
        document.save(path)


def write_picture(path: Path, colour: tuple[int, ...]) -> None:
    """Write a picture of one colour with a darker square in it."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (64, 48), colour)
    ImageDraw.Draw(picture).rectangle((8, 8, 24, 24), fill=tuple(part // 2 for part in colour))
    picture.save(path)
