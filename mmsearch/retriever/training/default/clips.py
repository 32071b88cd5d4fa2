"""Clips of eight frames: pans, zooms and cuts over pictures, and shapes that move.

Clip(pictures, moves) -> open() -> Frames [8, h, w, 3]
moving(chance)        -> MovingShapes and what is said of them
"""

import random
from dataclasses import dataclass

import numpy as np
from PIL import Image as pil

from mmsearch.retriever.training.default.pictures import opened
from mmsearch.retriever.training.default.shapes import FORMS, HUES, PAPERS, draw_form
from mmsearch.retriever.training.default.sheets import (
    COLOURS,
    Sheet,
    a,
    jitter,
    listing,
    pick,
    read_out,
    sentence,
)
from mmsearch.retriever.training.examples import Picture
from mmsearch.values import Frames

NUM_FRAMES = 8
SIZE = (256, 192)
MOVES = {
    "still": "the camera stands still",
    "left": "the camera pans to the left",
    "right": "the camera pans to the right",
    "up": "the camera tilts up",
    "down": "the camera tilts down",
    "in": "the camera zooms in",
    "out": "the camera zooms out",
}


@dataclass(frozen=True, slots=True)
class Clip:
    """Pictures one after the other, each with a move of MOVES."""

    pictures: tuple[Picture, ...]
    moves: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"clip of {', '.join(one.name for one in self.pictures)}"

    @property
    def key(self) -> str:
        parts = zip(self.pictures, self.moves, strict=True)
        return "clip " + "; ".join(f"{picture.key} {move}" for picture, move in parts)

    def open(self) -> Frames:
        frames = []
        count = len(self.pictures)
        stills = [opened(picture) for picture in self.pictures]
        for i in range(NUM_FRAMES):
            shot = i * count // NUM_FRAMES
            start = -(-shot * NUM_FRAMES // count)
            length = -(-(shot + 1) * NUM_FRAMES // count) - start
            share = (i - start) / max(length - 1, 1)
            frames.append(_window(stills[shot], self.moves[shot], share))
        return Frames(np.stack([np.asarray(frame) for frame in frames]))


def _window(picture: pil.Image, move: str, share: float) -> pil.Image:
    """Return what the camera sees after that share of its move, of SIZE."""
    width, height = picture.size
    ratio = SIZE[0] / SIZE[1]
    wide, high = (height * ratio, float(height)) if width > height * ratio else (
        float(width), width / ratio)  # fmt: skip
    zoom = {"still": 0.95, "in": 1 - 0.45 * share, "out": 0.55 + 0.45 * share}.get(move, 0.72)
    wide, high = wide * zoom, high * zoom
    x = {"left": 1 - share, "right": share}.get(move, 0.5) * (width - wide)
    y = {"up": 1 - share, "down": share}.get(move, 0.5) * (height - high)
    box = (x, y, x + wide, y + high)
    return picture.resize(SIZE, pil.Resampling.BILINEAR, box=box)


WAYS = {
    "from left to right": ((0.12, 0.5), (0.88, 0.5)),
    "from right to left": ((0.88, 0.5), (0.12, 0.5)),
    "from top to bottom": ((0.5, 0.12), (0.5, 0.88)),
    "from bottom to top": ((0.5, 0.88), (0.5, 0.12)),
    "from the upper left to the lower right": ((0.14, 0.14), (0.86, 0.86)),
    "from the lower left to the upper right": ((0.14, 0.86), (0.86, 0.14)),
}
CHANGES = ("grows", "shrinks", "bounces up and down", "blinks", "changes its color")


@dataclass(frozen=True, slots=True)
class MovingShape:
    """One shape and what it does: a way of WAYS, a change of CHANGES, or "stands still".

    lane: where it is across its way, a share of the sheet
    """

    form: str
    hue: str
    does: str
    lane: float
    then: str = ""

    @property
    def told(self) -> str:
        """``a red circle moves from left to right``."""
        does = f"moves {self.does}" if self.does in WAYS else self.does
        if self.does == "changes its color":
            does = f"turns from {self.hue} to {self.then}"
            return f"{a(self.form)} {does}"
        return f"{a(f'{self.hue} {self.form}')} {does}"


@dataclass(frozen=True, slots=True)
class MovingShapes:
    """A clip of one or two shapes."""

    paper: tuple[str, tuple[int, int, int]]
    shapes: tuple[MovingShape, ...]
    seed: str

    @property
    def name(self) -> str:
        return f"clip: {self.told}"

    @property
    def key(self) -> str:
        return f"moving {self.seed} {self.told}"

    @property
    def told(self) -> str:
        return listing([shape.told for shape in self.shapes])

    def open(self) -> Frames:
        frames = [np.asarray(self._frame(i / (NUM_FRAMES - 1))) for i in range(NUM_FRAMES)]
        return Frames(np.stack(frames))

    def _frame(self, t: float) -> pil.Image:
        chance = random.Random(self.seed)
        sheet = Sheet(224, 224, self.paper[1])
        for shape in self.shapes:
            colour = jitter(chance, COLOURS[shape.hue], 12)
            radius, at = 30.0, (0.5, shape.lane)
            if shape.does in WAYS:
                (x0, y0), (x1, y1) = WAYS[shape.does]
                x, y = x0 + (x1 - x0) * t, y0 + (y1 - y0) * t
                at = (shape.lane if x0 == x1 else x, shape.lane if y0 == y1 else y)
            elif shape.does == "grows":
                radius = 12 + 60 * t
            elif shape.does == "shrinks":
                radius = 72 - 60 * t
            elif shape.does == "bounces up and down":
                at = (shape.lane, 0.82 - 0.6 * abs(np.sin(2 * np.pi * t)))
            elif shape.does == "blinks" and round(t * 7) % 2:
                continue
            elif shape.does == "changes its color" and t > 0.5:
                colour = COLOURS[shape.then]
            draw_form(sheet, shape.form, (at[0] * 224, at[1] * 224), radius, colour, self.paper[1])
        return sheet.paint()


def moving(chance: random.Random) -> tuple[MovingShapes, str, str]:
    """Return shapes that move, what is said of them, and their rationale."""
    paper = chance.choice(PAPERS)
    hues = [hue for hue in HUES if hue != paper[0]]
    count = chance.choice((1, 1, 2))
    shapes = []
    for i in range(count):
        does = chance.choice((*WAYS, *WAYS, *CHANGES)) if i == 0 else chance.choice(
            (*[way for way in WAYS if "upper" not in way], "stands still"))  # fmt: skip
        hue, then = chance.sample(hues, 2)
        hues.remove(hue)
        lane = 0.5 if count == 1 else (0.3, 0.72)[i]
        shapes.append(MovingShape(chance.choice(FORMS), hue, does, lane, then))
    clip = MovingShapes(paper, tuple(shapes), str(chance.random()))
    told = pick(
        chance, clip.told, f"a clip in which {clip.told}", f"an animation: {clip.told}",
        f"{clip.told} on a {paper[0]} background",
    )  # fmt: skip
    rationale = read_out(
        "it is a short animation", f"the background is {paper[0]}",
        *[f"there is {a(shape.form)}" for shape in shapes],
        *[f"in the course of it {shape.told}" for shape in shapes],
    )  # fmt: skip
    return clip, sentence(told), rationale
