"""Whether anybody still waits for what is being computed.

    whoever asks, in any thread: gone = Cancellation(); with heard_by(gone): work()
    whoever learns that the asker left: gone.cancel()
    work, deep below:                   cancellation() -> the same, or None

It travels beside the calls and not through them, so that the engine between the two need not
know of it. A thread begins without one; `contextvars.copy_context().run` takes it along.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Cancellation:
    """Said once, and for good; may be said and listened to from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], object]] = []
        self._is_cancelled = False

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self._is_cancelled

    def cancel(self) -> None:
        """Say that nobody waits any more; those who listen are told in this thread."""
        with self._lock:
            if self._is_cancelled:
                return
            self._is_cancelled = True
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def on_cancel(self, listener: Callable[[], object]) -> None:
        """Tell ``listener`` when it is said, at once where it was said already."""
        with self._lock:
            if not self._is_cancelled:
                self._listeners.append(listener)
                return
        listener()


_CURRENT: ContextVar[Cancellation | None] = ContextVar("mmsearch_cancellation", default=None)


def cancellation() -> Cancellation | None:
    """Return what the work of this thread is to listen to, if anything."""
    return _CURRENT.get()


@contextmanager
def heard_by(gone: Cancellation) -> Iterator[None]:
    """Let the work within listen to ``gone``."""
    token = _CURRENT.set(gone)
    try:
        yield
    finally:
        _CURRENT.reset(token)
