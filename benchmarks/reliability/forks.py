"""Functions run in processes of their own, which may be killed at any moment.

    outcome = Fork(function, argument).result()

The process that forks never opens an index, so no thread of the native library is alive
in it, and each child begins as a fresh program does, without its seconds of importing.
"""

import contextlib
import gc
import os
import pickle
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

LONGEST_S = 600.0


def preload() -> None:
    """Import here what every child would import for itself, a second each."""
    import lancedb.index
    import lancedb.query
    import lancedb.table
    import numpy as np
    import PIL.Image
    import pyarrow as pa
    import pymupdf  # noqa: F401

    np.random.default_rng(0)
    pa.schema([pa.field("warm", pa.float16())])
    PIL.Image.init()
    lancedb.index.FTS()


class ChildFailed(Exception):
    """A child raised, or hung; its traceback is the message."""


class Fork:
    """A child that calls ``function(*arguments)``; it leads a session of its own."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self._read, theirs = os.pipe()
        self._told, tell = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lancedb's thread is asleep in the parent
            self.pid = os.fork()
        if self.pid == 0:
            _be_child(function, arguments, theirs, tell)
        os.close(theirs)
        os.close(tell)
        self._status: int | None = None

    def wait_for_word(self, timeout_s: float = LONGEST_S) -> bool:
        """Wait until the child calls `say_when`; False where it ended without."""
        readable, _, _ = select.select([self._told], [], [], timeout_s)
        return bool(readable) and bool(os.read(self._told, 1))

    def kill(self) -> None:
        """``kill -9``."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def outcome(self, timeout_s: float = LONGEST_S) -> tuple[bool, Any]:
        """Wait for its end; return whether it lived to its end, and what it returned.

        Raises ChildFailed for what it raised, or where it hung.
        """
        parts = []
        until = time.monotonic() + timeout_s
        while True:
            left = until - time.monotonic()
            readable, _, _ = select.select([self._read], [], [], max(left, 0.0))
            if not readable:
                self.kill()
                os.waitpid(self.pid, 0)
                self._close()
                raise ChildFailed(f"it did not end within {timeout_s:g} s")
            part = os.read(self._read, 1 << 16)
            if not part:
                break
            parts.append(part)
        _, status = os.waitpid(self.pid, 0)
        self._close()
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return False, None
        if status != 0 or not parts:
            raise ChildFailed(f"it ended with status {os.waitstatus_to_exitcode(status)}")
        worked, value = pickle.loads(b"".join(parts))
        if not worked:
            raise ChildFailed(value)
        return True, value

    def result(self, timeout_s: float = LONGEST_S) -> Any:  # noqa: ANN401
        """Return what it returned; raises ChildFailed also where it was killed."""
        lived, value = self.outcome(timeout_s)
        if not lived:
            raise ChildFailed("it was killed")
        return value

    def _close(self) -> None:
        os.close(self._read)
        os.close(self._told)


_tell = -1


def say_when() -> None:
    """In a child: tell the parent that the moment has come."""
    os.write(_tell, b"!")


def _be_child(
    function: Callable[..., Any], arguments: tuple[object, ...], write: int, tell: int
) -> None:
    global _tell
    _tell = tell
    try:
        os.setsid()
        gc.freeze()
        try:
            content = pickle.dumps((True, function(*arguments)))
        except BaseException:
            content = pickle.dumps((False, traceback.format_exc(limit=-12)))
        sys.stdout.flush()
        with os.fdopen(write, "wb") as file:
            file.write(content)
    finally:
        os._exit(0)


def session_members(session: int) -> list[int]:
    """Return the living processes of a session: what a child has left behind."""
    members = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] not in "ZX":
                    members.append(int(name))
    return members


def wait_until_alone(session: int, timeout_s: float = 20.0) -> list[int]:
    """Wait until a session has no process left; return those that stayed."""
    until = time.monotonic() + timeout_s
    while (left := session_members(session)) and time.monotonic() < until:
        time.sleep(0.01)
    return left
