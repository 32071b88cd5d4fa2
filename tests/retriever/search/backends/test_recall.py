"""What an index that looks at some rows finds of what there is, with and without filters.

Four thousand rows in sixty clusters, and every constant of a large index made small with
it: lists of about sixty rows, of which a fifth is looked into.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mmsearch.retriever.search.backends import faiss_scanner
from mmsearch.retriever.search.backends.faiss_scanner import FaissScanner
from mmsearch.retriever.search.backends.scanners import NumpyScanner, Scanner, TorchScanner

if TYPE_CHECKING:
    import faiss

    from mmsearch.values import Vectors

ROWS, DIM, CLUSTERS, K = 4_000, 64, 60, 10


@pytest.fixture(scope="module")
def clusters() -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    return np.random.default_rng(1).integers(0, CLUSTERS, ROWS)


@pytest.fixture(scope="module")
def vectors(clusters: "np.ndarray") -> "Vectors":
    """Float16 ``[ROWS, DIM]``, unit."""
    rng = np.random.default_rng(2)
    centres = rng.standard_normal((CLUSTERS, DIM))
    found = centres[clusters] + 0.6 * rng.standard_normal((ROWS, DIM))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture(scope="module")
def questions(vectors: "Vectors") -> "Vectors":
    """Float32 ``[40, DIM]``, near to rows of every cluster."""
    rng = np.random.default_rng(3)
    found = vectors[rng.choice(ROWS, 40)].astype(np.float32) + 0.05 * rng.standard_normal((40, DIM))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def index(vectors: "Vectors") -> "faiss.Index":
    """The same index as `train_index` makes of a store, with the same settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faiss_scanner, "FEWEST_LISTS", 64)
        return faiss_scanner.index_over(vectors)


@pytest.fixture
def scanner(
    index: "faiss.Index", vectors: "Vectors", monkeypatch: pytest.MonkeyPatch
) -> FaissScanner:
    monkeypatch.setattr(faiss_scanner, "MIN_LISTS", 13)
    monkeypatch.setattr(faiss_scanner, "MIN_SCANNED", 400)
    monkeypatch.setattr(faiss_scanner, "FAR_SCANNED", 800)
    return FaissScanner(index, per_length(vectors))


def per_length(vectors: "Vectors") -> "Vectors":
    return (1 / np.linalg.norm(vectors.astype(np.float32), axis=1)).astype(np.float32)


def recall(scanner: Scanner, vectors: "Vectors", questions: "Vectors", mask: "np.ndarray") -> float:
    """Recall@10 against every cosine, mean over the questions."""
    kept = vectors.astype(np.float64)
    kept /= np.linalg.norm(kept, axis=1, keepdims=True)
    among = None if mask.all() else scanner.among(mask)
    shares = []
    for question in questions:
        cosines = np.where(mask, kept @ question, -np.inf)
        true = np.argsort(-cosines)[: min(K, int(mask.sum()))]
        scores, places = scanner.best(question, K, among)
        assert mask[places].all(), "what does not fit is never found"
        assert scores == pytest.approx(cosines[places], abs=1e-5)
        best = places[np.argsort(-scores)][:K]
        shares.append(len(set(best.tolist()) & set(true.tolist())) / max(1, len(true)))
    return float(np.mean(shares))


def test_without_a_filter(scanner: FaissScanner, vectors: "Vectors", questions: "Vectors") -> None:
    assert recall(scanner, vectors, questions, np.ones(ROWS, dtype=bool)) >= 0.98


@pytest.mark.parametrize("share", [0.5, 0.25, 0.05, 0.005, 0.0005])
def test_with_a_filter_that_knows_nothing_of_the_vectors(
    scanner: FaissScanner, vectors: "Vectors", questions: "Vectors", share: float
) -> None:
    mask = np.random.default_rng(4).random(ROWS) < share
    mask[7] = True
    assert recall(scanner, vectors, questions, mask) >= 0.98


@pytest.mark.parametrize("share", [0.5, 0.25, 0.05])
def test_with_a_filter_that_leaves_whole_clusters_and_most_questions_outside(
    scanner: FaissScanner,
    vectors: "Vectors",
    questions: "Vectors",
    clusters: "np.ndarray",
    share: float,
) -> None:
    mask = clusters < share * CLUSTERS
    assert recall(scanner, vectors, questions, mask) >= 0.98


def on_a_gpu(index: "faiss.Index", vectors: "Vectors") -> Scanner:
    """The way of a GPU, with an index that stays where it is."""
    return FaissScanner(index, per_length(vectors), on_gpu=lambda flat: flat)


