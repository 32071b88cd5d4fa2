"""Pages carry their text, clips move as is said of them."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil

from mmsearch.retriever.training.default.clips import (
    WAYS,
    Clip,
    MovingShape,
    MovingShapes,
    moving,
)
from mmsearch.retriever.training.default.pages import definition, noisy, page, question
from mmsearch.retriever.training.default.pictures import Photo

PARAGRAPHS = (
    "A market is a place where buyers and sellers meet. Prices tell both what a thing is worth. "
    "When the price falls, buyers want more of it.",
    "Supply is what sellers bring to the market. It grows when the price rises, because more of "
    "them can pay for what they need.",
)


def test_a_page_says_what_stands_on_it_in_reading_order() -> None:
    for number in range(10):
        drawing = page(random.Random(number), "Markets and prices", PARAGRAPHS)
        written = {word for mark in drawing.sheet.marks if mark[0] == "text"
                   for word in mark[2].split()}  # fmt: skip
        first, second = drawing.words.find("A market is"), drawing.words.find("Supply is")

        assert "Markets and prices" in drawing.words
        assert 0 < first < second
        assert {"Markets", "sellers", "price", "need."} <= written & set(drawing.words.split())


def test_two_columns_are_read_one_after_the_other() -> None:
    words = [f"word{i}" for i in range(400)]
    blocks = [" ".join(words[i : i + 40]) for i in range(0, 400, 40)]
    for number in range(40):
        drawing = page(random.Random(number), "Title", blocks)
        if "two columns" in drawing.description:
            places = [int(w[4:]) for w in drawing.words.split() if w.startswith("word")]
            assert places == sorted(places)
            return
    pytest.fail("no page had two columns")


def test_words_are_misread_at_the_share_that_is_asked_for() -> None:
    words = " ".join(f"modern{i}" for i in range(1_000))

    assert noisy(random.Random(0), words, 0.0) == words
    kept = set(noisy(random.Random(0), words, 0.1).split()) & set(words.split())
    assert 850 <= len(kept) <= 930


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("A market is a place where buyers and sellers meet.",
         ("market", "is", "a place where buyers and sellers meet")),
        ("It is a place where buyers and sellers meet.", None),
        ("Is a market a place where buyers and sellers meet?", None),
        ("Markets grow.", None),
    ],
)  # fmt: skip
def test_a_definition_is_found_where_a_sentence_defines(
    said: str, found: tuple[str, str, str] | None
) -> None:
    assert definition(said) == found


def test_a_question_is_made_of_the_words_of_the_paragraph() -> None:
    known = {word.strip(".,?") for word in PARAGRAPHS[0].split()} | {"What", "is"}
    for number in range(20):
        asked = question(random.Random(number), PARAGRAPHS[0])

        assert {word.strip(".,?") for word in asked.split()} <= known
        assert len(asked) < len(PARAGRAPHS[0])


@pytest.fixture
def photo(tmp_path: Path) -> Photo:
    """Return a picture that is red on the left and blue on the right."""
    pixels = np.zeros((60, 120, 3), np.uint8)
    pixels[:, :60, 0], pixels[:, 60:, 2] = 250, 250
    pil.fromarray(pixels).save(tmp_path / "halves.png")
    return Photo(tmp_path, "halves.png")


def test_a_pan_to_the_right_goes_from_the_left_half_to_the_right_one(photo: Photo) -> None:
    frames = Clip((photo,), ("right",)).open().pixels

    assert frames.shape == (8, 192, 256, 3)
    red, blue = frames[..., 0].mean(axis=(1, 2)), frames[..., 2].mean(axis=(1, 2))
    assert red[0] > 200 > 50 > blue[0]
    assert blue[-1] > 200 > 50 > red[-1]


def test_a_cut_shows_each_picture_in_its_turn(photo: Photo, tmp_path: Path) -> None:
    pil.new("RGB", (80, 60), (0, 240, 0)).save(tmp_path / "green.png")
    frames = Clip((photo, Photo(tmp_path, "green.png")), ("still", "still")).open().pixels

    greens = (frames[..., 1].mean(axis=(1, 2)) > 200).tolist()
    assert greens == [False] * 4 + [True] * 4


@pytest.mark.parametrize("way", WAYS)
def test_a_shape_moves_as_is_said(way: str) -> None:
    shape = MovingShape("circle", "red", way, 0.5)
    frames = MovingShapes(("white", (255, 255, 255)), (shape,), "0").open().pixels
    centres = [np.argwhere(frame[..., 1] < 128).mean(axis=0) for frame in frames]
    (y0, x0), (y1, x1) = centres[0], centres[-1]

    assert (x1 > x0 + 100) == ("left to right" in way or "to the" in way)
    assert (x1 < x0 - 100) == ("right to left" in way)
    assert (y1 > y0 + 100) == ("to bottom" in way or "to the lower" in way)
    assert (y1 < y0 - 100) == ("to top" in way or "to the upper" in way)


def test_moving_shapes_are_a_function_of_their_chance() -> None:
    (one, told, _), (same, again, _) = (moving(random.Random("a")) for _ in range(2))

    assert (one, told) == (same, again)
    np.testing.assert_array_equal(one.open().pixels, same.open().pixels)
