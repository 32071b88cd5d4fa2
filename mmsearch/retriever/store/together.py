"""One look for all who ask at once.

Whoever asks while a look is under way may have a reason to: what it is about to miss. So it
waits for the next look, and shares that one with all who came meanwhile; sixty-four who ask at
once cost two looks and not sixty-four, one after the other.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

Seen = TypeVar("Seen")


class Together(Generic[Seen]):
    """Calls ``look`` for many threads; every answer is of a look begun after it was asked for.

    turn: held while looking; nobody who holds it may ask
    """

    def __init__(self, look: Callable[[], Seen], turn: AbstractContextManager[object]) -> None:
        self._look, self._turn = look, turn
        self._lock = threading.Lock()
        self._next: Future[Seen] | None = None  # of the look that has not begun

    def ask(self) -> Seen:
        """Return what a look sees; raises what it raises."""
        with self._lock:
            seen, is_first = self._next, self._next is None
            if seen is None:
                seen = self._next = Future()
        if is_first:
            self._see(seen)
        return seen.result()

    def _see(self, seen: "Future[Seen]") -> None:
        try:
            with self._turn:
                self._begin(seen)
                looked = self._look()
        except BaseException as error:  # whoever waits must be told, also of an interrupt
            self._begin(seen)
            seen.set_exception(error)
        else:
            seen.set_result(looked)

    def _begin(self, seen: "Future[Seen]") -> None:
        """Share this look with nobody else: who comes later may have something newer to see."""
        with self._lock:
            if self._next is seen:
                self._next = None
