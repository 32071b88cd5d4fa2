"""The one writer of an index.

A commit goes: thumbnails, segment rows, manifest row. The manifest row is the commit
point: before it, no reader counts the rows; from it on, no reader counts the rows of the
version it replaced, which are removed some time later. A writer that is killed leaves
rows and files that nobody counts, and the next writer sweeps them away.
"""

import re
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmsearch.errors import StoreError
from mmsearch.retriever.store import ann, indexes
from mmsearch.retriever.store.check import problems_of
from mmsearch.retriever.store.media import Media
from mmsearch.retriever.store.rows import (
    Row,
    any_of,
    documents_table,
    path_text,
    segments_table,
)
from mmsearch.retriever.store.snapshot import read_manifest, take_snapshot
from mmsearch.retriever.store.tables import Table
from mmsearch.retriever.store.words import TEXT_COLUMNS
from mmsearch.values import Document, Space, Status

# Every change is a version of a table with a file or two of its own; past this many
# they are merged, or a long run would spend its time listing them.
TIDY_AFTER = 256
DROP_AFTER = 64
BATCH = 500  # values of one IN (...)
COMMIT_ID = re.compile(r"[0-9a-zA-Z_-]{4,64}")


def new_commit_id() -> str:
    """Return a name for a commit that no other has."""
    return uuid.uuid4().hex


