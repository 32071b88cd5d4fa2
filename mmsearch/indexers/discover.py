"""Which files lie under the paths a person named.

    paths, globs -> Source, Source, ...        (in a stable order, each file once)

Only names and sizes are looked at; no file is opened.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from mmsearch.errors import NothingToIndex

HEADER_FILE = "index.json"  # a folder with this and TABLES_FOLDER in it is an index of ours
TABLES_FOLDER = "tables"


@dataclass(frozen=True, slots=True)
class Source:
    """A file as the file system describes it."""

    path: Path
    size: int
    mtime_ns: int


def discover(
    paths: Sequence[Path], *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[Source]:
    """Yield every file under ``paths``, sorted within a folder, each real file once.

    A file named by itself is taken as it is; inside folders hidden entries and
    indexes of ours are passed over, and the globs decide: with ``include`` only
    what matches one of them, never what matches ``exclude``. Links to files are
    followed, and links to folders too unless they lead back to a folder already
    walked. Raises NothingToIndex for a path that does not exist.
    """
    seen: set[tuple[int, int]] = set()
    for path in paths:
        root = Path(os.path.abspath(path))
        if root.is_dir():
            for source in _walk(root, seen):
                if _wanted(source.path.relative_to(root), include, exclude):
                    yield source
        elif root.exists():
            yield from _source(root, seen)
        else:
            reason = "it is a broken link" if root.is_symlink() else "there is no such path"
            raise NothingToIndex(path, reason)


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Source]:
    try:
        state = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return  # a folder we may not enter holds nothing for us
    if (state.st_dev, state.st_ino) in seen:
        return
    seen.add((state.st_dev, state.st_ino))
    names = {entry.name for entry in entries}
    if {HEADER_FILE, TABLES_FOLDER} <= names:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            is_folder = entry.is_dir()
        except OSError:
            continue
        if is_folder:
            yield from _walk(Path(entry.path), seen)
        else:
            yield from _source(Path(entry.path), seen)


def _source(path: Path, seen: set[tuple[int, int]]) -> Iterator[Source]:
    try:
        state = path.stat()
    except OSError:
        return  # a broken link, or gone since it was listed
    if not path.is_file() or (state.st_dev, state.st_ino) in seen:
        return
    seen.add((state.st_dev, state.st_ino))
    yield Source(path, state.st_size, state.st_mtime_ns)


def _wanted(relative: Path, include: Iterable[str], exclude: Iterable[str]) -> bool:
    include, exclude = tuple(include), tuple(exclude)
    if include and not any(_matches(relative, glob) for glob in include):
        return False
    return not any(_matches(relative, glob) for glob in exclude)


def _matches(relative: Path, glob: str) -> bool:
    """Match a glob against the path below the root, its name, or a folder above it."""
    names = [relative.as_posix(), relative.name]
    names += [parent.as_posix() for parent in relative.parents if parent.name]
    return any(fnmatchcase(name, glob.rstrip("/")) for name in names)
