"""Whatever happens to an index, every back-end answers as exact arithmetic does."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some
from toy_store import SPACE, a_document, a_row, unit

from mmsearch.retriever.search import backends
from mmsearch.retriever.search.backends import faiss_files, faiss_scanner
from mmsearch.retriever.search.backends.choice import ExactBackends
from mmsearch.retriever.search.backends.scanners import NumpyScanner, TorchScanner
from mmsearch.retriever.store.store import Row, Store
from mmsearch.values import Locator, View

if TYPE_CHECKING:
    from mmsearch.values import Vectors

Step = tuple[str, int, int]  # what, a document, how many pages

STEPS = some.lists(
    some.tuples(
        some.sampled_from(["put", "put", "put", "remove", "build", "refresh", "tidy"]),
        some.integers(0, 4),
        some.integers(1, 12),
    ),
    min_size=1,
    max_size=6,
)
WHERE: list[tuple[str | None, Callable[[int, int], bool]]] = [
    (None, lambda document, page: True),
    ("page <= 3", lambda document, page: page <= 3),
    ("path = '/1.pdf' OR page = 9", lambda document, page: document == 1 or page == 9),
]


def rows(document: int, pages: int, version: int) -> list[Row]:
    rng = np.random.default_rng([document, version])
    found = []
    for page in range(1, pages + 1):
        vectors = {view: unit(*rng.standard_normal(4)) for view in View}
        if page % 4 == 0:
            del vectors[View.TEXT]
        found.append(a_row(f"/{document}.pdf", Locator(page=page), vectors=vectors))
    return found


@settings(max_examples=3)
@example([("put", 0, 9), ("put", 1, 5), ("build", 0, 1), ("put", 0, 4), ("remove", 1, 1)])
@example([("put", 0, 12), ("put", 1, 12), ("put", 2, 12), ("build", 0, 1), ("put", 3, 8),
          ("refresh", 0, 1), ("put", 2, 2)])  # fmt: skip
@given(STEPS)
def test_every_backend_answers_as_exact_arithmetic_does(steps: Sequence[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # Small enough that a few pages are many: lists, catching up, making anew.
        patch.setattr(faiss_scanner, "EXACT_ROWS", 20)
        patch.setattr(faiss_scanner, "FEWEST_LISTS", 4)
        patch.setattr(faiss_files, "CATCH_UP_ROWS", 3)
        store = Store.create(Path(folder) / "db", SPACE)
        chosen = {
            "faiss": backends.choose("auto"),
            "lance": backends.choose("lance"),
            "numpy": ExactBackends(make=NumpyScanner),
            "torch": ExactBackends(make=partial(TorchScanner, device="cpu")),
        }
        kept: dict[int, list[Row]] = {}
        for version, (what, document, pages) in enumerate(steps):
            take(store, kept, what, rows(document, pages, version), document)
            check("faiss", chosen["faiss"], store, kept)
        for backend, of in chosen.items():
            check(backend, of, store, kept)


def take(store: Store, kept: dict[int, list[Row]], what: str, new: list[Row], number: int) -> None:
    if what == "build":
        backends.build(store.snapshot(), store.home)
    elif what == "refresh":
        backends.keep_fresh(store)
    else:
        with store.writing() as writer:
            if what == "put":
                writer.commit(a_document(f"/{number}.pdf"), new)
                kept[number] = new
            elif what == "remove":
                writer.remove([f"/{number}.pdf"])
                kept.pop(number, None)
            else:
                writer.refresh()


def check(backend: str, of: backends.Backends, store: Store, kept: dict[int, list[Row]]) -> None:
    index = of.of(store.snapshot())
    asked = unit(0.3, -0.2, 0.9, 0.1)
    for view in View:
        for where, fits in WHERE:
            true = {
                row.segment_id: cosine(row.vectors[view], asked)
                for document, of_it in kept.items()
                for row in of_it
                if view in row.vectors and fits(document, row.locator.page or 0)
            }
            for k in (5, 100):
                found = index.nearest(view, asked, k=k, where=where)
                best = sorted(true.values(), reverse=True)[:k]
                assert len({one.segment_id for one in found}) == len(best), backend
                assert [true[one.segment_id] for one in found] == pytest.approx(best, abs=2e-3)
                assert [one.score for one in found] == pytest.approx(best, abs=2e-3), backend


def cosine(kept: "Vectors", asked: "Vectors") -> float:
    """By definition, of what is kept: in half precision."""
    kept = kept.astype(np.float16).astype(np.float64)
    return float(kept @ asked / np.linalg.norm(kept) / np.linalg.norm(asked))
