"""How one stage of a run hands on to the next: a queue with two bounds.

    put(what, num_bytes) ... end()   -->   take(), take(), ... until it is over

A stage that is ahead waits, so memory is set by the bounds and not by the corpus.
"""

import threading
import time
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """Nobody will take it any more: the run is ending."""


class Channel(Generic[T]):
    """A queue of at most ``most`` things and about ``most_bytes`` bytes, for two threads.

    One thing is always let in, however large it is.

    waited_s: seconds that whoever puts waited for room
    """

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._things: deque[tuple[T, int]] = deque()
        self._num_bytes = 0
        self._is_ended = self._is_stopped = False
        self._changed = threading.Condition()
        self.waited_s = 0.0

    def put(self, thing: T, num_bytes: int = 0) -> None:
        """Add a thing at the end; wait for room. Raises Stopped."""
        with self._changed:
            if self._is_full(num_bytes) and not self._is_stopped:
                began = time.perf_counter()
                self._changed.wait_for(lambda: self._is_stopped or not self._is_full(num_bytes))
                self.waited_s += time.perf_counter() - began
            if self._is_stopped:
                raise Stopped
            self._things.append((thing, num_bytes))
            self._num_bytes += num_bytes
            self._changed.notify_all()

    def take(self, timeout_s: float) -> T | None:
        """Return what was put first; None where nothing comes in time, or nothing will."""
        with self._changed:
            if not self._things and not self._is_ended:
                self._changed.wait_for(lambda: self._things or self._is_ended, timeout_s)
            if not self._things:
                return None
            thing, num_bytes = self._things.popleft()
            self._num_bytes -= num_bytes
            self._changed.notify_all()
            return thing

    def end(self) -> None:
        """Say that nothing more will be put."""
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Say that nothing more will be taken."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    @property
    def is_over(self) -> bool:
        """Whether everything was taken, and nothing more will be put."""
        with self._changed:
            return self._is_ended and not self._things

    def _is_full(self, num_bytes: int) -> bool:
        if not self._things:
            return False
        return len(self._things) >= self._most or self._num_bytes + num_bytes > self._most_bytes
