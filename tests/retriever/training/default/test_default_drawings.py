"""What is said of a drawing is true of what is drawn."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mmsearch.retriever.training.default.charts import KINDS as CHARTS
from mmsearch.retriever.training.default.charts import chart, ticks, trend_of
from mmsearch.retriever.training.default.diagrams import KINDS as DIAGRAMS
from mmsearch.retriever.training.default.diagrams import diagram
from mmsearch.retriever.training.default.graphs import KINDS as GRAPHS
from mmsearch.retriever.training.default.graphs import graph
from mmsearch.retriever.training.default.pictures import DRAWERS, Drawn, draw
from mmsearch.retriever.training.default.shapes import shapes
from mmsearch.retriever.training.default.sheets import (
    COLOURS,
    Drawing,
    Sheet,
    font,
    listing,
    sentence,
)
from mmsearch.retriever.training.default.tables import table
from mmsearch.retriever.training.rationales import sentences

Draw = Callable[[random.Random], Drawing]


def drawn(maker: Callable[..., Drawing], *kind: str, count: int = 12) -> Iterator[Drawing]:
    for number in range(count):
        yield maker(random.Random(f"test {number}"), *kind)


def marks(sheet: Sheet, kind: str) -> list[Any]:
    return [mark for mark in sheet.marks if mark[0] == kind]


def after(rationale: str, opening: str) -> str:
    """Return the rest of the sentence that begins so."""
    [found] = [one for one in sentences(rationale) if one.startswith(opening)]
    return found.strip().removeprefix(opening).rstrip(".")


# ------------------------------------------------------------------------ every drawing


@pytest.mark.parametrize("kind", DRAWERS)
def test_a_drawing_is_a_function_of_its_kind_number_and_seed(kind: str) -> None:
    one, same, other = Drawn(kind, 3, 0), Drawn(kind, 3, 0), Drawn(kind, 4, 0)

    np.testing.assert_array_equal(one.open().pixels, same.open().pixels)
    assert one.drawing().description == same.drawing().description
    assert one.key == same.key != other.key
    assert one.drawing().rationale != draw(kind, 3, 1).rationale


@pytest.mark.parametrize("kind", DRAWERS)
def test_a_rationale_is_three_to_nine_sentences_with_full_stops(kind: str) -> None:
    for number in range(40):
        told = sentences(draw(kind, number, 0).rationale)

        assert 3 <= len(told) <= 9, told
        assert all(one.strip().endswith((".", "?")) for one in told)
        assert all(one[:1].isupper() or not one[:1].isalpha() for one in told), told


@pytest.mark.parametrize(
    ("maker", "kind"),
    [(chart, kind) for kind in CHARTS]
    + [(graph, kind) for kind in GRAPHS]
    + [(diagram, kind) for kind in DIAGRAMS],
)
def test_words_stay_on_the_sheet_and_off_each_other(
    maker: Callable[..., Drawing], kind: str
) -> None:
    clashes = num_words = 0
    for drawing in drawn(maker, kind, count=8):
        boxes = [_box(mark) for mark in marks(drawing.sheet, "text")]
        num_words += len(boxes)
        for i, (left, top, right, bottom) in enumerate(boxes):
            outside = max(-left, -top, right - drawing.sheet.width, bottom - drawing.sheet.height)
            assert outside < 6, drawing.sheet.words
            for x0, y0, x1, y1 in boxes[:i]:
                wide, high = min(right, x1) - max(left, x0), min(bottom, y1) - max(top, y0)
                clashes += wide > 3 and high > 3
    assert clashes <= 0.03 * num_words


def _box(mark: Any) -> tuple[float, float, float, float]:
    _, (x, y), text, face, _, anchor, upward = mark
    wide, high = face.width(text), face.size * 0.7
    if upward:
        return x - high / 2, y - wide / 2, x + high / 2, y + wide / 2
    left = x - {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * wide
    top = y + 0.15 * high if anchor[1] == "a" else y - high / 2
    return left, top, left + wide, top + high


# ------------------------------------------------------------------------------- charts


def test_the_tallest_bar_is_the_one_that_is_named() -> None:
    for drawing in drawn(chart, "bar"):
        bars = [mark[1] for mark in marks(drawing.sheet, "box")]
        heights = [bottom - top for _, top, _, bottom in bars]
        middles = [(left + right) / 2 for left, _, right, _ in bars]
        tallest = middles[heights.index(max(heights))]
        named = after(drawing.rationale, "The largest is ").rsplit(" at ", 1)[0]
        # Its label stands under it, in one line, in two, or turned.
        under = [m[2] for m in marks(drawing.sheet, "text") if abs(m[1][0] - tallest) < 6]

        assert any(text in named for text in under), (named, under)


def test_the_largest_slice_is_the_one_that_is_named() -> None:
    for drawing in drawn(chart, "pie"):
        slices = marks(drawing.sheet, "slice")
        largest = max(slices, key=lambda mark: mark[3] - mark[2])
        [swatch] = [m for m in marks(drawing.sheet, "box") if m[2] == largest[4]][:1]
        beside = [m for m in marks(drawing.sheet, "text") if abs(m[1][1] - _middle(swatch)) < 2]
        named = after(drawing.rationale, "The largest is ").rsplit(" at ", 1)

        assert f"{named[0]} {named[1]}" in [m[2] for m in beside]


def _middle(mark: Any) -> float:
    return (mark[1][1] + mark[1][3]) / 2


def test_points_of_a_scatter_plot_run_as_is_said() -> None:
    for drawing in drawn(chart, "scatter", count=30):
        dots = np.array([(m[1][0], -m[1][1]) for m in marks(drawing.sheet, "ellipse")])
        found = np.corrcoef(dots.T)[0, 1]

        if "no" in drawing.answer.split():
            assert abs(found) < 0.65
        else:
            assert found > 0.4 if "positive" in drawing.answer else found < -0.4
            assert abs(found) > (0.85 if "strong" in drawing.answer else 0.4)


def test_the_long_tail_of_a_histogram_is_where_it_is_said_to_be() -> None:
    for drawing in drawn(chart, "histogram", count=30):
        heights = [m[1][3] - m[1][1] for m in marks(drawing.sheet, "box")]
        peak = (heights.index(max(heights)) + 0.5) / len(heights)

        if "skewed right" in drawing.answer:
            assert peak < 0.45
        if "skewed left" in drawing.answer:
            assert peak > 0.55
        if "uniform" in drawing.answer:
            assert min(heights) > 0.8 * max(heights)


@pytest.mark.parametrize(
    ("values", "trend"),
    [
        ([1, 2, 3, 5], "rise"),
        ([9, 5, 4, 1], "fall"),
        ([1, 5, 9, 4, 1], "rise and then fall"),
        ([9, 4, 1, 5, 9], "fall and then rise"),
        ([1, 9, 1, 9, 3], ""),
    ],
)
def test_a_trend_is_named_only_where_it_is_plain(values: list[float], trend: str) -> None:
    assert trend_of(values) == trend


def test_ticks_are_round_numbers_around_the_values() -> None:
    assert ticks(0, 87) == [0, 20, 40, 60, 80, 100]
    assert ticks(0, 3) == [0, 1, 2, 3]
    assert ticks(52, 61) == [52, 54, 56, 58, 60, 62]


def test_a_table_says_its_largest_number() -> None:
    for drawing in drawn(table):
        said = next(one for one in sentences(drawing.rationale) if "the largest number is" in
                    one.lower())  # fmt: skip
        number, thing = said.lower().split("largest number is ")[1].rstrip(". ").split(", that of ")
        rows: dict[int, list[str]] = {}
        for mark in marks(drawing.sheet, "text"):
            rows.setdefault(round(mark[1][1]), []).append(mark[2].lower())

        assert [thing, number] in [row[:2] for row in rows.values()]


# --------------------------------------------------------------------- graphs and shapes


def test_a_line_that_rises_is_said_to_rise() -> None:
    lines = [d for d in drawn(graph, "function", count=60) if d.kind == "line"]
    for drawing in lines:
        [curve] = [m[1] for m in marks(drawing.sheet, "line") if len(m[1]) > 10]
        rises = curve[-1][1] < curve[0][1]

        assert ("rises from left" if rises else "falls from left") in drawing.rationale
    assert len(lines) >= 3


def test_what_is_left_of_what_is_seen_in_the_pixels() -> None:
    checked = 0
    for drawing in drawn(shapes, count=80):
        told = drawing.caption.lower().rstrip(".")
        for relation, axis, sign in (
            (" to the left of ", 1, -1), (" to the right of ", 1, 1), (" above ", 0, -1),
            (" below ", 0, 1),
        ):  # fmt: skip
            if relation not in told:
                continue
            first, second = told.split(relation)
            pixels = np.asarray(drawing.sheet.paint(), int)
            one, two = (_centre(pixels, words)[axis] for words in (first, second))
            checked += 1
            assert (one - two) * sign > 20, told
    assert checked > 10


def _centre(pixels: "np.ndarray", words: str) -> "np.ndarray":
    """Return the mean row and column of the colour that is named, paper left out."""
    [hue] = [hue for hue in COLOURS if hue in words.split()]
    distance = np.abs(pixels - np.array(COLOURS[hue])).sum(axis=2)
    near = distance < min(60, distance.min() + 12)
    return np.argwhere(near).mean(axis=0)


def test_as_many_shapes_are_drawn_as_are_counted() -> None:
    counted = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7}
    checked = 0
    for drawing in drawn(shapes, count=120):
        number, *rest = drawing.caption.lower().split()
        if number in counted and rest[-1] in ("circles.", "diamonds.", "hexagons."):
            checked += 1
            assert len(drawing.sheet.marks) == counted[number]
    assert checked


# ----------------------------------------------------------------------------- the sheet


def test_words_are_read_row_by_row() -> None:
    sheet, small = Sheet(100, 100), font("sans", 10)
    for text, at in (("right", (80, 11)), ("left", (20, 10)), ("below", (20, 60))):
        sheet.text(at, text, small)

    assert sheet.words == "left right below"


def test_lines_are_broken_where_they_do_not_fit() -> None:
    small = font("sans", 10)
    lines = small.wrap("one two three four five six", small.width("one two three"))

    assert lines == ["one two three", "four five six"]
    assert small.wrap("unbreakable", 3) == ["unbreakable"]


def test_what_is_turned_upward_is_higher_than_wide() -> None:
    sheet = Sheet(60, 60)
    sheet.text((30, 30), "turned", font("sans", 12), upward=True)
    dark = np.argwhere(np.asarray(sheet.paint().convert("L")) < 128)
    high, wide = np.ptp(dark, axis=0)

    assert high > 2 * wide


def test_listings_and_sentences() -> None:
    assert listing(["a"]) == "a"
    assert listing(["a", "b"]) == "a and b"
    assert listing(["a", "b", "c"]) == "a, b, and c"
    assert sentence("what is it?") == "What is it?"
    assert sentence("a bar") == "A bar."
