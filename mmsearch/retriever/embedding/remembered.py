"""Vectors that were computed before, by what they were computed from.

    item -> hash of space, role and content -> vector, or the model -> vector

The least recently used is forgotten first. What counts is the content: the words, the pixels
and their order; a picture sent twice under two names is computed once.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.retriever.embedding.passing_on import PassingOn
from mmsearch.retriever.seams import Embedder
from mmsearch.values import Frames, Image, Item, Role, Text

if TYPE_CHECKING:
    from mmsearch.values import Vectors

_ENTRY_BYTES = 300  # of the key, the row and the table, beside the numbers


class RememberingEmbedder(PassingOn):
    """See `mmsearch.retriever.seams.Embedder`; several threads may call it at once.

    max_bytes: of memory that is kept; 0 remembers nothing
    """

    def __init__(self, embedder: Embedder, max_bytes: int) -> None:
        super().__init__(lambda: embedder)
        self._embedder = embedder
        self._max_rows = max_bytes // (embedder.space.dim * 4 + _ENTRY_BYTES)
        self._rows: OrderedDict[bytes, Vectors] = OrderedDict()
        self._lock = threading.Lock()
        self._num_hits = self._num_misses = 0

    @property
    def num_hits(self) -> int:
        """Items that were remembered."""
        return self._num_hits

    @property
    def num_misses(self) -> int:
        """Items that were not."""
        return self._num_misses

    def __len__(self) -> int:
        return len(self._rows)

    def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        role = Role(role)
        keys = [self._key(item, role) for item in items]
        vectors = np.empty((len(items), self.space.dim), dtype=np.float32)
        asked: dict[bytes, int] = {}  # of those not known, where each stands first
        with self._lock:
            for place, key in enumerate(keys):
                row = self._rows.get(key)
                if row is None:
                    asked.setdefault(key, place)
                else:
                    self._rows.move_to_end(key)
                    vectors[place] = row
            self._num_hits += len(items) - len(asked)
            self._num_misses += len(asked)
        if asked:
            computed = self._embedder.embed([items[place] for place in asked.values()], role=role)
            new = dict(zip(asked, computed, strict=True))
            for place, key in enumerate(keys):
                if key in new:
                    vectors[place] = new[key]
            self._keep(new)
        return vectors

    def _keep(self, new: "Mapping[bytes, Vectors]") -> None:
        with self._lock:
            for key, row in new.items():
                self._rows[key] = row.copy()  # a view would keep its whole batch
                self._rows.move_to_end(key)
            while len(self._rows) > self._max_rows:
                self._rows.popitem(last=False)

    def _key(self, item: Item, role: Role) -> bytes:
        """Return what names a vector: every length is in it, so that no two run together."""
        made = hashlib.blake2b(f"{self.space.id} {role}".encode(), digest_size=24)
        for part in item.parts:
            match part:
                case Text(text):
                    content = text.encode("utf-8", "surrogatepass")
                    made.update(f" text {len(content)} ".encode())
                    made.update(content)
                case Image(pixels) | Frames(pixels):
                    made.update(f" pixels {pixels.shape} ".encode())
                    made.update(np.ascontiguousarray(pixels).data)
        return made.digest()
