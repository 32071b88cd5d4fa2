"""Pictures that training examples name and open late: files, drawings, changed ones.

    Photo(path), Drawn(kind, number, seed) -> key, open() -> Image
    augmented(picture, chance, mirror)     -> a changed view of it

Each is a frozen value that names all it depends on: equal values open to equal pixels.
"""

import functools
import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as pil

from mmsearch.errors import UnreadableFile
from mmsearch.retriever.training.default.charts import chart
from mmsearch.retriever.training.default.diagrams import diagram
from mmsearch.retriever.training.default.graphs import graph
from mmsearch.retriever.training.default.shapes import scene, shapes
from mmsearch.retriever.training.default.sheets import Drawing
from mmsearch.retriever.training.default.tables import slide, table
from mmsearch.retriever.training.examples import Picture
from mmsearch.values import Image, on_white

DRAWERS: dict[str, Callable[[random.Random], Drawing]] = {
    "chart": chart, "graph": graph, "diagram": diagram, "table": table, "slide": slide,
    "shapes": shapes, "scene": scene,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Photo:
    """A picture file; ``root`` is the folder of the data, so that keys are alike everywhere.

    mirrors: whether its mirror image is as good a view of it: not where it has words
    """

    root: Path
    path: str
    mirrors: bool = False

    @property
    def name(self) -> str:
        return self.path

    @property
    def key(self) -> str:
        return self.path

    def open(self) -> Image:
        try:
            with pil.open(self.root / self.path) as file:
                return Image(np.array(on_white(file)))
        except OSError as error:
            raise UnreadableFile(self.root / self.path, str(error).lower()) from error


@dataclass(frozen=True, slots=True)
class Viewed:
    """A changed view of a photo, alike at every run; ``view`` counts from 1."""

    photo: Photo
    view: int

    @property
    def name(self) -> str:
        return f"{self.photo.name}, view {self.view}"

    @property
    def key(self) -> str:
        return f"{self.photo.key} view {self.view}"

    def open(self) -> Image:
        chance = random.Random(self.key)
        changed = augmented(opened(self.photo), chance, mirror=self.photo.mirrors)
        return Image(np.asarray(changed))


@dataclass(frozen=True, slots=True)
class Drawn:
    """A drawing of DRAWERS by its number: drawn anew whenever it is opened."""

    kind: str
    number: int
    seed: int

    @property
    def name(self) -> str:
        return self.key

    @property
    def key(self) -> str:
        return f"{self.kind} {self.number} of seed {self.seed}"

    def drawing(self) -> Drawing:
        """Return the drawing with all that is said about it."""
        return draw(self.kind, self.number, self.seed)

    def open(self) -> Image:
        return Image(np.asarray(self.drawing().sheet.paint()))


def draw(kind: str, number: int, seed: int) -> Drawing:
    """Return drawing ``number`` of a kind of DRAWERS; equal at every run."""
    return DRAWERS[kind](random.Random(f"{seed} {kind} {number}"))


def opened(picture: Picture) -> pil.Image:
    """Return a still picture as Pillow's."""
    pixels = picture.open().pixels
    return pil.fromarray(pixels)


def augmented(picture: pil.Image, chance: random.Random, *, mirror: bool) -> pil.Image:
    """Return a changed view: cropped, perhaps mirrored, of other light and colour, as JPEG.

    What may not be mirrored, because words stand in it, is cropped less as well.
    """
    width, height = picture.size
    side = chance.uniform(0.45 if mirror else 0.75, 1.0) ** 0.5
    shape = chance.uniform(0.85, 1.18) ** 0.5
    w = min(max(round(width * side * shape), 1), width)
    h = min(max(round(height * side / shape), 1), height)
    left, top = chance.randint(0, width - w), chance.randint(0, height - h)
    picture = picture.crop((left, top, left + w, top + h))
    if mirror and chance.random() < 0.5:
        picture = picture.transpose(pil.Transpose.FLIP_LEFT_RIGHT)
    if chance.random() < 0.15:
        picture = picture.convert("L").convert("RGB")
    gains = [chance.uniform(0.75, 1.25) * chance.uniform(0.95, 1.05) for _ in range(3)]
    lift = chance.uniform(-12, 12)
    picture = picture.point(_curves(tuple(gains), lift))
    if chance.random() < 0.5:
        packed = io.BytesIO()
        picture.save(packed, "JPEG", quality=chance.randint(35, 85))
        picture = pil.open(packed).convert("RGB")
    return picture


def _curves(gains: tuple[float, ...], lift: float) -> list[int]:
    return [min(max(round(level * gain + lift), 0), 255) for gain in gains for level in range(256)]


@functools.lru_cache(maxsize=4096)
def is_colourful(photo: Photo) -> bool:
    """Return whether a picture would look otherwise without its colours."""
    small = np.asarray(opened(photo).resize((24, 24)), np.float32)
    return bool((small.max(axis=2) - small.min(axis=2)).mean() > 22)
