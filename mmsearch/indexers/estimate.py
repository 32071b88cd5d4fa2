"""What a run will take: pages, minutes and gigabytes, each with how sure that is.

    Plan --open some files--> segments by kind --rates of earlier runs--> Estimate

A few files are opened in the sandbox to count their pages, for a few seconds; the rest is
reckoned from their sizes. How long a page takes and how large it becomes is what earlier
runs on this index measured, else what was measured on another machine, which is said.
"""

import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mmsearch.indexers.plan import Plan, Reading
from mmsearch.indexers.rates import Rate
from mmsearch.indexers.sandbox import ReadTask, Sandbox
from mmsearch.values import Kind, ReadPolicy, Segment

BUDGET_S = 5.0
MOST_OPENED = 60  # files of one kind
_SURE = 2.0  # standard errors on either side: 95 of 100 such ranges hold the truth
_OF_ONE = 3.0  # by what factor the others may differ from the only one that was opened
_ELSEWHERE = 2.0  # likewise the speed of another machine
_SHOTS = 1.5  # likewise the clips of a film, of which only the length is known
_INDEXES = 2.0  # by what factor indexes, and files not merged yet, may add to what is stored
_SEED = 0

# ``rates.json`` of ``mmsearch index sample_corpus/files`` with the default model on two cores
# of a Xeon, 73 documents, by segment; other programs wanted the same cores.
SHIPPED: Mapping[Kind, Rate] = {
    Kind.PDF: Rate(
        segments=51,
        read_s=3.9,
        ocr_s=32.8,
        ocr_segments=3,
        embed_s=8.2,
        commit_s=0.8,
        bytes_stored=341_000,
    ),
    Kind.IMAGE: Rate(
        segments=48,
        read_s=3.2,
        ocr_s=157,
        ocr_segments=48,
        embed_s=4.3,
        commit_s=1.1,
        bytes_stored=280_000,
    ),
    Kind.VIDEO: Rate(
        segments=28,
        read_s=8.4,
        ocr_s=33.9,
        ocr_segments=28,
        embed_s=9.5,
        commit_s=0.4,
        bytes_stored=122_000,
    ),
    Kind.TEXT: Rate(segments=26, read_s=0.1, embed_s=1.3, commit_s=0.2, bytes_stored=47_000),
}


class Range(NamedTuple):
    """A guess, and between what the truth most likely lies."""

    low: float
    likely: float
    high: float

    def times(self, factor: float) -> "Range":
        """Return each of the three times ``factor``."""
        return Range(self.low * factor, self.likely * factor, self.high * factor)

    def plus(self, other: "Range") -> "Range":
        """Return the sums; the errors of two kinds of file have nothing to do with each other."""
        likely = self.likely + other.likely
        below = math.hypot(self.likely - self.low, other.likely - other.low)
        above = math.hypot(self.high - self.likely, other.high - other.likely)
        return Range(likely - below, likely, likely + above)

    def as_dict(self, digits: int) -> dict[str, float]:
        """Return it as JSON."""
        return {name: round(value, digits or None) for name, value in self._asdict().items()}


