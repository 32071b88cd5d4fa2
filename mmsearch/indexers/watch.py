"""Which paths to look at again: what the system reports, and now and then everything.

    folders, files -> (paths), (paths), ...      each a batch for `discover.discover_again`

The system tells of changes as they happen (inotify on Linux, through watchfiles). It may
miss some: its queue overflows, a disk is of another machine, a folder may not be watched.
So everything is looked at again every so often, and what was missed is found then.
"""

import ctypes
import errno
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mmsearch.indexers.discover import has_links
from mmsearch.indexers.readers.subtitles import SUFFIXES
from mmsearch.values import Document, stored_path

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

SETTLE_S = 0.5  # a file is read once it was left alone for so long
LONGEST_HOLD_S = 30.0  # one that is written to all the time is read nevertheless
SWEEP_EVERY_S = 900.0
POLL_EVERY_S = 10.0  # between two looks at everything, where the system does not tell
POLL_SHARE = 10  # and at least so many times as long as a look takes
MOST_PATHS = 1_000  # reported at once, beyond which everything is looked at
_STEP_S = 0.05
_WAIT_S = 0.5  # between two looks at whether the folders are still there
_DELETED = 3  # watchfiles.Change.deleted


class Watch:
    """Iterate over it for batches of paths; the first is everything.

    Watching begins with the iteration, before the first batch is given: what changes while
    a batch is dealt with comes in a later one. It never ends by itself.

    roots:         folders and files; each has to be there at the beginning
    ignored:       a folder whose changes are nobody's, the index itself
    settle_s:      seconds for which a changed file has to be left alone
    sweep_every_s: seconds between two looks at everything
    on_notice:     is told, in a sentence, what a person may want to know
    """

    def __init__(
        self,
        roots: Sequence[str | Path],
        *,
        ignored: Path,
        settle_s: float = SETTLE_S,
        sweep_every_s: float = SWEEP_EVERY_S,
        poll_every_s: float = POLL_EVERY_S,
        on_notice: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._roots = [_Root.of(Path(os.path.abspath(root))) for root in roots]
        self._ignored = f"{os.path.abspath(ignored)}/"
        self._settle_s, self._sweep_every_s = settle_s, sweep_every_s
        self._poll_every_s, self._polls = poll_every_s, False
        self._say = on_notice
        self._sources: list[RustNotify] = []
        self._pending: dict[Path, float] = {}  # path -> when it was first heard of
        self._linked = False

    def __iter__(self) -> Iterator[list[Path]]:
        try:
            self._begin()
            yield from self._batches()
        finally:
            self._end()

    def _batches(self) -> Iterator[list[Path]]:
        swept_at = float("-inf")
        sweep_s = 0.0
        while True:
            every_s = self._sweep_every_s
            if self._polls:
                every_s = min(every_s, max(self._poll_every_s, POLL_SHARE * sweep_s))
            if time.monotonic() - swept_at >= every_s:
                began = time.monotonic()
                there = [root.path for root in self._roots if root.is_there]
                self._linked = has_links(there)
                self._pending.clear()
                if there:
                    yield there
                swept_at = time.monotonic()
                sweep_s = swept_at - began
                if not self._polls and _is_exhausted():
                    self._poll()  # folders that are new since are not watched
            self._listen()
            if batch := self._settled():
                yield batch

    # ------------------------------------------------------------ listening

    def _begin(self) -> None:
        """Watch every root that is there, or nothing and look often where that cannot be."""
        from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

        self._end()
        there = [root for root in self._roots if root.is_there]
        trees = [str(root.path) for root in there if root.is_folder]
        beside = {str(root.watched) for root in there if not root.is_folder}
        try:
            for paths, recursive in ((trees, True), (sorted(beside), False)):
                if paths and not self._polls:
                    self._sources.append(RustNotify(paths, False, False, 0, recursive, True))
        except (OSError, WatchfilesRustInternalError) as error:
            if isinstance(error, FileNotFoundError):
                return  # gone this moment: the next look at the roots sees it
            self._poll()
        if self._sources and _is_exhausted():
            self._poll()

    def _poll(self) -> None:
        self._polls = True
        self._end()
        self._say(
            "the system's limit of watched folders is reached "
            f"(fs.inotify.max_user_watches): looking every {self._poll_every_s:g} s instead"
        )

    def _end(self) -> None:
        for source in self._sources:
            source.close()
        self._sources.clear()

    def _listen(self) -> None:
        """Wait a little for news, and note what changed."""
        wait_s = min(_WAIT_S, self._settle_s) if self._pending else _WAIT_S
        wait_s = min(wait_s, self._poll_every_s if self._polls else self._sweep_every_s)
        step_ms = max(1, round(min(_STEP_S, wait_s) * 1000))
        changed: set[tuple[int, str]] = set()
        for source in self._sources:
            wait_ms = max(1, round(wait_s * 1000) // len(self._sources))
            heard = source.watch(round(_WAIT_S * 1000), step_ms, wait_ms, None)
            if heard == "signal":
                raise KeyboardInterrupt
            if isinstance(heard, set):
                changed |= heard
        if not self._sources:
            time.sleep(wait_s)
        self._note(changed)
        self._look_at_roots(changed)

    def _note(self, changed: Iterable[tuple[int, str]]) -> None:
        now = time.monotonic()
        for _, name in changed:
            if f"{name}/".startswith(self._ignored):
                continue
            path = Path(name)
            if "\ufffd" in name:  # bytes that are no text: which, only a look at the folder tells
                path = next(one for one in path.parents if "\ufffd" not in str(one))
            roots = [root for root in self._roots if root.holds(path)]
            if not roots:
                continue
            if path.is_symlink():
                self._linked = True
            # A file with two names is found under the first: only a whole walk tells which.
            for one in (root.path for root in roots) if self._linked else (path,):
                self._pending.setdefault(one, now)
        if len(self._pending) > MOST_PATHS:
            self._pending = {root.path: now for root in self._roots if root.is_there}

    def _look_at_roots(self, changed: Iterable[tuple[int, str]]) -> None:
        """Say which roots went or came back, and watch those that are there now."""
        ended = {path for change, path in changed if change == _DELETED}
        is_other = False
        for root in self._roots:
            before = root.identity
            root.identify()
            if root.identity == before and str(root.watched) not in ended:
                continue
            is_other = True
            if not root.is_there:
                self._say(f"{root.path} is gone: what the index holds of it stays until it is back")
            elif before is None:
                self._say(f"{root.path} is back")
        if is_other:
            # What was reported and not heard yet is lost with this; what went with its whole
            # root is to stay in the index: the disk may be back tomorrow.
            self._begin()
            now = time.monotonic()
            self._pending = {root.path: now for root in self._roots if root.is_there}

    def _settled(self) -> list[Path]:
        """Take those pending paths that nobody is writing to any more."""
        now, clock = time.monotonic(), time.time()
        ready = [
            path
            for path, heard_at in self._pending.items()
            if now - heard_at > LONGEST_HOLD_S or not _was_just_written(path, clock, self._settle_s)
        ]
        for path in ready:
            del self._pending[path]
        return ready


@dataclass(slots=True)
class _Root:
    """A folder that is watched, or a file of which its folder is."""

    path: Path
    is_folder: bool
    identity: tuple[int, int] | None = None  # of what is watched; None while it is not there

    @classmethod
    def of(cls, path: Path) -> Self:
        root = cls(path, path.is_dir())
        root.identify()
        return root

    @property
    def watched(self) -> Path:
        # An editor puts another file in the place of a file: only its folder hears of that.
        return self.path if self.is_folder else self.path.parent

    @property
    def is_there(self) -> bool:
        return self.identity is not None

    def identify(self) -> None:
        try:
            state = self.watched.stat()
        except OSError:
            self.identity = None
        else:
            self.identity = (state.st_dev, state.st_ino)

    def holds(self, path: Path) -> bool:
        """Say whether a path is of this root: itself, or below it and not hidden."""
        if not self.is_folder:
            beside = path.suffix.lower() in SUFFIXES and path.parent == self.path.parent
            return beside or path == self.path
        if path == self.path:
            return True
        if self.path not in path.parents:
            return False
        return not any(name.startswith(".") for name in path.relative_to(self.path).parts)


def at_or_below(paths: Iterable[Path], documents: Sequence[Document]) -> list[Document]:
    """Return the documents, given sorted by path, that are or lie in one of ``paths``."""
    names = [document.path for document in documents]
    found: dict[str, Document] = {}
    for path in paths:
        top = stored_path(path).rstrip("/")
        at = bisect_left(names, top)
        if at < len(names) and names[at] == top:
            found[top] = documents[at]
        # "0" is the character after "/".
        for one in documents[bisect_left(names, f"{top}/") : bisect_left(names, f"{top}0")]:
            found[one.path] = one
    return list(found.values())


def _was_just_written(path: Path, clock: float, settle_s: float) -> bool:
    try:
        age_s = clock - path.stat().st_mtime
    except OSError:
        return False
    return 0.0 <= age_s < settle_s


def _is_exhausted() -> bool:
    """Say whether the system refuses to watch one folder more.

    Asked by trying: watchfiles keeps quiet about folders that it could not watch.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init"):
        return False  # not Linux: no such limit
    descriptor = libc.inotify_init()
    if descriptor < 0:
        return ctypes.get_errno() in (errno.EMFILE, errno.ENFILE)
    try:
        in_delete_self = 0x400
        refused = libc.inotify_add_watch(descriptor, b"/", in_delete_self) < 0
        return refused and ctypes.get_errno() == errno.ENOSPC
    finally:
        os.close(descriptor)
