"""Fusion, on examples that can be worked out on paper."""

import math
from collections.abc import Mapping
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.retriever.seams import Calibration
from mmsearch.retriever.search.fusion import (
    ENOUGH_WORDS,
    MANY_ASKED,
    PIXELS_CONFIRM,
    Candidate,
    Fused,
    Place,
    Signal,
    confidence,
    fuse,
    word_confidence,
)

VISUAL, TEXT, WORDS = Signal.VISUAL, Signal.TEXT, Signal.WORDS
ALL = frozenset(Signal)


def a_page(
    name: str = "page", num_words: int = 100, doubt: float = 0.0, **places: tuple[int, float]
) -> Candidate:
    """A segment with pixels and words; places are ``text=(rank, confidence)``."""
    return a_segment(name, num_words, ALL, places, doubt)


def a_photo(name: str = "photo", doubt: float = 0.0, **places: tuple[int, float]) -> Candidate:
    """A segment with pixels and no words."""
    return a_segment(name, 0, frozenset({VISUAL}), places, doubt)


def a_segment(
    name: str,
    num_words: int,
    has: frozenset[Signal],
    places: Mapping[str, tuple[int, float]],
    doubt: float,
) -> Candidate:
    return Candidate(
        segment_id=name,
        num_words=num_words,
        has=has,
        places={Signal(signal): Place(*place) for signal, place in places.items()},
        doubt=doubt,
    )


def one(candidate: Candidate, *, has_pixels: bool = False) -> Fused:
    [fused] = fuse([candidate], asked=ALL, has_pixels=has_pixels)
    return fused


def order(*candidates: Candidate, has_pixels: bool = False) -> list[str]:
    fused = fuse(candidates, asked=ALL, has_pixels=has_pixels)
    return [candidate.segment_id for candidate in fused]


def test_a_cosine_at_the_midpoint_is_an_even_chance() -> None:
    calibration = Calibration(midpoint=0.3, slope=8.0)

    assert confidence(0.3, calibration) == 0.5
    assert confidence(0.4, calibration) == pytest.approx(1 / (1 + math.exp(-0.8)))
    assert confidence(-1.0, Calibration(0.0, 1e6)) == 0.0


def test_evidence_falls_with_the_rank_as_in_reciprocal_rank_fusion() -> None:
    assert Place(1, 0.8).evidence == pytest.approx(0.8)
    assert Place(62, 0.8).evidence == pytest.approx(0.4)  # 61 / 122


def test_a_page_is_the_mean_of_its_word_lists_and_pixels_confirm_it() -> None:
    words_alone = one(a_page(text=(1, 0.9), words=(1, 0.5)))
    fused = one(a_page(visual=(1, 0.2), text=(1, 0.9), words=(1, 0.5)))

    assert words_alone.score == pytest.approx(0.7)
    pixels = PIXELS_CONFIRM * 0.2 * 0.3  # of what is missing to certainty
    assert fused.parts == pytest.approx({VISUAL: pixels, TEXT: 0.45, WORDS: 0.25})
    assert fused.score == pytest.approx(0.7 + pixels)


def test_a_photograph_stands_by_its_pixels_alone() -> None:
    fused = one(a_photo(visual=(1, 0.7)))

    assert fused.score == pytest.approx(0.7)
    assert fused.parts == {VISUAL: pytest.approx(0.7), TEXT: 0.0, WORDS: 0.0}


def test_a_sure_photograph_stands_before_an_unsure_page_and_behind_a_sure_one() -> None:
    photo = a_photo(visual=(1, 0.7))
    sure = a_page("sure", visual=(2, 0.3), text=(1, 0.95), words=(1, 1.0))
    unsure = a_page("unsure", visual=(3, 0.3), text=(2, 0.4), words=(2, 0.3))

    assert order(unsure, photo, sure) == ["sure", "photo", "unsure"]


def test_pixels_of_a_page_full_of_words_count_less_than_its_words() -> None:
    chart = a_page("chart", visual=(9, 0.1), text=(1, 0.8), words=(1, 0.8))
    lookalike = a_page("lookalike", visual=(1, 0.9), text=(5, 0.5), words=(5, 0.5))

    assert order(chart, lookalike) == ["chart", "lookalike"]


def test_when_the_question_shows_something_pixels_count_as_much_as_words() -> None:
    chart = a_page("chart", visual=(9, 0.1), text=(1, 0.8), words=(1, 0.8))
    lookalike = a_page("lookalike", visual=(1, 0.9), text=(5, 0.6), words=(5, 0.6))

    assert order(chart, lookalike, has_pixels=True) == ["lookalike", "chart"]
    shown = one(a_page(visual=(1, 0.6), text=(1, 0.9), words=(1, 0.3)), has_pixels=True)
    assert shown.score == pytest.approx(0.6)


def test_words_about_a_photograph_help_it_and_never_hurt() -> None:
    by_pixels = one(a_photo(visual=(1, 0.6))).score

    assert one(a_photo(visual=(1, 0.6), words=(1, 1.0))).score == pytest.approx(0.8)
    assert one(a_photo(visual=(1, 0.6), words=(1, 0.2))).score == by_pixels
    assert one(a_photo(words=(1, 0.9))).score == pytest.approx(0.45)


