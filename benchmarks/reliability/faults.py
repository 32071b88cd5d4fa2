"""Where a process dies: before or after a call of the store, by the name of what is called.

    Boundary("Table.add", before=True, occurrence=2)

No code of the product knows of this. A profile hook sees every call of every thread, so a
boundary is wherever the store, the pipeline or an accelerator calls a function of theirs,
and wherever anything asks the system to flush, rename, remove, make or lock.
"""

import contextlib
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from pyarrow.fs import FileSelector, LocalFileSystem

import mmsearch

_PACKAGE = Path(mmsearch.__file__).parent
# Whole folders, so that what is added to the product is killed in too.
_PLACES = (
    "retriever/store",
    "retriever/search/backends",
    "indexers/pipeline.py",
    "indexers/plan.py",
    "indexers/sandbox.py",
    "upkeep.py",
)
# Values and conversions: nothing happens between two of them that a kill could part.
_READS = ("pipeline", "plan", "sandbox", "snapshot")
# They change no file: of some that follow each other, the first stands for all.
_FLUSHES = ("os.fsync", "os.fdatasync", "durable.flush", "durable._flush_whole", "durable._names")
_NOT = ("rows.py", "words.py", "check.py")
_SYSTEM = frozenset(("fsync", "fdatasync", "replace", "rename", "unlink", "remove", "rmdir"))
_SYSTEM |= {"mkdir", "link", "ftruncate", "pwrite", "flock"}


@dataclass(frozen=True, slots=True)
class Boundary:
    """The ``occurrence``-th call (from 1) of a function, before it or after it."""

    name: str
    before: bool
    occurrence: int = 1

    def __str__(self) -> str:
        return f"{'before' if self.before else 'after'} {self.name} #{self.occurrence}"


_Seen = Callable[[str, bool], None]


def die_at(boundary: Boundary, die: Callable[[], None] | None = None) -> None:
    """Let this process kill itself with signal 9 at ``boundary``, or call ``die`` there."""
    left = boundary.occurrence

    def see(name: str, before: bool) -> None:
        nonlocal left
        if name == boundary.name and before is boundary.before:
            left -= 1
            if left == 0:
                if die is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                else:
                    die()

    _watch(see)


def find_boundaries(folder: Path) -> list[tuple[Boundary, Boundary]]:
    """Find from now on the boundaries that part one state of ``folder`` from the next.

    Each is a pair: the last one before files changed, and the first one after. Between two
    that leave the same files a kill makes no difference. Stop with `stop`.
    """
    found: list[tuple[Boundary, Boundary]] = []
    crossed: Counter[tuple[str, bool]] = Counter()
    state = _state(folder)
    last: Boundary | None = None
    flushing = False

    def see(name: str, before: bool) -> None:
        nonlocal state, last, flushing
        crossed[name, before] += 1
        if name.partition(".")[0] in _READS:
            return  # of another thread, perhaps, while one is writing
        goes_on, flushing = flushing, name in _FLUSHES
        if goes_on and flushing:
            return
        here = Boundary(name, before, crossed[name, before])
        now = _state(folder)
        if now != state:
            found.append((last or here, here))
        state, last = now, here

    _watch(see)
    return found


def _state(folder: Path) -> int:
    """Return a number for what is in a folder; Arrow walks it ten times as fast as Python."""
    everything = FileSelector(str(folder), allow_not_found=True, recursive=True)
    while True:
        with contextlib.suppress(FileNotFoundError):  # another thread removed a folder of it
            files = LocalFileSystem().get_file_info(everything)
            return hash(tuple((file.path, file.size, file.mtime_ns) for file in files))


def stop() -> None:
    """Watch no longer."""
    sys.setprofile(None)
    threading.setprofile(None)


def _watch(see: _Seen) -> None:
    names: dict[Any, str | None] = {}

    def hook(frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "return"):
            code = frame.f_code
            try:
                name = names[code]
            except KeyError:
                name = names[code] = _name(code.co_filename, code.co_qualname)
            if name is not None:
                see(name, event == "call")
        elif event in ("c_call", "c_return", "c_exception"):
            called = getattr(argument, "__name__", "")
            if called in _SYSTEM and getattr(argument, "__module__", "") in ("posix", "fcntl"):
                see(f"os.{called}", event == "c_call")

    threading.setprofile(hook)
    sys.setprofile(hook)


def _name(file: str, qualname: str) -> str | None:
    """Return how a function is called here, None for those that are of no interest."""
    try:
        place = Path(file).relative_to(_PACKAGE)
    except ValueError:
        return None
    inside = any(place.is_relative_to(one) for one in _PLACES)
    if not inside or place.name in _NOT or "<" in qualname.replace("<locals>", ""):
        return None
    return f"{place.stem}.{qualname}"
