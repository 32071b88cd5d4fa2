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
from collections.abc import Iterable, Iterator
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType

from mmsearch.errors import MMSearchError, UnreadableFile
from mmsearch.indexers import wire
from mmsearch.indexers.wire import ReadTask
from mmsearch.values import Kind, Segment

__all__ = ["ReadTask", "Sandbox"]

_START_TIMEOUT_S = 60.0
# Workers end themselves on time, by an alarm; this is for one that is stopped or stuck in
# the kernel. It must not be so short that a busy machine makes us accuse a file.
_GRACE_S = 5.0
_STEP_NAMES = {Kind.PDF: "page", Kind.IMAGE: "picture", Kind.VIDEO: "clip", Kind.TEXT: "passage"}


class Sandbox:
    """A pool of up to ``num_workers`` processes that read files; a context manager.

    Workers are started when first needed, or at once where ``warm``. Each holds one
    finished segment until it is taken, so memory does not grow with the corpus. Several
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
        task is drawn when a worker is free for it. Closing the generator early is fine.
        """
        waiting = iter(tasks)
        busy: dict[Connection, _Worker] = {}
        task: ReadTask | None
        try:
            while True:
                while len(busy) < self.num_workers and (task := next(waiting, None)):
                    worker = self._given(task)
                    busy[worker.connection] = worker
                if not busy:
                    return
                news = _with_news(busy)
                if self._closed:
                    raise ValueError("the sandbox was closed while it was reading")
                for worker in news:
                    task, outcome = worker.task, worker.receive()
                    if not isinstance(outcome, Segment):
                        del busy[worker.connection]
                        self._release(worker)
                    yield task, outcome
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


class _Worker:
    """One reader process, seen from here."""

    task: ReadTask

    def __init__(self, *, preload: bool) -> None:
        self.connection, theirs = Pipe()
        self.is_alive = True
        self._has_started = False
        self._busy_s = 0.0
        self._waiting_since = time.monotonic()
        # Closed twice at once, its number may by then be that of somebody else's file.
        self._killing = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                _command(theirs.fileno(), preload=preload),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # native libraries write where they please
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # One file a process, one thread a process: the processes share the cores.
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )

    def begin(self, task: ReadTask) -> None:
        """Hand it a file. Raises OSError where it is dead."""
        self.task = task
        self._busy_s = 0.0
        self._waiting_since = time.monotonic()
        absolute = Path(os.path.abspath(task.path))  # it may not follow our chdir
        self.connection.send(replace(task, path=absolute))

    def greet(self) -> None:
        """Take the first message, which says that the process started."""
        try:
            wire.receive(self.connection)
        except (EOFError, OSError):
            self.kill()
            raise _cannot_start(self._process.returncode) from None
        self._has_started = True
        self._waiting_since = time.monotonic()

    def receive(self) -> Segment | UnreadableFile | None:
        """Return the next segment of its file, or how the file ended."""
        try:
            message = wire.receive(self.connection) if self.connection.poll() else None
        except (EOFError, OSError):
            return self._died()
        if message is None:  # past its deadline
            self.kill()
            return UnreadableFile(self.task.path, self._too_long())
        if "segment" in message:
            self._busy_s = message["busy_s"]
            self._waiting_since = time.monotonic()
            segment: Segment = message["segment"]
            return segment
        if "out_of_memory" in message:
            self.kill()
            return UnreadableFile(self.task.path, self._too_much())
        if "failed" in message:
            return UnreadableFile(self.task.path, message["failed"])
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
        policy = self.task.policy
        left = min(policy.step_timeout_s, policy.document_timeout_s - self._busy_s)
        return self._waiting_since + max(left, 0.0) + _GRACE_S

    def kill(self) -> None:
        """End the process and wait for it; killing a dead one is fine, from any thread."""
        with self._killing:
            self.is_alive = False
            self._process.kill()
            self._process.wait()
            self.connection.close()

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
        return UnreadableFile(self.task.path, reason)

    def _too_long(self) -> str:
        policy = self.task.policy
        if self._busy_s + policy.step_timeout_s > policy.document_timeout_s:
            return f"it took longer than {policy.document_timeout_s:g} s"
        step = _STEP_NAMES[self.task.kind] if self.task.kind else "segment"
        return f"it took longer than {policy.step_timeout_s:g} s for one {step}"

    def _too_much(self) -> str:
        return f"it needs more than {self.task.policy.max_memory_bytes / 2**30:.1f} GiB of memory"


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


def _command(fd: int, *, preload: bool) -> list[str]:
    """Return how to start a worker that can import what we can, and nothing before it.

    -P keeps the current folder out of its path: a ``numpy.py`` among the files that are
    indexed would be imported else. What we have beyond the usual path comes last.
    """
    ours = str(Path(__file__).resolve().parents[2])
    code = (
        "import sys; sys.path += [p for p in sys.argv[3:] if p not in sys.path]; "
        "from mmsearch.indexers.worker import main; "
        "main(int(sys.argv[1]), preload=sys.argv[2] == 'preload')"
    )
    extra = [path for path in [ours, *sys.path] if path]
    return [sys.executable, "-P", "-c", code, str(fd), "preload" if preload else "lazy", *extra]


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
