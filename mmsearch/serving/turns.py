"""Whose media are decoded now.

Each request that brings a picture or a film, or looks at one, keeps a worker process busy, and
that may take gigabytes for a moment. So a few are let in, the others wait their turn, and beyond
so many waiting ones a request is told to come back.
"""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request

from mmsearch.errors import Abandoned, Busy
from mmsearch.serving.state import answer

Answer = TypeVar("Answer")

AT_ONCE = 2  # as many workers as an engine keeps between queries
MOST_WAITING = 32
_RETRY_S = 5.0


class Turns:
    """At most ``at_once`` are let in, and ``most_waiting`` wait; first come, first served."""

    def __init__(self, at_once: int = AT_ONCE, most_waiting: int = MOST_WAITING) -> None:
        self._free, self._most_waiting = asyncio.Semaphore(at_once), most_waiting
        self._num_waiting = 0

    async def take(self) -> None:
        """Wait for a turn. Raises Busy where too many wait already."""
        if self._free.locked() and self._num_waiting >= self._most_waiting:
            raise Busy(_RETRY_S)
        self._num_waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._num_waiting -= 1

    def end(self) -> None:
        """End a turn."""
        self._free.release()


async def answer_with_media(request: Request, work: Callable[[], Answer]) -> Answer:
    """Do as `state.answer` does, once it is this request's turn to have media decoded.

    The turn lasts until the work has ended, also where nobody waits for it any more.
    """
    turns = _turns_of(request)
    await turns.take()
    turn = _Turn(functools.partial(asyncio.get_running_loop().call_soon_threadsafe, turns.end))

    def in_turn() -> Answer:
        if not turn.begin():
            raise Abandoned
        try:
            return work()
        finally:
            turn.end()

    try:
        if await request.is_disconnected():
            raise Abandoned
        return await answer(request, in_turn)
    finally:
        turn.end_unless_begun()


def _turns_of(request: Request) -> Turns:
    """Return the turns of the server; it has some once a request asks for one."""
    state = request.app.state
    if not hasattr(state, "turns"):
        state.turns = Turns()
    turns: Turns = state.turns
    return turns


class _Turn:
    """One turn, which ends once: with its work, or with a request whose work never began."""

    def __init__(self, end: Callable[[], object]) -> None:
        self._end, self._lock = end, threading.Lock()
        self._has_begun = self._has_ended = False

    def begin(self) -> bool:
        """Say whether the work may begin: not where the turn has ended already."""
        with self._lock:
            self._has_begun = not self._has_ended
            return self._has_begun

    def end_unless_begun(self) -> None:
        with self._lock:
            if self._has_begun or self._has_ended:
                return
            self._has_ended = True
        self._end()

    def end(self) -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
            self._end()
