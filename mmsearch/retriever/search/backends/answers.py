"""A VectorIndex over a copy of the vectors: the copy is asked, the index says what counts.

    nearest(view, vector, k, where) = best of (the copy, masked) and (what it lacks, scanned)

A filter that leaves most rows is checked on candidates; one that leaves few, or is asked
again and again, is turned into a mask once. Both belong to one snapshot, which never changes.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.errors import BadFilter
from mmsearch.retriever.seams import Neighbour
from mmsearch.retriever.search.backends.rows import (
    Rows,
    Standing,
    dim_of,
    found_by,
    id_list,
    id_text,
    num_new,
    read_rows,
    standing,
)
from mmsearch.retriever.search.backends.scanners import Among, NumpyScanner, Scanner
from mmsearch.retriever.store.rows import any_of

if TYPE_CHECKING:
    from mmsearch.retriever.search.backends.rows import Mask, Places
    from mmsearch.retriever.store.known import Outline
    from mmsearch.retriever.store.snapshot import Snapshot
    from mmsearch.values import Vectors, View

KEPT_FILTERS = 16
# A filter's mask takes reading the ids of all rows that fit. With few rows that is cheap;
# with many, candidates are checked instead, until the same filter has come often enough.
MASK_AT_ONCE_ROWS = 20_000
ASKS_PER_MASK_ROWS = 100_000
CHECKED_PER_HIT, MOST_CHECKED = 4, 1_000
DECIMALS = 6  # of a cosine: what differs by less is a tie
# More new rows than this share of the copy, and it is no help.
MOST_NEW_SHARE, MOST_NEW_ROWS, MOST_NEW_COMMITS = 0.25, 5_000, 20_000


@dataclass(frozen=True, eq=False)
class Copy:
    """The vectors of one view: whose they are, and what finds the nearest of them."""

    rows: Rows
    scanner: Scanner


class _Filter:
    """One filter over one snapshot: the rows of the copy and of the new ones that fit."""

    def __init__(self, copied: Among, new: Among | None) -> None:
        self.copied, self.new = copied, new


class Side:
    """One view of one snapshot: a copy, the rows that it lacks, and filters seen so far."""

    def __init__(self, snapshot: "Snapshot", view: "View", copy: Copy, stands: Standing) -> None:
        self.dim = dim_of(snapshot, view)
        self._snapshot = snapshot
        self._copy = copy
        self._counting = None if stands.counting is None else copy.scanner.among(stands.counting)
        self._new = _read_new(snapshot, view, stands.missing) if stands.missing else None
        self._filters: OrderedDict[str, _Filter] = OrderedDict()
        self._asked: dict[str, int] = {}
        self._lock = threading.Lock()

    def nearest(self, asked: "Vectors", k: int, where: str | None) -> list[Neighbour]:
        """Return the nearest to a unit vector; see `seams.VectorIndex`."""
        if where is None:
            return self._best(asked, k, self._counting, None)
        known = self._known(where)
        if known is None:
            found = self._by_candidates(asked, k, where)
            if found is not None:
                return found
            known = self._mask(where)
        return self._best(asked, k, known.copied, known.new)

    def _best(
        self, asked: "Vectors", k: int, among: Among | None, new: Among | None
    ) -> list[Neighbour]:
        cosines, places = self._copy.scanner.best(asked, k, among)
        ids = self._copy.rows.ids[places]
        if self._new is not None:
            more, new_places = self._new.scanner.best(asked, k, new)
            cosines = np.concatenate([cosines, more])
            ids = np.concatenate([ids, self._new.rows.ids[new_places]])
            places = np.concatenate([places, ~new_places])  # below zero: of the new rows
        scores = np.round(cosines.astype(np.float64), DECIMALS).clip(-1.0, 1.0)
        order = np.lexsort((ids, -scores))[:k]
        names = list(map(id_text, ids[order].tolist()))
        unknown = self._snapshot.unknown(names)
        if unknown:
            self._teach([names[at] for at in unknown], places[order[unknown]])
        return list(map(Neighbour, names, scores[order].tolist()))

    def _teach(self, names: list[str], places: "Places") -> None:
        """Tell the snapshot what ranks these segments, which it need not look up then."""
        outlines: dict[str, Outline] = {}
        for rows, here, at in (
            (self._copy.rows, places >= 0, places),
            (self._new and self._new.rows, places < 0, ~places),
        ):
            if isinstance(rows, Rows) and here.any():
                some = (names[number] for number in np.flatnonzero(here))
                outlines.update(zip(some, rows.outlines(at[here]), strict=True))
        self._snapshot.learn(outlines)

    # ------------------------------------------------------------ filters

    def _known(self, where: str) -> _Filter | None:
        with self._lock:
            if where in self._filters:
                self._filters.move_to_end(where)
            return self._filters.get(where)

    def _by_candidates(self, asked: "Vectors", k: int, where: str) -> list[Neighbour] | None:
        """Return the best that fit among the best of all; None where those are too few.

        Also None where a mask pays: with few rows, or for a filter that comes often.
        """
        num_rows = len(self._copy.rows)
        depth = CHECKED_PER_HIT * k
        with self._lock:
            times = self._asked[where] = self._asked.pop(where, 0) + 1
            if len(self._asked) > KEPT_FILTERS:
                del self._asked[next(iter(self._asked))]
        often = times > 1 + num_rows // ASKS_PER_MASK_ROWS
        if often or num_rows <= MASK_AT_ONCE_ROWS or depth > MOST_CHECKED:
            return None
        candidates = self._best(asked, depth, self._counting, None)
        listed = any_of("segment_id", (one.segment_id for one in candidates))
        try:
            ids, _ = found_by(self._snapshot, f"({where}) AND {listed}")
        except BadFilter:
            return None  # asked by itself it is refused in its own words
        fitting = set(id_list(ids))
        found = [one for one in candidates if one.segment_id in fitting][:k]
        return found if len(found) == k else None

    def _mask(self, where: str) -> _Filter:
        ids, commits = found_by(self._snapshot, where)
        found = _Filter(
            self._copy.scanner.among(_mask_of(self._copy.rows, ids, commits)),
            None if self._new is None
            else self._new.scanner.among(_mask_of(self._new.rows, ids, commits)),
        )  # fmt: skip
        with self._lock:
            self._filters[where] = found
            if len(self._filters) > KEPT_FILTERS:
                self._filters.popitem(last=False)
        return found


class CopiedIndex:
    """A VectorIndex that asks copies; a view without a copy that helps is asked of the tables.

    copy: gives the copy of a view, None where there is none
    """

    def __init__(self, snapshot: "Snapshot", copy: "Callable[[View], Copy | None]") -> None:
        self._snapshot = snapshot
        self._copy = copy
        self._sides: dict[View, Side | None] = {}
        self._lock = threading.Lock()

    def nearest(
        self, view: "View", vector: "Vectors", *, k: int, where: str | None = None
    ) -> list[Neighbour]:
        try:
            side = self._sides[view]
        except KeyError:
            side = self._open(view)
        if side is None:
            return self._snapshot.nearest(view, vector, k=k, where=where)
        if k < 1:
            raise ValueError(f"k counts from 1, got {k}")
        return side.nearest(_unit(vector, side.dim), k, where)

    def is_copied(self, view: "View") -> bool:
        """Say whether a view is answered from its copy."""
        with self._lock:
            known = view in self._sides
        return (self._sides[view] if known else self._open(view)) is not None

    def _open(self, view: "View") -> Side | None:
        with self._lock:
            if view not in self._sides:
                self._sides[view] = self._side(view)
            return self._sides[view]

    def _side(self, view: "View") -> Side | None:
        copy = self._copy(view)
        if copy is None:
            return None
        stands = standing(copy.rows, self._snapshot.live)
        if not helps(self._snapshot, view, copy.rows, stands):
            return None
        return Side(self._snapshot, view, copy, stands)


def helps(snapshot: "Snapshot", view: "View", rows: Rows, stands: Standing) -> bool:
    """Say whether so few rows are new that scanning them beside a copy is quick."""
    if len(stands.missing) > MOST_NEW_COMMITS:
        return False
    few = max(MOST_NEW_ROWS, MOST_NEW_SHARE * len(rows))
    return num_new(snapshot, view, rows, stands) <= few


def _read_new(snapshot: "Snapshot", view: "View", commits: frozenset[str]) -> Copy | None:
    dim = dim_of(snapshot, view)
    found: list[Vectors] = []

    def allocate(room: int) -> "Vectors":
        found.append(np.empty((room, dim), dtype=np.float16))
        return found[0]

    rows = read_rows(snapshot, view, allocate=allocate, commits=sorted(commits))
    if not len(rows):
        return None
    return Copy(rows, NumpyScanner(found[0][: len(rows)], rows.per_length))


def _mask_of(rows: Rows, ids: "np.ndarray", commits: object) -> "Mask":
    mask = np.zeros(len(rows), dtype=bool)
    places = rows.places(ids, commits)
    mask[places[places >= 0]] = True
    return mask


def _unit(vector: "Vectors", dim: int) -> "Vectors":
    asked = np.asarray(vector, dtype=np.float32)
    if asked.shape != (dim,):
        raise ValueError(f"a query vector is [{dim}], got {list(asked.shape)}")
    length = math.sqrt(float(asked @ asked))
    if not math.isfinite(length) or length == 0.0:
        raise ValueError("a query vector has NaN, infinity or no length")
    return asked / np.float32(length)
