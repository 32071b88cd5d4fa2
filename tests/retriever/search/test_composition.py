"""How a question is put together from words and what the media hold."""

import numpy as np
import pytest

from mmsearch.retriever.search.composition import MAX_WORDS, compose
from mmsearch.values import Image, Kind, Query, Segment, Text, View

PIXELS = np.zeros((1, 4, 4, 3), np.uint8)


def a_picture(text: str = "") -> Segment:
    return Segment(kind=Kind.IMAGE, pixels=PIXELS, text=text)


def test_words_alone_are_compared_with_pixels_and_with_words() -> None:
    asked = compose(Query("a cat"), [])

    assert asked.visual.text == "a cat"
    assert asked.text is not None
    assert asked.text.text == "a cat"
    assert (asked.visual_side, asked.words, asked.has_pixels) == (View.TEXT, "a cat", False)


def test_a_picture_without_words_is_compared_with_pixels_only() -> None:
    asked = compose(Query(images=["q.png"]), [a_picture()])

    assert [type(part) for part in asked.visual.parts] == [Image]
    assert (asked.text, asked.words) == (None, "")
    assert (asked.visual_side, asked.has_pixels) == (View.VISUAL, True)


def test_quotes_mean_a_phrase_in_a_persons_words_and_nothing_in_a_page() -> None:
    page = Segment(kind=Kind.PDF, pixels=PIXELS, text='He said "stop" 5* times')

    assert compose(Query(page="a.pdf#1"), [page]).words == "He said stop 5 times"
    assert compose(Query('the "heat pump"'), []).words == 'the "heat pump"'


def test_a_picture_and_words_are_one_item() -> None:
    asked = compose(Query("at night", images=["q.png"]), [a_picture("EXIT")])

    assert [type(part) for part in asked.visual.parts] == [Image, Text]
    assert asked.text is not None
    assert asked.text.text == "at night\nEXIT"
    assert asked.words == "at night", "the person's own words go before what a picture says"


def test_the_words_of_a_picture_are_looked_up_where_the_person_gave_none() -> None:
    assert compose(Query(images=["q.png"]), [a_picture("NO EXIT")]).words == "NO EXIT"


@pytest.mark.parametrize(("text", "has_pixels"), [("many words", False), ("", True)])
def test_a_page_is_judged_by_its_words_if_it_has_any(text: str, has_pixels: bool) -> None:
    page = Segment(kind=Kind.PDF, pixels=PIXELS, text=text)

    assert compose(Query(page="a.pdf#1"), [page]).has_pixels is has_pixels


def test_a_long_page_is_looked_up_by_its_first_words() -> None:
    page = Segment(kind=Kind.PDF, pixels=PIXELS, text="word " * 500)

    assert len(compose(Query(page="a.pdf#1"), [page]).words.split()) == MAX_WORDS


def test_what_is_not_wanted_is_embedded_by_itself() -> None:
    asked = compose(Query("a cat", negative=["a dog", " "]), [])

    assert [item.text for item in asked.negative] == ["a dog"]
