"""What counts as the same item, and what only looks like it."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as pil

from mmsearch.retriever.training.looks import LOOK, content_key, look
from mmsearch.retriever.training.toy import Drawing, toy_examples
from mmsearch.values import Frames, Image, Item

NEAR = 0.97


def scene(seed: int = 0, size: int = 128) -> npt.NDArray[np.uint8]:
    """A picture of soft blobs: like a photograph it has no detail finer than its thumbnail."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    grown = pil.fromarray(coarse).resize((size, size), pil.Resampling.BICUBIC)
    return np.array(grown)


def cosine(one: Item, other: Item) -> float:
    return float(look(one) @ look(other))


def test_the_same_words_and_pixels_have_the_same_key_and_others_have_not() -> None:
    picture, other = scene(0), scene(1)
    same = [Item([picture, "A  red bus"]), Item([picture.copy(), "a red BUS"])]
    different = [
        Item([picture]),
        Item(["a red bus"]),
        Item(["a red bus", picture]),
        Item([other, "a red bus"]),
        Item([picture, "a blue bus"]),
        Item([picture, picture]),
        Item([picture[:64]]),
        Item([Frames(picture[None])]),
    ]

    assert content_key(same[0]) == content_key(same[1])
    assert len({content_key(one) for one in (same[0], *different)}) == 1 + len(different)
    assert -(2**63) <= content_key(same[0]) < 2**63


def test_a_look_is_a_unit_vector_or_nothing() -> None:
    plain = np.full((40, 40, 3), 250, np.uint8)
    noisy = plain + np.random.default_rng(0).integers(0, 3, plain.shape, dtype=np.uint8)

    for item in (Item([scene()]), Item([scene(), "words"]), Item([scene(0), scene(1)])):
        assert look(item).shape == (LOOK,)
        assert np.linalg.norm(look(item)) == pytest.approx(1.0, abs=1e-6)
    for nothing in (Item(["words alone"]), Item([plain]), Item([noisy]), Item([plain, "words"])):
        assert not look(nothing).any()


def test_a_picture_at_another_size_quality_or_brightness_looks_the_same() -> None:
    picture = pil.fromarray(scene())
    packed = io.BytesIO()
    picture.resize((70, 70)).save(packed, "JPEG", quality=40)
    darker = picture.point([round(level * 0.8) for level in range(256)] * 3)

    assert cosine(Item([picture]), Item([pil.open(packed)])) > NEAR
    assert cosine(Item([picture]), Item([darker])) > NEAR
    assert cosine(Item([picture]), Item([pil.fromarray(scene(1))])) < 0.5


def test_colour_and_place_make_another_look() -> None:
    red = Drawing("red", "circle", "in the middle", "large").open()
    blue = Drawing("blue", "circle", "in the middle", "large").open()
    left = Drawing("red", "circle", "at the top left", "large").open()

    assert cosine(Item([red]), Item([blue])) < 0.9
    assert cosine(Item([red]), Item([left])) < 0.5


def test_few_of_the_toy_drawings_look_alike() -> None:
    drawings = [example.positive.parts[0] for example in toy_examples(64, seed=0)]
    looks = np.stack([look(Item([one.open()])) for one in drawings if isinstance(one, Drawing)])

    assert len(looks) == 64
    assert ((looks @ looks.T) > NEAR).sum() - 64 <= 4


def test_words_beside_a_picture_make_it_another_item_and_the_same_words_do_not() -> None:
    picture = scene()
    nearly = np.clip(picture.astype(int) + 3, 0, 255).astype(np.uint8)

    assert cosine(Item([picture, "what?"]), Item([nearly, "What? "])) > NEAR
    assert cosine(Item([picture, "what?"]), Item([picture, "where?"])) < 0.8
    assert cosine(Item([picture, "what?"]), Item([picture])) < 0.8


def test_pictures_in_another_order_are_another_item() -> None:
    one, two = scene(0), scene(1)

    assert cosine(Item([one, two]), Item([one, two])) == pytest.approx(1.0, abs=1e-5)
    assert cosine(Item([one, two]), Item([two, one])) < 0.8
    assert cosine(Item([one, two]), Item([one])) < 0.9


def test_a_film_looks_like_its_moments() -> None:
    frames = np.stack([scene(seed) for seed in range(6)])

    assert cosine(Item([Frames(frames)]), Item([Frames(frames)])) == pytest.approx(1.0, abs=1e-5)
    assert cosine(Item([Frames(frames)]), Item([Frames(frames[:3])])) < 0.9
    assert cosine(Item([Image(frames[0])]), Item([Frames(frames[:1])])) > NEAR
