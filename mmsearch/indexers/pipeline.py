"""Sources in, committed rows out.

    Plan -> read (a thread, worker processes) -> embed (the caller's thread) -> commit (a thread)
         -> once more, with OCR, what needs it

Stages hand on through bounded channels, so memory is set by the bounds and not by the
corpus, and the slowest stage sets the speed. Segments of all documents are embedded
together, in calls as large as the embedder wants them; whole documents are committed
together every second or so. Whatever moment the process dies, a document is whole in the
index or not there at all.

Reading words in pictures takes a hundred times as long as looking at them. So what needs
OCR is first committed without, to be found by its looks, and read again after everything
else; a run that is ended before leaves that to the next.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from mmsearch.errors import BadItem, BadVectors, ModelError, OutOfMemory, UnreadableFile
from mmsearch.indexers.channel import Channel, Stopped
from mmsearch.indexers.content import content_hash
from mmsearch.indexers.kept import Kept, KeptSegments
from mmsearch.indexers.plan import Plan, Reading
from mmsearch.indexers.report import IndexReport, Progress, Tally
from mmsearch.indexers.sandbox import ReadTask, Sandbox
from mmsearch.retriever.seams import Embedder
from mmsearch.retriever.store.rows import UNIT_TOLERANCE, utf8
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

_READ_AHEAD = 4_096  # segments and endings between reading and embedding
_READ_AHEAD_BYTES = 64 << 20  # of pixels and words
_CALL_BYTES = 256 << 20  # of pixels in one call of the embedder, whatever it asks for
_EMBED_WITHIN_S = 1.5  # a segment waits no longer for others to be embedded with
_COMMIT_AHEAD = 4_096  # documents that are whole and not yet being committed
_COMMIT_BYTES = 64 << 20  # of rows, and as many in the commit that is under way
_COMMIT_EVERY_S = 1.5  # a commit costs tens of ms whatever its size, and bounds what a kill loses
_HASHED_HERE_BYTES = 64 << 20  # a worker that hashes more would say nothing for too long
_ROW_BYTES = 512  # of a row, beside its words, vectors and thumbnail
_POLL_S = 0.5
_LEAVE_S = 2.0
_OF_ONE_ITEM = (BadVectors, BadItem, OutOfMemory)  # its document fails, and the run goes on


@dataclass(slots=True)
class _Open:
    """A document on its way: its rows so far, how many are not embedded, whether it was read."""

    reading: Reading
    rows: list[Row] = field(default_factory=list)
    num_waiting: int = 0
    is_read: bool = False
    awaits_ocr: bool = False
    is_changed: bool = False  # by OCR, against what the index has of it
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A segment that is to be embedded, and about how many tokens of work it is."""

    document: _Open
    segment: Segment
    num_tokens: int


def run(
    plan: Plan,
    *,
    embedder: Callable[[], Embedder],
    writer: Writer,
    policy: ReadPolicy,
    num_workers: int,
    plan_s: float = 0.0,
    on_progress: Callable[[Progress], object] | None = None,
    kept: KeptSegments | None = None,
) -> IndexReport:
    """Carry the plan out and return what was done.

    ``embedder`` is asked for when the first segment is ready: the model is loaded while the
    readers already read, and not at all where nothing has changed. ``kept`` tells what the
    index has of a segment already, so that a second reading does not embed its looks again.

    A document that cannot be read or embedded is committed as failed, with its
    reason, and the run goes on. On KeyboardInterrupt, and any other exception, what was
    finished is committed, threads and workers are ended, and the exception passes on.
    """
    tally = Tally(plan, on_progress)
    with Sandbox(num_workers) as sandbox:
        tally.begin("read", len(plan.read))
        first = _Pass(replace(policy, ocr=False), embedder, writer, tally, later=policy.ocr)
        first.carry_out(plan.read, sandbox)
        if plan.touched:
            writer.touch(plan.touched)
        if plan.gone:
            writer.remove(plan.gone)
        again = [*plan.awaiting, *first.awaiting] if policy.ocr else []
        if again:
            began = time.perf_counter()
            tally.begin("ocr", len(again))
            _Pass(policy, embedder, writer, tally, kept=kept).carry_out(again, sandbox)
            tally.seconds["ocr"] = time.perf_counter() - began
    began = time.perf_counter()
    if plan.read or plan.gone or again:
        writer.refresh()
    tally.seconds["refresh"] = time.perf_counter() - began
    return tally.report(plan_s, num_left=0 if policy.ocr else len(plan.awaiting))


# ---------------------------------------------------------------- embed, in the caller's thread