SCANNERS: dict[str, Callable[["faiss.Index", "Vectors"], Scanner]] = {
    "numpy": lambda _, vectors: NumpyScanner(vectors, per_length(vectors)),
    "torch": lambda _, vectors: TorchScanner(vectors, per_length(vectors), device="cpu"),
    "faiss on a GPU": on_a_gpu,
}


@pytest.mark.parametrize("make", SCANNERS.values(), ids=SCANNERS)
def test_what_looks_at_every_row_misses_none(
    make: Callable[["faiss.Index", "Vectors"], Scanner],
    index: "faiss.Index",
    vectors: "Vectors",
    questions: "Vectors",
) -> None:
    scanner = make(index, vectors)
    assert recall(scanner, vectors, questions, np.ones(ROWS, dtype=bool)) == 1.0
    rng = np.random.default_rng(5)
    for share in (0.9, 0.1, 0.002) if make is not on_a_gpu else ():
        assert recall(scanner, vectors, questions, rng.random(ROWS) < share) == 1.0


def test_numpy_by_blocks_of_half_precision(
    vectors: "Vectors", questions: "Vectors", monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with more rows than are kept in single precision."""
    monkeypatch.setattr("mmsearch.retriever.search.backends.scanners.SINGLE_BYTES", 1_000)
    monkeypatch.setattr("mmsearch.retriever.search.backends.scanners.BLOCK_ROWS", 300)
    scanner = NumpyScanner(vectors, per_length(vectors))
    for share in (1.1, 0.5, 0.01):
        mask = np.random.default_rng(6).random(ROWS) < share
        assert recall(scanner, vectors, questions, mask) == 1.0


def short_first(rng: np.random.Generator) -> "Vectors":
    """Float16 ``[2000, 64]``, unit; the first half holds nine tenths of the squared length."""
    found = rng.standard_normal((2_000, DIM)) * np.repeat([3.0, 1.0], DIM // 2)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize("share", [1.1, 0.5, 0.3, 0.01])
@pytest.mark.parametrize("k", [1, 10, 700])
def test_a_first_pass_over_short_vectors_misses_none(share: float, k: int) -> None:
    rng = np.random.default_rng(7)
    vectors = short_first(rng)
    # Answers that only the second half knows of.
    hidden = np.zeros((50, DIM), dtype=np.float16)
    hidden[:, DIM // 2 :] = short_first(rng)[:50, : DIM // 2]
    vectors = np.concatenate([vectors, hidden])
    vectors /= np.linalg.norm(vectors.astype(np.float32), axis=1, keepdims=True).astype(np.float16)
    scanner = NumpyScanner(vectors, per_length(vectors))
    assert scanner.tails is not None, "else it is one pass"
    mask = rng.random(len(vectors)) < share
    questions = np.concatenate([vectors[:10], vectors[-10:]]).astype(np.float32)
    kept = vectors.astype(np.float64)
    kept /= np.linalg.norm(kept, axis=1, keepdims=True)
    for question in questions / np.linalg.norm(questions, axis=1, keepdims=True):
        true = np.sort((kept @ question)[mask])[::-1][:k]
        cosines, places = scanner.best(question, k, None if share > 1 else scanner.among(mask))
        assert mask[places].all()
        assert np.sort(cosines)[::-1][: len(true)] == pytest.approx(true, abs=1e-5)


def test_vectors_in_no_order_get_no_first_pass(vectors: "Vectors") -> None:
    assert NumpyScanner(vectors, per_length(vectors)).tails is None


@pytest.mark.parametrize("k", [1, 100, 1_500, ROWS, 10 * ROWS])
def test_as_many_as_asked_for_are_found_if_there_are_so_many(
    scanner: FaissScanner, questions: "Vectors", k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the lists that are looked into hold fewer."""
    monkeypatch.setattr(faiss_scanner, "SCANNED_PER_HIT", 1)
    monkeypatch.setattr(faiss_scanner, "MIN_LISTS", 1)
    monkeypatch.setattr(faiss_scanner, "LISTS_SHARE", 0.0)
    _, places = scanner.best(questions[0], k)
    assert len(set(places.tolist())) == len(places) >= min(k, ROWS)
    half = np.arange(ROWS) % 2 == 0
    _, places = scanner.best(questions[0], k, scanner.among(half))
    assert len(set(places.tolist())) == len(places) >= min(k, ROWS // 2)
