"""Which rows a copy of the vectors has, and how they stand to a state of the index.

    Snapshot --> read_rows --> Rows, and their vectors in memory of the caller's
    Rows x Snapshot --> standing --> the copied rows that still count, the commits that lack

A row of a commit never changes, so a copy is never wrong, only old: what no longer counts
is masked, and what is new is read apart.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.errors import StoreError
from mmsearch.retriever.store.known import Outline
from mmsearch.retriever.store.rows import VECTOR_COLUMN, any_of
from mmsearch.retriever.store.snapshot import FOUND_COLUMNS, VIEWS_SAID
from mmsearch.values import View

if TYPE_CHECKING:
    import pyarrow as pa

    from mmsearch.retriever.store.snapshot import Snapshot
    from mmsearch.values import Vectors

    Numbers = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]
    Places = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    Mask = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

BATCH = 500  # values of one IN (...)
ID_DIGITS = 16
# What segments can have, and the numbers that say it.
VIEWS = tuple(sorted(VIEWS_SAID))
_VIEW_SETS = tuple(VIEWS_SAID[said] for said in VIEWS)
_VIEW_NUMBERS = {said: number for number, said in enumerate(VIEWS)}
_DIGITS = np.full(256, 255, dtype=np.uint8)
_DIGITS[np.frombuffer(b"0123456789abcdef", dtype=np.uint8)] = np.arange(16)


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """The rows of one view in the order in which their vectors lie; n of them.

    ids:            ``[n]`` uint64, segment ids as numbers
    commit_numbers: ``[n]`` uint32, places in ``commits``
    per_length:     ``[n]`` float32, 1 / length of each vector as it is kept
    num_words:      ``[n]`` int32, of the segment
    views:          ``[n]`` uint8, those it has, as places in `VIEWS`
    commits:        every commit whose rows are here, those without a row of this view too
    """

    ids: "Numbers"
    commit_numbers: np.ndarray
    per_length: "Vectors"
    num_words: np.ndarray
    views: np.ndarray
    commits: "pa.Array"

    def __len__(self) -> int:
        return len(self.ids)

    def outlines(self, places: "Places") -> "list[Outline]":
        """Return what ranks the segments that lie there."""
        views = (_VIEW_SETS[number] for number in self.views[places].tolist())
        return list(map(Outline, self.num_words[places].tolist(), views))

    @cached_property
    def _order(self) -> "Places":
        return np.argsort(self.ids, kind="stable")

    @cached_property
    def _sorted_ids(self) -> "Numbers":
        return self.ids[self._order]

    def places(self, ids: "Numbers", commits: "pa.Array") -> "Places":
        """Return where the row of each (segment, commit) lies, -1 where it is not here."""
        import pyarrow.compute as pc

        numbers = pc.index_in(commits, value_set=self.commits).fill_null(-1)
        wanted = numbers.to_numpy(zero_copy_only=False).astype(np.int64)
        found = np.full(len(ids), -1, dtype=np.int64)
        at = np.searchsorted(self._sorted_ids, ids)
        open_ = np.flatnonzero(wanted >= 0)
        while len(open_):  # a second time only for a segment that is here in two versions
            inside = open_[at[open_] < len(self)]
            open_ = inside[self._sorted_ids[at[inside]] == ids[inside]]
            place = self._order[at[open_]]
            same = self.commit_numbers[place] == wanted[open_]
            found[open_[same]] = place[same]
            open_ = open_[~same]
            at[open_] += 1
        return found


@dataclass(frozen=True, eq=False)
class Standing:
    """How rows stand to a snapshot.

    counting: ``[n]``, the rows that count in it; None where all do
    num_dead: how many do not
    missing:  the commits that count in it and are not here
    """

    counting: "Mask | None"
    num_dead: int
    missing: frozenset[str]


def standing(rows: Rows, live: frozenset[str]) -> Standing:
    """Return how ``rows`` stand to a state in which the ``live`` commits count."""
    commits = rows.commits.to_pylist()
    missing = live.difference(commits)
    if len(live) - len(missing) == len(commits):
        return Standing(None, 0, missing)
    alive = np.fromiter((commit in live for commit in commits), dtype=bool, count=len(commits))
    counting = alive[rows.commit_numbers]
    num_dead = len(rows) - int(np.count_nonzero(counting))
    return Standing(counting if num_dead else None, num_dead, missing)


def num_new(snapshot: "Snapshot", view: View, rows: Rows, stands: Standing) -> int:
    """Return how many rows of a view count in ``snapshot`` and are not here, at most.

    The table has rows that count no more, such as those of a tag, and the manifest counts
    segments without the view, so neither is asked alone.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not stands.missing:
        return 0
    counts = snapshot.manifest.counts
    lacking = pc.is_in(counts["commit_id"], value_set=pa.array(stands.missing, pa.string()))
    of_all_views = pc.sum(counts["num_segments"].filter(lacking)).as_py() or 0
    in_table = snapshot.table.count(f"{VECTOR_COLUMN[view]} IS NOT NULL")
    return min(of_all_views, in_table - (len(rows) - stands.num_dead))


