"""How three lists become one score that means the same for a page and a photograph.

    evidence = confidence * (K + 1) / (K + rank)             of one list, in [0, 1]
    score    = weighted mean of the evidence of the lists that apply to the segment

The confidence says how far a list is to be believed by itself: of a vector list, the
logistic calibration of the cosine; of the full text, the share of the question's words
that the segment holds. Plain reciprocal ranks would call the best of a hopeless list as
good as the best of a sure one, and a photograph could never stand before a page, because
a page is in three lists and a photograph in one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from mmsearch.retriever.seams import Calibration


class Signal(StrEnum):
    """The lists, and the names of the parts of a score."""

    VISUAL = "visual"
    TEXT = "text"
    WORDS = "words"


# Rank 1 counts whole, rank 10 0.87, rank 50 0.55: the constant of reciprocal-rank fusion
# with which the two text lists together beat either alone (figure captions to pages:
# R@1 84 against 81 and 81).
RANK_SMOOTHING = 60
# From this many words on, a segment's words say what it is. With the pixels at equal
# weight R@1 over charts falls from 78 to 60; at 0.1 to 0.2 it stays at 76.
ENOUGH_WORDS = 5
VISUAL_WEIGHT_BESIDE_WORDS = 0.15
# An embedder that was never calibrated: a cosine of a half is an even chance.
UNCALIBRATED = Calibration(midpoint=0.5, slope=10.0)


class Place(NamedTuple):
    """Where a list has a segment: its 1-based rank, and the confidence in [0, 1]."""

    rank: int
    confidence: float

    @property
    def evidence(self) -> float:
        """What that place is worth, in [0, 1]."""
        return self.confidence * (RANK_SMOOTHING + 1) / (RANK_SMOOTHING + self.rank)


class Candidate(NamedTuple):
    """A segment that at least one list has.

    has:    the lists it could be in: visual with pixels, text and words with words in it
    places: where the lists have it; one that could and does not counts as no evidence
    doubt:  the confidence in [0, 1] that it is what is not wanted
    """

    segment_id: str
    num_words: int
    has: frozenset[Signal]
    places: Mapping[Signal, Place]
    doubt: float = 0.0


class Fused(NamedTuple):
    """A segment's score in [0, 1], and what each list gave to it: the parts sum to it."""

    segment_id: str
    score: float
    parts: Mapping[Signal, float]


def fuse(
    candidates: Iterable[Candidate], *, asked: frozenset[Signal], has_pixels: bool
) -> list[Fused]:
    """Return the candidates with their scores, best first, ties by id.

    asked:      the lists that were made; the parts name all of them
    has_pixels: the question shows something, so pixels count as much as words everywhere
    """
    signals = sorted(asked)
    fused = [_score(candidate, asked, signals, has_pixels=has_pixels) for candidate in candidates]
    return sorted(fused, key=lambda one: (-one.score, one.segment_id))


def confidence(cosine: float, calibration: Calibration) -> float:
    """Return how far a cosine is to be believed, in [0, 1]; 0.5 at the midpoint."""
    return 0.5 * (1.0 + math.tanh(0.5 * calibration.slope * (cosine - calibration.midpoint)))


def word_share(asked: frozenset[str], held: frozenset[str]) -> float:
    """Return the share of the asked words that a segment holds; 0 where none is asked."""
    return len(asked & held) / len(asked) if asked else 0.0


def _score(
    candidate: Candidate, asked: frozenset[Signal], signals: Sequence[Signal], *, has_pixels: bool
) -> Fused:
    places = candidate.places
    few_words = candidate.num_words < ENOUGH_WORDS
    weights = _weights(candidate.has, asked, few_words=few_words, has_pixels=has_pixels)
    if not places.keys() <= weights.keys():
        weights = _helped(weights, {signal: place.evidence for signal, place in places.items()})
    total = sum(weights.values())
    believed = 1.0 - candidate.doubt
    parts = dict.fromkeys(signals, 0.0)
    for signal, weight in weights.items():
        if signal in places:
            parts[signal] = believed * weight * places[signal].evidence / total
    return Fused(candidate.segment_id, min(1.0, math.fsum(parts.values())), parts)


def _helped(
    weights: Mapping[Signal, float], evidence: Mapping[Signal, float]
) -> Mapping[Signal, float]:
    """Return the weights with those of lists that do not apply, but help.

    Such a list (a photograph found by its file name) never hurts: the strongest first, and
    only while one stands above the mean so far.
    """
    others = [signal for signal in evidence if signal not in weights]
    for signal in sorted(others, key=lambda s: (-evidence[s], s)):
        if not weights or evidence[signal] > _mean(evidence, weights):
            weights = {**weights, signal: 1.0}
    return weights


@lru_cache(maxsize=256)  # more than there are: the same few for all candidates
def _weights(
    has: frozenset[Signal], asked: frozenset[Signal], *, few_words: bool, has_pixels: bool
) -> Mapping[Signal, float]:
    """Return the weights of the lists that apply.

    Beside pixels, fewer than ENOUGH_WORDS do not make the word lists apply: the two words
    that a street sign gives must not sink the photograph that it stands in.
    """
    applying = asked & has
    if Signal.VISUAL not in applying:
        return dict.fromkeys(sorted(applying), 1.0)
    if few_words:
        return {Signal.VISUAL: 1.0}
    weights = dict.fromkeys(sorted(applying), 1.0)
    if not has_pixels and len(applying) > 1:
        weights[Signal.VISUAL] = VISUAL_WEIGHT_BESIDE_WORDS
    return weights


def _mean(evidence: Mapping[Signal, float], weights: Mapping[Signal, float]) -> float:
    total = sum(weights.values())
    return sum(weight * evidence.get(signal, 0.0) for signal, weight in weights.items()) / total
