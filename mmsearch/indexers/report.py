"""What a run tells while it goes on, and what it did in the end.

Tally counts -> Progress after every segment, IndexReport at the end
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mmsearch.indexers.plan import Plan
from mmsearch.indexers.rates import Rate
from mmsearch.values import Document, Kind, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is: told after every segment and every document that was read.

    What was read is committed a moment later; the report counts what is committed.
    stage is the slowest so far (``read``, ``embed`` or ``commit``), the one the others wait
    for; or ``ocr``, once what needs it is read again: then the counts begin anew, with those
    documents alone. ``path`` is the document last finished or being read.
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

    documents, segments: read and committed in this run, each counted once
    skipped:       unchanged since an earlier run
    removed:       documents whose file is gone
    failed:        documents that could not be read in this run; one whose OCR alone failed is
                   among ``documents`` too, and found by its looks
    failed_before: documents that failed in an earlier run and were not tried again
    unsupported:   files that no reader is for
    seconds:       wall time by stage, which overlap: ``plan``, ``read`` (waiting for it),
                   ``embed``, ``commit``, ``refresh`` and ``total``; ``ocr`` where there was
                   any, with its share of the others
    rates:         what was done by kind
    alike:         segments of this run that are near-duplicates of another (`search.looks`)
    """

    documents: int
    segments: int
    skipped: int
    removed: int
    failed: tuple[Failure, ...]
    failed_before: tuple[Failure, ...]
    unsupported: int
    seconds: Mapping[str, float]
    rates: Mapping[Kind, Rate] = field(default_factory=dict)
    alike: int = 0


class Tally:
    """Counts what is done and in which time, and tells the listener."""

    def __init__(self, plan: Plan, on_progress: Callable[[Progress], object] | None) -> None:
        self._plan, self._on_progress = plan, on_progress
        self.seconds = dict.fromkeys(("read", "embed", "commit", "refresh"), 0.0)
        self.rates: dict[Kind, Rate] = {}
        self._failed: list[Failure] = []
        self._documents = self._segments = 0
        self._once: dict[str, int] = {}  # segments of documents that will be read again
        self._began = time.perf_counter()

    def begin(self, stage: str, num_documents: int) -> None:
        """Begin a pass; its progress is counted from nothing."""
        self._stage, self._num_documents = stage, num_documents
        self._settled = self._taken = 0
        self._pass_began = time.perf_counter()

    def rate(self, kind: Kind | None) -> Rate:
        """Return what was done for documents of a kind, to be added to."""
        return self.rates.setdefault(kind, Rate()) if kind else Rate()

    def committed(self, document: Document) -> None:
        """Count a document that is durably in the index, in place of its first reading."""
        before = self._once.pop(document.path, None)
        if before is not None:
            self._documents -= 1
            self._segments -= before
        if document.status is Status.FAILED:
            self._failed.append(Failure(document.path, document.error))
            return
        self._documents += 1
        self._segments += document.num_segments
        if document.awaits_ocr:
            self._once[document.path] = document.num_segments

    def failed(self, path: str, reason: str) -> None:
        """Report a document that failed in its second reading; its first one stays."""
        self._failed.append(Failure(path, reason))

    def tell(self, path: str, *, is_segment: bool, commit_waited_s: float) -> None:
        """Count a segment or the end of a document, and tell of it."""
        self._taken += is_segment
        self._settled += not is_segment
        if self._on_progress is None:
            return
        blocked = {
            "read": self.seconds["read"],
            "embed": self.seconds["embed"],
            "commit": commit_waited_s,
        }
        slowest = max(blocked, key=lambda stage: blocked[stage])
        self._on_progress(
            Progress(
                stage=self._stage if self._stage == "ocr" else slowest,
                documents=self._settled,
                num_documents=self._num_documents,
                segments=self._taken,
                failed=len(self._failed),
                elapsed_s=time.perf_counter() - self._pass_began,
                path=path,
            )
        )

    def report(self, plan_s: float, *, num_left: int) -> IndexReport:
        """Return what was done, after planning for ``plan_s`` seconds."""
        plan = self._plan
        total = plan_s + time.perf_counter() - self._began
        return IndexReport(
            documents=self._documents,
            segments=self._segments,
            skipped=plan.unchanged + len(plan.touched) + num_left,
            removed=len(plan.gone),
            failed=tuple(self._failed),
            failed_before=tuple(Failure(one.path, one.error) for one in plan.failed_before),
            unsupported=plan.unsupported,
            seconds={"plan": plan_s, **self.seconds, "total": total},
            rates=self.rates,
        )
