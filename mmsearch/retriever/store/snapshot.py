"""One state of the index: what a reader sees while a writer is at work.

A row counts when the manifest names its commit. The manifest and the segments are two
tables, so a snapshot takes the manifest, then a version of ``segments``, then looks at
the manifest again: if every commit it took is still there, that version holds all of
their rows, because rows are added before their commit is and removed after it is gone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mmsearch.errors import SegmentNotFound, StoreError
from mmsearch.retriever.seams import Neighbour
from mmsearch.retriever.store.media import Media
from mmsearch.retriever.store.rows import (
    SEGMENT_COLUMNS,
    VECTOR_COLUMN,
    StoredSegment,
    any_of,
    document_from,
    path_text,
    segment_from,
    utf8,
)
from mmsearch.retriever.store.tables import Table
from mmsearch.retriever.store.words import terms
from mmsearch.values import Document, View

if TYPE_CHECKING:
    import pyarrow as pa

    from mmsearch.values import Vectors

TRIES = 100
LONGEST_QUESTION = 8_000  # characters of a full-text query that are looked at


class Manifest:
    """The rows of ``documents`` at one version."""

    def __init__(self, version: int, rows: "pa.Table") -> None:
        self.version = version
        self._rows = rows

    @cached_property
    def live(self) -> frozenset[str]:
        """The commits whose segments count."""
        commits = self._rows["commit_id"].to_pylist()
        counts = self._rows["num_segments"].to_pylist()
        return frozenset(c for c, count in zip(commits, counts, strict=True) if count)

    @cached_property
    def num_segments(self) -> int:
        """How many segments its documents have."""
        return sum(self._rows["num_segments"].to_pylist())

    @cached_property
    def documents(self) -> list[Document]:
        """Its documents by path."""
        documents = [document_from(row) for row in self._rows.to_pylist()]
        return sorted(documents, key=lambda document: document.path)

    @cached_property
    def num_thumbnails(self) -> Mapping[str, int]:
        """By commit, how many thumbnails its media file should hold."""
        commits = self._rows["commit_id"].to_pylist()
        return dict(zip(commits, self._rows["num_thumbnails"].to_pylist(), strict=True))


def read_manifest(documents: Table) -> Manifest:
    """Return the manifest as it is now."""
    version = documents.version
    pinned = documents.at(version)
    return Manifest(version, pinned.rows(pinned.schema.names))


class Snapshot:
    """Answers from one state; a VectorIndex by exact scan. Nothing in it ever changes."""

    def __init__(self, manifest: Manifest, segments: Table, version: int, media: Media) -> None:
        self.manifest = manifest
        self.version = version
        self._segments = segments  # pinned at that version
        self._media = media

    @property
    def documents(self) -> list[Document]:
        """Every document, by path."""
        return self.manifest.documents

    @property
    def table(self) -> Table:
        """The segments at its version, those that do not count among them."""
        return self._segments

    @cached_property
    def _num_dead(self) -> int:
        """Rows of the pinned version that do not count (never less than none)."""
        return max(0, self._segments.count() - self.manifest.num_segments)

    # ------------------------------------------------------------ what is nearest

    def nearest(
        self, view: View, vector: "Vectors", *, k: int, where: str | None = None
    ) -> list[Neighbour]:
        import numpy as np

        asked = np.asarray(vector, dtype=np.float32)
        column = VECTOR_COLUMN[view]
        dim = self._segments.schema.field(column).type.list_size
        if asked.shape != (dim,):
            raise ValueError(f"a query vector is [{dim}], got {list(asked.shape)}")
        length = float(np.linalg.norm(asked))
        if not np.isfinite(length) or length == 0.0:
            raise ValueError("a query vector has NaN, infinity or no length")

        def ask(limit: int) -> Iterable[tuple[str, str, float]]:
            found = self._segments.nearest(
                column, asked / length, ("segment_id", "commit_id"), limit=limit, where=where
            )
            ids, commits = found["segment_id"].to_pylist(), found["commit_id"].to_pylist()
            cosines = (1.0 - found["_distance"].to_numpy()).clip(-1.0, 1.0).tolist()
            return zip(ids, commits, cosines, strict=True)

        return self._best(ask, k)

    def matching(self, text: str, *, k: int, where: str | None = None) -> list[Neighbour]:
        """Return at most ``k`` segments with words of ``text``, best BM25 first, ties by id.

        Any characters will do: quotes and operators are plain characters between words,
        and a text without words (or of stop words alone) matches nothing.
        """
        asked = utf8(text)[:LONGEST_QUESTION]
        if not terms(asked):
            return []

        def ask(limit: int) -> Iterable[tuple[str, str, float]]:
            found = self._segments.matching(
                asked, ("segment_id", "commit_id"), limit=limit, where=where
            )
            columns = (found[name].to_pylist() for name in ("segment_id", "commit_id", "_score"))
            return zip(*columns, strict=True)

        return self._best(ask, k)

    def _best(
        self, ask: Callable[[int], Iterable[tuple[str, str, float]]], k: int
    ) -> list[Neighbour]:
        """Return the best ``k`` live answers of ``ask(limit)``, exactly, ties by id.

        Rows that do not count take places in what lancedb returns, and it breaks ties as
        it likes; so we ask for as many more as there are such rows, and for twice that
        again while the last place is tied with one that may have been cut off.
        """
        if k < 1:
            raise ValueError(f"k counts from 1, got {k}")
        limit = k + self._num_dead + 1
        while True:
            answers = list(ask(limit))
            live = [Neighbour(i, score) for i, commit, score in answers if commit in self.live]
            live.sort(key=lambda neighbour: (-neighbour.score, neighbour.segment_id))
            cut = len(answers) == limit
            if not cut or (len(live) > k and live[k - 1].score > live[-1].score):
                return live[:k]
            limit *= 2

    @property
    def live(self) -> frozenset[str]:
        """The commits whose segments count."""
        return self.manifest.live

    # ------------------------------------------------------------ what is there

    def segments(self, ids: Sequence[str]) -> list[StoredSegment]:
        """Return these segments in this order; unknown ids are left out."""
        if not ids:
            return []
        rows = self._rows(SEGMENT_COLUMNS, any_of("segment_id", dict.fromkeys(ids)))
        by_id = {row["segment_id"]: segment_from(row) for row in rows}
        return [by_id[segment_id] for segment_id in ids if segment_id in by_id]

    def segments_of(self, path: str) -> list[StoredSegment]:
        """Return the segments of one document in the order they lie in it."""
        rows = self._rows(SEGMENT_COLUMNS, any_of("path", [path_text(path)]))
        return sorted((segment_from(row) for row in rows), key=_place)

    def vectors(self, ids: Sequence[str]) -> "dict[str, dict[View, Vectors]]":
        """Return the ``[d]`` vectors of these segments, for the views they have."""
        import numpy as np

        if not ids:
            return {}
        columns = ("segment_id", "commit_id", *VECTOR_COLUMN.values())
        rows = self._rows(columns, any_of("segment_id", dict.fromkeys(ids)))
        return {
            row["segment_id"]: {
                view: np.asarray(row[column], dtype=np.float32)
                for view, column in VECTOR_COLUMN.items()
                if row[column] is not None
            }
            for row in rows
        }

    def thumbnail(self, segment_id: str) -> bytes:
        """Return the thumbnail of a segment, empty where it has none.

        Raises SegmentNotFound.
        """
        rows = self._rows(("commit_id",), any_of("segment_id", [segment_id]))
        if not rows:
            raise SegmentNotFound(segment_id)
        commit_id = rows[0]["commit_id"]
        if not self.manifest.num_thumbnails[commit_id]:
            return b""
        return self._media.read(commit_id).get(segment_id, b"")

    def _rows(self, columns: Sequence[str], where: str) -> list[dict[str, Any]]:
        rows = self._segments.rows(columns, where).to_pylist()
        return [row for row in rows if row["commit_id"] in self.live]


def take_snapshot(documents: Table, segments: Table, media: Media) -> Snapshot:
    """Return the state of the index now, whatever a writer does meanwhile."""
    manifest = read_manifest(documents)
    for _ in range(TRIES):
        pinned = segments.at()
        again = manifest if documents.version == manifest.version else read_manifest(documents)
        if manifest.live <= again.live:
            return Snapshot(manifest, pinned, pinned.version, media)
        manifest = again
    raise StoreError("the index changes faster than it can be read; try again")


def _place(segment: StoredSegment) -> tuple[float, ...]:
    where = segment.locator
    return (where.page or 0, where.start or 0.0, where.char_start or 0)