class _Pass:
    """Takes what readers give, embeds it in calls, hands whole documents to the committer.

    awaiting: what it handed on without OCR although it needs that, where that comes later
    """

    def __init__(
        self,
        policy: ReadPolicy,
        embedder: Callable[[], Embedder],
        writer: Writer,
        tally: Tally,
        *,
        later: bool = False,
        kept: KeptSegments | None = None,
    ) -> None:
        self.awaiting: list[Reading] = []
        self._policy, self._embedder, self._tally = policy, embedder, tally
        self._later, self._kept = later, kept
        self._committer = _Committer(writer, tally, is_first=kept is None)
        self._open: dict[str, _Open] = {}
        self._waiting: list[_Waiting] = []
        self._num_tokens = self._num_bytes = 0
        self._embedded_at = float("-inf")

    def carry_out(self, readings: Sequence[Reading], sandbox: Sandbox) -> None:
        """Read all of them; return when everything is committed."""
        if not readings:
            return
        with self._committer, _ReadAhead(readings, sandbox, self._policy) as ahead:
            while not ahead.is_over:
                began = time.perf_counter()
                outcome = ahead.take(self._patience_s(began))
                self._tally.seconds["read"] += time.perf_counter() - began
                if outcome is not None:
                    self._take(outcome)
                if self._is_due():
                    self._embed()
            ahead.raise_error()
            self._embed()

    def _patience_s(self, now: float) -> float:
        if not self._waiting:
            return _POLL_S
        return min(max(self._embedded_at + _EMBED_WITHIN_S - now, 0.0), _POLL_S)

    def _is_due(self) -> bool:
        if not self._waiting:
            return False
        is_enough = self._num_tokens >= self._embedder().call_tokens
        is_late = time.perf_counter() >= self._embedded_at + _EMBED_WITHIN_S
        return is_enough or self._num_bytes >= _CALL_BYTES or is_late

    def _take(self, outcome: "_Outcome") -> None:
        """Take what a reader gave: a segment, its end, or its failure."""
        reading, ending = outcome.reading, outcome.ending
        path = stored_path(reading.source.path)
        document = self._open.get(path)
        if document is None:
            document = self._open[path] = _Open(reading)
        if isinstance(ending, Segment):
            if not document.error:
                self._wait(document, ending)
        else:
            document.reading, document.is_read = reading, True
            if ending:
                document.error = ending.reason
            self._count_reading(document, outcome.busy_s)
            self._hand_on_if_whole(path, document)
        self._tally.tell(
            path,
            is_segment=isinstance(ending, Segment),
            commit_waited_s=self._committer.waited_s,
        )

    def _wait(self, document: _Open, segment: Segment) -> None:
        embedder = self._embedder()
        num_tokens = sum(embedder.num_tokens(item) for item in segment.views().values())
        document.num_waiting += 1
        document.awaits_ocr |= self._later and segment.awaits_ocr
        self._waiting.append(_Waiting(document, segment, num_tokens))
        self._num_tokens += num_tokens
        self._num_bytes += _num_bytes(segment)

    def _embed(self) -> None:
        """Embed what waits, and hand on what is whole then."""
        waiting, self._waiting = self._waiting, []
        self._num_tokens = self._num_bytes = 0
        # A document that has failed meanwhile needs no vectors.
        wanted = [one for one in waiting if not one.document.error]
        ids = [_id(one) for one in wanted]
        kept = self._kept.of(ids) if self._kept and ids else {}
        vectors = [_known_vectors(one, kept.get(id_)) for one, id_ in zip(wanted, ids, strict=True)]
        missing = [
            (number, view, item)
            for number, one in enumerate(wanted)
            for view, item in one.segment.views().items()
            if view not in vectors[number]
        ]
        began = time.perf_counter()
        embedded = self._vectors([item for *_, item in missing])
        self._count_embedding(wanted, time.perf_counter() - began)
        for (number, view, _), outcome in zip(missing, embedded, strict=True):
            if isinstance(outcome, ModelError):
                wanted[number].document.error = str(outcome)
            else:
                vectors[number][view] = outcome
        for one, id_, by_view in zip(wanted, ids, vectors, strict=True):
            one.document.rows.append(_row(id_, one.segment, by_view))
            one.document.is_changed |= _is_news(one.segment, kept.get(id_))
        for one in waiting:
            one.document.num_waiting -= 1
            self._hand_on_if_whole(stored_path(one.document.reading.source.path), one.document)
        self._embedded_at = time.perf_counter()

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

    def _hand_on_if_whole(self, path: str, document: _Open) -> None:
        if not document.is_read or document.num_waiting or path not in self._open:
            return
        del self._open[path]
        known, reading = document.reading.known, document.reading
        rows = [] if document.error else document.rows
        settled = Document(
            path=path,
            kind=reading.kind,
            content_hash=reading.content_hash,
            size=reading.source.size,
            mtime_ns=reading.source.mtime_ns,
            status=Status.FAILED if document.error else Status.DONE,
            commit_id=new_commit_id(),
            num_segments=len(rows),
            error=document.error,
            awaits_ocr=document.awaits_ocr and not document.error,
        )
        if known and document.error:
            # It goes on being found by its looks; its words are given up until --again.
            self._tally.failed(path, f"no words were read in it: {document.error}")
            self._committer.put(replace(known, awaits_ocr=False), None)
            return
        if known:
            if known.content_hash != reading.content_hash:
                return  # it changed since it was first read: for the next run, which sees that
            if not document.is_changed and len(rows) == known.num_segments:
                self._committer.put(replace(known, awaits_ocr=False), None)
                return
        if settled.awaits_ocr:
            self.awaiting.append(replace(reading, known=settled))
        self._committer.put(settled, rows)

    def _count_reading(self, document: _Open, busy_s: float) -> None:
        rate = self._tally.rate(document.reading.kind)
        if document.reading.known:
            rate.ocr_s += busy_s
            rate.ocr_segments += len(document.rows) + document.num_waiting
        else:
            rate.read_s += busy_s
            rate.bytes_read += document.reading.source.size

    def _count_embedding(self, embedded: Sequence[_Waiting], took_s: float) -> None:
        self._tally.seconds["embed"] += took_s
        num_tokens = max(sum(one.num_tokens for one in embedded), 1)
        for one in embedded:
            self._tally.rate(one.segment.kind).embed_s += took_s * one.num_tokens / num_tokens


