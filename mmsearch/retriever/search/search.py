"""Search: a question's vectors and words into hits.

    Question -> one list a signal -> candidates -> fuse -> (group) -> Hit

Filters go down into the lists, so ``k`` hits are found however few segments fit them. The
lists are asked at once, each in a thread of its own; what makes a candidate is read for
all of them, and what a person gets to see for the hits alone.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from mmsearch.retriever.seams import Calibration, Neighbour, VectorIndex
from mmsearch.retriever.search.backends import Backends
from mmsearch.retriever.search.filters import excluding
from mmsearch.retriever.search.fusion import (
    UNCALIBRATED,
    Candidate,
    Fused,
    Place,
    Signal,
    confidence,
    fuse,
    word_confidence,
)
from mmsearch.retriever.search.grouping import best_of_alike, best_of_each
from mmsearch.retriever.search.question import Question
from mmsearch.retriever.store.known import Outline, Shown
from mmsearch.retriever.store.snapshot import Match
from mmsearch.retriever.store.store import Snapshot, Store
from mmsearch.retriever.store.words import Words, asked_words
from mmsearch.values import Hit, View

if TYPE_CHECKING:
    from mmsearch.values import Vectors

# How deep each list is asked: what one list has at rank 200 the others may have at 1. The
# same for every k in common use, so that asking for more hits does not change their scores.
MIN_DEPTH, DEPTH_PER_HIT = 200, 5
MOST_LISTS_AT_ONCE = 24  # of all questions that are being answered
_NOTHING = math.ulp(0.0)  # the least score that is one


class Searcher:
    """Answers questions over a store.

    calibration: how to read a cosine, by (side of the question, side of the segment)
    backends:    what looks for near vectors; the store's own tables otherwise
    """

    def __init__(
        self,
        store: Store,
        calibration: Mapping[tuple[View, View], Calibration],
        backends: Backends | None = None,
    ) -> None:
        self._store = store
        self._calibration = calibration
        self._backends = backends

    def search(
        self, question: Question, *, k: int, group: bool = False, collapse: bool = False
    ) -> list[Hit]:
        """Return at most ``k`` hits, best first, ties by segment id; none where none fit.

        With ``group``, only the best hit of each document; with ``collapse``, only the best
        of those that look alike (see `looks`). Raises ValueError for ``k < 1`` or a vector
        that cannot be compared, BadFilter.
        """
        if k < 1:
            raise ValueError(f"k counts from 1, got {k}")
        snapshot = self._store.snapshot()
        words = asked_words(question.words)
        depth = max(MIN_DEPTH, DEPTH_PER_HIT * k)
        while True:
            lists = self._lists(snapshot, question, words, depth)
            candidates = self._candidates(snapshot, question, lists)
            fused = fuse(candidates, asked=frozenset(lists), has_pixels=question.has_pixels)
            best = [one for one in fused if one.score >= max(question.min_score, _NOTHING)]
            if not group and not collapse:
                return _hits(snapshot, best[:k])
            placed = _placed(snapshot, best)
            if group:
                placed = best_of_each(placed)
            if collapse:
                segments = snapshot.segments([one.segment_id for one in placed])
                by_id = {segment.segment_id: segment for segment in segments}
                placed = best_of_alike(placed, by_id, k=k)
            # One long document may have filled every list by itself: then look deeper.
            exhausted = all(len(one.places) < depth for one in lists.values())
            if len(placed) >= k or exhausted:
                return _hits(snapshot, [one.fused for one in placed[:k]])
            depth *= 4

    def similar(self, segment_id: str, *, k: int) -> list[Hit]:
        """Return the segments most like this one, by its stored vectors; itself left out.

        Raises SegmentNotFound, and ValueError for ``k < 1``.
        """
        vectors = self._store.vectors(segment_id)
        return self.search(
            Question(
                visual=vectors.get(View.VISUAL),
                visual_side=View.VISUAL,
                text=vectors.get(View.TEXT),
                text_side=View.TEXT,
                exclude_segments=frozenset([segment_id]),
                has_pixels=View.VISUAL in vectors,
            ),
            k=k,
        )

    # ------------------------------------------------------------ inside

    def _lists(
        self, snapshot: Snapshot, question: Question, words: Words, depth: int
    ) -> "dict[Signal, _List]":
        """Return the lists that the question asks for."""
        where = excluding(
            question.where, paths=question.exclude_paths, segments=question.exclude_segments
        )
        near: VectorIndex = snapshot if self._backends is None else self._backends.of(snapshot)

        def by_vector(view: View, vector: "Vectors", side: View) -> _List:
            found = near.nearest(view, vector, k=depth, where=where)
            calibration = self._calibration_of(side, view)
            return _listed(snapshot, found, [confidence(c, calibration) for _, c in found])

        def by_words() -> _List:
            found = snapshot.matches(question.words, k=depth, where=where)
            held = words.held_by([one.text for one in found])
            best = max((one.score for one in found), default=0.0) or 1.0
            sure = [
                word_confidence(words.terms, some, one.score / best)
                for one, some in zip(found, held, strict=True)
            ]
            return _listed(snapshot, found, sure)

        asked: dict[Signal, Callable[[], _List]] = {}
        if words.terms:  # first, for it takes longest
            asked[Signal.WORDS] = by_words
        if question.visual is not None:
            asked[Signal.VISUAL] = partial(
                by_vector, View.VISUAL, question.visual, question.visual_side
            )
        if question.text is not None:
            asked[Signal.TEXT] = partial(by_vector, View.TEXT, question.text, question.text_side)
        # This thread would only wait: it makes the last of them, or all that are in memory.
        near_rows = [one for one in asked if one is not Signal.WORDS]
        here = near_rows[-1:] if near is snapshot else near_rows
        beside = {one: _threads().submit(ask) for one, ask in asked.items() if one not in here}
        made: dict[Signal, _List] = {one: asked[one]() for one in here}
        return {one: made[one] if one in made else beside[one].result() for one in asked}

    def _candidates(
        self, snapshot: Snapshot, question: Question, lists: "Mapping[Signal, _List]"
    ) -> list[Candidate]:
        places: dict[str, dict[Signal, Place]] = {}
        outlines: dict[str, Outline] = {}
        for signal, listed in lists.items():
            outlines.update(listed.outlines)
            for segment_id, place in listed.places.items():
                places.setdefault(segment_id, {})[signal] = place
        doubts = self._doubts(snapshot, question, list(outlines))
        return [
            Candidate(
                segment_id=segment_id,
                num_words=outline.num_words,
                has=_SIGNALS[outline.views],
                places=places[segment_id],
                doubt=doubts.get(segment_id, 0.0),
            )
            for segment_id, outline in sorted(outlines.items())
        ]

    def _doubts(
        self, snapshot: Snapshot, question: Question, ids: Sequence[str]
    ) -> dict[str, float]:
        """Return how sure each segment is to be what is not wanted: by its likest side."""
        if not question.negative:
            return {}
        return {
            segment_id: max(
                confidence(float(negative @ vector), self._calibration_of(View.TEXT, view))
                for negative in question.negative
                for view, vector in vectors.items()
            )
            for segment_id, vectors in snapshot.vectors(ids).items()
            if vectors
        }

    def _calibration_of(self, asked: View, kept: View) -> Calibration:
        return self._calibration.get((asked, kept), UNCALIBRATED)


class _List(NamedTuple):
    """What one list has: where, and what of these segments ranks them."""

    places: Mapping[str, Place]
    outlines: Mapping[str, Outline]


def _listed(
    snapshot: Snapshot, found: "Sequence[Neighbour | Match]", confidences: Sequence[float]
) -> _List:
    places = {
        one.segment_id: Place(rank, sure)
        for rank, (one, sure) in enumerate(zip(found, confidences, strict=True), start=1)
    }
    return _List(places, snapshot.outlines(list(places)))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Return threads that wait for the lists of questions; the work is done beside them."""
    return ThreadPoolExecutor(MOST_LISTS_AT_ONCE, thread_name_prefix="mmsearch-list")


