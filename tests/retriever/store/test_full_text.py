"""Full text: English words in any form, and no characters that break it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_store import SPACE, a_document, a_row

from mmsearch.retriever.store.store import Store
from mmsearch.values import Kind, Locator, segment_id

TEXTS = {
    "run": "She runs along the river",
    "cafe": "The Café near the harbour",
    "pie": "A pie chart of revenue by region, 2019",
    "empty": "",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four notes; the last has words about it only. Half of them are indexed."""
    store = Store.create(tmp_path_factory.mktemp("words") / "db", SPACE)
    with store.writing() as writer:
        for number, (name, text) in enumerate(TEXTS.items()):
            path = f"/{name}.txt"
            about = "sunset over Lisbon.jpg" if name == "empty" else f"{name}.txt"
            row = a_row(path, Locator(), kind=Kind.TEXT, text=text, about=about)
            writer.commit(a_document(path, kind=Kind.TEXT), [row])
            if number == 1:
                writer.refresh()
    return store


def names(store: Store, words: str, where: str | None = None) -> list[str]:
    found = store.matching(words, k=10, where=where)
    segments = store.segments([one.segment_id for one in found])
    return [segment.path.removeprefix("/").removesuffix(".txt") for segment in segments]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("running", "run"),
        ("RIVERS", "run"),
        ("cafe", "cafe"),
        ("harbours", "cafe"),
        ("revenues", "pie"),
        ("2019", "pie"),
        ("lisbon", "empty"),
        ("what is the chart?", "pie"),
    ],
)
def test_words_are_found_in_any_form(store: Store, words: str, expected: str) -> None:
    assert names(store, words) == [expected]


def test_more_of_the_words_come_first(store: Store) -> None:
    assert names(store, "river pie chart revenue")[:2] == ["pie", "run"]


def test_the_filter_applies_before_the_search(store: Store) -> None:
    assert names(store, "river pie chart revenue", "path = '/run.txt'") == ["run"]
    assert names(store, "river", "path = '/pie.txt'") == []


@pytest.mark.parametrize("words", ["", "   ", "the of and", "'", '"', "😀", "()", "*", "\x00", "-"])
def test_a_question_without_content_words_matches_nothing(store: Store, words: str) -> None:
    assert store.matching(words, k=10) == []


@pytest.mark.parametrize(
    "words",
    [
        'river" OR "',
        "river AND (",
        "text:river",
        "+river -pirate",
        "river~2^3",
        "river😀",
        "{river}",
        "river\udcff",
        "river; DROP TABLE segments",
    ],
)
def test_operators_and_quotes_are_plain_characters(store: Store, words: str) -> None:
    assert names(store, words)[:1] == ["run"]


@settings(max_examples=60, deadline=None)
@given(words=st.text(max_size=80))
def test_no_characters_raise(store: Store, words: str) -> None:
    assert len(store.matching(words, k=3)) <= 3


def test_scores_fall_and_ties_are_in_the_order_of_their_ids(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    paths = [f"/{number}.txt" for number in range(9)]
    with store.writing() as writer:
        for path in paths:
            row = a_row(path, Locator(), kind=Kind.TEXT, text="one river")
            writer.commit(a_document(path, kind=Kind.TEXT), [row])
        writer.refresh()
    everything = sorted(segment_id(path, Locator()) for path in paths)

    for k in (1, 4, 9, 20):
        found = store.matching("river", k=k)
        assert [one.segment_id for one in found] == everything[:k]


def test_a_very_long_question_is_answered(store: Store) -> None:
    assert names(store, "river " * 50_000) == ["run"]
    with pytest.raises(ValueError, match="k counts from 1"):
        store.matching("river", k=0)
