"""What tells whether two items are the same thing: a key of what they hold, and a look.

    Item -> content_key: int, equal for equal words and pixels
    Item -> look [LOOK], cosines near 1 for pictures that look alike and words that are the same

The look of a picture is a thumbnail of 16 x 16 in RGB without its mean: scaling, JPEG and
brightness hardly change it, and a red circle is not a blue one. Of 1.1 million pairs of
textbook figures 23 have a cosine above 0.97, nearly all of them one figure twice. An item of
words alone has no look. Where words stand beside a picture they are half of the look, as a
direction drawn for those very words: one picture with two questions is two things, and two
prints of a page with the same words are one.
"""

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.retriever.training.records import same_words
from mmsearch.values import Frames, Image, Item, Text

if TYPE_CHECKING:
    from mmsearch.values import Pixels, Vectors

SIDE = 16
WORD_DIMS = 64
SEEN_DIMS = SIDE * SIDE * 3
LOOK = SEEN_DIMS + WORD_DIMS
FRAMES = 4  # moments of a film that make its look
FLAT = 2.0  # levels, of 255, by which a picture has to vary or it is plain


def content_key(item: Item) -> int:
    """Return a number that is equal for items of the same words and pixels, int64."""
    digest = hashlib.blake2b(digest_size=8)
    for part in item.parts:
        if isinstance(part, Text):
            digest.update(b"\0words\0" + same_words(part.text).encode("utf-8", "replace"))
        else:
            digest.update(f"\0pixels\0{part.pixels.shape}".encode())
            digest.update(np.ascontiguousarray(part.pixels).data)
    return int.from_bytes(digest.digest(), "little", signed=True)


def look(item: Item) -> "Vectors":
    """Return the look of an item, float32 ``[LOOK]`` of length 1, or zeros where it has none."""
    seen = np.zeros(SEEN_DIMS, np.float32)
    for place, part in enumerate(part for part in item.parts if isinstance(part, Image | Frames)):
        # By its place, so that two pictures in the other order are something else.
        seen += np.roll(_look_of_pixels(part.pixels), 3 * 53 * place)
    vector = np.zeros(LOOK, np.float32)
    length = np.linalg.norm(seen)
    if length == 0.0:
        return vector
    vector[:SEEN_DIMS] = seen / length
    if words := same_words(item.text):
        vector[SEEN_DIMS:] = _direction(words)
        vector /= math.sqrt(2.0)
    return vector


def _look_of_pixels(pixels: "Pixels") -> "Vectors":
    """Return ``[SEEN_DIMS]`` of ``[h, w, 3]`` or ``[t, h, w, 3]``; zeros where it is plain."""
    if pixels.ndim == 3:
        return _thumbnail(pixels)
    count = min(len(pixels), FRAMES)
    chosen = [i * (len(pixels) - 1) // max(count - 1, 1) for i in range(count)]
    total: Vectors = np.sum([_thumbnail(pixels[i]) for i in chosen], axis=0)
    length = np.linalg.norm(total)
    return total / length if length else total


def _thumbnail(pixels: "Pixels") -> "Vectors":
    from PIL import Image as pil

    # Every pixel counts (a box), or thin lines would fall between those that are looked at.
    small = pil.fromarray(pixels).resize((SIDE, SIDE), pil.Resampling.BOX)
    values = np.asarray(small, np.float32).ravel()
    values = values - values.mean()
    length = np.linalg.norm(values)
    return values / length if length > FLAT * SEEN_DIMS**0.5 else np.zeros_like(values)


def _direction(words: str) -> "Vectors":
    """Return a unit direction ``[WORD_DIMS]`` that is those words' own."""
    seed = hashlib.blake2b(words.encode("utf-8", "replace"), digest_size=8).digest()
    drawn = np.random.default_rng(int.from_bytes(seed, "little")).standard_normal(WORD_DIMS)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)
