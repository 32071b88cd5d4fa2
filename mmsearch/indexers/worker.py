"""The process in which files are decoded: takes read tasks, gives back segments.

It is started by `mmsearch.indexers.sandbox` and expects to die: a decoder may hang,
abort or eat all memory. So it limits itself where the kernel does the work and no
Python code needs to run for it: an alarm ends a step that takes too long, even one
that never comes back from C; a resource limit caps its memory; the closed socket
ends it when its parent is gone. Decoders are imported when a file first needs one.
"""

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

from mmsearch.errors import UnreadableFile
from mmsearch.indexers import wire
from mmsearch.indexers.content import content_hash
from mmsearch.indexers.readers import counted, placed, read, read_whole, sniff
from mmsearch.indexers.wire import ReadTask
from mmsearch.values import ReadPolicy, Segment

# What is held back is lost in a crash, as is its document then; and it must be so little
# that the sandbox, who waits for a word from us, does not take us for stuck.
_TOGETHER_S = 0.02
_TOGETHER_BYTES = 64 * 1024


def main(fd: int, slots: int, *, preload: bool = False) -> None:
    """Serve read tasks from the socket ``fd`` until the other end closes it.

    ``slots`` is the file through which pixels go.
    """
    _isolate()
    with Connection(fd) as parent, contextlib.suppress(EOFError, ConnectionError):
        outbox = wire.Outbox(parent, slots)
        outbox.send(busy_s=0.0)  # it says that the process started
        start_bytes = _address_space()
        if preload:
            import PIL.Image  # noqa: F401
        while True:
            task = outbox.next_task()
            _limit_memory(start_bytes, task.policy.max_memory_bytes)
            _serve(outbox, task)


def _isolate() -> None:
    # An interrupt at the terminal reaches the whole group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever the parent did with them is inherited; the alarm must be deadly.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _address_space() -> int:
    """Return the bytes of address space in use; 0 where the system does not tell."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _limit_memory(start_bytes: int, added_bytes: int) -> None:
    if not start_bytes:
        return  # macOS: it knows no limit on address space
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = start_bytes + added_bytes
    if most != resource.RLIM_INFINITY:
        limit = min(limit, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))


def _serve(outbox: wire.Outbox, task: ReadTask) -> None:
    """Read one file: send its segments as they come, then how it ended.

    Segments that are ready within a moment of each other are sent together.
    """
    clock = _StepClock(task.policy)
    ending: dict[str, object] = {"done": True}
    digest = task.content_hash
    sent_at = time.monotonic()
    try:
        clock.start()
        if digest == "":
            digest = content_hash(task.path)
        for segment in _segments(task):
            clock.stop()  # that nobody takes it yet is not the file's fault
            outbox.add(segment, busy_s=clock.busy_s)
            if time.monotonic() - sent_at > _TOGETHER_S or outbox.num_bytes > _TOGETHER_BYTES:
                outbox.send(busy_s=clock.busy_s)
                sent_at = time.monotonic()
            clock.start()
    except UnreadableFile as error:
        ending = {"failed": error.reason}
    except MemoryError:
        ending = {"out_of_memory": True}
    except ImportError as error:
        ending = {"failed": f"{error.name or error} cannot be imported"}
    clock.stop()
    outbox.send(busy_s=clock.busy_s, ending=ending | {"content_hash": digest})
    if "out_of_memory" in ending:
        sys.exit(1)  # what is left of this heap is not to be trusted with the next file


def _segments(task: ReadTask) -> Iterator[Segment]:
    kind = task.kind or sniff(task.path)
    if kind is None:
        raise UnreadableFile(task.path, "it is no PDF, image, video or text file")
    if task.count:
        yield counted(task.path, kind, task.policy)
    elif task.placed:
        yield placed(task.path, kind, task.policy, only=task.only)
    elif task.whole:
        yield read_whole(task.path, kind, task.policy, only=task.only)
    else:
        yield from read(task.path, kind, task.policy, only=task.only)


class _StepClock:
    """Lets the kernel end this process when a step, or a file's steps together, take too long."""

    def __init__(self, policy: ReadPolicy) -> None:
        self._policy = policy
        self._started = 0.0
        self.busy_s = 0.0

    def start(self) -> None:
        left = min(self._policy.step_timeout_s, self._policy.document_timeout_s - self.busy_s)
        self._started = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3))

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.busy_s += time.monotonic() - self._started
