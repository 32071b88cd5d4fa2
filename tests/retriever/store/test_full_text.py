"""Full text: English words in any form, phrases, beginnings; no characters that break it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lancedb import tokenize
from lancedb.index import FTS
from toy_store import SPACE, a_document, a_row

from mmsearch.retriever.store import indexes
from mmsearch.retriever.store.store import Store
from mmsearch.retriever.store.tables import open_tables
from mmsearch.retriever.store.words import ANALYZER, asked_words, terms
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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ('"pie chart"', ["pie"]),
        ('"Pie Charts"', ["pie"]),  # in any form, as other words are
        ('"chart pie"', []),
        ('"chart of revenue"', ["pie"]),
        ('"near the harbour" river', ["cafe"]),
        ('river "near the harbour" "cafe"', ["cafe"]),
        ('"pie chart" "the harbour"', []),
        ('"sunset over Lisbon"', ["empty"]),
        ("“pie chart” river", ["pie"]),
        ('"of the" river', ["run"]),  # of stop words alone: no phrase
        ('5" river', ["run"]),  # a quote that is never closed is a plain character
    ],
)
def test_what_stands_in_quotes_has_to_be_there(
    store: Store, words: str, expected: list[str]
) -> None:
    assert names(store, words) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("reven*", ["pie"]),
        ("HARB*", ["cafe"]),
        ("caf*", ["cafe"]),
        ("run* lisb*", ["empty", "run"]),
        ("zeppel*", []),
        ("rive* zeppel*", ["run"]),
        ('harb* "pie chart"', ["pie"]),
        ("r*", []),  # one letter says nothing
        ("**river**", ["run"]),
        ("2 * river", ["run"]),
        ("*iver", []),
    ],
)
def test_a_word_may_be_begun_and_left_open(store: Store, words: str, expected: list[str]) -> None:
    assert sorted(names(store, words)) == expected


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        ('"heat pump" cost', ("heat pump",)),
        ('"heat pump" yearly cost', ("heat pump",)),  # as much inside as outside
        ('what a "heat pump" costs in a cold year', ()),
        ("A graph titled “Heat”, with months below and degrees at the left", ()),
    ],
)
def test_quotes_in_prose_demand_nothing(words: str, phrases: tuple[str, ...]) -> None:
    asked = asked_words(words)

    assert asked.phrases == phrases
    assert "heat" in asked.terms


def test_the_words_held_are_those_found() -> None:
    asked = asked_words('the "heat pump" stations caf* zeppel*')

    assert asked.phrases == ("heat pump",)
    assert asked.terms == {"heat", "pump", "station", "caf*", "zeppel*"}
    assert asked.held_by(["Cafés, and pumps at the station", "", "decaf"]) == [
        {"pump", "station", "caf*"},
        frozenset(),
        frozenset(),
    ]


@settings(max_examples=200)
@given(text=st.text(alphabet="abz0q'\u2019“_- é́अⒶ１½²,.\x00İßQ", max_size=40))
def test_terms_are_those_of_the_tokenizer_however_they_are_read(text: str) -> None:
    assert terms(text) == [token.text for token in tokenize(text, **ANALYZER)]


def test_an_index_of_before_phrases_is_made_anew(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        row = a_row("/a.txt", Locator(), kind=Kind.TEXT, text="a heat pump station")
        writer.commit(a_document("/a.txt", kind=Kind.TEXT), [row])
        table = open_tables(store.home, SPACE.dim)[1]
        table.make_index("text", FTS(**ANALYZER))
        assert indexes.missing(table) == ["text"]

        writer.refresh()

    assert indexes.missing(table) == []
    assert len(store.matching('"heat pump"', k=3)) == 1


def test_damaged_indexes_are_made_anew(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        rows = [a_row("/a.txt", Locator(page=n + 1), text="one river") for n in range(20)]
        writer.commit(a_document("/a.txt"), rows)
    table = open_tables(store.home, SPACE.dim)[1]
    indexes.make_missing(table, many_rows=10)
    assert {index.column for index in table.indexes()} >= {"path", "commit_id", "modified", "kind"}
    for file in (table.path / "_indices").rglob("*.*"):
        file.write_bytes(file.read_bytes()[:20])
    table = open_tables(store.home, SPACE.dim)[1]
    broken = indexes.damaged(table)
    assert {"path_idx", "commit_id_idx", "text_idx", "kind_idx"} <= set(broken)

    indexes.mend(table, many_rows=10)

    assert indexes.damaged(table) == []
    assert len(store.matching("river", k=30, where="page <= 15 and kind = 'pdf'")) == 15


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


@settings(max_examples=60)
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
