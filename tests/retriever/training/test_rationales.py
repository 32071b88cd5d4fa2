"""A rationale is cut where a sentence ends, and nothing of it is lost."""

import pytest

from mmsearch.retriever.training.rationales import segments, sentences

CUT = [
    ("One. Two! Three?", ["One. ", "Two! ", "Three?"]),
    ("Pi is 3.14. It never ends.", ["Pi is 3.14. ", "It never ends."]),
    ("Take a fruit, e.g. An apple.", ["Take a fruit, e.g. An apple."]),
    ("That is, i.e., all of it. Yes.", ["That is, i.e., all of it. ", "Yes."]),
    ("See Fig. 2 for it. It rises.", ["See Fig. 2 for it. ", "It rises."]),
    ("Dr. Who met J. K. Rowling. Fine.", ["Dr. Who met J. K. Rowling. ", "Fine."]),
    ("The U.S. economy grew. It did.", ["The U.S. economy grew. ", "It did."]),
    ("The answer is no. It is red.", ["The answer is no. ", "It is red."]),
    ("It is no. 5 of them. Good.", ["It is no. 5 of them. ", "Good."]),
    ("1. Look. 2. Think.", ["1. Look. ", "2. Think."]),
    ("It was in 1999. Then it rained.", ["It was in 1999. ", "Then it rained."]),
    ('He said "stop." Then (at last.) Done', ['He said "stop." ', "Then (at last.) ", "Done"]),
    ("Well... maybe?! Who knows", ["Well... ", "maybe?! ", "Who knows"]),
    ("a title\nand a line\n\n  another", ["a title\n", "and a line\n\n  ", "another"]),
    ("天是蓝的。草是绿的！为什么？因为", ["天是蓝的。", "草是绿的！", "为什么？", "因为"]),  # noqa: RUF001
    ("他说：「停。」然后走了。", ["他说：「停。」", "然后走了。"]),  # noqa: RUF001
    ("no end to be seen", ["no end to be seen"]),
    (" around it. ", ["around it."]),
    (".", ["."]),
    (" \n ", []),
    ("", []),
]


@pytest.mark.parametrize(("text", "expected"), CUT)
def test_sentences_end_where_they_end(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@pytest.mark.parametrize("text", [text for text, _ in CUT])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 40])
def test_segments_are_as_many_as_asked_and_together_the_text(text: str, count: int) -> None:
    found = segments(text, count)

    assert len(found) == count
    assert "".join(found) == text.strip()


def test_the_first_segments_get_the_sentences_that_are_left_over() -> None:
    assert segments("A1. B2. C3. D4. E5.", 3) == ["A1. B2. ", "C3. D4. ", "E5."]


def test_more_segments_than_sentences_are_equal_numbers_of_characters() -> None:
    assert segments("One of. Two.", 4) == ["One", " of", ". T", "wo."]
    assert segments("abcdefg", 3) == ["abc", "de", "fg"]


def test_fewer_characters_than_segments_leave_some_empty() -> None:
    assert segments("ab", 4) == ["a", "b", "", ""]
    assert segments("", 2) == ["", ""]


def test_no_segment_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        segments("One.", 0)
