"""Which files lie under the paths a person named.

    paths, globs -> Source, Source, ...             (in a stable order, each file once)
    paths, globs, what changed -> Source, ...       (of those, the ones that changed)
    a manifest -> Source or None, ...               (its files, and which of them are gone)

Only names and sizes are looked at; no file is opened.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsearch.errors import NothingToIndex
from mmsearch.indexers.readers import subtitles
from mmsearch.retriever.search.filters import glob_pattern

HEADER_FILE = "index.json"  # a folder with this and one of the others is an index of ours
TABLES_FOLDER, LOCK_FILE = "tables", "write.lock"
INDEX_FILES = (HEADER_FILE, TABLES_FOLDER, LOCK_FILE)
_LATEST_NS = 2**63 - 1  # in the year 2262: file systems know later times, a table does not


@dataclass(frozen=True, slots=True)
class Source:
    """A file as the file system describes it.

    ``size`` and ``mtime_ns`` cover the subtitles that lie beside a film too, so that a film
    counts as changed when they do: the sum of the sizes, and the latest of the times. A
    time in the far future is taken for the last that 64 bits can say.
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
    what matches one of them, never what matches ``exclude``. A glob is read as in
    `filters.glob_pattern` and matches a file or a folder that it lies in, below the
    named folder; one that begins with a slash matches whole paths. Links to files are
    followed, and links to folders too unless they lead back to a folder already
    walked. Raises NothingToIndex for a path that does not exist.
    """
    seen: set[tuple[int, int]] = set()
    globs = _Globs(include, exclude)
    for path in paths:
        root = Path(os.path.abspath(path))
        if root.is_dir():
            for source in _walk(root, seen):
                if globs.want(source.path, root):
                    yield source
        elif root.exists():
            yield from _source(root, seen, _subtitles(_names(root.parent)))
        else:
            reason = "it is a broken link" if root.is_symlink() else "there is no such path"
            raise NothingToIndex(path, reason)


def discover_again(
    paths: Sequence[Path],
    changed: Sequence[Path],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Iterator[Source]:
    """Yield those files of `discover` that are among ``changed`` or below one of them.

    What is gone is not an error. Links are not told from what they lead to: where there
    are any under ``paths``, let the whole folder count as changed.
    """
    seen: set[tuple[int, int]] = set()
    globs = _Globs(include, exclude)
    roots = [Path(os.path.abspath(path)) for path in paths]
    for path in changed:
        root = next((root for root in roots if _is_reached(path, root)), None)
        if root is None:
            continue
        beside = {} if path.is_dir() else _subtitles(_names(path.parent))
        sources = _walk(path, seen) if path.is_dir() else _source(path, seen, beside)
        for source in sources:
            if source.path == root or globs.want(source.path, root):
                yield source


def lying_in(folders: Sequence[str | Path] | None, sources: Iterable[Source]) -> Iterator[Source]:
    """Yield those of ``sources`` that lie in one of ``folders`` once all links are followed.

    All of them where there are no folders to lie in. Subtitles count with their film.
    """
    if folders is None:
        yield from sources
        return
    real = [Path(os.path.realpath(folder)) for folder in folders]

    def lies_in(path: Path) -> bool:
        return any(Path(os.path.realpath(path)).is_relative_to(folder) for folder in real)

    folder, beside = Path(), dict[str, list[str]]()
    for source in sources:
        if source.path.parent != folder:  # they come folder by folder
            folder = source.path.parent
            beside = _subtitles(_names(folder))
        subtitles_of = (folder / name for name in beside.get(source.path.stem, ()))
        if all(map(lies_in, (source.path, *subtitles_of))):
            yield source


def files_of(paths: Iterable[str]) -> Iterator[tuple[str, Source | None]]:
    """Yield for each path of a manifest the file it stands for, or None where that is gone.

    Each folder is listed once. A link is followed, and nothing is told of two names of one
    file: whoever wrote the manifest has decided that.
    """
    beside: dict[Path, dict[str, list[str]]] = {}
    for path in paths:
        source = None
        for file in spellings(path):
            if file.parent not in beside:
                beside[file.parent] = _subtitles(_names(file.parent))
            source = source or next(_source(file, set(), beside[file.parent]), None)
        yield path, source


def spellings(path: str) -> tuple[Path, ...]:
    """Return the file names that a path of a manifest may stand for: see `stored_path`."""
    escaped = re.sub(
        rb"\\x([0-9a-f]{2})", lambda byte: bytes.fromhex(byte[1].decode()), path.encode()
    )
    return tuple(dict.fromkeys((Path(path), Path(os.fsdecode(escaped)))))


def _is_reached(path: Path, root: Path) -> bool:
    """Say whether a walk from ``root`` comes to ``path``: through nothing hidden, no index."""
    if path == root:
        return True
    if root not in path.parents:
        return False
    below = path.relative_to(root)
    if any(name.startswith(".") for name in below.parts):
        return False
    folders = [root / parent for parent in below.parents]
    return not any(is_index(folder) for folder in folders)


def affected_by(changed: Iterable[str | Path]) -> list[Path]:
    """Return ``changed`` as absolute paths, each once, and the films whose subtitles changed."""
    paths: dict[Path, None] = {}
    for one in changed:
        path = Path(os.path.abspath(one))
        paths[path] = None
        if path.suffix.lower() in subtitles.SUFFIXES:
            of = {path.stem, os.path.splitext(path.stem)[0]}
            beside = (name for name in _names(path.parent) if os.path.splitext(name)[0] in of)
            paths.update(dict.fromkeys(path.parent / name for name in beside))
    return list(paths)


def has_links(paths: Iterable[Path]) -> bool:
    """Say whether a walk from these folders meets a link, so that a file may have two names."""
    folders = [path for path in map(Path, paths) if path.is_dir()]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:
            continue
        shown = [entry for entry in entries if not entry.name.startswith(".")]
        if any(entry.is_symlink() for entry in shown):
            return True
        folders += [Path(entry.path) for entry in shown if entry.is_dir(follow_symlinks=False)]
    return False


def is_index(folder: Path) -> bool:
    """Say whether a folder is an index of ours."""
    return _are_of_an_index({name for name in INDEX_FILES if (folder / name).exists()})


def _are_of_an_index(names: set[str]) -> bool:
    return names >= {HEADER_FILE, TABLES_FOLDER} or names >= {HEADER_FILE, LOCK_FILE}


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
    if _are_of_an_index(names):
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
        min(max(one.st_mtime_ns for one in states), _LATEST_NS),
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


class _Globs:
    """What ``--include`` and ``--exclude`` say, read once."""

    def __init__(self, include: Iterable[str], exclude: Iterable[str]) -> None:
        self._include = [_Glob(glob) for glob in include]
        self._exclude = [_Glob(glob) for glob in exclude]

    def want(self, path: Path, root: Path) -> bool:
        """Say whether a file below ``root`` is wanted."""
        if not self._include and not self._exclude:
            return True
        below = path.relative_to(root)
        names = [below.as_posix(), *(one.as_posix() for one in below.parents if one.name)]
        if self._include and not any(glob.matches(names, root) for glob in self._include):
            return False
        return not any(glob.matches(names, root) for glob in self._exclude)


class _Glob:
    """One glob; it sees the path below the root, unless it begins with a slash."""

    def __init__(self, glob: str) -> None:
        self._search = re.compile(glob_pattern(glob)).search
        self._is_whole = glob.startswith("/")

    def matches(self, names: Iterable[str], root: Path) -> bool:
        """Say whether a file, or a folder that it lies in, is meant."""
        if self._is_whole:
            names = ((root / name).as_posix() for name in names)
        return any(self._search(name) for name in names)
