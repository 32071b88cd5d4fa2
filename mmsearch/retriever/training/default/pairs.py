"""What the default is trained on: pictures, and words that a person wrote for them.

    read_pairs(data) -> list[Pair] -> split -> train, held out

Two whole books are held out and never trained on. Figures recur across the physics
books, so a training picture that looks like a held-out one is dropped from training.
"""

import gzip
import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as pil
from torch import Tensor

from mmsearch.values import Image

HELD_OUT = ("astronomy", "us-history")
# Choices are made by these, which are not trained on either; HELD_OUT says what came of them.
VALIDATION = (
    "introduction-sociology", "introduction-political-science", "introduction-philosophy",
)  # fmt: skip
NEAR_DUPLICATE = 0.97  # cosine of MobileNet's pooled features
PHOTO_OPENINGS = ("photo", "image", "picture", "photograph", "painting", "portrait")


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture file and its words; ``book`` is "vega" or "emoji" for those sets.

    alt:     what is seen, median 44 words; never empty
    caption: what the book says about it; may be empty
    """

    path: Path
    alt: str
    caption: str
    book: str
    module: str = ""

    @property
    def is_photo(self) -> bool:
        """Whether its alt text opens as that of a photograph or a painting does."""
        opening = self.alt.lower().removeprefix("this ").split()[:5]
        return any(word.strip(".,:s") in PHOTO_OPENINGS for word in opening)


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph of a held-out book and the module it stands in."""

    text: str
    book: str
    module: str


def read_pairs(data: Path) -> list[Pair]:
    """Return every pair under ``data`` in file order: figures, charts, icons."""
    pairs = []
    for row in _rows(data / "figures/pairs.jsonl"):
        alt = row["alt"].strip() or row["title"].strip()
        if alt:
            path = data / "figures" / row["img"]
            pairs.append(Pair(path, alt, row["caption"].strip(), row["book"], row["module"]))
    for row in _rows(data / "vega/pairs.jsonl"):
        alt = f"chart: {row['description'] or row['name']}"
        pairs.append(Pair(data / "vega" / row["img"], alt, f"{row['name']} chart", "vega"))
    for row in _rows(data / "emoji/pairs.jsonl"):
        pairs.append(Pair(data / "emoji" / row["img"], f"icon: {row['name']}", "", "emoji"))
    return pairs


def read_paragraphs(
    data: Path, pairs: list[Pair], *, books: Sequence[str] = HELD_OUT
) -> list[Paragraph]:
    """Return the paragraphs of the modules of ``books``, at least 20 words each.

    A module is known to belong to one of them by the figures that name it; titles
    that a training book shares are left out.
    """
    owners_of: dict[str, set[str]] = {}
    for pair in pairs:
        owners_of.setdefault(pair.module, set()).add(pair.book)
    paragraphs = []
    with gzip.open(data / "text/modules.jsonl.gz", "rt") as lines:
        for line in lines:
            module = json.loads(line)
            owners = owners_of.get(module["title"], set())
            if len(owners) == 1 and owners <= set(books):
                book = next(iter(owners))
                paragraphs += [
                    Paragraph(text, book, module["title"])
                    for text in module["paras"]
                    if len(text.split()) >= 20
                ]
    return paragraphs


def split(
    pairs: list[Pair], pooled: Tensor, *, books: Sequence[str] = HELD_OUT
) -> tuple[list[int], list[int]]:
    """Return the numbers of the training pairs and of those of ``books``.

    ``pooled [n, 1280]`` are the pictures' features; a training picture whose cosine with
    one of theirs is above NEAR_DUPLICATE is in neither.
    """
    held_out = [i for i, pair in enumerate(pairs) if pair.book in books]
    train = [i for i, pair in enumerate(pairs) if pair.book not in books]
    unit = torch.nn.functional.normalize(pooled.float(), dim=-1)
    nearest = torch.cat(
        [
            (unit[train[i : i + 1_024]] @ unit[held_out].T).amax(dim=1)
            for i in range(0, len(train), 1_024)
        ]
    )
    distinct = (nearest <= NEAR_DUPLICATE).tolist()
    kept = [i for i, keep in zip(train, distinct, strict=True) if keep]
    return kept, held_out


def first_sentence(alt: str) -> str:
    """Return the first sentence of at least four words: as long as a person's query."""
    words = alt.split()
    for count, word in enumerate(words, start=1):
        if word.endswith((".", "!", "?", ";")) and count >= 4:
            return " ".join(words[:count])
    return alt


def open_picture(path: Path, *, view: int = 0, seed: int = 0) -> Image:
    """Return a picture; view 0 is as it is, the others are changed, alike at every run.

    A changed view is 50-90 % of the area, perhaps mirrored, brighter or darker, and went
    through JPEG at quality 40.
    """
    with pil.open(path) as file:
        picture = _on_white(file)
    if view:
        chance = random.Random(f"{seed} {view} {path.parent.name}/{path.name}")
        width, height = picture.size
        side = chance.uniform(0.5, 0.9) ** 0.5
        w, h = max(round(width * side), 1), max(round(height * side), 1)
        left, top = chance.randint(0, width - w), chance.randint(0, height - h)
        picture = picture.crop((left, top, left + w, top + h))
        if chance.random() < 0.5:
            picture = picture.transpose(pil.Transpose.FLIP_LEFT_RIGHT)
        gain = chance.uniform(0.7, 1.3)
        picture = picture.point([min(round(level * gain), 255) for level in range(256)] * 3)
        packed = io.BytesIO()
        picture.save(packed, "JPEG", quality=40)
        picture = pil.open(packed)
    return Image(np.asarray(picture.convert("RGB")))


def _on_white(picture: pil.Image) -> pil.Image:
    """Return RGB; what is transparent becomes white, as on a page."""
    rgba = picture.convert("RGBA")
    return pil.alpha_composite(pil.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