class Writer:
    """Commits, touches and removes documents; every call is durable when it returns."""

    def __init__(
        self, folder: Path, space: Space, documents: Table, segments: Table, media: Media
    ) -> None:
        self._folder = folder
        self._space = space
        self._documents = documents
        self._segments = segments
        self._media = media
        self._manifest: dict[str, tuple[Document, int]] = {}  # document, its thumbnails
        self._used: set[str] = set()
        self._superseded: list[str] = []  # commits whose rows are still there
        self._num_changes = 0
        self._load()

    def commit(self, document: Document, rows: Sequence[Row]) -> None:
        """Keep a document and its segments, in place of any earlier version of its path."""
        self.commit_all([(document, rows)])

    def commit_all(self, batch: Sequence[tuple[Document, Sequence[Row]]]) -> None:
        """Commit several documents at once: all of them or, if this raises, none.

        A document that failed takes no rows, and those it had are given up. Raises
        ValueError for a commit id used before, or one path or segment twice; BadVectors;
        StoreError where the disk refuses.
        """
        if not batch:
            return
        batch = [(_as_kept(document, rows), rows) for document, rows in batch]
        self._refuse_bad(batch)
        table = segments_table(batch, self._space.dim)
        kept = [(document, _thumbnails(rows)) for document, rows in batch]
        commits = [document.commit_id for document, rows in batch if rows]
        self._used.update(commits)
        try:
            for document, thumbnails in kept:
                try:
                    self._media.write(document.commit_id, thumbnails)
                except OSError as error:
                    raise StoreError(f"cannot write to {self._folder}: {error}") from error
            if table.num_rows:
                self._segments.add(table)
            self._put([(document, len(thumbnails)) for document, thumbnails in kept])
        except BaseException:
            self._load()  # what reached the disk is the truth
            self._superseded += [c for c in commits if c not in self._live()]
            raise
        self._tidy_now_and_then()

    def touch(self, documents: Sequence[Document]) -> None:
        """Take over size, time and whether OCR is awaited of documents whose content is the same.

        Raises ValueError for a document that is not in the index in that very version.
        """
        touched = []
        for document in documents:
            known, num_thumbnails = self._manifest.get(path_text(document.path), (None, 0))
            if known is None or known.commit_id != document.commit_id:
                raise ValueError(f"{document.path} is not in the index as {document.commit_id}")
            now = replace(
                known,
                size=document.size,
                mtime_ns=document.mtime_ns,
                awaits_ocr=document.awaits_ocr,
            )
            touched.append((now, num_thumbnails))
        if touched:
            self._put(touched)

    def remove(self, paths: Sequence[str]) -> int:
        """Forget these documents, their segments and thumbnails; return how many there were."""
        known = [path for path in dict.fromkeys(map(path_text, paths)) if path in self._manifest]
        for start in range(0, len(known), BATCH):
            some = known[start : start + BATCH]
            self._documents.delete(any_of("path", some))
            for path in some:
                self._give_up(self._manifest.pop(path)[0])
        self.drop_superseded()
        return len(known)

    def refresh(self) -> None:
        """Make full-text search fast for what was added, merge small files, drop old versions."""
        self.drop_superseded()
        for table in (self._segments, self._documents):
            indexes.mend(table)
            table.tidy()
        ann.refresh(self._segments)
        self._num_changes = 0

    def repair(self) -> list[str]:
        """Mend what `Store.check` finds; return a sentence for each thing that was done.

        Documents that are not whole are forgotten: index their files again. Raises
        StoreError where the tables themselves are damaged.
        """
        mended = []
        snapshot = take_snapshot(self._documents, self._segments, self._media)
        problems = problems_of(snapshot, self._media)
        for path in dict.fromkeys(problem.path for problem in problems if problem.path):
            self.remove([path])
            mended.append(f"forgot {path}, which was not whole: index it again")
        self.sweep()
        missing = [one for one in indexes.missing(self._segments) if one in TEXT_COLUMNS]
        if missing:
            mended.append(f"made the full-text index over {' and '.join(missing)} anew")
        mended += [f"made the index {name} anew" for name in indexes.damaged(self._segments)]
        self.refresh()
        return mended

    def sweep(self) -> int:
        """Remove rows and thumbnails that belong to no document; return how many commits."""
        live = self._live()
        there = set(self._segments.rows(["commit_id"])["commit_id"].to_pylist())
        dead = sorted(there - live)
        self._superseded = dead
        self.drop_superseded()
        return len(set(dead)) + self._media.sweep(live)

    def drop_superseded(self) -> None:
        """Remove the rows and thumbnails of versions that were replaced or removed."""
        for start in range(0, len(self._superseded), BATCH):
            some = self._superseded[start : start + BATCH]
            self._segments.delete(any_of("commit_id", some))
            for commit_id in some:
                self._media.remove(commit_id)
        self._superseded = []

    # ------------------------------------------------------------ inside

    def _load(self) -> None:
        manifest = read_manifest(self._documents)
        self._manifest = {
            document.path: (document, manifest.num_thumbnails[document.commit_id])
            for document in manifest.documents
        }
        self._used |= self._live()

    def _live(self) -> set[str]:
        documents = (document for document, _ in self._manifest.values())
        return {document.commit_id for document in documents if document.num_segments}

    def _refuse_bad(self, batch: Sequence[tuple[Document, Sequence[Row]]]) -> None:
        paths = [document.path for document, _ in batch]
        commits = [document.commit_id for document, rows in batch if rows]
        ids = [row.segment_id for _, rows in batch for row in rows]
        for what, values in (("path", paths), ("commit id", commits), ("segment id", ids)):
            if len(set(values)) != len(values):
                raise ValueError(f"the same {what} twice in one batch")
        for document, rows in batch:
            if rows and document.status is Status.FAILED:
                raise ValueError(f"{document.path} failed and yet has segments")
            if rows and not COMMIT_ID.fullmatch(document.commit_id):
                raise ValueError(f"{document.commit_id!r} cannot name a commit")
            if rows and document.commit_id in self._used:
                raise ValueError(f"commit id {document.commit_id} was used before")

    def _put(self, rows: Sequence[tuple[Document, int]]) -> None:
        table = documents_table(rows)
        if any(document.path in self._manifest for document, _ in rows):
            self._documents.put("path", table)
        else:
            self._documents.add(table)  # the only writer may add what it knows to be new
        for document, num_thumbnails in rows:
            replaced = self._manifest.get(document.path)
            self._manifest[document.path] = (document, num_thumbnails)
            if replaced is not None and replaced[0].commit_id != document.commit_id:
                self._give_up(replaced[0])

    def _give_up(self, document: Document) -> None:
        if document.num_segments:
            self._superseded.append(document.commit_id)

    def _tidy_now_and_then(self) -> None:
        self._num_changes += 1
        if len(self._superseded) >= DROP_AFTER:
            self.drop_superseded()
        if self._num_changes >= TIDY_AFTER:
            self.refresh()


def _as_kept(document: Document, rows: Sequence[Row]) -> Document:
    return replace(document, path=path_text(document.path), num_segments=len(rows))


def _thumbnails(rows: Sequence[Row]) -> dict[str, bytes]:
    return {row.segment_id: row.thumbnail for row in rows if row.thumbnail}
