"""What every vector index promises, against exact arithmetic in numpy."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from toy_store import SPACE, a_document, a_row, put, unit

from mmsearch.errors import BadFilter
from mmsearch.retriever.seams import VectorIndex
from mmsearch.retriever.store.store import Row, Store
from mmsearch.values import Kind, Locator, View, segment_id

if TYPE_CHECKING:
    from mmsearch.values import Vectors

NUM_SEGMENTS = 60
HALF = 1e-3  # of half precision


def a_world() -> list[tuple[str, Row]]:
    """Segments in three documents; every third has no words, and every fifth a twin."""
    rng = np.random.default_rng(3)
    rows: list[tuple[str, Row]] = []
    vector = unit(1)
    for number in range(NUM_SEGMENTS):
        path = f"/docs/{'abc'[number % 3]}.pdf"
        if number % 5:
            vector = rng.standard_normal(4).astype(np.float32)
            vector /= np.linalg.norm(vector)
        vectors = {View.VISUAL: vector, View.TEXT: -vector}
        if number % 3 == 0:
            del vectors[View.TEXT]
        rows.append((path, a_row(path, Locator(page=number + 1), vectors=vectors)))
    return rows


WORLD = a_world()


def as_store(folder: Path) -> VectorIndex:
    """The store itself, with rows before and after its last refresh, and dead ones."""
    store = Store.create(folder / "db", SPACE)
    with store.writing() as writer:
        for path in ("/docs/a.pdf", "/docs/b.pdf", "/docs/c.pdf"):
            put(writer, path, ["an old version, as near as can be to the first query"] * 30)
            writer.commit(a_document(path), [row for where, row in WORLD if where == path])
            if path == "/docs/b.pdf":
                writer.refresh()
        put(writer, "/docs/gone.pdf", ["gone"] * 5)
        writer.remove(["/docs/gone.pdf"])
    return store


INDEXES: list[Callable[[Path], VectorIndex]] = [as_store]


@pytest.fixture(scope="module", params=INDEXES, ids=lambda make: make.__name__)
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VectorIndex:
    return request.param(tmp_path_factory.mktemp("index"))


def cosine(kept: "Vectors", asked: "Vectors") -> float:
    """By definition, of what is kept: in half precision."""
    kept = kept.astype(np.float16).astype(np.float64)
    return float(kept @ asked / np.linalg.norm(kept) / np.linalg.norm(asked))


def exact(
    view: View, vector: "Vectors", k: int, fits: Callable[[str, Row], bool]
) -> list[tuple[str, float]]:
    """The answer by definition: every cosine, best first, ties by id."""
    scored = [
        (row.segment_id, cosine(row.vectors[view], vector))
        for path, row in WORLD
        if view in row.vectors and fits(path, row)
    ]
    return sorted(scored, key=lambda pair: (-round(pair[1], 5), pair[0]))[:k]


FILTERS: dict[str | None, Callable[[str, Row], bool]] = {
    None: lambda path, row: True,
    "page <= 7": lambda path, row: (row.locator.page or 0) <= 7,
    "path LIKE '%/b.pdf' AND page > 10": lambda path, row: (
        path.endswith("b.pdf") and (row.locator.page or 0) > 10
    ),
    "kind = 'video'": lambda path, row: False,
}


@pytest.mark.parametrize("view", list(View))
@pytest.mark.parametrize("where", list(FILTERS))
@pytest.mark.parametrize("k", [1, 7, 1_000])
def test_it_answers_as_exact_arithmetic_does(
    index: VectorIndex, view: View, where: str | None, k: int
) -> None:
    rng = np.random.default_rng(k)
    near, far = rng.standard_normal((2, 4)).astype(np.float32)
    for vector in (unit(1), near, 1_000 * far):
        found = index.nearest(view, vector, k=k, where=where)

        expected = exact(view, vector, k, FILTERS[where])
        true = dict(exact(view, vector, NUM_SEGMENTS, FILTERS[where]))
        # A back-end may round the question too: neighbours this near may change places.
        assert [true[one.segment_id] for one in found] == pytest.approx(
            [cosine for _, cosine in expected], abs=HALF
        )
        assert [one.score for one in found] == pytest.approx(
            [true[one.segment_id] for one in found], abs=HALF
        )


def test_ties_are_in_the_order_of_their_ids_wherever_k_cuts_them(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        for name in "abcdefgh":
            put(writer, f"/{name}.pdf", ["all alike"] * 4)
    places = [(f"/{name}.pdf", Locator(page=page)) for name in "abcdefgh" for page in range(1, 5)]
    everything = sorted(segment_id(path, locator) for path, locator in places)

    for k in (1, 3, 17, 32, 40):
        found = store.nearest(View.VISUAL, unit(1, 1), k=k)
        assert [one.segment_id for one in found] == everything[:k]


def test_vectors_that_cannot_be_compared_are_a_mistake_of_the_caller(index: VectorIndex) -> None:
    bad = [unit(1)[:3], np.full(4, np.nan), np.array([np.inf, 0, 0, 0]), np.zeros(4), np.eye(4)]
    for vector in bad:
        with pytest.raises(ValueError, match="a query vector"):
            index.nearest(View.VISUAL, vector.astype(np.float32), k=3)
    with pytest.raises(ValueError, match="k counts from 1"):
        index.nearest(View.VISUAL, unit(1), k=0)


@pytest.mark.parametrize("where", ["pages < 3", "page <", "page", "page = 'three'", "start = path"])
def test_a_filter_that_means_nothing_is_refused(index: VectorIndex, where: str) -> None:
    with pytest.raises(BadFilter):
        index.nearest(View.VISUAL, unit(1), k=3, where=where)


def test_one_dead_row_more_or_less_never_costs_a_hit(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    far = a_row("/far.png", Locator(), kind=Kind.IMAGE, vectors={View.VISUAL: unit(0, 1)})
    with store.writing() as writer:
        writer.commit(a_document("/far.png", kind=Kind.IMAGE), [far])
        for version in range(5):
            put(writer, "/near.pdf", [f"version {version}"] * 20)
        put(writer, "/near.pdf", ["the last"])

        found = store.nearest(View.VISUAL, unit(1), k=2)

    assert [segment.text for segment in store.segments([one.segment_id for one in found])] == [
        "the last",
        "",
    ]
