"""A world of coloured shapes: enough to see whether a recipe learns, in seconds.

    toy_examples(16, seed=0) -> 16 pairs: "a small red circle at the top left" and its drawing

Every pair has words, a rationale and an answer on both sides, so each recipe can run on
it, PLUME's curriculum among them. Nothing is read from disk.
"""

import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmsearch.retriever.training.examples import Example, Side
from mmsearch.values import Image

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

COLOURS = {
    "red": (214, 39, 40),
    "blue": (31, 119, 180),
    "green": (44, 160, 44),
    "yellow": (240, 210, 30),
    "purple": (130, 60, 170),
    "black": (10, 10, 10),
    "orange": (255, 127, 14),
    "pink": (247, 90, 190),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring", "bar")
PLACES = {
    "at the top left": (0.28, 0.28),
    "at the top right": (0.72, 0.28),
    "in the middle": (0.5, 0.5),
    "at the bottom left": (0.28, 0.72),
    "at the bottom right": (0.72, 0.72),
}
SIZES = {"small": 0.13, "large": 0.24}  # half a side, as a share of the picture's


@dataclass(frozen=True, slots=True)
class Drawing:
    """One shape on white; see `mmsearch.retriever.training.examples.Picture`."""

    colour: str
    shape: str
    place: str
    size: str
    pixels: int = 64  # of one side

    @property
    def name(self) -> str:
        return f"drawing of {self.caption}"

    @property
    def key(self) -> str:
        return f"{self.caption}, {self.pixels}"

    @property
    def caption(self) -> str:
        """The words of it."""
        return f"a {self.size} {self.colour} {self.shape} {self.place}"

    @property
    def rationale(self) -> str:
        """How one would come to its answer, a sentence for each thing to be seen."""
        return (
            f"There is one shape. The shape is a {self.shape}. Its colour is {self.colour}. "
            f"It is {self.size}. It stands {self.place}."
        )

    @property
    def answer(self) -> str:
        """What it is in a few words."""
        return f"{self.size} {self.colour} {self.shape}, {self.place}"

    def open(self) -> Image:
        import numpy as np
        from PIL import Image as pil
        from PIL import ImageDraw

        canvas = pil.new("RGB", (self.pixels, self.pixels), "white")
        x, y = (share * self.pixels for share in PLACES[self.place])
        _draw(ImageDraw.Draw(canvas), self.shape, x, y, SIZES[self.size] * self.pixels, self.colour)
        return Image(np.asarray(canvas))


def toy_examples(count: int, *, seed: int) -> list[Example]:
    """Return ``count`` pairs of words and a drawing, no two alike; the same for the same seed.

    There are 480 of them.
    """
    kinds = list(itertools.product(COLOURS, SHAPES, PLACES, SIZES))
    if count > len(kinds):
        raise ValueError(f"there are {len(kinds)} drawings, not {count}")
    drawings = [Drawing(*kind) for kind in random.Random(seed).sample(kinds, count)]
    return [
        Example(
            Side((one.caption,), one.rationale, one.answer),
            Side((one,), one.rationale, one.answer),
            dataset="toy",
            row=f"toy:{number}",
        )
        for number, one in enumerate(drawings, start=1)
    ]


def _draw(draw: "ImageDraw", shape: str, x: float, y: float, r: float, colour: str) -> None:
    fill = COLOURS[colour]
    box = (x - r, y - r, x + r, y + r)
    match shape:
        case "circle":
            draw.ellipse(box, fill=fill)
        case "square":
            draw.rectangle(box, fill=fill)
        case "triangle":
            draw.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], fill=fill)
        case "cross":
            draw.line((x - r, y - r, x + r, y + r), fill=fill, width=max(round(r / 2), 1))
            draw.line((x - r, y + r, x + r, y - r), fill=fill, width=max(round(r / 2), 1))
        case "ring":
            draw.ellipse(box, outline=fill, width=max(round(r / 3), 1))
        case _:  # a bar lies flat
            draw.rectangle((x - r, y - r / 3, x + r, y + r / 3), fill=fill)
