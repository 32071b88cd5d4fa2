"""The four things that are embedded, seeded, at sizes that the patches divide exactly.

text    a question of 32 tokens
image   448 x 448 pixels
page    768 visual tokens: 32 rows of 24
video   8 frames of 448 x 448 pixels
"""

import numpy as np
import numpy.typing as npt

from mmsearch.values import Frames, Image, Item, Role, Text

INPUTS = ("text", "image", "page", "video")
TEXT_TOKENS = 32
IMAGE_SIDE = 448
PAGE_ROWS, PAGE_COLUMNS = 32, 24
NUM_FRAMES = 8
VARIANTS = 8  # different items of a kind; a larger batch repeats them
LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz    "))


def items(name: str, count: int, *, token_side: int, seed: int) -> list[Item]:
    """Return ``count`` items of a kind, of which VARIANTS differ.

    ``token_side`` is how many pixels make one side of a visual token.
    """
    rng = np.random.default_rng([seed, INPUTS.index(name)])
    variants = [_item(name, rng, token_side) for _ in range(min(count, VARIANTS))]
    return [variants[i % len(variants)] for i in range(count)]


def role(name: str) -> Role:
    """Return on which side of a search it stands."""
    return Role.QUERY if name == "text" else Role.DOCUMENT


def _item(name: str, rng: np.random.Generator, token_side: int) -> Item:
    if name == "text":  # a character is a token here
        return Item([Text("".join(rng.choice(LETTERS, TEXT_TOKENS)))])
    if name == "image":
        return Item([Image(_pixels(rng, IMAGE_SIDE, IMAGE_SIDE))])
    if name == "page":
        return Item([Image(_pixels(rng, PAGE_ROWS * token_side, PAGE_COLUMNS * token_side))])
    return Item([Frames(_pixels(rng, NUM_FRAMES, IMAGE_SIDE, IMAGE_SIDE))])


def _pixels(rng: np.random.Generator, *shape: int) -> npt.NDArray[np.uint8]:
    return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
