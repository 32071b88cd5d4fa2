"""What the index already knows of a segment that is read once more, for its words.

segment ids -> Kept(text, its origin, vectors)
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmsearch.retriever.store.store import Snapshot, Store
from mmsearch.values import TextOrigin, View

if TYPE_CHECKING:
    from mmsearch.values import Vectors

_RENEW_AFTER_S = 300.0  # well within the time for which a version is kept (KEEP_VERSIONS)


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A segment as an earlier reading left it."""

    text: str
    text_origin: TextOrigin
    vectors: "dict[View, Vectors]"


class KeptSegments:
    """Asks a store, in one state of it as long as that is kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._snapshot: Snapshot | None = None
        self._taken_at = 0.0

    def of(self, ids: Sequence[str]) -> dict[str, Kept]:
        """Return what is known of these segments, by id."""
        now = time.monotonic()
        # What is asked for was committed before the first question, and a snapshot reads the
        # whole manifest: one does for many questions.
        if self._snapshot is None or now - self._taken_at > _RENEW_AFTER_S:
            self._snapshot, self._taken_at = self._store.snapshot(), now
        vectors = self._snapshot.vectors(ids)
        return {
            one.segment_id: Kept(one.text, one.text_origin, vectors.get(one.segment_id, {}))
            for one in self._snapshot.segments(ids)
        }
