"""Questions over a small store: what is found, in which order, and what is left out."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import toy_store

from mmsearch.errors import BadFilter, SegmentNotFound
from mmsearch.retriever.seams import Calibration
from mmsearch.retriever.search.filters import filter_sql
from mmsearch.retriever.search.question import Question
from mmsearch.retriever.search.search import Searcher
from mmsearch.retriever.store.store import Row, Store, Writer, new_commit_id
from mmsearch.values import (
    Document,
    Hit,
    Kind,
    Locator,
    Query,
    Status,
    TextOrigin,
    View,
    segment_id,
)

if TYPE_CHECKING:
    from mmsearch.values import Vectors

# Every subject is a direction; a vector says how much of each a segment is about.
CAT, DOG, CHART = np.eye(3, dtype=np.float32)
SPACE = replace(toy_store.SPACE, dim=3)
# A cosine of 0.5 is an even chance, and one of 1.0 nearly sure.
CALIBRATION = {(one, other): Calibration(0.5, 10.0) for one in View for other in View}


def of(*parts: "Vectors") -> "Vectors":
    total = np.sum(parts, axis=0)
    return total / np.linalg.norm(total)


def put(
    writer: Writer,
    path: str,
    kind: Kind,
    *segments: tuple[Locator, str, "dict[View, Vectors]"],
    about: str = "",
) -> None:
    document = Document(
        path=path,
        kind=kind,
        content_hash="ab" * 16,
        size=1,
        mtime_ns=1,
        status=Status.DONE,
        commit_id=new_commit_id(),
    )
    rows = [
        Row(
            segment_id=segment_id(path, locator),
            kind=kind,
            locator=locator,
            text=text,
            text_origin=TextOrigin.LAYER,
            about=about,
            vectors=vectors,
            thumbnail=b"",
        )
        for locator, text, vectors in segments
    ]
    writer.commit(document, rows)


def a_page(
    number: int, text: str, subject: "Vectors"
) -> tuple[Locator, str, "dict[View, Vectors]"]:
    return Locator(page=number), text, {View.VISUAL: of(CAT, DOG, CHART), View.TEXT: subject}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.create(tmp_path_factory.mktemp("search") / "db", SPACE)
    with store.writing() as writer:
        put(
            writer,
            "/docs/pets.pdf",
            Kind.PDF,
            a_page(1, "how to feed a cat every day and at night", CAT),
            a_page(2, "walking the dog twice a day in the rain", DOG),
            a_page(3, "cats and dogs under one roof, a long story", of(CAT, DOG)),
        )
        put(writer, "/docs/sales.pdf", Kind.PDF, a_page(1, "a chart of sales by region", CHART))
        for name, subject in (("tom", CAT), ("rex", DOG)):
            picture = Locator(), "", {View.VISUAL: subject}
            put(writer, f"/photos/{name}.jpg", Kind.IMAGE, picture, about=f"{name}.jpg")
        put(
            writer,
            "/films/park.mp4",
            Kind.VIDEO,
            (Locator(start=0.0, end=5.0), "", {View.VISUAL: of(DOG, DOG, CHART)}),
            (Locator(start=5.0, end=9.0), "", {View.VISUAL: of(CAT, CAT, CHART)}),
        )
    return store


@pytest.fixture
def searcher(store: Store) -> Searcher:
    return Searcher(store, CALIBRATION)


def asked(subject: "Vectors", words: str = "", where: Query | None = None) -> Question:
    sql = None if where is None else filter_sql(where)
    return Question(visual=subject, text=subject, words=words, where=sql)


def labels(hits: list[Hit]) -> list[str]:
    return [f"{Path(hit.path).name} {hit.locator}".strip() for hit in hits]


def test_photographs_and_pages_stand_in_one_ranking(searcher: Searcher) -> None:
    hits = searcher.search(asked(CAT, "feeding a cat"), k=4)

    assert labels(hits)[:2] == ["pets.pdf p.1", "tom.jpg"]  # as sure both; one says it too
    assert [hit.rank for hit in hits] == [1, 2, 3, 4]
    assert all(hit.score == pytest.approx(sum(hit.parts.values())) for hit in hits)
    assert hits[0].text.startswith("how to feed")


def test_the_best_hit_carries_its_place(searcher: Searcher) -> None:
    [clip] = searcher.search(asked(CAT, where=Query(kinds=["video"])), k=1)

    assert (clip.start, clip.end, clip.page, clip.kind) == (5.0, 9.0, None, Kind.VIDEO)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Query(kinds=["image"]), {"tom.jpg", "rex.jpg"}),
        (Query(where="page >= 2"), {"pets.pdf p.2", "pets.pdf p.3"}),
        (Query(where="end <= 5"), {"park.mp4 0:00-0:05"}),
        (Query(path="photos/*", where="path LIKE '%rex%'"), {"rex.jpg"}),
        (Query(kinds=["text"]), set()),
    ],
)
def test_filters_leave_only_what_fits(searcher: Searcher, where: Query, expected: set[str]) -> None:
    assert set(labels(searcher.search(asked(of(CAT, DOG), "dog", where), k=10))) == expected


def test_a_filter_of_the_wrong_type_is_a_bad_filter(searcher: Searcher) -> None:
    with pytest.raises(BadFilter):
        searcher.search(asked(CAT, where=Query(where="page = 'one'")), k=1)


def test_words_alone_find_pages_and_a_photograph_by_its_name(searcher: Searcher) -> None:
    hits = searcher.search(Question(words="walked dogs, rex"), k=5)

    assert set(labels(hits)) == {"pets.pdf p.2", "pets.pdf p.3", "rex.jpg"}
    assert labels(hits)[0] == "pets.pdf p.2"  # two of the three words; "rex" is but one
    assert hits[0].score == pytest.approx(2 / 3)
    assert set(hits[0].parts) == {"words"}


def test_what_is_not_wanted_sinks(searcher: Searcher) -> None:
    wanted = of(CAT, DOG)
    before = labels(searcher.search(asked(wanted), k=8))
    question = Question(visual=wanted, text=wanted, negative=(DOG,))
    after = labels(searcher.search(question, k=8))

    assert before.index("rex.jpg") < 4
    assert after.index("tom.jpg") < after.index("rex.jpg")
    assert after.index("pets.pdf p.1") < after.index("pets.pdf p.2")
    [best] = [h for h in searcher.search(question, k=8) if h.path.endswith("tom.jpg")]
    assert best.score == pytest.approx(sum(best.parts.values()))


def test_min_score_and_left_out_sources_are_no_hits(searcher: Searcher) -> None:
    everything = searcher.search(asked(CAT), k=20)
    threshold = everything[2].score

    high = Question(visual=CAT, text=CAT, min_score=threshold)
    assert len(searcher.search(high, k=20)) == sum(hit.score >= threshold for hit in everything)

    without = Question(
        visual=CAT,
        text=CAT,
        exclude_paths=frozenset({"/photos/tom.jpg"}),
        exclude_segments=frozenset({segment_id("/docs/pets.pdf", Locator(page=1))}),
    )
    left = labels(searcher.search(without, k=20))
    assert len(left) == len(everything) - 2
    assert not {"tom.jpg", "pets.pdf p.1"} & set(left)


def test_each_side_is_read_with_its_own_calibration(store: Store) -> None:
    distrusted = CALIBRATION | {(View.TEXT, View.VISUAL): Calibration(5.0, 10.0)}

    hits = Searcher(store, distrusted).search(asked(CAT), k=8)

    assert labels(hits)[0] == "pets.pdf p.1"
    shown = Question(visual=CAT, visual_side=View.VISUAL, has_pixels=True)
    assert labels(Searcher(store, distrusted).search(shown, k=1)) == ["tom.jpg"]


def test_grouping_keeps_the_best_hit_of_each_document(searcher: Searcher) -> None:
    hits = searcher.search(asked(CAT, "cat"), k=10, group=True)

    assert len({hit.path for hit in hits}) == len(hits) == 5
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert "pets.pdf p.1" in labels(hits)


def test_grouping_looks_behind_a_document_that_fills_every_list(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        book = [a_page(number, f"cat number {number}", CAT) for number in range(1, 121)]
        put(writer, "/book.pdf", Kind.PDF, *book)
        put(writer, "/leaflet.pdf", Kind.PDF, a_page(1, "a leaflet", of(CAT, CAT, CAT, DOG)))

    hits = Searcher(store, CALIBRATION).search(asked(CAT, "cat"), k=2, group=True)

    assert labels(hits) == [f"book.pdf {hits[0].locator}", "leaflet.pdf p.1"]


def test_similar_finds_the_same_subject_and_not_itself(searcher: Searcher) -> None:
    hits = searcher.similar(segment_id("/photos/tom.jpg", Locator()), k=3)

    assert labels(hits)[0] == "park.mp4 0:05-0:09"
    assert "tom.jpg" not in labels(hits)
    with pytest.raises(SegmentNotFound):
        searcher.similar("0" * 16, k=3)


def test_the_same_question_gives_the_same_hits(searcher: Searcher) -> None:
    question = asked(of(CAT, DOG, CHART), "day")

    first, second = (searcher.search(question, k=20) for _ in range(2))

    assert [hit.as_dict() for hit in first] == [hit.as_dict() for hit in second]


def test_an_empty_index_has_no_hits(tmp_path: Path) -> None:
    searcher = Searcher(Store.create(tmp_path / "db", SPACE), CALIBRATION)

    assert searcher.search(asked(CAT, "cat"), k=3) == []
    assert searcher.search(asked(CAT, "cat"), k=3, group=True) == []


def test_a_question_that_asks_nothing_has_no_hits(searcher: Searcher) -> None:
    assert searcher.search(Question(words="the of and"), k=3) == []
    with pytest.raises(ValueError, match="k counts from 1"):
        searcher.search(Question(words="cat"), k=0)
