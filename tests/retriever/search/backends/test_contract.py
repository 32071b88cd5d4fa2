"""What every vector index promises, against exact arithmetic in numpy."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from toy_store import SPACE, a_document, a_row, put, unit

from mmsearch.errors import BadFilter
from mmsearch.retriever.seams import Neighbour, VectorIndex
from mmsearch.retriever.search import backends
from mmsearch.retriever.search.backends import answers, faiss_scanner
from mmsearch.retriever.search.backends.answers import CopiedIndex
from mmsearch.retriever.search.backends.choice import ExactBackends
from mmsearch.retriever.search.backends.scanners import NumpyScanner, TorchScanner
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


def a_store(folder: Path, *, before_the_last: Callable[[Store], object] | None = None) -> Store:
    """The world, with rows before and after its last refresh, and dead ones.

    before_the_last: is called while one document of the world is still missing, and one
                     that is not of it still there
    """
    store = Store.create(folder / "db", SPACE)
    with store.writing() as writer:
        put(writer, "/docs/gone.pdf", ["gone"] * 5)
        for path in ("/docs/a.pdf", "/docs/b.pdf", "/docs/c.pdf"):
            put(writer, path, ["an old version, as near as can be to the first query"] * 30)
            if path == "/docs/c.pdf" and before_the_last:
                before_the_last(store)
            writer.commit(a_document(path), [row for where, row in WORLD if where == path])
            if path == "/docs/b.pdf":
                writer.refresh()
        writer.remove(["/docs/gone.pdf"])
    return store


def the_tables(folder: Path) -> VectorIndex:
    return backends.choose("lance").of(a_store(folder).snapshot())


def faiss(folder: Path) -> VectorIndex:
    store = a_store(folder)
    backends.build(store.snapshot(), store.home)
    return from_faiss(store)


def faiss_in_lists(folder: Path) -> VectorIndex:
    """As it is with many rows, all of whose lists are looked into."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faiss_scanner, "EXACT_ROWS", 10)
        patch.setattr(faiss_scanner, "FEWEST_LISTS", 8)
        store = a_store(folder)
        backends.build(store.snapshot(), store.home)
        return from_faiss(store)


def faiss_of_yesterday(folder: Path) -> VectorIndex:
    """Made before the last commit: what is new, and what is gone, it does not know."""
    store = a_store(
        folder, before_the_last=lambda store: backends.build(store.snapshot(), store.home)
    )
    return from_faiss(store)


class Checking:
    """A copy with so many rows that the best candidates are checked, and no mask is made."""

    def __init__(self, folder: Path) -> None:
        self._index = numpy(folder)

    def nearest(
        self, view: View, vector: "Vectors", *, k: int, where: str | None = None
    ) -> list[Neighbour]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(answers, "MASK_AT_ONCE_ROWS", 0)
            patch.setattr(answers, "ASKS_PER_MASK_ROWS", 1)
            return self._index.nearest(view, vector, k=k, where=where)


def from_faiss(store: Store) -> VectorIndex:
    index = backends.choose("faiss").of(store.snapshot())
    assert isinstance(index, CopiedIndex)
    assert all(index.is_copied(view) for view in View), "else the tables would be tested twice"
    return index


def numpy(folder: Path) -> VectorIndex:
    return ExactBackends(make=NumpyScanner).of(a_store(folder).snapshot())


def numpy_of_yesterday(folder: Path) -> VectorIndex:
    exact = ExactBackends(make=NumpyScanner)

    def read(store: Store) -> None:
        index = exact.of(store.snapshot())
        for view in View:
            index.nearest(view, unit(1), k=1)

    return exact.of(a_store(folder, before_the_last=read).snapshot())


def torch(folder: Path) -> VectorIndex:
    """What runs on a GPU, on this machine's processor."""
    return ExactBackends(make=partial(TorchScanner, device="cpu")).of(a_store(folder).snapshot())


INDEXES: list[Callable[[Path], VectorIndex]] = [
    the_tables,
    faiss,
    faiss_in_lists,
    faiss_of_yesterday,
    numpy,
    numpy_of_yesterday,
    torch,
    Checking,
]


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


ASKS: dict[str, Callable[[Store], VectorIndex]] = {
    "lance": lambda store: store.snapshot(),
    "faiss": from_faiss,
    "numpy": lambda store: ExactBackends(make=NumpyScanner).of(store.snapshot()),
    "torch": lambda store: ExactBackends(make=partial(TorchScanner, device="cpu")).of(
        store.snapshot()
    ),
}


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.create(tmp_path_factory.mktemp("alike") / "db", SPACE)
    with store.writing() as writer:
        for name in "abcdefgh":
            put(writer, f"/{name}.pdf", ["all alike"] * 4)
    backends.build(store.snapshot(), store.home)
    return store


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_ties_are_in_the_order_of_their_ids_wherever_k_cuts_them(
    alike: Store, ask: Callable[[Store], VectorIndex]
) -> None:
    index = ask(alike)
    places = [(f"/{name}.pdf", Locator(page=page)) for name in "abcdefgh" for page in range(1, 5)]
    everything = sorted(segment_id(path, locator) for path, locator in places)

    for k in (1, 3, 17, 32, 40):
        found = index.nearest(View.VISUAL, unit(1, 1), k=k)
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


@pytest.mark.parametrize("name", ["faiss", "exact"])
def test_a_copy_knows_of_segments_what_the_tables_hold(tmp_path: Path, name: str) -> None:
    """What ranks a segment need not be looked up once a copy has found it."""
    store = a_store(
        tmp_path, before_the_last=lambda store: backends.build(store.snapshot(), store.home)
    )
    snapshot = store.snapshot()
    index = backends.choose(name, device="cpu").of(snapshot)
    ids = [one.segment_id for one in index.nearest(View.VISUAL, unit(1), k=NUM_SEGMENTS)]

    assert len(ids) == NUM_SEGMENTS
    assert snapshot.outlines(ids) == Store.open(store.path).snapshot().outlines(ids)
    assert set(snapshot.paths(ids)) == set(ids)
