"""Hits by document: the best segment of each, best document first."""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class _Placed(Protocol):
    @property
    def path(self) -> str: ...


Found = TypeVar("Found", bound=_Placed)


def best_of_each(hits: Iterable[Found]) -> list[Found]:
    """Return of each document the hit that comes first, in the order given."""
    best: dict[str, Found] = {}
    for hit in hits:
        best.setdefault(hit.path, hit)
    return list(best.values())