_NONE = Range(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run will do.

    documents: how many files will be read, by kind
    segments:  pages, pictures, clips and passages in them, all kinds together
    seconds:   wall time, the model's loading left out
    bytes:     what the index will grow by
    num_opened: files that were opened to count
    is_measured: whether all rates are those of earlier runs on this index
    """

    documents: Mapping[Kind, int]
    segments: Range
    seconds: Range
    bytes: Range
    num_opened: int
    is_measured: bool

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "documents": {str(kind): number for kind, number in self.documents.items()},
            "segments": self.segments.as_dict(0),
            "minutes": self.seconds.times(1 / 60).as_dict(4),
            "gigabytes": self.bytes.times(1e-9).as_dict(6),
            "opened": self.num_opened,
            "rates": "of earlier runs on this index" if self.is_measured else "of another machine",
        }


@dataclass(slots=True)
class _Counted:
    """The files of one kind: how many bytes each has, and how many segments some have."""

    sizes: list[int] = field(default_factory=list)
    opened: list[tuple[int, int]] = field(default_factory=list)  # bytes, segments


def estimate(
    plan: Plan,
    rates: Mapping[Kind, Rate],
    *,
    policy: ReadPolicy,
    num_workers: int,
    budget_s: float = BUDGET_S,
) -> Estimate:
    """Say what carrying the plan out will take.

    rates:    of earlier runs on this index, by kind; see `rates.read_rates`
    budget_s: after which no more files are opened to count
    """
    counted: dict[Kind, _Counted] = {}
    readings = [one for one in plan.read if one.kind is not None]
    for one in readings:
        if one.kind is not None:
            counted.setdefault(one.kind, _Counted()).sizes.append(one.source.size)
    for reading, number in _open_some(readings, policy, num_workers, budget_s):
        if reading.kind is not None:
            counted[reading.kind].opened.append((reading.source.size, number))
    segments = {kind: _total(one) for kind, one in counted.items()}
    if Kind.IMAGE in counted:  # one each, none of which was opened
        segments[Kind.IMAGE] = Range(*3 * (float(len(counted[Kind.IMAGE].sizes)),))
    if Kind.VIDEO in counted:
        low, likely, high = segments[Kind.VIDEO]
        segments[Kind.VIDEO] = Range(low / _SHOTS, likely, high * _SHOTS)
    again = _awaiting(plan) if policy.ocr else {}
    known = {kind: rates[kind] for kind in rates if rates[kind].segments}
    is_measured = all(kind in known for kind in segments) and all(
        not policy.ocr or rates[kind].ocr_segments or not SHIPPED[kind].ocr_segments
        for kind in segments
        if kind in known
    )
    seconds = _seconds(segments, again, known, policy, num_workers)
    stored = _NONE
    for kind, some in segments.items():
        rate = known.get(kind, SHIPPED[kind])
        stored = stored.plus(some.times(_per(rate.bytes_stored, rate.segments)))
    total = _NONE
    for some in segments.values():
        total = total.plus(some)
    if not is_measured:
        seconds = Range(seconds.low / _ELSEWHERE, seconds.likely, seconds.high * _ELSEWHERE)
    return Estimate(
        documents={kind: len(one.sizes) for kind, one in counted.items()},
        segments=total,
        seconds=seconds,
        bytes=Range(stored.low, stored.likely, stored.high * _INDEXES),
        num_opened=sum(len(one.opened) for one in counted.values()),
        is_measured=is_measured,
    )


def _open_some(
    readings: Sequence[Reading], policy: ReadPolicy, num_workers: int, budget_s: float
) -> Iterator[tuple[Reading, int]]:
    """Yield some files, chosen by chance, and how many segments they hold; failed ones: 0."""
    draw = random.Random(_SEED)
    chosen: list[Reading] = []
    for kind in (Kind.PDF, Kind.VIDEO, Kind.TEXT):  # a picture is one segment
        of_kind = [one for one in readings if one.kind is kind]
        chosen += draw.sample(of_kind, min(len(of_kind), MOST_OPENED))
    if not chosen:
        return
    draw.shuffle(chosen)
    until = time.monotonic() + budget_s
    by_path = {one.source.path: one for one in chosen}

    def tasks() -> Iterator[ReadTask]:
        for one in chosen:
            if time.monotonic() > until:
                return
            yield ReadTask(one.source.path, one.kind, policy, count=True)

    with Sandbox(min(num_workers, len(chosen))) as sandbox:
        for task, outcome in sandbox.read(tasks()):
            if isinstance(outcome, Segment):
                yield by_path[task.path], int(outcome.text)
            elif outcome is not None:
                yield by_path[task.path], 0
            if time.monotonic() > until:
                return


def _total(counted: _Counted) -> Range:
    """Return how many segments the files of a kind hold together.

    By segments a byte or by segments a file, whichever fits those that were opened better.
    """
    num_files, num_opened = len(counted.sizes), len(counted.opened)
    found = sum(number for _, number in counted.opened)
    if num_opened == num_files:
        return Range(found, found, found)
    others = num_files - num_opened
    if not num_opened:
        return Range(others, others * _OF_ONE, others * _OF_ONE**3)
    opened_bytes = sum(size for size, _ in counted.opened)
    other_bytes = sum(counted.sizes) - opened_bytes
    guesses = []
    for weights, of_others in (
        ([size for size, _ in counted.opened], other_bytes),
        ([1] * num_opened, others),
    ):
        rate = _per(found, sum(weights))
        errors = [
            number - rate * weight
            for (_, number), weight in zip(counted.opened, weights, strict=True)
        ]
        guesses.append((sum(error * error for error in errors), rate * of_others))
    spread, likely = min(guesses)
    if num_opened == 1:
        return Range(found + likely / _OF_ONE, found + likely, found + likely * _OF_ONE)
    # Of the mean of the others: that of those opened may be off, and they scatter themselves.
    error = math.sqrt(spread / (num_opened - 1) * (others + others * others / num_opened))
    return Range(
        found + max(0.0, likely - _SURE * error), found + likely, found + likely + _SURE * error
    )


def _awaiting(plan: Plan) -> dict[Kind, Range]:
    """Return how many segments of earlier runs are still to be read with OCR."""
    found: dict[Kind, Range] = {}
    for one in plan.awaiting:
        if one.kind is not None and one.known is not None:
            some = Range(*3 * (float(one.known.num_segments),))
            found[one.kind] = found.get(one.kind, _NONE).plus(some)
    return found


def _seconds(
    segments: Mapping[Kind, Range],
    again: Mapping[Kind, Range],
    known: Mapping[Kind, Rate],
    policy: ReadPolicy,
    num_workers: int,
) -> Range:
    """Return the wall time: reading, embedding and committing overlap, and OCR follows them.

    At best they overlap wholly and the slowest sets the pace; at worst they share the same
    cores and none overlaps.
    """
    read = embed = commit = ocr = _NONE
    for kind, some in segments.items():
        rate = known.get(kind, SHIPPED[kind])
        read = read.plus(some.times(_per(rate.read_s, rate.segments) / num_workers))
        embed = embed.plus(some.times(_per(rate.embed_s, rate.segments)))
        commit = commit.plus(some.times(_per(rate.commit_s, rate.segments)))
    for kind in {*segments, *again} if policy.ocr else ():
        rate = known[kind] if kind in known and known[kind].ocr_segments else SHIPPED[kind]
        page_s = _per(rate.ocr_s, rate.ocr_segments) / num_workers
        share = min(1.0, _per(rate.ocr_segments, rate.segments))
        ocr = ocr.plus(segments.get(kind, _NONE).times(share * page_s))
        ocr = ocr.plus(again.get(kind, _NONE).times(page_s))
    low = max(read.low, embed.low, commit.low) + ocr.low
    best = max(read.likely, embed.likely, commit.likely)
    worst = read.likely + embed.likely + commit.likely
    high = read.high + embed.high + commit.high + ocr.high
    return Range(low, (best + worst) / 2 + ocr.likely, high)


def _per(what: float, each: float) -> float:
    return what / each if each else 0.0
