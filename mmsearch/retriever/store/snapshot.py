"""One state of the index: what a reader sees while a writer is at work.

A row counts when the manifest names its commit. The manifest and the segments are two
tables, so a snapshot takes the manifest, then a version of ``segments``, then looks at
the manifest again: if every commit it took is still there, that version holds all of
their rows, because rows are added before their commit is and removed after it is gone.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmsearch.errors import SegmentNotFound, StoreDamaged, StoreError
from mmsearch.retriever.seams import Neighbour
from mmsearch.retriever.store import ann
from mmsearch.retriever.store.known import KnownRows, Outline, Shown
from mmsearch.retriever.store.media import Media
from mmsearch.retriever.store.rows import (
    LOCATOR_COLUMNS,
    SEGMENT_COLUMNS,
    VECTOR_COLUMN,
    StoredSegment,
    any_of,
    document_from,
    path_text,
    quoted,
    segment_from,
    utf8,
)
from mmsearch.retriever.store.tables import ROW_ID, Table
from mmsearch.retriever.store.words import (
    TEXT_COLUMNS,
    asked_words,
    terms,
    whole_words,
    words_query,
)
from mmsearch.values import Document, Kind, Locator, View

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mmsearch.values import Vectors

log = logging.getLogger(__name__)

TRIES = 100
LONGEST_QUESTION = 8_000  # characters of a full-text query that are looked at
# What ``pump*`` stands for is read from so many rows; the whole text is looked through only
# where they are fewer (80 ms for 200,000 rows).
MAX_PREFIXES, ROWS_PER_PREFIX, WORDS_PER_PREFIX = 4, 1_000, 50
NAMES = ("segment_id", "commit_id")
OUTLINE_COLUMNS = ("num_words", "views")
# Read with what is found: together they cost a fifth of reading them by themselves.
FOUND_COLUMNS = (*NAMES, *OUTLINE_COLUMNS)
SHOWN_COLUMNS = ("path", "kind", *LOCATOR_COLUMNS, "text", "about")
SPARE = 8  # more rows than wanted that are asked for, for ties at the end
KNOWN_FILTERS = 64  # of which a snapshot remembers the rows that fit
FEW_UNKNOWN = 8  # one of so many whose place is not known is looked up by itself


class Answer(NamedTuple):
    """A row that was found: how near, whose it is, where it lies, and what ranks it."""

    score: float
    segment_id: str
    commit_id: str
    row_id: int
    outline: Outline


@dataclass(frozen=True, slots=True)
class Answers:
    """What a table answers; ``cut`` where there may be more."""

    rows: list[Answer]
    cut: bool

    @classmethod
    def of(cls, found: "pa.Table", scores: "np.ndarray", limit: int) -> "Answers":
        """Take the rows of ``found``, asked for ``limit`` of them."""
        names, commits, num_words, views, row_ids = (
            found[name].to_pylist() for name in (*FOUND_COLUMNS, ROW_ID)
        )
        outlines = map(Outline, num_words, map(VIEWS_SAID.__getitem__, views))
        rows = list(map(Answer, scores.tolist(), names, commits, row_ids, outlines))
        return cls(rows, cut=found.num_rows == limit)


class Match(NamedTuple):
    """A segment with words that were asked for: its BM25 score, and all of its words."""

    segment_id: str
    score: float
    text: str


class Manifest:
    """The rows of ``documents`` at one version: their counts at once, the rest when asked."""

    def __init__(self, documents: Table, version: int) -> None:
        self.version = version
        self._documents = documents  # pinned at that version
        self._counts = documents.rows(("commit_id", "num_segments", "num_thumbnails", "pack"))

    @cached_property
    def live(self) -> frozenset[str]:
        """The commits whose segments count."""
        import pyarrow.compute as pc

        counts = self._counts.filter(pc.greater(self._counts["num_segments"], 0))
        return frozenset(counts["commit_id"].to_pylist())

    @cached_property
    def num_segments(self) -> int:
        """How many segments its documents have."""
        import pyarrow.compute as pc

        return pc.sum(self._counts["num_segments"]).as_py() or 0

    @cached_property
    def documents(self) -> list[Document]:
        """Its documents by path."""
        rows = self._documents.rows(self._documents.schema.names)
        documents = [document_from(row) for row in rows.to_pylist()]
        return sorted(documents, key=lambda document: document.path)

    @property
    def counts(self) -> "pa.Table":
        """By document: commit_id, num_segments, num_thumbnails, pack."""
        return self._counts

    def pack(self, commit_id: str) -> str:
        """Return the pack that holds the thumbnails of a commit, empty where it has none."""
        import pyarrow.compute as pc

        place = pc.index(self._counts["commit_id"], commit_id).as_py()
        return "" if place < 0 else self._counts["pack"][place].as_py()


def read_manifest(documents: Table) -> Manifest:
    """Return the manifest as it is now."""
    pinned = documents.at()
    return Manifest(pinned, pinned.version)


class Snapshot:
    """Answers from one state; a VectorIndex by `ann`. Nothing in it ever changes."""

    def __init__(self, manifest: Manifest, segments: Table, version: int, media: Media) -> None:
        self.manifest = manifest
        self.version = version
        self._segments = segments  # pinned at that version
        self._media = media
        # Nothing of a version changes, so what was looked up once is true for good.
        self._lock = threading.Lock()
        self._indexes: dict[str, ann.Trained | None] = {}
        self._few_rows: dict[str, list[int] | None] = {}
        self._known = KnownRows()

    @property
    def documents(self) -> list[Document]:
        """Every document, by path."""
        return self.manifest.documents

    @property
    def table(self) -> Table:
        """The segments at its version, those that do not count among them."""
        return self._segments

    @property
    def home(self) -> Path:
        """The folder in which its tables lie (`Store.home`)."""
        return self._segments.path.parents[1]

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
        unit = asked / length
        index = self._index_of(column)
        if index is None:
            return _near(self._best(lambda limit: self._compared(column, unit, limit, where), k))
        few = None if where is None else self._few(where)
        if few is not None:
            return _near(self._best(lambda _: self._compared_few(column, unit, few), k))
        return _near(self._best(lambda limit: self._probed(index, column, unit, limit, where), k))

    def _index_of(self, column: str) -> ann.Trained | None:
        with self._lock:
            if column not in self._indexes:
                self._indexes[column] = ann.trained(self._segments, column)
            return self._indexes[column]

    def _few(self, where: str) -> list[int] | None:
        """Return where the rows that fit lie if they are few, else None; looked up once."""
        with self._lock:
            if where not in self._few_rows:
                while len(self._few_rows) >= KNOWN_FILTERS:
                    del self._few_rows[next(iter(self._few_rows))]
                few = self._segments.count(where) <= ann.FEW_ROWS
                self._few_rows[where] = (
                    self._segments.row_ids(where, limit=ann.FEW_ROWS) if few else None
                )
            return self._few_rows[where]

    def _compared(
        self,
        column: str,
        unit: "Vectors",
        limit: int,
        where: str | None,
        probe: ann.Probe | None = None,
    ) -> "Answers":
        """Return the nearest of all rows that fit, or of those that a probe looks at."""
        found = self._segments.nearest(
            column, unit, FOUND_COLUMNS, limit=limit, where=where, probe=probe
        )
        return Answers.of(found, (1.0 - found["_distance"].to_numpy()).clip(-1.0, 1.0), limit)

    def _compared_few(self, column: str, unit: "Vectors", rows: Sequence[int]) -> "Answers":
        """Return all of these rows that have the view."""
        import numpy as np
        import pyarrow.compute as pc

        found = self._segments.take(rows, (*FOUND_COLUMNS, column, ROW_ID)) if rows else None
        if found is None or not found.num_rows:
            return Answers([], cut=False)
        found = found.filter(pc.is_valid(found[column]))
        flat = found[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        kept = flat.reshape(-1, len(unit)).astype(np.float32)
        cosines = kept @ unit / np.linalg.norm(kept, axis=1)
        return Answers.of(found, cosines.clip(-1.0, 1.0), found.num_rows + 1)

    def _probed(
        self, index: ann.Trained, column: str, unit: "Vectors", limit: int, where: str | None
    ) -> "Answers":
        """Return the nearest rows that the index finds; all rows' where it cannot be trusted."""
        probe = ann.probe(index, limit=limit, dim=len(unit), filtered=where is not None)
        try:
            found = self._compared(column, unit, limit, where, probe)
        except StoreDamaged as error:
            log.warning("%s is passed over until 'mmsearch doctor --fix': %s", index.name, error)
            with self._lock:
                self._indexes[column] = None
            return self._compared(column, unit, limit, where)
        if len(found.rows) < limit and len(found.rows) < self._num_with(column, where):
            return self._compared(column, unit, limit, where)
        return found

    def _num_with(self, column: str, where: str | None) -> int:
        [view] = (view for view, name in VECTOR_COLUMN.items() if name == column)
        has_it = f"views LIKE '%{view}%'"
        return self._segments.count(has_it if where is None else f"({where}) AND {has_it}")

    def matching(self, text: str, *, k: int, where: str | None = None) -> list[Neighbour]:
        """Return at most ``k`` segments with words of ``text``, best BM25 first, ties by id.

        What stands in double quotes has to be there as it is, and ``pump*`` is any word
        that begins so. All other characters are plain, and a text without words (or of
        stop words alone) matches nothing.
        """
        return _near(self._matching(text, k, where))

    def matches(self, text: str, *, k: int, where: str | None = None) -> list[Match]:
        """Return the same segments, and all words of each: those in it and those about it."""
        found = self._matching(text, k, where)
        if not found:
            return []
        shown = self.shown([one.segment_id for one in found])
        return [Match(one.segment_id, one.score, shown[one.segment_id].all_text) for one in found]

    def _matching(self, text: str, k: int, where: str | None) -> list[Answer]:
        asked = asked_words(utf8(text)[:LONGEST_QUESTION])
        also = self._words_beginning(asked.prefixes)
        if not terms(asked.plain) and not also:
            if k < 1:
                raise ValueError(f"k counts from 1, got {k}")
            return []
        query = words_query(asked, also=also)

        def ask(limit: int) -> Answers:
            found = self._segments.matching(query, FOUND_COLUMNS, limit=limit, where=where)
            return Answers.of(found, found["_score"].to_numpy(), limit)

        return self._best(ask, k, spare=k)  # BM25 has more ties, and asking again costs more

    def _words_beginning(self, prefixes: Sequence[str]) -> list[str]:
        """Return words of the index that begin so, as they stand in some rows that have them."""
        words: set[str] = set()
        for prefix in prefixes[:MAX_PREFIXES]:
            begins = f"(?i)\\b{prefix}"
            where = " OR ".join(f"regexp_like({c}, {quoted(begins)})" for c in TEXT_COLUMNS)
            rows = self._segments.rows(TEXT_COLUMNS, where, limit=ROWS_PER_PREFIX)
            found = (word for c in TEXT_COLUMNS for text in rows[c].to_pylist()
                     for word in whole_words(text) if word.startswith(prefix))  # fmt: skip
            words.update(word for word, _ in Counter(found).most_common(WORDS_PER_PREFIX))
        return sorted(words)

    def _best(self, ask: "Callable[[int], Answers]", k: int, *, spare: int = 0) -> list[Answer]:
        """Return the best ``k`` live answers of ``ask(limit)``, exactly, ties by id.

        Rows that do not count take places in what lancedb returns, and it breaks ties as
        it likes; so we ask for some more, and for twice that again while too few count or
        the last place is tied with one that may have been cut off.
        """
        if k < 1:
            raise ValueError(f"k counts from 1, got {k}")
        limit = k + min(self._num_dead, k) + max(SPARE, k // SPARE, spare)
        while True:
            answers = ask(limit)
            live = [row for row in answers.rows if row.commit_id in self.live]
            live.sort(key=lambda row: (-row.score, row.segment_id))
            if not answers.cut or (len(live) > k and live[k - 1].score > live[-1].score):
                self._known.keep((one.segment_id, one.row_id, one.outline) for one in live[:k])
                return live[:k]
            limit *= 2

    def unknown(self, ids: Sequence[str]) -> list[int]:
        """Return the places in ``ids`` of segments whose outline would have to be looked up."""
        outlines = self._known.outlines(ids)
        return [place for place, one in enumerate(ids) if one not in outlines]

    def learn(self, outlines: Mapping[str, Outline]) -> None:
        """Take over the outlines of segments from who has them at hand: a copy of the rows."""
        self._known.learn(outlines)

    @property
    def live(self) -> frozenset[str]:
        """The commits whose segments count."""
        return self.manifest.live

    # ------------------------------------------------------------ what is there

    def segments(self, ids: Sequence[str]) -> list[StoredSegment]:
        """Return these segments in this order; unknown ids are left out."""
        rows = self._rows_of(ids, SEGMENT_COLUMNS)
        by_id = {row["segment_id"]: segment_from(row) for row in rows}
        return [by_id[segment_id] for segment_id in ids if segment_id in by_id]

    def outlines(self, ids: Sequence[str]) -> dict[str, Outline]:
        """Return the outlines of these segments; unknown ids are left out."""
        known = self._known.outlines(ids)
        others = [one for one in ids if one not in known]
        if not others:
            return known
        columns = (*FOUND_COLUMNS, ROW_ID)
        found = [
            (row["segment_id"], row[ROW_ID], Outline(row["num_words"], VIEWS_SAID[row["views"]]))
            for row in self._rows(columns, any_of("segment_id", sorted(others)))
        ]
        self._known.keep(found)
        return known | {name: outline for name, _, outline in found}

    def shown(self, ids: Sequence[str]) -> dict[str, Shown]:
        """Return what there is to see of these segments; unknown ids are left out."""
        known = self._known.shown(ids)
        others = [one for one in ids if one not in known]
        found = {
            row["segment_id"]: Shown(
                path=row["path"],
                kind=Kind(row["kind"]),
                locator=Locator(**{name: row[name] for name in LOCATOR_COLUMNS}),
                text=row["text"],
                about=row["about"],
            )
            for row in self._rows_of(others, SHOWN_COLUMNS)
        }
        self._known.keep_shown(found)
        return known | found

    def paths(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the paths of the documents of these segments."""
        return {row["segment_id"]: row["path"] for row in self._rows_of(ids, ("path",))}

    def segments_of(self, path: str) -> list[StoredSegment]:
        """Return the segments of one document in the order they lie in it."""
        rows = self._rows(SEGMENT_COLUMNS, any_of("path", [path_text(path)]))
        return sorted((segment_from(row) for row in rows), key=_place)

    def vectors(self, ids: Sequence[str]) -> "dict[str, dict[View, Vectors]]":
        """Return the ``[d]`` vectors of these segments, for the views they have."""
        import numpy as np

        rows = self._rows_of(ids, tuple(VECTOR_COLUMN.values()))
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
        pack = self.manifest.pack(commit_id)
        return self._media.thumbnail(pack, segment_id) if pack else b""

    def _rows_of(self, ids: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of these segments, in no order, their ids in them."""
        known = self._known.names(ids)
        if FEW_UNKNOWN * (len(ids) - len(known)) > len(ids):
            known = {}  # one question for all of them takes no longer than for these
        rows = []
        if known:
            asked = [column for column in columns if column != "segment_id"]
            rows = self._segments.take(list(known), (*asked, ROW_ID)).to_pylist()
            for row in rows:
                row["segment_id"] = known[row.pop(ROW_ID)]
        others = set(ids).difference(known.values())
        if others:
            asked = list(dict.fromkeys((*NAMES, *columns)))
            rows += self._rows(asked, any_of("segment_id", sorted(others)))
        return rows

    def _rows(self, columns: Sequence[str], where: str) -> list[dict[str, Any]]:
        rows = self._segments.rows(columns, where).to_pylist()
        return [row for row in rows if row["commit_id"] in self.live]


def _near(found: Iterable[Answer]) -> list[Neighbour]:
    return [Neighbour(one.segment_id, one.score) for one in found]


# All that the column ``views`` can say.
VIEWS_SAID = {
    " ".join(sorted(views)): frozenset(views)
    for views in ((), (View.VISUAL,), (View.TEXT,), (View.VISUAL, View.TEXT))
}


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
