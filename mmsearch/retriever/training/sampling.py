"""Which rows a step trains on.

    Rows, batch, seed -> BatchPlan -> rows_of(step) [batch] -> share of each process

A batch holds rows of one data set, so that its negatives are of its kind; the batches of
every data set are spread evenly over an epoch, and in an epoch every row of weight 1 is seen
once. Rows with the same query or the same positive are dealt to different batches as far as
there are enough of them: inside one they would be negatives of themselves.

Everything is a function of (rows, batch, seed, step). A run that resumes at a step goes on
as the one that was stopped, and so does one on another number of processes.
"""

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from mmsearch.retriever.training.records import Rows

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers: TypeAlias = npt.NDArray[np.int64]

SWAPS = 8  # places that a row is offered before it is left beside its double
GIVEN_UP = 64  # rows in a row that found none: the rest would not either
KEPT = 4  # arrangements kept at once: of this epoch and the next


class BatchPlan:
    """Which rows each step reads.

    weight: an epoch draws each row of a data set so many times; 1.5 draws every row once and
            every second one again, and the next epoch the others

    A data set whose rows do not fill its last batch fills it with rows drawn again, of the
    same data set. ValueError without rows.
    """

    def __init__(self, rows: Rows, *, batch: int, seed: int) -> None:
        if not len(rows):
            raise ValueError("there is no row to plan batches of")
        if batch < 1:
            raise ValueError(f"a batch has at least 1 row, got {batch}")
        self.batch, self.seed = batch, seed % 2**64  # a generator takes no negative one
        self._sets: list[_DataSet] = []
        for number, weight in enumerate(rows.weights):
            members = np.flatnonzero(rows.dataset == number)
            if len(members):
                self._sets.append(_DataSet.of(number, members, rows.keys[members], weight, batch))
        self.steps_per_epoch = sum(one.batches for one in self._sets)
        self._schedule = lru_cache(maxsize=2)(self._spread)
        self._batches = lru_cache(maxsize=KEPT * len(self._sets))(self._deal)

    def rows_of(self, step: int) -> "Numbers":
        """Return the numbers of the ``batch`` rows of a step (from 0), all of one data set."""
        dataset, nth = self._place(step)
        batches: Numbers = self._batches(dataset, step // self.steps_per_epoch)
        return self._sets[dataset].members[batches[nth]]

    def spare(self, step: int, place: int, attempt: int) -> int:
        """Return the row that stands in for the one at ``place`` of a step's batch.

        It is of the same data set and not of the same batch, where the data set has others;
        each attempt draws another. So the rows of a step are the same whoever finds out first
        that one of them is bad.
        """
        dataset, _ = self._place(step)
        members = self._sets[dataset].members
        mine = self.rows_of(step)
        others = len(members) - len(np.unique(mine))
        # Each place walks through its own order of the data set, one row an attempt.
        order = _Walk(len(members), (self.seed, 3, step, place))
        if not others:
            return int(members[order[attempt % len(members)]])
        taken = set(mine.tolist())
        wanted, at = attempt % others, 0
        while True:
            row = int(members[order[at]])
            if row not in taken:
                if not wanted:
                    return row
                wanted -= 1
            at += 1

    def _place(self, step: int) -> tuple[int, int]:
        epoch, within = divmod(step, self.steps_per_epoch)
        dataset, nth = self._schedule(epoch)[within]
        return int(dataset), int(nth)

    def _spread(self, epoch: int) -> "Numbers":
        """Return ``[steps, 2]``: which data set, and which of its batches, each step is.

        Batch k of n stands at (k + shift) / n of the epoch, so none has a run of its own.
        """
        draw = np.random.default_rng((self.seed, 1, epoch))
        when, what = [], []
        for number, one in enumerate(self._sets):
            nth = np.arange(one.batches)
            when.append((nth + draw.random()) / one.batches)
            what.append(np.stack([np.full(one.batches, number), nth], axis=1))
        spread: Numbers = np.concatenate(what)[np.argsort(np.concatenate(when), kind="stable")]
        return spread

    def _deal(self, dataset: int, epoch: int) -> "Numbers":
        """Return ``[batches, batch]``, places in `members`, of one epoch of one data set."""
        one = self._sets[dataset]
        drawn = _drawn(one, epoch, self.seed)
        draw = np.random.default_rng((self.seed, 2, one.number, epoch))
        missing = one.batches * self.batch - len(drawn)
        # Again, but rarely twice: a data set larger than what is missing is drawn from once.
        again = [draw.permutation(one.size)[:missing] for _ in range(-(-missing // one.size))]
        drawn = np.concatenate([drawn, *again])[: one.batches * self.batch]
        # Rows of one key lie side by side and are dealt like cards, one to each batch.
        turn = draw.permutation(one.num_groups)[one.group[drawn]]
        drawn = drawn[np.lexsort((draw.random(len(drawn)), turn))]
        batches = drawn.reshape(self.batch, one.batches).T.copy()
        _part_doubles(batches, one, draw)
        batches = draw.permuted(batches, axis=1)
        return batches[draw.permutation(one.batches)]


def share(count: int, rank: int, size: int) -> slice:
    """Return the places of a batch of ``count`` that a process computes, in order of ranks.

    The processes' shares differ by one row at most and are the batch, one after the other.
    """
    if not 0 <= rank < size:
        raise ValueError(f"rank {rank} of {size}")
    return slice(rank * count // size, (rank + 1) * count // size)


class _DataSet(NamedTuple):
    """One data set: its rows, what must not meet in a batch, and how much of it is an epoch.

    dealt: side (0 query, 1 positive) whose keys recur more; ``group [n]`` numbers them
    drawn: rows of an epoch
    """

    number: int
    members: "Numbers"
    keys: "Numbers"
    dealt: int
    group: "Numbers"
    num_groups: int
    drawn: int
    batches: int

    @property
    def size(self) -> int:
        return len(self.members)

    @classmethod
    def of(
        cls, number: int, members: "Numbers", keys: "Numbers", weight: float, batch: int
    ) -> "_DataSet":
        kinds = [np.unique(keys[:, side], return_inverse=True) for side in (0, 1)]
        dealt = 0 if len(kinds[0][0]) < len(kinds[1][0]) else 1
        values, group = kinds[dealt]
        drawn = max(round(weight * len(members)), 1)
        batches = math.ceil(drawn / batch)
        return cls(number, members, keys, dealt, group, len(values), drawn, batches)


def _drawn(one: _DataSet, epoch: int, seed: int) -> "Numbers":
    """Return the places of the rows of an epoch: a piece of an endless row of shuffles."""
    start, end = epoch * one.drawn, (epoch + 1) * one.drawn
    pieces = []
    for shuffle in range(start // one.size, -(-end // one.size)):
        order = np.random.default_rng((seed, 0, one.number, shuffle)).permutation(one.size)
        begin = shuffle * one.size
        pieces.append(order[max(start - begin, 0) : end - begin])
    return np.concatenate(pieces)


def _part_doubles(batches: "Numbers", one: "_DataSet", draw: np.random.Generator) -> None:
    """Swap rows of ``batches [b, batch]`` in place until few share a batch with a double.

    Dealing has parted the rows of one key as far as there are batches. This looks after the
    key of the other side, and gives up where so many rows are alike that nothing helps.
    """
    keys, side = one.keys, 1 - one.dealt
    count, batch = batches.shape
    if count == 1:
        return
    held: dict[int, tuple[set[int], set[int]]] = {}

    def keys_of(number: int) -> tuple[set[int], set[int]]:
        if number not in held:
            mine = keys[batches[number]]
            held[number] = set(mine[:, 0].tolist()), set(mine[:, 1].tolist())
        return held[number]

    failed = 0
    for number, place in _doubles(keys[batches, side]):
        mine = keys[batches[number, place]].tolist()
        if (keys[batches[number], side] == mine[side]).sum() < 2:
            continue  # its double went elsewhere meanwhile
        failed += 1
        for _ in range(SWAPS):
            other, there = int(draw.integers(count)), int(draw.integers(batch))
            theirs = keys[batches[other, there]].tolist()
            if other == number or any(
                mine[i] in keys_of(other)[i] or theirs[i] in keys_of(number)[i] for i in (0, 1)
            ):
                continue
            swapped = batches[other, there]
            batches[other, there], batches[number, place] = batches[number, place], swapped
            held.pop(number, None)
            held.pop(other, None)
            failed = 0
            break
        if failed == GIVEN_UP:
            return


def _doubles(keys: "Numbers") -> list[tuple[int, int]]:
    """Return batch and place of every one of ``keys [b, batch]`` that its batch has before."""
    order = np.argsort(keys, axis=1, kind="stable")
    lined_up = np.take_along_axis(keys, order, axis=1)
    batch, after = np.nonzero(lined_up[:, 1:] == lined_up[:, :-1])
    return list(zip(batch.tolist(), order[batch, after + 1].tolist(), strict=True))


class _Walk:
    """A shuffle of ``range(count)`` by index, without ever being written down.

    A Feistel network of four rounds over the next power of four, walked until it falls into
    the range.
    """

    def __init__(self, count: int, seed: tuple[int, ...]) -> None:
        self._count = count
        self._bits = max((count - 1).bit_length() + 1, 2) // 2
        self._rounds = [int(key) for key in np.random.SeedSequence(seed).generate_state(4)]

    def __getitem__(self, index: int) -> int:
        mask = (1 << self._bits) - 1
        value = index % self._count
        while True:
            left, right = value >> self._bits, value & mask
            for key in self._rounds:
                mixed = (right * 0x9E3779B1 + key) & 0xFFFFFFFF
                mixed ^= mixed >> 15
                mixed = mixed * 0x85EBCA6B & 0xFFFFFFFF
                left, right = right, left ^ (mixed >> 13 & mask)
            value = left << self._bits | right
            if value < self._count:
                return value
