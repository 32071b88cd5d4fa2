"""How three lists become one score that means the same for a page and a photograph.

    evidence = confidence * (K + 1) / (K + rank)             of one list, in [0, 1]
    score    = mean of the evidence of the lists that apply to the segment

The confidence says how far a list is to be believed by itself: of a vector list, the
logistic calibration of the cosine; of the full text, see `word_confidence`. Plain
reciprocal ranks would call the best of a hopeless list as good as the best of a sure one,
and a photograph could hardly stand before a page, because a page is in three lists and a
photograph in one. Beside words, pixels confirm and take nothing away: of what is missing
to certainty, they add their share. ``benchmarks/heldout_search.py`` has the figures.
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
# R@1 76 against 70 and 70).
RANK_SMOOTHING = 60
# From this many words on, a segment's words say what it is.
ENOUGH_WORDS = 5
# How much of what is missing to certainty pixels may add beside words. With more, questions
# with descriptions still gain, and pages that are asked with a page lose.
PIXELS_CONFIRM = 0.3
# Up to so many different words a question is a few; from so many on it is a description.
FEW_ASKED, MANY_ASKED = 4, 16
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


def word_confidence(asked: frozenset[str], held: frozenset[str], closeness: float) -> float:
    """Return how far a place in the full text is to be believed, in [0, 1].

    It is the share of the asked words that the segment holds. Of a few words that is all
    there is to say; a long question holds more than any answer to it, and the first of its
    list are forgiven for that: up to the square root of their share.

    closeness: the BM25 score of the segment by that of the best in the list, in [0, 1]
    """
    if not asked:
        return 0.0
    share = len(asked & held) / len(asked)
    length = min(1.0, max(0.0, (len(asked) - FEW_ASKED) / (MANY_ASKED - FEW_ASKED)))
    return float(share ** (1.0 - 0.5 * length * closeness))


def _score(
    candidate: Candidate, asked: frozenset[Signal], signals: Sequence[Signal], *, has_pixels: bool
) -> Fused:
    counting, confirms = _applying(
        candidate.has, asked, few_words=candidate.num_words < ENOUGH_WORDS, has_pixels=has_pixels
    )
    evidence = {signal: place.evidence for signal, place in candidate.places.items()}
    confirming = evidence.pop(Signal.VISUAL, 0.0) if confirms else 0.0
    if not evidence.keys() <= counting:
        counting = _helped(counting, evidence)
    parts = dict.fromkeys(signals, 0.0)
    for signal, found in evidence.items():
        if signal in counting:
            parts[signal] = found / len(counting)
    if confirming:
        parts[Signal.VISUAL] = PIXELS_CONFIRM * confirming * (1.0 - sum(parts.values()))
    if candidate.doubt:
        parts = {signal: (1.0 - candidate.doubt) * part for signal, part in parts.items()}
    return Fused(candidate.segment_id, min(1.0, math.fsum(parts.values())), parts)


def _helped(counting: frozenset[Signal], evidence: Mapping[Signal, float]) -> frozenset[Signal]:
    """Return the lists that count with those that do not apply, but help.

    Such a list (a photograph found by its file name) never hurts: the strongest first, and
    only while one stands above the mean so far.
    """
    others = [signal for signal in evidence if signal not in counting]
    for signal in sorted(others, key=lambda s: (-evidence[s], s)):
        if not counting or evidence[signal] > _mean(evidence, counting):
            counting |= {signal}
    return counting


@lru_cache(maxsize=256)  # more than there are: the same few for all candidates
def _applying(
    has: frozenset[Signal], asked: frozenset[Signal], *, few_words: bool, has_pixels: bool
) -> tuple[frozenset[Signal], bool]:
    """Return the lists whose evidence counts, and whether pixels confirm what these say.

    Beside pixels, fewer than ENOUGH_WORDS do not make the word lists apply: the two words
    that a street sign gives must not sink the photograph that it stands in.
    """
    applying = asked & has
    pixels = applying & {Signal.VISUAL}
    if pixels and few_words:
        return pixels, False
    if pixels and applying != pixels and not has_pixels:
        return applying - pixels, True
    return applying, False


def _mean(evidence: Mapping[Signal, float], counting: frozenset[Signal]) -> float:
    return math.fsum(evidence.get(signal, 0.0) for signal in counting) / len(counting)
