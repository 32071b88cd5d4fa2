"""Questions: recall and time of a back-end, beside the raw library call in the same process."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from index_speed.building import peak_mb, rss_mb
from index_speed.world import World, filters, segment_ids, text_of
from mmsearch.retriever.seams import Calibration, VectorIndex
from mmsearch.retriever.search import backends
from mmsearch.retriever.search.backends import faiss_scanner
from mmsearch.retriever.search.question import Question
from mmsearch.retriever.search.search import Searcher
from mmsearch.retriever.store import ann
from mmsearch.values import View

WARM_UP = 10
BUDGET_S = 12.0  # for one list of questions: slow back-ends get fewer
CURVE = (4, 8, 16, 32, 64, 128)

Ask = Callable[[np.ndarray], Sequence[str]]


def ask_backend(world: World, backend: str) -> dict[str, Any]:
    """Everything of one back-end: without filter at several k, beside the library, filtered."""
    began = time.perf_counter()
    index = backends.choose(backend, device="cpu").of(world.store.snapshot())
    index.nearest(View.TEXT, world.questions[0], k=10)
    found: dict[str, Any] = {"first_answer_ms": 1_000 * (time.perf_counter() - began)}
    found["rss_mb"], found["peak_mb"] = _after_questions(world, index)
    ours: Ask = _ours(index, 10)
    found["first_pass"] = timed(world, ours)  # of files that were not looked into before
    # In turns, so that what else the machine does harms both alike.
    raw = RAW[backend](world, index)
    found["k10"], found["raw"] = timed_in_turns(world, [ours, raw])
    found["over_raw"] = found["k10"]["p50_ms"] / found["raw"]["p50_ms"]
    for k in (100, 200):
        found[f"k{k}"] = timed(world, _ours(index, k), k=k)
    if backend != "exact":
        found["curve"] = list(CURVES[backend](world, index))
        found["filtered"] = {
            name: _filtered(world, index, name, where)
            for name, (where, _, _) in filters(world.case.rows).items()
        }
    return found


def ask_searcher(world: World, backend: str) -> dict[str, Any]:
    """Whole searches: two vector lists and the words, a filter, fused, ten hits read."""
    calibration = {(a, b): Calibration(0.5, 10.0) for a in View for b in View}
    searcher = Searcher(world.store, calibration, backends.choose(backend, device="cpu"))
    rng = np.random.default_rng(11)
    words = text_of(rng, len(world.questions), 3)
    found = {}
    for name, where in (
        ("no filter", None),
        ("kind", "kind = 'image'"),
        ("pages", f"page <= {world.case.rows // 20}"),
    ):

        def ask(number: int, where: str | None = where) -> list[str]:
            question = Question(
                text=world.questions[number],
                visual=np.roll(world.questions[number], world.case.dim // 3),
                words=words[number],
                where=where,
            )
            return [hit.segment_id for hit in searcher.search(question, k=10)]

        for number in range(WARM_UP):
            ask(number)
        found[name] = _spread(
            [_seconds(ask, number)[0] for number in range(WARM_UP, min(60, len(words)))]
        )
    found["rss_mb"] = rss_mb()
    return found


# ---------------------------------------------------------------- timing


def timed(world: World, ask: Ask, *, k: int = 10) -> dict[str, Any]:
    """Return p50, p95 and recall of one way of asking."""
    return _timed(world.questions, [ask], world.truth[:, :k])[0]


def timed_in_turns(world: World, asks: Sequence[Ask]) -> list[dict[str, Any]]:
    """Return p50, p95 and recall@10 of several ways, asked in turns."""
    return _timed(world.questions, asks, world.truth[:, :10])


def _timed(questions: np.ndarray, asks: Sequence[Ask], truth: np.ndarray) -> list[dict[str, Any]]:
    for ask in asks:
        for question in questions[:WARM_UP]:
            ask(question)
    seconds: list[list[float]] = [[] for _ in asks]
    recalls: list[list[float]] = [[] for _ in asks]
    began = time.perf_counter()
    for question, true in zip(questions, truth, strict=True):
        expected = set(segment_ids(true[true >= 0]))
        for number, ask in enumerate(asks):
            took, answer = _seconds(ask, question)
            seconds[number].append(took)
            recalls[number].append(len(expected & set(answer)) / max(1, len(expected)))
        if time.perf_counter() - began > BUDGET_S * len(asks):
            break
    return [
        {**_spread(one), "recall": float(np.mean(recall)), "least_recall": min(recall)}
        for one, recall in zip(seconds, recalls, strict=True)
    ]


def _after_questions(world: World, index: VectorIndex) -> tuple[float, float]:
    """Return the memory of a process that has answered, MB: now, and at most."""
    for question in world.questions[:50]:
        index.nearest(View.TEXT, question, k=10)
    return rss_mb(), peak_mb()


def _filtered(world: World, index: VectorIndex, name: str, where: str) -> dict[str, Any]:
    truth = np.load(world.folder / f"truth {name}.npy")
    first, _ = _seconds(
        lambda q: index.nearest(View.TEXT, q, k=10, where=where), world.questions[0]
    )
    some = world.questions[: len(truth)]
    ask: Ask = _ours(index, 10, where)
    [found] = _timed(some, [ask], truth)
    return {**found, "first_ms": 1_000 * first}


def _ours(index: VectorIndex, k: int, where: str | None = None) -> Ask:
    return lambda question: [
        one.segment_id for one in index.nearest(View.TEXT, question, k=k, where=where)
    ]


def _seconds(ask: Callable[[Any], Any], question: Any) -> tuple[float, Any]:  # noqa: ANN401
    began = time.perf_counter()
    answer = ask(question)
    return time.perf_counter() - began, answer


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "p50_ms": 1_000 * float(np.median(seconds)),
        "p95_ms": 1_000 * float(np.quantile(seconds, 0.95)),
        "questions": len(seconds),
    }


# ---------------------------------------------------------------- the libraries by themselves


def _raw_lance(world: World, index: VectorIndex, cells: int | None = None) -> Ask:
    """A lancedb query as its manual has it, asked as hard as ours; ids and distances alone."""
    import lancedb

    table = lancedb.connect(world.store.home / "tables").open_table("segments")
    trained = ann.trained(world.store.snapshot().table, "text_vector")
    probe = trained and ann.probe(trained, limit=10, dim=world.case.dim, filtered=False)

    def ask(question: np.ndarray) -> list[str]:
        query = table.search(question, vector_column_name="text_vector").distance_type("cosine")
        if probe:
            query = query.nprobes(cells or probe.cells).refine_factor(probe.refine)
        else:
            query = query.bypass_vector_index()
        found = query.select(["segment_id", "_distance"]).limit(10).to_arrow()
        return found["segment_id"].to_pylist()

    return ask


def _raw_faiss(world: World, index: VectorIndex, lists: int | None = None) -> Ask:
    """A faiss search as its manual has it, in the same file, asked as hard as ours.

    By one thread, as ours: with two, it is no faster, and slower whenever one has to wait.
    """
    import faiss

    from mmsearch.retriever.search.backends.faiss_files import open_accelerator

    opened = open_accelerator(world.store.home, View.TEXT, world.case.dim)
    assert opened is not None
    raw, ids = opened.index, opened.rows.ids
    faiss.omp_set_num_threads(1)
    how = None
    if isinstance(raw, faiss.IndexRefine):
        how = faiss.IndexRefineSearchParameters(
            k_factor=10.0,
            base_index_params=faiss.SearchParametersIVF(nprobe=lists or _num_lists(raw)),
        )

    def ask(question: np.ndarray) -> np.ndarray:
        _, places = raw.search(question[None], 10, params=how)
        return places[0]

    # The ids are looked up outside of the clock: `_Lookup` is iterated when recall is counted.
    return lambda question: _Lookup(ask(question), ids)


def _num_lists(raw: Any) -> int:  # noqa: ANN401
    """Return how many lists of a faiss index ours looks into for ten answers."""
    import faiss

    codes = faiss.downcast_index(raw.base_index)
    return faiss_scanner.lists_to_ask(raw.ntotal, codes.nlist, 10)


class _Lookup(Sequence[str]):
    """Places whose ids are looked up when they are asked for."""

    def __init__(self, places: np.ndarray, ids: np.ndarray) -> None:
        self._places, self._ids = places, ids

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: Any) -> Any:  # noqa: ANN401
        return f"{int(self._ids[self._places[number]]):016x}"


def _raw_exact(world: World, index: VectorIndex) -> Ask:
    """One product of numpy, in single precision, and the best ten."""
    vectors = np.load(world.folder / "vectors.npy", mmap_mode="r").astype(np.float32)
    ids = np.array([int(one, 16) for one in segment_ids(np.arange(len(vectors)))], dtype=np.uint64)

    def ask(question: np.ndarray) -> Sequence[str]:
        cosines = vectors @ question
        best = np.argpartition(cosines, len(cosines) - 10)[-10:]
        return _Lookup(best, ids)

    return ask


def _curve_lance(world: World, index: VectorIndex) -> Iterator[dict[str, Any]]:
    if ann.trained(world.store.snapshot().table, "text_vector") is None:
        return
    for cells in CURVE:
        yield {"looked_into": cells, **timed(world, _raw_lance(world, index, cells))}


def _curve_faiss(world: World, index: VectorIndex) -> Iterator[dict[str, Any]]:
    for lists in CURVE:
        yield {"looked_into": lists, **timed(world, _raw_faiss(world, index, lists))}


RAW = {"lance": _raw_lance, "faiss": _raw_faiss, "exact": _raw_exact}
CURVES = {"lance": _curve_lance, "faiss": _curve_faiss}
