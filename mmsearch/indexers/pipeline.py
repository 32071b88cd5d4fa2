"""Sources in, committed rows out.

    Plan -> read (worker processes) -> embed (this thread) -> commit (single writer)

Reading runs ahead of embedding by a bounded queue, so memory is set by the
queue and not by the corpus. Rows of finished documents are committed together
every second or so; whatever moment the process dies, a document is whole in
the index or not there at all.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.errors import BadItem, BadVectors, ModelError, OutOfMemory, UnreadableFile
from mmsearch.indexers.content import content_hash
from mmsearch.indexers.plan import Plan, Reading
from mmsearch.indexers.sandbox import ReadTask, Sandbox
from mmsearch.retriever.seams import Embedder
from mmsearch.retriever.store.rows import UNIT_TOLERANCE
from mmsearch.retriever.store.store import Row, Writer, new_commit_id
from mmsearch.values import (
    Document,
    Item,
    ReadPolicy,
    Role,
    Segment,
    Status,
    View,
    segment_id,
    stored_path,
)

if TYPE_CHECKING:
    from mmsearch.values import Vectors

_QUEUED_SEGMENTS = 48  # read ahead of the embedder: about 30 MB at the default's pixel budget
_EMBED_SEGMENTS = 24  # segments embedded in one call; the embedder forms batches inside it
_COMMIT_EVERY_S = 1.5  # a commit costs tens of ms whatever its size, and bounds what a kill loses
_POLL_S = 0.5
_LEAVE_S = 2.0
_OF_ONE_ITEM = (BadVectors, BadItem, OutOfMemory)  # its document fails, and the run goes on


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is: told after every segment and every document that was read.

    What was read is committed a moment later; the report counts what is committed.
    stage is the slowest so far (``read``, ``embed`` or ``commit``), the one that
    sets the speed; ``path`` is the document last finished or being read.
    """

    stage: str
    documents: int
    num_documents: int
    segments: int
    failed: int
    elapsed_s: float
    path: str

    @property
    def rate(self) -> float:
        """Segments a second so far."""
        return self.segments / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds to go, guessed from the documents done; None before the first one."""
        if not self.documents:
            return None
        return self.elapsed_s * (self.num_documents - self.documents) / self.documents

    def __str__(self) -> str:
        return (
            f"{self.stage}: {self.documents}/{self.num_documents} documents, "
            f"{self.segments} segments, {self.rate:.1f}/s  {self.path}"
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that could not be indexed, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport:
    """What a run did.

    documents, segments: read and committed in this run
    skipped:       unchanged since an earlier run
    removed:       documents whose file is gone
    failed:        documents that could not be read in this run
    failed_before: documents that failed in an earlier run and were not tried again
    unsupported:   files that no reader is for
    seconds:       wall time by stage: ``plan``, ``read`` (waiting for it), ``embed``,
                   ``commit``, ``refresh`` and ``total``
    """

    documents: int
    segments: int
    skipped: int
    removed: int
    failed: tuple[Failure, ...]
    failed_before: tuple[Failure, ...]
    unsupported: int
    seconds: Mapping[str, float]


@dataclass(slots=True)
class _Open:
    """A document on its way: its rows so far, and whether its reader is done."""

    reading: Reading
    rows: list[Row] = field(default_factory=list)
    ended: bool = False
    error: str = ""


def run(
    plan: Plan,
    *,
    embedder: Callable[[], Embedder],
    writer: Writer,
    policy: ReadPolicy,
    num_workers: int,
    plan_s: float = 0.0,
    on_progress: Callable[[Progress], object] | None = None,
) -> IndexReport:
    """Carry the plan out and return what was done.

    ``embedder`` is asked for when the first batch is ready: the model is loaded while the
    readers already read, and not at all where nothing has changed.

    A document that cannot be read or embedded is committed as failed, with its
    reason, and the run goes on. On KeyboardInterrupt what was finished stays
    committed, the workers are stopped, and the exception passes on.
    """
    flow = _Flow(plan, embedder, writer, on_progress)
    with (
        Sandbox(num_workers) as sandbox,
        _ReadAhead(plan, sandbox, policy) as ahead,
    ):
        for news in ahead:
            if news:
                flow.take(*news)
            flow.flush_if_due()
        flow.flush()
    flow.finish()
    return flow.report(plan_s)


class _Flow:
    """The consuming side: gathers segments, embeds them in batches, commits documents."""

    def __init__(
        self,
        plan: Plan,
        embedder: Callable[[], Embedder],
        writer: Writer,
        on_progress: Callable[[Progress], object] | None,
    ) -> None:
        self._plan, self._embedder, self._writer = plan, embedder, writer
        self._on_progress = on_progress
        self._open: dict[str, _Open] = {}
        self._waiting: list[tuple[_Open, Segment]] = []
        self._failed: list[Failure] = []
        self._documents = self._segments = self._settled = self._taken = 0
        self._seconds = dict.fromkeys(("read", "embed", "commit", "refresh"), 0.0)
        self._began = self._mark = self._committed_at = time.perf_counter()

    def take(self, reading: Reading, outcome: Segment | UnreadableFile | None) -> None:
        """Take what a reader gave: a segment, its end, or its failure."""
        self._spend("read")
        path = stored_path(reading.source.path)
        document = self._open.setdefault(path, _Open(reading))
        if isinstance(outcome, Segment):
            self._taken += 1
            self._waiting.append((document, outcome))
            if len(self._waiting) >= _EMBED_SEGMENTS:
                self._embed()
        else:
            document.ended = True
            if outcome:
                document.error = outcome.reason
            self._settled += 1
        self._tell(path)

    def flush_if_due(self) -> None:
        """Commit what is whole, if the last commit is a while ago."""
        if time.perf_counter() - self._committed_at > _COMMIT_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Embed what waits and commit every document that is whole."""
        self._embed()
        whole = {path: one for path, one in self._open.items() if one.ended}
        if whole:
            batch = [self._settle(path, document) for path, document in whole.items()]
            self._writer.commit_all(batch)
            for path in whole:
                del self._open[path]
        self._committed_at = time.perf_counter()
        self._spend("commit")

    def finish(self) -> None:
        """Bring the manifest up to date with what was not read, and refresh the indexes."""
        if self._plan.touched:
            self._writer.touch(self._plan.touched)
        if self._plan.gone:
            self._writer.remove(self._plan.gone)
        if self._plan.read or self._plan.gone:
            self._writer.refresh()
        self._spend("refresh")

    def report(self, plan_s: float) -> IndexReport:
        """Return what was done so far, after planning for ``plan_s`` seconds."""
        plan = self._plan
        total = plan_s + time.perf_counter() - self._began
        return IndexReport(
            documents=self._documents,
            segments=self._segments,
            skipped=plan.unchanged + len(plan.touched),
            removed=len(plan.gone),
            failed=tuple(self._failed),
            failed_before=tuple(Failure(one.path, one.error) for one in plan.failed_before),
            unsupported=plan.unsupported,
            seconds={"plan": plan_s, **self._seconds, "total": total},
        )

    def _embed(self) -> None:
        waiting, self._waiting = self._waiting, []
        # A document that has failed meanwhile needs no vectors.
        waiting = [(document, segment) for document, segment in waiting if not document.error]
        views = [
            (number, view, item)
            for number, (_, segment) in enumerate(waiting)
            for view, item in segment.views().items()
        ]
        vectors: list[dict[View, Vectors]] = [{} for _ in waiting]
        for (number, view, _), outcome in zip(
            views, self._vectors([item for *_, item in views]), strict=True
        ):
            if isinstance(outcome, ModelError):
                waiting[number][0].error = str(outcome)
            else:
                vectors[number][view] = outcome
        for (document, segment), by_view in zip(waiting, vectors, strict=True):
            document.rows.append(_row(document.reading, segment, by_view))
        self._spend("embed")

    def _vectors(self, items: Sequence[Item]) -> "list[Vectors | ModelError]":
        """Embed all at once; a batch that fails is retried one by one to find the bad item."""
        if not items:
            return []
        try:
            vectors = list(self._embedder().embed(items, role=Role.DOCUMENT))
            if not all(abs(float(one @ one) - 1) < UNIT_TOLERANCE for one in vectors):
                raise BadVectors("NaN, or not of unit length")
            return vectors
        except _OF_ONE_ITEM as error:
            if len(items) == 1:
                return [error]
            return [one for item in items for one in self._vectors([item])]

    def _settle(self, path: str, document: _Open) -> tuple[Document, list[Row]]:
        """Return a document as the manifest will have it, and its rows."""
        failed = bool(document.error)
        rows = [] if failed else document.rows
        if failed:
            self._failed.append(Failure(path, document.error))
        else:
            self._documents += 1
            self._segments += len(rows)
        reading = document.reading
        return (
            Document(
                path=path,
                kind=reading.kind,
                content_hash=reading.content_hash,
                size=reading.source.size,
                mtime_ns=reading.source.mtime_ns,
                status=Status.FAILED if failed else Status.DONE,
                commit_id=new_commit_id(),
                num_segments=len(rows),
                error=document.error,
            ),
            rows,
        )

    def _spend(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[stage] += now - self._mark
        self._mark = now

    def _tell(self, path: str) -> None:
        if self._on_progress:
            self._on_progress(
                Progress(
                    stage=max(self._seconds, key=lambda stage: self._seconds[stage]),
                    documents=self._settled,
                    num_documents=len(self._plan.read),
                    segments=self._taken,
                    failed=len(self._failed),
                    elapsed_s=time.perf_counter() - self._began,
                    path=path,
                )
            )
            self._mark = time.perf_counter()  # the listener's time is not a stage's


def _row(reading: Reading, segment: Segment, vectors: "Mapping[View, Vectors]") -> Row:
    return Row(
        segment_id=segment_id(stored_path(reading.source.path), segment.locator),
        kind=segment.kind,
        locator=segment.locator,
        text=segment.text,
        text_origin=segment.text_origin,
        about=segment.about,
        vectors=vectors,
        thumbnail=segment.thumbnail,
        look=segment.look,
    )


_Outcome = tuple[Reading, Segment | UnreadableFile | None]


class _ReadAhead:
    """Runs the sandbox in a thread of its own, a bounded queue ahead of the consumer."""

    def __init__(self, plan: Plan, sandbox: Sandbox, policy: ReadPolicy) -> None:
        self._plan, self._sandbox, self._policy = plan, sandbox, policy
        self._queue: queue.Queue[_Outcome | BaseException | None] = queue.Queue(_QUEUED_SEGMENTS)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="mmsearch-read", daemon=True)

    def __enter__(self) -> "_ReadAhead":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        try:
            self._sandbox.close()  # the thread may be waiting for a file that never ends,
        finally:
            self._thread.join(_LEAVE_S)  # or be hashing a large one: then it ends by itself

    def __iter__(self) -> Iterator[_Outcome | None]:
        """Yield outcomes as they come, and None while a slow file keeps everybody waiting."""
        while True:
            try:
                outcome = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                yield None
                continue
            if outcome is None:
                return
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome

    def _read(self) -> None:
        """Put every outcome in the queue, then None; or the exception that ended it."""
        try:
            readings: dict[Path, Reading] = {}
            for task, outcome in self._sandbox.read(self._tasks(readings)):
                if not self._put((readings[task.path], outcome)):
                    return
                if not isinstance(outcome, Segment):
                    del readings[task.path]
            self._put(None)
        except BaseException as error:  # handed to the consumer, who raises it
            self._put(error)

    def _tasks(self, readings: dict[Path, Reading]) -> Iterator[ReadTask]:
        """Yield a task for each reading, its content hash taken; failed ones are only put."""
        for reading in self._plan.read:
            path = reading.source.path
            try:
                if reading.error:
                    raise UnreadableFile(path, reading.error)
                digest = reading.content_hash or content_hash(path)
            except UnreadableFile as error:
                self._put((reading, error))
                continue
            readings[path] = Reading(reading.source, reading.kind, digest)
            yield ReadTask(path, reading.kind, self._policy)

    def _put(self, outcome: _Outcome | BaseException | None) -> bool:
        """Wait for room in the queue; False once the consumer has gone."""
        while not self._stopped.is_set():
            try:
                self._queue.put(outcome, timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False
