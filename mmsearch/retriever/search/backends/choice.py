"""Which back-end answers: what was asked for, and what there is.

    Backend --choose--> Backends;  Backends.of(snapshot) --> VectorIndex

Copies outlive snapshots: one that was opened or read serves every later state that it
still helps with.
"""

import logging
import shlex
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.errors import MissingExtra, StoreError
from mmsearch.retriever.search.backends import faiss_files
from mmsearch.retriever.search.backends.answers import CopiedIndex, Copy, helps
from mmsearch.retriever.search.backends.faiss_scanner import load_faiss
from mmsearch.retriever.search.backends.rows import dim_of, read_rows, standing
from mmsearch.retriever.search.backends.scanners import NumpyScanner, Scanner, TorchScanner
from mmsearch.retriever.store.header import index_folder
from mmsearch.values import Backend, View

if TYPE_CHECKING:
    from mmsearch.retriever.seams import VectorIndex
    from mmsearch.retriever.store.snapshot import Snapshot
    from mmsearch.retriever.store.store import Store
    from mmsearch.values import Vectors

log = logging.getLogger(__name__)

MOST_RESIDENT = 50_000  # segments: some 200 MB of vectors of 384 dimensions, from two sides


def choose(wanted: Backend | str = Backend.AUTO, *, device: str = "auto") -> "Backends":
    """Return the back-end that is meant, for any index.

    device: where `Backend.EXACT` multiplies; "auto" is a GPU where torch finds one
    Raises MissingExtra where faiss is asked for by name and cannot be loaded.
    """
    wanted = Backend(wanted)
    if wanted is Backend.FAISS:
        load_faiss()
    if wanted is Backend.LANCE:
        return Backends()
    if wanted is Backend.EXACT:
        return ExactBackends(device)
    if wanted is Backend.RESIDENT:
        return ResidentBackends(device)
    return FaissBackends(by_name=wanted is Backend.FAISS)


def meant(wanted: Backend, snapshot: "Snapshot") -> Backend:
    """Return what answers for a snapshot: ``lance``, ``faiss`` or ``exact``."""
    if wanted is Backend.RESIDENT:
        wanted = Backend.EXACT if _is_small(snapshot) else Backend.AUTO
    if wanted is Backend.AUTO:
        return Backend.FAISS if faiss_files.exists(snapshot.home) else Backend.LANCE
    return wanted


def keep_fresh(store: "Store") -> bool:
    """Bring the accelerator of an index up to date, if it has one; say whether it changed.

    It is a cache: what keeps it from being renewed is logged and harms nothing.
    """
    if not faiss_files.exists(store.home):
        return False
    try:
        return faiss_files.refresh(store.snapshot(), store.home)
    except (MissingExtra, StoreError) as error:
        log.warning("the faiss file beside %s stays as it was: %s", store.path, error)
        return False


class Backends:
    """What answers for a snapshot: the tables themselves."""

    def of(self, snapshot: "Snapshot") -> "VectorIndex":
        """Return what answers which vectors of ``snapshot`` are nearest."""
        return snapshot