def _id(one: _Waiting) -> str:
    return segment_id(stored_path(one.document.reading.source.path), one.segment.locator)


def _known_vectors(one: _Waiting, kept: Kept | None) -> "dict[View, Vectors]":
    """Return the vectors that need not be made again; the content is the same, by its hash."""
    if kept is None or one.document.reading.known is None:
        return {}
    is_same = kept.text == utf8(one.segment.text)
    return {
        view: vector
        for view, vector in kept.vectors.items()
        if view is View.VISUAL or (is_same and view in one.segment.views())
    }


def _is_news(segment: Segment, kept: Kept | None) -> bool:
    if kept is None:
        return True
    return (kept.text, kept.text_origin) != (utf8(segment.text), segment.text_origin)


def _row(id_: str, segment: Segment, vectors: "Mapping[View, Vectors]") -> Row:
    return Row(
        segment_id=id_,
        kind=segment.kind,
        locator=segment.locator,
        text=segment.text,
        text_origin=segment.text_origin,
        about=segment.about,
        vectors=vectors,
        thumbnail=segment.thumbnail,
        look=segment.look,
    )


def _num_bytes(segment: Segment) -> int:
    pixels = 0 if segment.pixels is None else segment.pixels.nbytes
    return pixels + len(segment.text) + len(segment.thumbnail)