# The lists that a segment can be in, by the views that it has.
_SIGNALS = {
    frozenset[View](): frozenset[Signal](),
    frozenset({View.VISUAL}): frozenset({Signal.VISUAL}),
    frozenset({View.TEXT}): frozenset({Signal.TEXT, Signal.WORDS}),
    frozenset({View.VISUAL, View.TEXT}): frozenset(Signal),
}


@dataclass(frozen=True, slots=True)
class _Placed:
    """A candidate on its way to be a hit, and its document."""

    fused: Fused
    path: str

    @property
    def segment_id(self) -> str:
        """Its id."""
        return self.fused.segment_id


def _placed(snapshot: Snapshot, fused: Sequence[Fused]) -> list[_Placed]:
    paths = snapshot.paths([one.segment_id for one in fused])
    return [_Placed(one, paths[one.segment_id]) for one in fused]


def _hits(snapshot: Snapshot, best: Sequence[Fused]) -> list[Hit]:
    shown = snapshot.shown([one.segment_id for one in best])
    return [_hit(rank, one, shown[one.segment_id]) for rank, one in enumerate(best, start=1)]


def _hit(rank: int, fused: Fused, segment: Shown) -> Hit:
    return Hit(
        rank=rank,
        score=fused.score,
        parts={str(signal): part for signal, part in fused.parts.items()},
        segment_id=fused.segment_id,
        path=segment.path,
        kind=segment.kind,
        locator=segment.locator,
        text=segment.text,
        about=segment.about,
    )
