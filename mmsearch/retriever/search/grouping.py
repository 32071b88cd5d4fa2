"""Hits by what they are of: the best of each document, the best of those that look alike."""

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from mmsearch.retriever.search.looks import Appearance, appearance
from mmsearch.retriever.store.store import StoredSegment


class _Placed(Protocol):
    @property
    def path(self) -> str: ...

    @property
    def segment_id(self) -> str: ...


Found = TypeVar("Found", bound=_Placed)


def best_of_each(hits: Iterable[Found]) -> list[Found]:
    """Return of each document the hit that comes first, in the order given."""
    best: dict[str, Found] = {}
    for hit in hits:
        best.setdefault(hit.path, hit)
    return list(best.values())


def best_of_alike(
    hits: Iterable[Found], segments: Mapping[str, StoredSegment], *, k: int
) -> list[Found]:
    """Return the first ``k`` hits that look like none before them, in the order given.

    What has no look, as text has none, is like nothing else.
    """
    best: list[Found] = []
    shown: list[Appearance] = []
    for hit in hits:
        seen = appearance(segments[hit.segment_id])
        if seen is not None:
            if any(one.is_alike(seen) for one in shown):
                continue
            shown.append(seen)
        best.append(hit)
        if len(best) == k:
            break
    return best
