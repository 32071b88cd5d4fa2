"""Search: a question's vectors and words into hits.

    Question -> one list a signal -> candidates -> fuse -> (group) -> Hit

Filters go down into the lists, so ``k`` hits are found however few segments fit them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from mmsearch.retriever.seams import Calibration, Neighbour
from mmsearch.retriever.search.filters import excluding
from mmsearch.retriever.search.fusion import (
    UNCALIBRATED,
    Candidate,
    Fused,
    Place,
    Signal,
    confidence,
    fuse,
    word_share,
)
from mmsearch.retriever.search.grouping import best_of_alike, best_of_each
from mmsearch.retriever.search.question import Question
from mmsearch.retriever.store.store import Snapshot, Store, StoredSegment
from mmsearch.retriever.store.words import terms
from mmsearch.values import Hit, View

if TYPE_CHECKING:
    from mmsearch.retriever.search.backends import Backends

# How deep each list is asked: what one list has at rank 200 the others may have at 1. The
# same for every k in common use, so that asking for more hits does not change their scores.
MIN_DEPTH, DEPTH_PER_HIT = 200, 5


class Searcher:
    """Answers questions over a store.

    calibration: how to read a cosine, by (side of the question, side of the segment)
    backends:    what finds the nearest vectors; by default the store itself
    """

    def __init__(
        self,
        store: Store,
        calibration: Mapping[tuple[View, View], Calibration],
        backends: "Backends | None" = None,
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
        depth = max(MIN_DEPTH, DEPTH_PER_HIT * k)
        while True:
            lists = self._lists(snapshot, question, depth)
            ids = sorted({found.segment_id for found in chain(*lists.values())})
            segments = {segment.segment_id: segment for segment in snapshot.segments(ids)}
            candidates = self._candidates(snapshot, question, lists, segments)
            fused = fuse(candidates, asked=frozenset(lists), has_pixels=question.has_pixels)
            hits = _hits(fused, segments, question.min_score)
            if not group and not collapse:
                return _numbered(hits[:k])
            grouped = best_of_each(hits) if group else hits
            if collapse:
                grouped = best_of_alike(grouped, segments, k=k)
            # One long document may have filled every list by itself: then look deeper.
            exhausted = all(len(found) < depth for found in lists.values())
            if len(grouped) >= k or exhausted:
                return _numbered(grouped[:k])
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
        self, snapshot: Snapshot, question: Question, depth: int
    ) -> dict[Signal, list[Neighbour]]:
        """Return the lists that the question asks for."""
        where = excluding(
            question.where, paths=question.exclude_paths, segments=question.exclude_segments
        )
        index = self._backends.of(snapshot) if self._backends else snapshot
        lists = {}
        if question.visual is not None:
            lists[Signal.VISUAL] = index.nearest(View.VISUAL, question.visual, k=depth, where=where)
        if question.text is not None:
            lists[Signal.TEXT] = index.nearest(View.TEXT, question.text, k=depth, where=where)
        if terms(question.words):
            lists[Signal.WORDS] = snapshot.matching(question.words, k=depth, where=where)
        return lists

    def _candidates(
        self,
        snapshot: Snapshot,
        question: Question,
        lists: Mapping[Signal, Sequence[Neighbour]],
        segments: Mapping[str, StoredSegment],
    ) -> list[Candidate]:
        places: dict[str, dict[Signal, Place]] = {segment_id: {} for segment_id in segments}
        asked_words = frozenset(terms(question.words))
        for signal, found in lists.items():
            for rank, (segment_id, cosine) in enumerate(found, start=1):
                if signal is Signal.WORDS:
                    segment = segments[segment_id]
                    held = frozenset(terms(f"{segment.text}\n{segment.about}"))
                    sure = word_share(asked_words, held)
                elif signal is Signal.VISUAL:
                    sure = self._confidence(cosine, question.visual_side, View.VISUAL)
                else:
                    sure = self._confidence(cosine, question.text_side, View.TEXT)
                places[segment_id][signal] = Place(rank, sure)
        doubts = self._doubts(snapshot, question, list(segments))
        return [
            Candidate(
                segment_id=segment_id,
                num_words=segment.num_words,
                has=_signals(segment),
                places=places[segment_id],
                doubt=doubts.get(segment_id, 0.0),
            )
            for segment_id, segment in segments.items()
        ]

    def _doubts(
        self, snapshot: Snapshot, question: Question, ids: Sequence[str]
    ) -> dict[str, float]:
        """Return how sure each segment is to be what is not wanted: by its likest side."""
        if not question.negative:
            return {}
        return {
            segment_id: max(
                self._confidence(float(negative @ vector), View.TEXT, view)
                for negative in question.negative
                for view, vector in vectors.items()
            )
            for segment_id, vectors in snapshot.vectors(ids).items()
            if vectors
        }

    def _confidence(self, cosine: float, asked: View, kept: View) -> float:
        return confidence(cosine, self._calibration.get((asked, kept), UNCALIBRATED))


def _signals(segment: StoredSegment) -> frozenset[Signal]:
    """Return the lists that a segment can be in by what it holds."""
    signals = set()
    if View.VISUAL in segment.views:
        signals.add(Signal.VISUAL)
    if View.TEXT in segment.views:
        signals.update((Signal.TEXT, Signal.WORDS))
    return frozenset(signals)


def _hits(
    fused: Sequence[Fused], segments: Mapping[str, StoredSegment], min_score: float
) -> list[Hit]:
    return [
        Hit(
            rank=rank,
            score=one.score,
            parts={str(signal): part for signal, part in one.parts.items()},
            segment_id=one.segment_id,
            path=segments[one.segment_id].path,
            kind=segments[one.segment_id].kind,
            locator=segments[one.segment_id].locator,
            text=segments[one.segment_id].text,
            about=segments[one.segment_id].about,
        )
        for rank, one in enumerate(fused, start=1)
        if one.score >= min_score and one.score > 0.0
    ]


def _numbered(hits: Sequence[Hit]) -> list[Hit]:
    return [replace(hit, rank=rank) for rank, hit in enumerate(hits, start=1)]
