"""An index filled with clustered vectors, and what it should answer.

Rows go through the store's own tables, some tens of thousands at a time, as a long run of
`mmsearch index` would leave them. A document is a hundred pages of the same cluster or of
its neighbours: a range of paths is a filter that knows the clusters. The page number is a
random one of 1..n: a filter that knows nothing.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from index_speed.vectors import CLUSTERS, clustered, nearest
from mmsearch.retriever.store.rows import documents_table, segments_schema
from mmsearch.retriever.store.store import Store
from mmsearch.retriever.store.tables import open_tables
from mmsearch.values import Document, Kind, Space, Status

PAGES = 100
BATCH = 50_000
QUESTIONS = 200
SHARES = (0.5, 0.05, 0.005, 0.0005)
VOCABULARY, WORDS = 20_000, 80
KINDS = (Kind.PDF, Kind.PDF, Kind.IMAGE, Kind.VIDEO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One index: its size, and whether it is for whole searches (two views, long texts)."""

    rows: int
    dim: int
    whole: bool = False

    @property
    def name(self) -> str:
        """As the report calls it."""
        return f"{self.rows:,} x {self.dim}" + (", hybrid" if self.whole else "")

    @property
    def folder(self) -> str:
        """Where it lies below the working folder."""
        return f"{self.rows}x{self.dim}" + ("-whole" if self.whole else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """An open index and what is known of it.

    questions: float32 ``[q, d]``, unit; truth: ``[q, 200]`` rows, best first
    """

    case: Case
    store: Store
    folder: Path
    questions: np.ndarray
    truth: np.ndarray


def segment_ids(places: np.ndarray) -> list[str]:
    """Return the ids of rows; spread over all numbers as those of files are."""
    numbers = places.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return [f"{number:016x}" for number in numbers.tolist()]


def filters(rows: int) -> dict[str, tuple[str, float, bool]]:
    """Return name -> (condition, share of the rows, whether it knows the clusters)."""
    found = {}
    for share in SHARES:
        percent = f"{100 * share:g} %"
        found[f"random {percent}"] = (f"page <= {round(rows * share)}", share, False)
        last = _path(max(1, round(rows * share / PAGES)))
        found[f"by cluster {percent}"] = (f"path < '{last}'", share, True)
    return found


def fitting(rows: int, name: str) -> np.ndarray:
    """Return the rows that a filter of `filters` leaves, ascending."""
    _, share, by_cluster = filters(rows)[name]
    if by_cluster:
        return np.arange(min(rows, max(1, round(rows * share / PAGES)) * PAGES))
    return np.sort(np.argsort(_pages(rows))[: round(rows * share)])


def make(case: Case, folder: Path) -> dict[str, float]:
    """Fill an index without any vector index; return the seconds it took."""
    folder.mkdir(parents=True)
    began = time.perf_counter()
    vectors, cluster = clustered(case.rows + QUESTIONS, case.dim)
    # Clusters lie in no order of their size, and a question may be of any.
    asked = np.random.default_rng(7).choice(len(vectors), QUESTIONS, replace=False)
    questions = vectors[asked].astype(np.float32)
    questions /= np.linalg.norm(questions, axis=1, keepdims=True)
    rest = np.delete(np.arange(len(vectors)), asked)
    place = np.random.default_rng(8).permutation(CLUSTERS)
    vectors = vectors[rest[np.argsort(place[cluster[rest]], kind="stable")]]
    generated = time.perf_counter()
    np.save(folder / "questions.npy", questions)
    np.save(folder / "vectors.npy", vectors)
    _fill(case, folder / "db", vectors)
    filled = time.perf_counter()
    depth = min(200, case.rows)
    np.save(folder / "truth.npy", nearest(vectors, questions, depth))
    for name in filters(case.rows):
        places = fitting(case.rows, name)
        true = nearest(vectors, questions[: QUESTIONS // 4], min(10, len(places)), places)
        np.save(folder / f"truth {name}.npy", true)
    return {
        "generated_s": generated - began,
        "filled_s": filled - generated,
        "exact_answers_s": time.perf_counter() - filled,
    }


def open_world(case: Case, folder: Path) -> World:
    """Open what `make` made."""
    return World(
        case=case,
        store=Store.open(folder / "db"),
        folder=folder,
        questions=np.load(folder / "questions.npy"),
        truth=np.load(folder / "truth.npy"),
    )


def text_of(rng: np.random.Generator, num: int, words: int) -> list[str]:
    """Return texts of a vocabulary in which the n-th word is as frequent as 1 / n."""
    share = 1 / np.arange(1, VOCABULARY + 1)
    drawn = rng.choice(VOCABULARY, (num, words), p=share / share.sum())
    known = np.array([_word(number) for number in range(VOCABULARY)])
    return [" ".join(row) for row in known[drawn]]


def _word(number: int) -> str:
    letters = "bcdfghklmnprstvz"
    word = ""
    while number or len(word) < 4:
        word += letters[number % 16] + "aeiou"[number % 5]
        number //= 16
    return word


def _path(document: int) -> str:
    return f"/corpus/{document // 1_000:04}/document-{document:08}.pdf"


def _pages(rows: int) -> np.ndarray:
    """Return a random number of 1..n for each row, none twice."""
    return np.random.default_rng(9).permutation(rows).astype(np.int32) + 1


def _fill(case: Case, folder: Path, vectors: np.ndarray) -> None:
    space = Space(
        model="clustered", weights_hash="0" * 16, reasoner="none", effort=0,
        dim=case.dim, prompt="", max_pixels=1, max_frames=1,
    )  # fmt: skip
    store = Store.create(folder, space)
    documents, segments = open_tables(store.home, case.dim)
    rng = np.random.default_rng(10)
    pages = _pages(case.rows)
    for start in range(0, case.rows, BATCH):
        some = np.arange(start, min(case.rows, start + BATCH))
        segments.add(_segments(case, some, pages[some], vectors, rng))
    manifest = [
        Document(
            path=_path(number),
            kind=KINDS[number % len(KINDS)],
            content_hash="ab" * 16,
            size=1,
            mtime_ns=0,
            status=Status.DONE,
            commit_id=_commit(number),
            num_segments=min(PAGES, case.rows - number * PAGES),
            error="",
        )
        for number in range(-(-case.rows // PAGES))
    ]
    documents.add(documents_table([(document, 0, "") for document in manifest]))


def _commit(document: int) -> str:
    return f"{document * 0x9E3779B97F4A7C15 % 2**128:032x}"


def _segments(
    case: Case,
    some: np.ndarray,
    pages: np.ndarray,
    vectors: np.ndarray,
    rng: np.random.Generator,
) -> pa.Table:
    num = len(some)
    of = (some // PAGES).tolist()
    texts = text_of(rng, num, WORDS if case.whole else 4)
    views = "text visual" if case.whole else "text"
    values = {
        "segment_id": segment_ids(some),
        "commit_id": [_commit(number) for number in of],
        "path": [_path(number) for number in of],
        "kind": [str(KINDS[number % len(KINDS)]) for number in of],
        "page": pages,
        "text": texts,
        "text_origin": ["layer"] * num,
        "about": [""] * num,
        "num_words": [WORDS if case.whole else 4] * num,
        "views": [views] * num,
        "modified": np.zeros(num, dtype=np.int64),
        "text_vector": _column(vectors[some]),
    }
    if case.whole:  # other vectors of the same law: the same numbers in another order
        values["visual_vector"] = _column(np.roll(vectors[some], case.dim // 3, axis=1))
    arrays = []
    schema = segments_schema(case.dim)
    for field in schema:
        value = values.get(field.name)
        if value is None:
            arrays.append(pa.nulls(num, field.type))
        else:
            arrays.append(value if isinstance(value, pa.Array) else pa.array(value, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _column(vectors: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(vectors).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