def _row_bytes(row: Row) -> int:
    """Return what a row takes in the index, about: its vectors are kept in half precision."""
    vectors = sum(vector.nbytes // 2 for vector in row.vectors.values())
    words = len(row.text.encode("utf-8", "replace")) + len(row.about)
    return _ROW_BYTES + vectors + words + len(row.thumbnail)


# ---------------------------------------------------------------- read, in a thread of its own


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a reader gave: a segment, or how the file ended and the seconds it took."""

    reading: Reading
    ending: Segment | UnreadableFile | None
    busy_s: float = 0.0


class _ReadAhead:
    """Runs the sandbox in a thread of its own, a bounded channel ahead of the embedder."""

    def __init__(self, readings: Sequence[Reading], sandbox: Sandbox, policy: ReadPolicy) -> None:
        self._readings, self._sandbox, self._policy = readings, sandbox, policy
        self._channel: Channel[_Outcome] = Channel(most=_READ_AHEAD, most_bytes=_READ_AHEAD_BYTES)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="mmsearch-read", daemon=True)

    def __enter__(self) -> "_ReadAhead":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.stop()
        try:
            if error is not None:
                self._sandbox.close()  # the thread may be waiting for a file that never ends,
        finally:
            self._thread.join(_LEAVE_S)  # or be hashing a large one: then it ends by itself

    def take(self, timeout_s: float) -> _Outcome | None:
        """Return what came next; None while a slow file keeps everybody waiting."""
        return self._channel.take(timeout_s)

    @property
    def is_over(self) -> bool:
        """Whether everything was taken."""
        return self._channel.is_over

    def raise_error(self) -> None:
        """Raise what ended the reading before its time, if anything did."""
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        try:
            under_way: dict[Path, Reading] = {}
            for task, outcome in self._sandbox.read(self._tasks(under_way)):
                reading = under_way[task.path]
                if isinstance(outcome, Segment):
                    self._channel.put(_Outcome(reading, outcome), _num_bytes(outcome))
                    continue
                del under_way[task.path]
                reading = replace(reading, content_hash=task.content_hash or "")
                self._channel.put(_Outcome(reading, outcome, task.busy_s))
        except Stopped:
            pass
        except BaseException as error:  # handed to the embedder, who raises it
            self._error = error
        finally:
            self._channel.end()

    def _tasks(self, under_way: dict[Path, Reading]) -> Iterator[ReadTask]:
        """Yield a task for each reading; those that have failed are only handed on."""
        for reading in self._readings:
            path = reading.source.path
            # What was known of it is asked for again: it may have changed meanwhile.
            digest = "" if reading.known else reading.content_hash
            try:
                if reading.error:
                    raise UnreadableFile(path, reading.error)
                if not digest and reading.source.size > _HASHED_HERE_BYTES:
                    digest = content_hash(path)
            except UnreadableFile as error:
                self._channel.put(_Outcome(reading, error))
                continue
            under_way[path] = reading
            yield ReadTask(path, reading.kind, self._policy, content_hash=digest)


# ---------------------------------------------------------------- commit, in a thread of its own


class _Committer:
    """Commits documents, together and in a thread of its own, as long as a ``with``.

    However that is left, what was put is committed first. What goes wrong is raised by the
    next `put`, as Stopped, and as itself at the end.
    """

    def __init__(self, writer: Writer, tally: Tally, *, is_first: bool) -> None:
        self._writer, self._tally, self._is_first = writer, tally, is_first
        self._channel: Channel[tuple[Document, list[Row] | None]] = Channel(
            most=_COMMIT_AHEAD, most_bytes=_COMMIT_BYTES
        )
        self._committed_at = float("-inf")
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._commit_all, name="mmsearch-commit")

    def __enter__(self) -> "_Committer":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.end()
        interrupted: KeyboardInterrupt | None = None
        while self._thread.is_alive():
            try:
                self._thread.join(_POLL_S)
            except KeyboardInterrupt as again:  # the index is ours as long as the thread lives
                interrupted = again
        if self._error is not None and (error is None or isinstance(error, Stopped)):
            raise self._error
        if interrupted is not None and error is None:
            raise interrupted

    @property
    def waited_s(self) -> float:
        """Seconds that the others waited for it."""
        return self._channel.waited_s

    def put(self, document: Document, rows: list[Row] | None) -> None:
        """Commit a document and its rows; without, only what the manifest says of it.

        Raises Stopped.
        """
        self._channel.put((document, rows), sum(map(_row_bytes, rows or ())))

    def _commit_all(self) -> None:
        try:
            while batch := self._next_batch():
                began = time.perf_counter()
                whole = [(document, rows) for document, rows in batch if rows is not None]
                self._writer.touch([document for document, rows in batch if rows is None])
                self._writer.commit_all(whole)
                self._committed_at = time.perf_counter()
                self._count(batch, self._committed_at - began)
        except BaseException as error:
            self._error = error
        finally:
            self._channel.stop()

    def _next_batch(self) -> list[tuple[Document, list[Row] | None]]:
        """Wait for documents, a while from the last commit on; none once it is over."""
        batch: list[tuple[Document, list[Row] | None]] = []
        num_bytes = 0
        while len(batch) < _COMMIT_AHEAD and num_bytes < _COMMIT_BYTES:
            left_s = self._committed_at + _COMMIT_EVERY_S - time.perf_counter()
            one = self._channel.take(min(max(left_s, 0.0), _POLL_S) if batch else _POLL_S)
            if one is not None:
                batch.append(one)
                num_bytes += sum(map(_row_bytes, one[1] or ()))
            elif self._channel.is_over or (batch and left_s <= 0):
                break
        return batch

    def _count(self, batch: Sequence[tuple[Document, list[Row] | None]], took_s: float) -> None:
        self._tally.seconds["commit"] += took_s
        for document, rows in batch:
            self._tally.committed(document)
            rate = self._tally.rate(document.kind)
            rate.commit_s += took_s / len(batch)
            if self._is_first:  # else these were counted when they were
                rate.documents += not document.error
                rate.segments += len(rows or ())
                rate.bytes_stored += sum(map(_row_bytes, rows or ()))
