"""What was looked up of the rows of one version, which is true of it for good.

Every question looks at the words of some two hundred segments and shows ten of them; a server
is asked of the same ones again and again, and reading them costs more than ranking them.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mmsearch.values import Kind, Locator, View

MOST_ROWS = 20_000  # that are known: where they lie, and how they are ranked
MOST_CHARS = 1 << 24  # of the words that are kept, 16 to 64 MB of memory
_CHARS_EACH = 400  # that a segment without words counts as


class Outline(NamedTuple):
    """What of a segment decides how it is ranked; see `StoredSegment`."""

    num_words: int
    views: frozenset[View]


class Shown(NamedTuple):
    """What a person gets to see of a segment; see `StoredSegment`."""

    path: str
    kind: Kind
    locator: Locator
    text: str
    about: str

    @property
    def all_text(self) -> str:
        """All that can be found of it by words: what is in it, and what is said about it."""
        return f"{self.text}\n{self.about}"


class KnownRows:
    """Rows of one version by segment, a bounded number. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._row_ids: dict[str, int] = {}
        self._outlines: dict[str, Outline] = {}
        self._shown: dict[str, Shown] = {}
        self._num_chars = 0

    def names(self, ids: Sequence[str]) -> dict[int, str]:
        """Return, by where a row lies, which of these segments it is, of those that are known."""
        with self._lock:
            return {self._row_ids[one]: one for one in ids if one in self._row_ids}

    def outlines(self, ids: Sequence[str]) -> dict[str, Outline]:
        """Return the outlines of those of these segments that are known."""
        with self._lock:
            return {one: self._outlines[one] for one in ids if one in self._outlines}

    def shown(self, ids: Sequence[str]) -> dict[str, Shown]:
        """Return what there is to see of those of these segments that are kept."""
        with self._lock:
            return {one: self._shown[one] for one in ids if one in self._shown}

    def keep(self, found: Iterable[tuple[str, int, Outline]]) -> None:
        """Remember where rows lie, and their outlines."""
        with self._lock:
            self._make_room()
            for name, row_id, outline in found:
                self._row_ids[name], self._outlines[name] = row_id, outline

    def learn(self, outlines: Mapping[str, Outline]) -> None:
        """Remember outlines of rows that may lie anywhere."""
        with self._lock:
            self._make_room()
            self._outlines.update(outlines)

    def keep_shown(self, found: Mapping[str, Shown]) -> None:
        """Remember what there is to see."""
        with self._lock:
            if self._num_chars > MOST_CHARS:
                self._shown, self._num_chars = {}, 0
            for name, one in found.items():
                if name not in self._shown:
                    self._num_chars += len(one.text) + len(one.about) + _CHARS_EACH
                    self._shown[name] = one

    def _make_room(self) -> None:
        """Forget the older half of what is too much."""
        for known in (self._row_ids, self._outlines):
            if len(known) > MOST_ROWS:
                for name in list(known)[: MOST_ROWS // 2]:
                    del known[name]
