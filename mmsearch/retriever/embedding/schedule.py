"""On which threads batches are prepared and computed.

    SideBySide   job -> prepare -> compute, each on one thread, several jobs at once
    LookAhead    job -> prepare (threads of their own, a few ahead) -> compute, one at a time

Side by side is for small networks on a CPU: torch's own threads wait for each other at
every layer, and where reader processes want the same cores that wait is ten times the
work. Looking ahead is for a network that fills its device: pixels are cut while it
computes, and it never holds more than one batch's activations.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol, TypeVar

import torch

Job = TypeVar("Job")
Ready = TypeVar("Ready")
Done = TypeVar("Done")


class Schedule(Protocol):
    """Runs jobs in two steps; several threads may run theirs at once.

    num_wanted: jobs that a run should have, so that little of it is spent waiting for the
                first to begin and the last to end
    """

    num_wanted: int

    def run(
        self,
        jobs: Iterable[Job],
        prepare: Callable[[Job], Ready],
        compute: Callable[[Job, Ready], Done],
    ) -> Iterator[Done]:
        """Yield ``compute(job, prepare(job))`` of every job, in order.

        The first exception ends it; what had not begun by then is not begun.
        """
        ...


class SideBySide:
    """Each job wholly on one thread, ``num_threads`` jobs at once; torch adds none."""

    def __init__(self, num_threads: int = 1) -> None:
        self.num_wanted = 4 * num_threads  # at the end they wait for the last of them
        # What a pool thread sets is the default of every thread that has not asked yet.
        torch.get_num_threads()  # so the caller's asks now, and keeps its own
        self._pool = ThreadPoolExecutor(num_threads, "mmsearch-embed", initializer=_one_thread)

    def run(
        self,
        jobs: Iterable[Job],
        prepare: Callable[[Job], Ready],
        compute: Callable[[Job, Ready], Done],
    ) -> Iterator[Done]:
        return self._pool.map(lambda job: compute(job, prepare(job)), jobs)


class LookAhead:
    """Prepares up to ``depth`` jobs while one computes in the caller's thread.

    One job computes at a time, whoever asks: calls of several threads take turns.
    """

    def __init__(self, depth: int = 3) -> None:
        self._depth = depth
        self.num_wanted = 2  # the next is prepared while one is computed
        self._pool = ThreadPoolExecutor(depth, "mmsearch-prepare")
        self._turn = threading.Lock()

    def run(
        self,
        jobs: Iterable[Job],
        prepare: Callable[[Job], Ready],
        compute: Callable[[Job, Ready], Done],
    ) -> Iterator[Done]:
        left = iter(jobs)
        ahead: deque[tuple[Job, Future[Ready]]] = deque()

        def fill() -> None:
            for job in islice(left, self._depth - len(ahead)):
                ahead.append((job, self._pool.submit(prepare, job)))

        try:
            fill()
            while ahead:
                job, ready = ahead.popleft()
                fill()  # now and not before: what the last job taught may change how jobs are cut
                yield self._in_turn(compute, job, ready)
        finally:
            for _, ready in ahead:
                ready.cancel()

    def _in_turn(
        self, compute: Callable[[Job, Ready], Done], job: Job, ready: "Future[Ready]"
    ) -> Done:
        prepared = ready.result()
        with self._turn:
            return compute(job, prepared)


def _one_thread() -> None:
    torch.set_num_threads(1)
