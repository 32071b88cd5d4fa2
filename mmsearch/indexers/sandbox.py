"""Worker processes that read files, so that no file can harm the run.

    tasks -> Sandbox -> (task, segment), (task, segment), ..., (task, None | UnreadableFile)

A decoder that hangs, aborts or eats all memory takes its worker with it, and its file
is marked unreadable; another worker takes the next file. Workers are started as
programs of their own, not with multiprocessing: fork would copy the parent's threads
and open films (decord then hangs for ever), and spawn would run the user's script a
second time. POSIX only: the limits rest on its signals and resource limits.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any

from mmsearch.errors import MMSearchError, UnreadableFile
from mmsearch.indexers import wire
from mmsearch.indexers.wire import ReadTask
from mmsearch.retriever.embedding.cores import num_cores
from mmsearch.values import Kind, Segment

__all__ = ["ReadTask", "Sandbox", "default_workers"]

_MAX_WORKERS = 32
_START_TIMEOUT_S = 60.0
# Workers end themselves on time, by an alarm; this is for one that is stopped or stuck in
# the kernel. It must not be so short that a busy machine makes us accuse a file.
_GRACE_S = 5.0
_SHORT = frozenset({Kind.IMAGE, Kind.TEXT})  # read in a moment, as a rule
_STEP_NAMES = {Kind.PDF: "page", Kind.IMAGE: "picture", Kind.VIDEO: "clip", Kind.TEXT: "passage"}


def default_workers() -> int:
    """Return how many processes read best here: one for each core that is ours, at most 32."""
    return min(num_cores(), _MAX_WORKERS)


class Sandbox:
    """A pool of up to ``num_workers`` processes that read files; a context manager.

    Workers are started when first needed, or at once where ``warm``. Each holds a few
    finished segments until they are taken, so memory does not grow with the corpus. Several
    threads may read at the same time, each with workers of its own.
    """

    def __init__(self, num_workers: int, *, warm: bool = False) -> None:
        if num_workers < 1:
            raise ValueError(f"a sandbox needs a worker, got {num_workers}")
        self.num_workers = num_workers
        self._warm = warm
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()  # all of them, at work or not
        self._closed = False
        # Also at interpreter exit: a forgotten sandbox leaves no process behind.
        self._finalizer = weakref.finalize(self, _kill_all, self._workers, os.getpid())
        if warm:
            self._idle += [self._start() for _ in range(num_workers)]

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def read(
        self, tasks: Iterable[ReadTask]
    ) -> Iterator[tuple[ReadTask, Segment | UnreadableFile | None]]:
        """Yield what the files hold as it comes: segments, then how the file ended.

        Segments of one task come in order; tasks interleave. A task ends with None, or
        with UnreadableFile: then the segments it gave before are to be dropped. The next
        task is drawn when a worker is free for it, or will be in a moment: one that is at
        a picture or a text is handed the next one. Closing the generator early is fine.
        """
        waiting = _Waiting(tasks)
        busy: dict[Connection, _Worker] = {}
        task: ReadTask | None
        try:
            while True:
                while len(busy) < self.num_workers and (task := waiting.next()):
                    worker = self._given(task)
                    busy[worker.connection] = worker
                for worker in busy.values():
                    if worker.may_have_another and (task := waiting.next(_SHORT)):
                        worker.begin_next(task)
                if not busy:
                    return
                news = _with_news(busy)
                if self._closed:
                    raise ValueError("the sandbox was closed while it was reading")
                outcomes: list[tuple[ReadTask, Segment | UnreadableFile | None]] = []
                for worker in news:
                    outcomes += worker.receive()
                    if not worker.tasks or not worker.is_alive:
                        del busy[worker.connection]
                        waiting.put_back(worker.tasks)
                        self._release(worker)
                yield from outcomes
        finally:
            for worker in busy.values():  # in the middle of a file that nobody waits for
                self._discard(worker)

    def read_one(self, task: ReadTask) -> list[Segment]:
        """Return all segments of one file. Raises UnreadableFile."""
        segments: list[Segment] = []
        for _, outcome in self.read([task]):
            if isinstance(outcome, UnreadableFile):
                raise outcome
            if outcome is not None:
                segments.append(outcome)
        return segments

    def close(self) -> None:
        """End every worker, also those at work. Closing twice is fine."""
        with self._lock:
            self._closed = True
            self._idle.clear()
        self._finalizer()

    def _given(self, task: ReadTask) -> "_Worker":
        """Return a worker that was given the task: an idle one, else a new one."""
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None:
                worker = self._start()
                worker.begin(task)
                return worker
            try:
                worker.begin(task)
            except OSError:  # something killed it while it was idle
                self._discard(worker)
            else:
                return worker

    def _start(self) -> "_Worker":
        with self._lock:
            if self._closed:
                raise ValueError("the sandbox is closed")
            worker = _Worker(preload=self._warm)
            self._workers.add(worker)
            return worker

    def _release(self, worker: "_Worker") -> None:
        with self._lock:
            if worker.is_alive and not self._closed and len(self._idle) < self.num_workers:
                self._idle.append(worker)
                return
        self._discard(worker)

    def _discard(self, worker: "_Worker") -> None:
        with self._lock:
            self._workers.discard(worker)
        worker.kill()


class _Waiting:
    """Tasks that nobody was given yet."""

    def __init__(self, tasks: Iterable[ReadTask]) -> None:
        self._drawn: deque[ReadTask] = deque()
        self._tasks = iter(tasks)

    def next(self, kinds: Collection[Kind] | None = None) -> ReadTask | None:
        """Return the next task; None where there is none, or it is of none of the kinds."""
        if not self._drawn:
            self._drawn.extend(islice(self._tasks, 1))
        if not self._drawn or (kinds is not None and self._drawn[0].kind not in kinds):
            return None
        return self._drawn.popleft()

    def put_back(self, tasks: Iterable[ReadTask]) -> None:
        """Take back what nobody began."""
        self._drawn.extend(tasks)


class _Worker:
    """One reader process, seen from here.

    tasks: the file it is at, and one that it may begin without asking
    """

    def __init__(self, *, preload: bool) -> None:
        self.connection, theirs = Pipe()
        self._slots = wire.make_slots()
        self.tasks: deque[ReadTask] = deque()
        self.is_alive = True
        self._has_started = False
        self._busy_s = 0.0
        self._waiting_since = time.monotonic()
        # Closed twice at once, its number may by then be that of somebody else's file.
        self._killing = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                _command(theirs.fileno(), self._slots, preload=preload),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # native libraries write where they please
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._slots),
                # One file a process, one thread a process: the processes share the cores.
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )

    def begin(self, task: ReadTask) -> None:
        """Hand it a file. Raises OSError where it is dead."""
        self._busy_s = 0.0
        self._waiting_since = time.monotonic()
        self._send(task)

    def begin_next(self, task: ReadTask) -> None:
        """Hand it a file to begin when it has ended the one it is at."""
        with contextlib.suppress(OSError):  # it died just now, and shall be asked about that
            self._send(task)

    @property
    def may_have_another(self) -> bool:
        """Whether it will be free in a moment."""
        return len(self.tasks) == 1 and self.tasks[0].kind in _SHORT

    def _send(self, task: ReadTask) -> None:
        self.tasks.append(task)
        absolute = Path(os.path.abspath(task.path))  # it may not follow our chdir
        wire.send_task(self.connection, replace(task, path=absolute))

    def greet(self) -> None:
        """Take the first message, which says that the process started."""
        try:
            wire.receive(self.connection, self._slots)
        except (EOFError, OSError):
            self.kill()
            raise _cannot_start(self._process.returncode) from None
        self._has_started = True
        self._waiting_since = time.monotonic()

    def receive(self) -> list[tuple[ReadTask, Segment | UnreadableFile | None]]:
        """Return the next segments of its file, or how the file ended, or both."""
        task = self.tasks[0]
        try:
            message = None
            if self.connection.poll():
                message = wire.receive(self.connection, self._slots)
        except (EOFError, OSError):
            failed = self._died()
            self.tasks.popleft()
            return [(task, failed)]
        if message is None:  # past its deadline
            failed = UnreadableFile(task.path, self._too_long())
            self.kill()
            self.tasks.popleft()
            return [(task, failed)]
        self._busy_s = message["busy_s"]
        self._waiting_since = time.monotonic()
        outcomes: list[tuple[ReadTask, Segment | UnreadableFile | None]] = [
            (task, segment) for segment in message["segments"]
        ]
        if ending := message["ending"]:
            ended = replace(task, content_hash=ending["content_hash"], busy_s=self._busy_s)
            outcomes.append((ended, self._ended(ending)))
            self.tasks.popleft()
            self._busy_s = 0.0
        return outcomes

    def _ended(self, ending: Mapping[str, Any]) -> UnreadableFile | None:
        path = self.tasks[0].path
        if "out_of_memory" in ending:
            self.kill()
            return UnreadableFile(path, self._too_much())
        if "failed" in ending:
            return UnreadableFile(path, ending["failed"])
        return None

    @property
    def has_started(self) -> bool:
        """Whether it took our greeting; until then it is importing."""
        return self._has_started

    @property
    def deadline(self) -> float:
        """When, on the monotonic clock, it should have said something.

        Only time in which it was not waiting for us counts: a worker that has something
        to say is never asked for its deadline.
        """
        if not self._has_started:
            return self._waiting_since + _START_TIMEOUT_S
        policy = self.tasks[0].policy
        left = min(policy.step_timeout_s, policy.document_timeout_s - self._busy_s)
        return self._waiting_since + max(left, 0.0) + _GRACE_S

    def kill(self) -> None:
        """End the process and wait for it; killing a dead one is fine, from any thread."""
        with self._killing:
            self.is_alive = False
            self._process.kill()
            self._process.wait()
            if not self.connection.closed:
                self.connection.close()
                os.close(self._slots)

    def _died(self) -> UnreadableFile:
        self.is_alive = False
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_GRACE_S)  # its socket closes a moment before it is gone
        self.kill()
        code = self._process.returncode
        if code == -signal.SIGALRM:
            reason = self._too_long()
        elif code < 0:
            reason = f"the reader crashed (signal {signal.Signals(-code).name})"
        else:
            reason = f"the reader crashed (exit status {code})"
        return UnreadableFile(self.tasks[0].path, reason)

    def _too_long(self) -> str:
        policy = self.tasks[0].policy
        if self._busy_s + policy.step_timeout_s > policy.document_timeout_s:
            return f"it took longer than {policy.document_timeout_s:g} s"
        step = _STEP_NAMES[self.tasks[0].kind] if self.tasks[0].kind else "segment"
        return f"it took longer than {policy.step_timeout_s:g} s for one {step}"

    def _too_much(self) -> str:
        gib = self.tasks[0].policy.max_memory_bytes / 2**30
        return f"it needs more than {gib:.1f} GiB of memory"


def _with_news(busy: dict[Connection, _Worker]) -> list[_Worker]:
    """Wait until some workers have something to receive, or are past their deadline."""
    while True:
        if any(connection.closed for connection in busy):
            return []  # the sandbox was closed from elsewhere
        now = time.monotonic()
        next_deadline = min(worker.deadline for worker in busy.values())
        readable = wait(list(busy), timeout=max(0.0, next_deadline - now))
        news: list[_Worker] = []
        for connection, worker in busy.items():
            if connection in readable:
                if worker.has_started:
                    news.append(worker)
                else:
                    worker.greet()
            elif worker.deadline < time.monotonic():
                if not worker.has_started:
                    raise _cannot_start(None)
                news.append(worker)
        if news:
            return news


def _command(fd: int, slots: int, *, preload: bool) -> list[str]:
    """Return how to start a worker that can import what we can, and nothing before it.

    -P keeps the current folder out of its path: a ``numpy.py`` among the files that are
    indexed would be imported else. What we have beyond the usual path comes last.
    """
    ours = str(Path(__file__).resolve().parents[2])
    code = (
        "import sys; sys.path += [p for p in sys.argv[4:] if p not in sys.path]; "
        "from mmsearch.indexers.worker import main; "
        "main(int(sys.argv[1]), int(sys.argv[2]), preload=sys.argv[3] == 'preload')"
    )
    extra = [path for path in [ours, *sys.path] if path]
    when = "preload" if preload else "lazy"
    return [sys.executable, "-P", "-c", code, str(fd), str(slots), when, *extra]


def _cannot_start(exit_code: int | None) -> MMSearchError:
    ending = "does not answer" if exit_code is None else f"ended with status {exit_code}"
    error = MMSearchError(f"a reader process cannot start: it {ending}")
    error.hint = f"{sys.executable} -c 'import mmsearch.indexers.worker' shows why"
    return error


def _kill_all(workers: set[_Worker], owner: int) -> None:
    if os.getpid() == owner:  # a forked child has our objects, but they are not its workers
        for worker in list(workers):
            worker.kill()
        workers.clear()