class _Copies(Backends, ABC):
    """Keeps the answers over the last snapshot, and copies for the next one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: tuple[Snapshot, object, CopiedIndex] | None = None

    def of(self, snapshot: "Snapshot") -> "VectorIndex":
        stamp = self._stamp(snapshot)
        last = self._last
        if last is None or last[0] is not snapshot or last[1] != stamp:
            with self._lock:
                self._last = last = (snapshot, stamp, self._index(snapshot))
        return last[2]

    def _stamp(self, snapshot: "Snapshot") -> object:
        """Return what changes when copies are to be opened anew."""
        return None

    @abstractmethod
    def _index(self, snapshot: "Snapshot") -> CopiedIndex:
        """Return what answers for a snapshot that is new."""


class FaissBackends(_Copies):
    """The files beside the tables; the tables where there are none, or they are too old.

    by_name: there have to be some, and faiss too
    """

    def __init__(self, *, by_name: bool) -> None:
        super().__init__()
        self._by_name = by_name
        self._opened: dict[tuple[Path, View], tuple[object, Copy | None]] = {}

    def of(self, snapshot: "Snapshot") -> "VectorIndex":
        if not faiss_files.exists(snapshot.home):
            if self._by_name:
                raise _none_beside(snapshot.home)
            return snapshot
        return super().of(snapshot)

    def _stamp(self, snapshot: "Snapshot") -> object:
        return [faiss_files.state(snapshot.home, view) for view in View]

    def _index(self, snapshot: "Snapshot") -> CopiedIndex:
        return CopiedIndex(snapshot, lambda view: self._copy(snapshot, view))

    def _copy(self, snapshot: "Snapshot", view: View) -> Copy | None:
        home = snapshot.home
        state = faiss_files.state(home, view)
        known = self._opened.get((home, view))
        if known is not None and known[0] == state:
            return known[1]
        copy = None
        try:
            opened = faiss_files.open_accelerator(home, view, dim_of(snapshot, view))
            if opened is not None:
                copy = Copy(opened.rows, opened.scanner())
        except MissingExtra:
            if self._by_name:
                raise
            log.warning("faiss cannot be loaded: its file beside the tables is not used")
        self._opened[home, view] = state, copy
        return copy


class ExactBackends(_Copies):
    """Every row, held in memory: with numpy, or with torch where a GPU is.

    device: "cpu", "cuda", "cuda:1", or "auto"
    make:   what looks at float16 ``[n, d]``, given 1 / lengths ``[n]``; by the device
    """

    def __init__(
        self,
        device: str = "auto",
        *,
        make: "Callable[[Vectors, Vectors], Scanner] | None" = None,
    ) -> None:
        super().__init__()
        self._make = make or _scanner_on(device)
        self._read: dict[tuple[Path, View], Copy] = {}

    def _index(self, snapshot: "Snapshot") -> CopiedIndex:
        return CopiedIndex(snapshot, lambda view: self._copy(snapshot, view))

    def _copy(self, snapshot: "Snapshot", view: View) -> Copy:
        key = snapshot.home, view
        known = self._read.get(key)
        if known is not None and self._still_helps(snapshot, view, known):
            return known
        self._read.pop(key, None)  # before the next is read: both might not fit
        dim = dim_of(snapshot, view)
        found: list[Vectors] = []

        def allocate(room: int) -> "Vectors":
            found.append(np.empty((room, dim), dtype=np.float16))
            return found[0]

        rows = read_rows(snapshot, view, allocate=allocate)
        copy = Copy(rows, self._make(found[0][: len(rows)], rows.per_length))
        self._read[key] = copy
        return copy

    @staticmethod
    def _still_helps(snapshot: "Snapshot", view: View, copy: Copy) -> bool:
        stands = standing(copy.rows, snapshot.live)
        is_dead = 2 * stands.num_dead > len(copy.rows)
        return not is_dead and helps(snapshot, view, copy.rows, stands)


class ResidentBackends(Backends):
    """Every row, held in memory, of an index that is small; of a larger one what ``auto`` is.

    device: as of `ExactBackends`
    """

    def __init__(self, device: str = "auto") -> None:
        self._device = device
        self._exact: ExactBackends | None = None
        self._other = FaissBackends(by_name=False)

    def of(self, snapshot: "Snapshot") -> "VectorIndex":
        if not _is_small(snapshot):
            self._exact = None  # the copies go: it has outgrown them
            return self._other.of(snapshot)
        exact = self._exact = self._exact or ExactBackends(self._device)
        return exact.of(snapshot)


def _is_small(snapshot: "Snapshot") -> bool:
    return snapshot.manifest.num_segments <= MOST_RESIDENT


def _scanner_on(device: str) -> "Callable[[Vectors, Vectors], Scanner]":
    if device != "cpu":
        import torch

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return NumpyScanner
    return lambda vectors, per_length: TorchScanner(vectors, per_length, device=device)


def _none_beside(home: Path) -> StoreError:
    folder = index_folder(home)
    error = StoreError(f"there is no faiss file beside the tables of {folder}")
    error.hint = f"mmsearch optimize --faiss --db {shlex.quote(str(folder))}"
    return error
