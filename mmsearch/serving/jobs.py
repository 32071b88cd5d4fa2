"""Work on an index that takes longer than a request: one job after the other, for each index.

    work -> Job (queued -> running -> done | failed | cancelled) -> asked for, or followed

An index has one writer at a time, so its jobs wait for each other; those of two indexes do not.
Jobs live in memory: what a job had committed stays, the job itself is forgotten with the server.
"""

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmsearch.errors import Busy, MMSearchError
from mmsearch.serving.parts import plain_reason

if TYPE_CHECKING:
    from mmsearch.indexers.report import IndexReport, Progress
    from mmsearch.serving.state import Served

log = logging.getLogger("mmsearch.serving")

MOST_WAITING = 32  # of one index
_MOST_KEPT = 200  # jobs that are over
_RETRY_S = 30.0
_MAX_FAILED = 1_000


class Cancelled(Exception):
    """Raised inside a job that somebody ended; never leaves it."""


@dataclass(eq=False)
class Job:
    """One piece of work; read by any thread, changed by its own."""

    index: str
    what: str
    paths: tuple[str, ...]
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    status: str = "queued"
    progress: Mapping[str, Any] | None = None
    report: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None
    version: int = 0  # grows with every change
    created: float = field(default_factory=time.time)
    ended: float | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in ("done", "failed", "cancelled")

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "job": self.id,
            "index": self.index,
            "what": self.what,
            "paths": list(self.paths),
            "status": self.status,
            "progress": self.progress,
            "report": self.report,
            "error": self.error,
            "created": self.created,
            "ended": self.ended,
        }

    def begin(self) -> bool:
        """Say whether it is to be done: not where somebody ended it while it waited."""
        with self._lock:
            if self.is_over:
                return False
            self.status = "running"
            self.version += 1
            return True

    def cancel(self) -> None:
        """End it: at once where it waits, else at its next step; what it has committed stays."""
        self._stop.set()
        with self._lock:
            if self.status == "queued":
                self.end("cancelled")

    def go_on(self) -> None:
        """Raise Cancelled where somebody ended it."""
        if self._stop.is_set():
            raise Cancelled

    def on_progress(self, progress: "Progress") -> None:
        """Take note of how far it is. Raises Cancelled."""
        self.go_on()
        self.progress = {
            "stage": progress.stage,
            "num_done": progress.documents,
            "num_documents": progress.num_documents,
            "num_segments": progress.segments,
            "num_failed": progress.failed,
            "elapsed_s": round(progress.elapsed_s, 1),
            "eta_s": None if progress.eta_s is None else round(progress.eta_s, 1),
            "path": progress.path,
        }
        self.version += 1

    def end(self, status: str) -> None:
        """Note that it is over; the last thing that changes."""
        self.ended = time.time()
        self.status = status
        self.version += 1


Work = Callable[[Job], Mapping[str, Any]]


class Jobs:
    """The jobs of a server. Safe to use from several threads."""

    def __init__(self, state: "Served") -> None:
        self._drain_s = state.settings.limits.drain_s
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._lines: dict[str, queue.SimpleQueue[tuple[Job, Work] | None]] = {}
        self._threads: list[threading.Thread] = []
        self._is_closed = False
        self.num_followed = 0  # streams of events that somebody listens to

    def start(self, job: Job, work: Work) -> Job:
        """Have ``work`` done when it is its turn; it returns the report.

        Raises Busy where too many wait for that index.
        """
        with self._lock:
            waiting = sum(one.status == "queued" for one in self._of(job.index))
            if self._is_closed or waiting >= MOST_WAITING:
                raise Busy(_RETRY_S, what=f"the index {job.index}")
            self._forget()
            self._jobs[job.id] = job
            self._line(job.index).put((job, work))
        return job

    def get(self, job_id: str) -> Job | None:
        """Return a job; None where there is none of that id, or it was long ago."""
        with self._lock:
            return self._jobs.get(job_id)

    def all(self) -> list[Job]:
        """Return the jobs that are remembered, the newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    def close(self) -> None:
        """End all jobs; waits for the one at work, as long as the server waits for requests."""
        with self._lock:
            self._is_closed = True
            for job in self._jobs.values():
                job.cancel()
            for line in self._lines.values():
                line.put(None)
        deadline = time.monotonic() + self._drain_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _of(self, index: str) -> list[Job]:
        return [job for job in self._jobs.values() if job.index == index]

    def _forget(self) -> None:
        over = [job.id for job in self._jobs.values() if job.is_over]
        for job_id in over[: max(0, len(over) - _MOST_KEPT)]:
            del self._jobs[job_id]

    def _line(self, index: str) -> "queue.SimpleQueue[tuple[Job, Work] | None]":
        if index not in self._lines:
            line: queue.SimpleQueue[tuple[Job, Work] | None] = queue.SimpleQueue()
            self._lines[index] = line
            # A daemon: a job that does not end in time is cut off as by a crash, which harms
            # no index.
            thread = threading.Thread(
                target=_run, args=(line,), name=f"mmsearch-jobs-{index}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        return self._lines[index]


def _run(line: "queue.SimpleQueue[tuple[Job, Work] | None]") -> None:
    while (next_one := line.get()) is not None:
        job, work = next_one
        if not job.begin():
            continue
        try:
            job.report = work(job)
        except Cancelled:
            job.end("cancelled")
        except MMSearchError as error:
            job.error = {"message": str(error), "type": type(error).__name__, "hint": error.hint}
            job.end("failed")
        except Exception:
            log.exception("job %s failed", job.id)
            job.error = {
                "message": "the job could not be done; the server's log says why",
                "type": "InternalError",
                "hint": "look into the server's log",
            }
            job.end("failed")
        else:
            job.end("done")


def report_json(report: "IndexReport") -> dict[str, Any]:
    """Return what a run did as JSON, without the words of any decoder."""
    failed, before = report.failed, report.failed_before
    return {
        "documents": report.documents,
        "segments": report.segments,
        "skipped": report.skipped,
        "removed": report.removed,
        "unsupported": report.unsupported,
        "alike": report.alike,
        "num_failed": len(failed),
        "num_failed_before": len(before),
        "failed": [
            {"path": one.path, "reason": plain_reason(one.reason)} for one in failed[:_MAX_FAILED]
        ],
        "seconds": {name: round(value, 3) for name, value in report.seconds.items()},
    }
