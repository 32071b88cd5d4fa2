"""Files that survive a power cut: written aside, flushed, then given their name."""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# Systems write back what nobody flushes within a minute; and clocks are set.
WRITTEN_BACK_S = 600.0


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: "bytes | pa.Buffer") -> None:
    """Make ``path`` hold ``content``, whole or not at all, and durably."""
    made = not path.parent.is_dir()
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    flush(path.parent)
    if made:
        flush(path.parent.parent)


class NewFiles:
    """Flushes what was added to some folders since it last looked, or not long before.

    What a killed writer left was perhaps never flushed, and versions to come build on it:
    a kill and a power cut a minute later would take both.

    Lance never changes a file it has written and flushes none of them, so bringing its
    new files to the disk after a commit makes that commit durable. A new folder (of an
    index) is flushed with the files in it.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._seen = {folder: _names(folder) - _recent(folder) for folder in folders}

    def flush(self) -> None:
        """Bring them, and their names, to the disk."""
        for folder, seen in self._seen.items():
            names = _names(folder)
            new = names - seen
            for name in new:
                # A file of no further use may be gone again: what is gone needs no disk.
                with contextlib.suppress(FileNotFoundError):
                    _flush_whole(folder / name)
            if new:
                flush(folder)
            self._seen[folder] = names


def _recent(folder: Path) -> set[str]:
    """Return the names of files that the system may not have brought to the disk by itself."""
    since, recent = time.time() - WRITTEN_BACK_S, set()
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.stat().st_mtime > since:
                    recent.add(entry.name)
    return recent


def _flush_whole(path: Path) -> None:
    if path.is_dir():
        for inside in path.iterdir():
            with contextlib.suppress(FileNotFoundError):
                _flush_whole(inside)
    flush(path)


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # some thousands in a millisecond; scandir takes three
    except FileNotFoundError:
        return set()
