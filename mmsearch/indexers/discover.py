"""Which files lie under the paths a person named.

    paths, globs -> Source, Source, ...        (in a stable order, each file once)

Only names and sizes are looked at; no file is opened.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from mmsearch.errors import NothingToIndex
from mmsearch.indexers.readers import subtitles

HEADER_FILE = "index.json"  # a folder with this and TABLES_FOLDER in it is an index of ours
TABLES_FOLDER = "tables"


@dataclass(frozen=True, slots=True)
class Source:
    """A file as the file system describes it.

    ``size`` and ``mtime_ns`` cover the subtitles that lie beside a film too, so that a film
    counts as changed when they do: the sum of the sizes, and the latest of the times.
    """

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
            yield from _source(root, seen, _subtitles(_names(root.parent)))
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
    beside = _subtitles(names)
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
            yield from _source(Path(entry.path), seen, beside)


def _source(
    path: Path, seen: set[tuple[int, int]], beside: Mapping[str, Sequence[str]]
) -> Iterator[Source]:
    try:
        state = path.stat()
    except OSError:
        return  # a broken link, or gone since it was listed
    if not stat.S_ISREG(state.st_mode):
        return
    if state.st_nlink == 1:  # hard links are files of their own: each may be edited apart
        if (state.st_dev, state.st_ino) in seen:
            return
        seen.add((state.st_dev, state.st_ino))
    states = [state]
    for name in beside.get(path.stem, ()):
        with contextlib.suppress(OSError):
            states.append((path.parent / name).stat())
    yield Source(
        path,
        sum(one.st_size for one in states),
        max(one.st_mtime_ns for one in states),
    )


def _subtitles(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the subtitle files among ``names`` by the stem of the film they are for.

    ``talk.srt`` and ``talk.en.srt`` are for ``talk.mp4``, the second also for ``talk.en.mp4``.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in subtitles.SUFFIXES:
            for film in {stem, os.path.splitext(stem)[0]}:
                found.setdefault(film, []).append(name)
    return found


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


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