def test_the_few_words_of_a_street_sign_do_not_sink_the_photograph() -> None:
    few = a_page("sign", num_words=ENOUGH_WORDS - 1, visual=(1, 0.7), text=(40, 0.1))
    enough = a_page("page", num_words=ENOUGH_WORDS, visual=(1, 0.7), text=(40, 0.1))

    assert one(few).score == pytest.approx(0.7)
    by_words = 0.1 * 61 / 100 / 2  # of two lists; one of them has it, far down
    assert one(enough).score == pytest.approx(by_words + PIXELS_CONFIRM * 0.7 * (1 - by_words))


def test_a_list_that_could_have_a_segment_and_has_not_is_no_evidence() -> None:
    assert one(a_page(text=(1, 0.86))).score == pytest.approx(0.43)


def test_lists_that_were_not_made_do_not_count() -> None:
    [fused] = fuse([a_page(text=(1, 0.8))], asked=frozenset({TEXT}), has_pixels=False)

    assert fused.score == pytest.approx(0.8)
    assert fused.parts == {TEXT: pytest.approx(0.8)}


def test_pixels_alone_count_whole_when_nothing_else_was_asked() -> None:
    [fused] = fuse([a_page(visual=(1, 0.8))], asked=frozenset({VISUAL}), has_pixels=False)

    assert fused.score == pytest.approx(0.8)


def test_doubt_takes_its_share_of_every_part() -> None:
    fused = one(a_photo(visual=(1, 0.8), doubt=0.75))

    assert fused.score == pytest.approx(0.2)
    assert fused.parts[VISUAL] == pytest.approx(0.2)
    assert one(a_photo(visual=(1, 0.8), doubt=1.0)).score == 0.0


def test_equal_scores_are_in_the_order_of_their_ids() -> None:
    assert order(*(a_photo(name, visual=(1, 0.5)) for name in "cab")) == ["a", "b", "c"]


def test_few_words_are_believed_for_the_share_that_is_there() -> None:
    asked = frozenset({"pie", "chart"})

    assert word_confidence(asked, frozenset({"chart", "tabl"}), closeness=1.0) == 0.5
    assert word_confidence(asked, frozenset({"chart"}), closeness=0.1) == 0.5
    assert word_confidence(asked, frozenset(), closeness=1.0) == 0.0
    assert word_confidence(frozenset(), frozenset({"chart"}), closeness=1.0) == 0.0


def test_of_a_description_the_closest_need_not_hold_all() -> None:
    asked = frozenset(map(str, range(MANY_ASKED)))
    quarter = frozenset(map(str, range(MANY_ASKED // 4)))

    assert word_confidence(asked, quarter, closeness=1.0) == pytest.approx(math.sqrt(0.25))
    assert word_confidence(asked, quarter, closeness=0.0) == pytest.approx(0.25)
    assert word_confidence(asked, asked, closeness=0.5) == 1.0


chances = st.floats(0.0, 1.0)
places = st.dictionaries(
    st.sampled_from(Signal), st.builds(Place, st.integers(1, 500), chances), min_size=1
)
candidates = st.builds(
    Candidate,
    segment_id=st.text(min_size=1, max_size=4),
    num_words=st.integers(0, 12),
    has=st.frozensets(st.sampled_from(Signal)),
    places=places,
    doubt=chances,
)


@given(st.lists(candidates, max_size=8, unique_by=lambda c: c.segment_id), st.booleans())
def test_scores_are_in_range_parts_sum_to_them_and_the_best_comes_first(
    some: list[Candidate], has_pixels: bool
) -> None:
    fused = fuse(some, asked=ALL, has_pixels=has_pixels)

    assert len(fused) == len(some)
    for candidate in fused:
        assert 0.0 <= candidate.score <= 1.0
        assert all(part >= 0.0 for part in candidate.parts.values())
        assert sum(candidate.parts.values()) == pytest.approx(candidate.score)
    keys = [(-candidate.score, candidate.segment_id) for candidate in fused]
    assert keys == sorted(keys)


@given(
    st.lists(candidates, max_size=6, unique_by=lambda c: c.segment_id), st.randoms(), st.booleans()
)
def test_the_order_in_which_candidates_come_changes_nothing(
    some: list[Candidate], shuffle: Random, has_pixels: bool
) -> None:
    mixed = list(some)
    shuffle.shuffle(mixed)

    assert fuse(mixed, asked=ALL, has_pixels=has_pixels) == fuse(
        some, asked=ALL, has_pixels=has_pixels
    )


@given(candidates, st.booleans())
def test_more_evidence_never_lowers_a_score(candidate: Candidate, has_pixels: bool) -> None:
    surer = {signal: Place(1, 1.0) for signal in candidate.places}
    better = Candidate(
        segment_id=candidate.segment_id,
        num_words=candidate.num_words,
        has=candidate.has,
        places=surer,
        doubt=candidate.doubt,
    )

    assert one(better, has_pixels=has_pixels).score >= (
        one(candidate, has_pixels=has_pixels).score - 1e-12
    )