# ---------------------------------------------------------------- out of the tables


def dim_of(snapshot: "Snapshot", view: View) -> int:
    """Return how many numbers a vector has."""
    return snapshot.table.schema.field(VECTOR_COLUMN[view]).type.list_size


def read_rows(
    snapshot: "Snapshot",
    view: View,
    *,
    allocate: "Callable[[int], Vectors]",
    commits: Sequence[str] | None = None,
    on_rows: Callable[[int, int], object] | None = None,
) -> Rows:
    """Read the vectors of one view into memory of the caller's; return which rows they are.

    allocate: gives float16 ``[m, d]`` for at most ``m`` rows, of which the first n are filled
    commits:  only the rows of these; by default of every commit that counts
    on_rows:  called with (rows read, rows there may be)
    """
    import pyarrow as pa

    column = VECTOR_COLUMN[view]
    names = sorted(snapshot.live if commits is None else commits)
    known = {name: number for number, name in enumerate(names)}
    conditions = [f"{column} IS NOT NULL"]
    if commits is not None:
        parts = (names[start : start + BATCH] for start in range(0, len(names), BATCH))
        conditions = [f"{column} IS NOT NULL AND {any_of('commit_id', part)}" for part in parts]
    room = sum(snapshot.table.count(where) for where in conditions)
    vectors = allocate(room)
    ids = np.empty(room, dtype=np.uint64)
    commit_numbers = np.empty(room, dtype=np.uint32)
    per_length = np.empty(room, dtype=np.float32)
    num_words = np.empty(room, dtype=np.int32)
    views = np.empty(room, dtype=np.uint8)
    n = 0
    for where in conditions:
        for batch in snapshot.table.batches((*FOUND_COLUMNS, column), where):
            numbers = _numbers(batch.column("commit_id"), known)
            counts = numbers >= 0
            end = n + int(np.count_nonzero(counts))
            some = batch.column(column).flatten().to_numpy().reshape(len(batch), -1)[counts]
            vectors[n:end] = some
            ids[n:end] = id_numbers(batch.column("segment_id"))[counts]
            commit_numbers[n:end] = numbers[counts]
            lengths = np.linalg.norm(some.astype(np.float32), axis=1)
            per_length[n:end] = 1.0 / np.maximum(lengths, np.float32(1e-6))
            num_words[n:end] = batch.column("num_words").to_numpy(zero_copy_only=False)[counts]
            views[n:end] = _numbers(batch.column("views"), _VIEW_NUMBERS)[counts]
            n = end
            if on_rows:
                on_rows(n, room)
    return Rows(
        ids=ids[:n],
        commit_numbers=commit_numbers[:n],
        per_length=per_length[:n],
        num_words=num_words[:n],
        views=views[:n],
        commits=pa.array(names, pa.string()),
    )


def found_by(snapshot: "Snapshot", where: str) -> "tuple[Numbers, pa.Array]":
    """Return (segment, commit) of every row that counts and fits; raises BadFilter."""
    import pyarrow as pa

    found = snapshot.table.rows(("segment_id", "commit_id"), where)
    commits = found["commit_id"].combine_chunks()
    live = dict.fromkeys(snapshot.live, 0)
    counts = _numbers(commits, live) >= 0
    mask = pa.array(counts)
    return id_numbers(found["segment_id"].combine_chunks())[counts], commits.filter(mask)


def _numbers(values: "pa.Array", known: Mapping[str, int]) -> "Places":
    """Return the number of each value, -1 for one that is not known."""
    encoded = values.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    numbers = np.fromiter((known.get(name, -1) for name in names), dtype=np.int64, count=len(names))
    if not len(names):
        return numbers
    return numbers[encoded.indices.to_numpy()]


# ---------------------------------------------------------------- ids as numbers


def id_numbers(ids: "pa.Array") -> "Numbers":
    """Return segment ids, 16 hex digits each, as numbers in the same order."""
    import pyarrow as pa

    try:
        fixed = ids.cast(pa.binary()).cast(pa.binary(ID_DIGITS))
    except pa.ArrowInvalid as error:
        raise StoreError("segment ids that are not 16 digits: only lance can answer") from error
    buffer = fixed.buffers()[1]
    if not len(fixed) or buffer is None:
        return np.empty(0, dtype=np.uint64)
    letters = np.frombuffer(buffer, dtype=np.uint8)[fixed.offset * ID_DIGITS :]
    digits = _DIGITS[letters[: len(fixed) * ID_DIGITS].reshape(-1, ID_DIGITS)]
    if digits.max(initial=0) > 15:
        raise StoreError("segment ids that are not hex digits: only lance can answer")
    pairs = digits[:, 0::2] << 4 | digits[:, 1::2]  # [n, 8] bytes, the highest first
    return np.ascontiguousarray(pairs).view(">u8").ravel().astype(np.uint64)


def id_text(number: int) -> str:
    """Return a segment id of its number."""
    return f"{number:016x}"


def id_list(numbers: "Numbers") -> Iterator[str]:
    """Give the segment ids of numbers."""
    return map(id_text, numbers.tolist())
