"""Calls of many threads, put together into few calls of the model.

    threads: embed([item]) ... -> waiting calls -> one batch of one role -> each its own rows

A call that comes alone is computed at once. What comes while a batch is computed makes up the
next one; and where the last batch had several calls, the next waits up to ``within_s`` for as
many again, because those who were just answered are about to ask anew. A long call is cut and
shares every batch with what else waits, so that a question does not wait for a whole index run.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mmsearch.errors import Abandoned, Busy
from mmsearch.retriever.embedding.giving_up import cancellation
from mmsearch.retriever.embedding.passing_on import PassingOn
from mmsearch.retriever.seams import Embedder
from mmsearch.values import Item, Role

if TYPE_CHECKING:
    from mmsearch.values import Vectors

_LEAST_TOKENS = 256  # of a batch, however slow the model: less only wastes calls
_NEWEST = 0.3  # how much the last batch counts in what is known of the speed


class Batch(NamedTuple):
    """What was computed together, for whoever counts."""

    num_calls: int
    num_items: int
    seconds: float


class SharedEmbedder(PassingOn):
    """See `mmsearch.retriever.seams.Embedder`; `embed` may be called from many threads.

    within_s:     how long a call may wait for others, where others come
    most_waiting: calls; beyond them `embed` raises Busy
    batch_s:      about how long a batch may take, so that what comes next is soon begun
    on_batch:     is told of every batch, in the thread that computes

    A call whose thread listens to a `Cancellation` is dropped when that is said, and raises
    Abandoned; what of it is being computed just then is thrown away. Where a batch fails, each
    of its calls is tried alone: one bad item harms no other request.
    """

    def __init__(
        self,
        embedder: Embedder,
        within_s: float = 0.005,
        most_waiting: int = 256,
        *,
        batch_s: float = 0.15,
        on_batch: Callable[[Batch], object] = lambda _: None,
    ) -> None:
        if most_waiting < 1:
            raise ValueError(f"at least one call has to be let in, got {most_waiting}")
        super().__init__(lambda: embedder)
        self._embedder = embedder
        self._within_s, self._most_waiting, self._batch_s = within_s, most_waiting, batch_s
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._waiting: list[_Call] = []  # in the order they came; all of them unfinished
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._last_role: Role | None = None
        self._last_calls = 0
        self._tokens_per_s = 0.0  # not known yet

    @property
    def num_waiting(self) -> int:
        """Calls that are not wholly begun."""
        return len(self._waiting)

    def wait_s(self) -> float:
        """Return in how many seconds what waits now will be done, about; 1 before it is known."""
        tokens = sum(call.tokens_left for call in list(self._waiting))
        return tokens / self._tokens_per_s if self._tokens_per_s else 1.0

    def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        """See the protocol; raises Busy and Abandoned too."""
        if not items:
            return np.empty((0, self.space.dim), dtype=np.float32)
        sizes = [max(self._embedder.num_tokens(item), 1) for item in items]
        call = _Call(items, sizes, Role(role), self.space.dim)
        with self._changed:
            if self._is_closed:
                raise Abandoned
            if len(self._waiting) >= self._most_waiting:
                raise Busy(self.wait_s(), what="the model")
            self._waiting.append(call)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="mmsearch-shared", daemon=True
                )
                self._thread.start()
            self._changed.notify()
        gone = cancellation()
        if gone is not None:
            gone.on_cancel(lambda: self._drop(call))
        call.ended.wait()
        if call.error is not None:
            raise call.error
        return call.vectors

    def close(self) -> None:
        """Compute nothing more: whoever waits is told Abandoned."""
        with self._changed:
            self._is_closed = True
            waiting, self._waiting = self._waiting, []
            self._changed.notify()
        for call in waiting:
            call.fail(Abandoned())
        if self._thread is not None:
            self._thread.join()

    def _drop(self, call: "_Call") -> None:
        with self._changed:
            if call in self._waiting:
                self._waiting.remove(call)
        call.fail(Abandoned())

    # ------------------------------------------------------------ in the thread that computes

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                self._gather()
                pieces = self._take()
            if pieces:  # else they all left meanwhile
                self._compute(pieces)

    def _gather(self) -> None:
        """Wait for as many calls as the last batch had, while the first can spare the time."""
        if self._last_calls < 2 or not self._waiting:
            return
        until = self._waiting[0].since + self._within_s
        while len(self._waiting) < self._last_calls and not self._is_closed:
            left = until - time.monotonic()
            if left <= 0 or not self._changed.wait(left):
                return

    def _take(self) -> "list[_Piece]":
        """Return what is computed next: calls of one role, each a fair share of the batch.

        Roles take turns where both wait. The shortest calls come first, and what they leave of
        their share goes to the longer ones; the oldest gets at least one item in any case.
        """
        if not self._waiting:
            return []
        roles = {call.role for call in self._waiting}
        role = self._waiting[0].role
        if len(roles) > 1 and role is self._last_role:
            [role] = roles - {role}
        self._last_role = role
        calls = [call for call in self._waiting if call.role is role]
        self._last_calls = len(calls)
        oldest = calls[0]
        kept = oldest.sizes[oldest.begun]
        room = self._room()
        pieces = []
        for place, call in enumerate(sorted(calls, key=lambda call: call.tokens_left)):
            if call is oldest:
                kept = 0
            elif room <= kept:
                continue
            piece = call.begin((room - kept) / (len(calls) - place))
            room -= piece.tokens
            pieces.append(piece)
        self._waiting = [call for call in self._waiting if call.tokens_left]
        return pieces

    def _room(self) -> int:
        """Return how many tokens the next batch may have."""
        most = max(self._embedder.call_tokens, 1)
        if not self._tokens_per_s:
            return min(_LEAST_TOKENS, most)
        return min(max(int(self._tokens_per_s * self._batch_s), _LEAST_TOKENS), most)

    def _compute(self, pieces: "list[_Piece]") -> None:
        began = time.monotonic()
        items = [item for piece in pieces for item in piece.items]
        try:
            vectors = self._embedder.embed(items, role=pieces[0].call.role)
        except Exception as error:  # of whatever kind: those who wait must be told
            if len(pieces) > 1:
                for piece in pieces:
                    self._compute([piece])
                return
            with self._changed:
                if pieces[0].call in self._waiting:
                    self._waiting.remove(pieces[0].call)
            pieces[0].call.fail(error)
            return
        seconds = max(time.monotonic() - began, 1e-6)
        rate = sum(piece.tokens for piece in pieces) / seconds
        known = self._tokens_per_s or rate
        self._tokens_per_s = known + _NEWEST * (rate - known)
        start = 0
        for piece in pieces:
            stop = start + len(piece.items)
            piece.call.take(piece.start, vectors[start:stop])
            start = stop
        self._on_batch(Batch(len(pieces), len(items), seconds))


class _Call:
    """A call of `embed`: what it asks, how much is begun, and how it ended."""

    def __init__(self, items: Sequence[Item], sizes: Sequence[int], role: Role, dim: int) -> None:
        self.items, self.sizes, self.role = items, sizes, role
        self.since = time.monotonic()
        self.begun = self._done = 0
        self.tokens_left = sum(sizes)
        self.vectors = np.empty((len(items), dim), dtype=np.float32)
        self.error: Exception | None = None
        self.ended = threading.Event()

    def begin(self, share: float) -> "_Piece":
        """Return the next items, at least one, within ``share`` tokens where that is more."""
        start = self.begun
        tokens = self.sizes[start]
        self.begun += 1
        while self.begun < len(self.items) and tokens + self.sizes[self.begun] <= share:
            tokens += self.sizes[self.begun]
            self.begun += 1
        self.tokens_left -= tokens
        return _Piece(self, start, self.items[start : self.begun], tokens)

    def take(self, start: int, vectors: "Vectors") -> None:
        """Keep rows that were computed; the last of them ends the call."""
        self.vectors[start : start + len(vectors)] = vectors
        self._done += len(vectors)
        if self._done == len(self.items):
            self.ended.set()

    def fail(self, error: Exception) -> None:
        """End the call, unless it has ended."""
        if not self.ended.is_set():
            self.error = error
            self.ended.set()


class _Piece(NamedTuple):
    """Items of one call that are computed in one batch."""

    call: _Call
    start: int
    items: Sequence[Item]
    tokens: int
