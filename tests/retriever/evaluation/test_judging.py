"""Which hits are right, and what is left out of a ranking."""

from pathlib import Path

import pytest

from mmsearch.retriever.evaluation.judging import OwnSource, is_right, judge, own_source
from mmsearch.retriever.evaluation.queryfile import KnownQuery, Place
from mmsearch.values import Document, Hit, Kind, Locator, Status, segment_id


def a_hit(path: str, score: float = 0.5, **locator: float) -> Hit:
    where = Locator(**locator)  # type: ignore[arg-type]
    return Hit(
        rank=1,
        score=score,
        parts={},
        segment_id=segment_id(path, where),
        path=path,
        kind=Kind.PDF,
        locator=where,
        text="",
    )


def a_query(*relevant: Place, page: str | None = None, images: tuple[Path, ...] = ()) -> KnownQuery:
    return KnownQuery(id="q", kind="text", text="what", page=page, images=images, relevant=relevant)


def a_document(path: str, content_hash: str) -> Document:
    return Document(
        path=path,
        kind=Kind.PDF,
        content_hash=content_hash,
        size=1,
        mtime_ns=1,
        status=Status.DONE,
        commit_id="c",
    )


@pytest.mark.parametrize(
    ("hit", "place", "right"),
    [
        (a_hit("/a.pdf", page=3), Place(path="/a.pdf", page=3), True),
        (a_hit("/a.pdf", page=2), Place(path="/a.pdf", page=3), False),
        (a_hit("/b.pdf", page=3), Place(path="/a.pdf", page=3), False),
        (a_hit("/a.pdf", page=2), Place(path="/a.pdf"), True),
        (a_hit("/v.mp4", start=0.0, end=5.0), Place(path="/v.mp4", start=4.9, end=9.0), True),
        (a_hit("/v.mp4", start=0.0, end=5.0), Place(path="/v.mp4", start=5.0, end=9.0), False),
        (a_hit("/v.mp4", start=5.0, end=9.0), Place(path="/v.mp4", start=0.0, end=5.0), False),
        (a_hit("/v.mp4", start=5.0, end=9.0), Place(path="/v.mp4", start=5.0, end=5.0), True),
        (a_hit("/v.mp4", start=5.0, end=9.0), Place(path="/v.mp4", start=9.0, end=9.0), False),
        (a_hit("/v.mp4"), Place(path="/v.mp4", start=0.0, end=1.0), False),
    ],
)
def test_a_hit_is_right_by_path_and_page_or_overlap(hit: Hit, place: Place, right: bool) -> None:
    assert is_right(hit, place) is right


def test_each_place_counts_once_and_no_hit_counts_for_two() -> None:
    query = a_query(
        Place(path="/v.mp4", start=0.0, end=6.0), Place(path="/v.mp4", start=4.0, end=6.0)
    )
    clips = [a_hit("/v.mp4", start=s, end=s + 5.0) for s in (0.0, 3.0, 5.0)]

    judged = judge(query, [a_hit("/b.pdf", 0.9), *clips])

    assert judged.found == (None, 0, 1, None)
    assert (judged.num_places, judged.first_right, judged.best_score) == (2, 2, 0.9)


def test_a_whole_document_as_answer_is_found_once() -> None:
    pages = [a_hit("/a.pdf", page=number) for number in (1, 2, 3)]

    assert judge(a_query(Place(path="/a.pdf")), pages).found == (0, None, None)


def test_no_hits_and_no_answers_are_told_apart() -> None:
    nothing = judge(a_query(Place(path="/a.pdf")), [])
    unanswerable = judge(a_query(), [a_hit("/a.pdf", 0.3)])

    assert (nothing.num_places, nothing.best_score, nothing.first_right) == (1, None, None)
    assert (unanswerable.num_places, unanswerable.best_score) == (0, 0.3)


def test_the_own_source_leaves_the_ranking_and_the_best_score() -> None:
    own = OwnSource(
        paths=frozenset({"/copy.png"}),
        segments=frozenset({segment_id("/a.pdf", Locator(page=3))}),
    )
    hits = [a_hit("/copy.png", 1.0), a_hit("/a.pdf", 0.9, page=3), a_hit("/a.pdf", 0.4, page=4)]

    judged = judge(a_query(Place(path="/a.pdf", page=4)), hits, own)

    assert judged.found == (0,)
    assert judged.best_score == 0.4


def test_own_source_is_every_copy_of_an_image_and_the_page_in_every_copy_of_its_file() -> None:
    documents = [
        a_document("/corpus/q.png", "image"),
        a_document("/corpus/a.pdf", "paper"),
        a_document("/corpus/copy of a.pdf", "paper"),
        a_document("/corpus/other.pdf", "other"),
        a_document("/corpus/torn.pdf", ""),
    ]
    hashes = {Path("/q.png"): "image", Path("/a.pdf"): "paper", Path("/gone.png"): ""}
    query = a_query(page="/a.pdf#3", images=(Path("/q.png"), Path("/gone.png")))

    own = own_source(query, documents, hashes.__getitem__)

    assert own.paths == {"/corpus/q.png"}
    assert own.segments == {
        segment_id(path, Locator(page=3))
        for path in ("/a.pdf", "/corpus/a.pdf", "/corpus/copy of a.pdf")
    }


def test_a_question_of_words_has_no_source() -> None:
    def never(path: Path) -> str:
        raise AssertionError(path)

    own = own_source(a_query(), [a_document("/a.pdf", "paper")], never)

    assert (own.paths, own.segments) == (frozenset(), frozenset())
