"""The one writer of an index.

A commit goes: a pack of thumbnails, segment rows, manifest rows. The manifest rows are the
commit point: before them, no reader counts the segments; from them on, no reader counts
those of the versions they replaced, which are removed some time later. A writer that is
killed leaves rows and packs that nobody counts, and the next writer sweeps them away.

It knows nothing by heart: what it needs of the manifest it looks up, a batch at a time, so
its memory does not grow with the index.
"""

import contextlib
import logging
import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.errors import StoreDamaged, StoreError
from mmsearch.retriever.store import ann, indexes
from mmsearch.retriever.store.check import problems_of
from mmsearch.retriever.store.compaction import Beside, is_worth_it
from mmsearch.retriever.store.media import Media
from mmsearch.retriever.store.rows import (
    Row,
    any_of,
    documents_schema,
    documents_table,
    path_text,
    segments_table,
)
from mmsearch.retriever.store.snapshot import take_snapshot
from mmsearch.retriever.store.tables import Table
from mmsearch.retriever.store.tags import Tag, Tags
from mmsearch.retriever.store.words import TEXT_COLUMNS
from mmsearch.values import Document, Space, Status

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

# Every change is a version of a table with a file or two of its own: so many, and it is
# asked whether to merge them.
TIDY_AFTER = 256
DROP_AFTER = 64
BATCH = 500  # values of one IN (...)
MANY_PATHS = 2_000  # more are found by reading the manifest once
HALF_DEAD = 1 / 2  # of the thumbnails of a pack: then it is written anew
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
        self._tags = Tags(folder)
        # Commits whose rows are still there, packs that may be of no further use.
        self._superseded: dict[str, None] = {}
        self._given_up: dict[str, None] = {}
        self._num_changes = 0
        self._beside = Beside()
        self._merged_beside = False

    def commit(self, document: Document, rows: Sequence[Row]) -> None:
        """Keep a document and its segments, in place of any earlier version of its path."""
        self.commit_all([(document, rows)])

    def commit_all(self, batch: Sequence[tuple[Document, Sequence[Row]]]) -> None:
        """Commit several documents at once: all of them or, if this raises, none.

        A document that failed takes no rows, and those it had are given up. Raises
        ValueError for a commit id used before, or one path or segment twice; BadVectors;
        StoreError where the disk refuses, now or while files were merged beside the run.
        """
        if not batch:
            return
        self._beside.check()
        batch = [(_as_kept(document, rows), rows) for document, rows in batch]
        self._refuse_bad(batch)
        table = segments_table(batch, self._space.dim)
        thumbnails = [_thumbnails(rows) for _, rows in batch]
        pack = new_commit_id() if any(thumbnails) else ""
        known = self._known([document.path for document, _ in batch])
        try:
            self._write_pack(pack, {key: one for some in thumbnails for key, one in some.items()})
            if table.num_rows:
                self._segments.add(table)
            counts = zip(batch, thumbnails, strict=True)
            manifest = documents_table((one, len(some), pack) for (one, _), some in counts)
            self._put(manifest, replaces=bool(known))
        except BaseException:
            self._give_up_what_failed([document for document, _ in batch], pack, known)
            raise
        self._give_up(known)
        self._tidy_now_and_then()

    def touch(self, documents: Sequence[Document]) -> None:
        """Take over size, time and whether OCR is awaited of documents whose content is the same.

        Raises ValueError for a document that is not in the index in that very version.
        """
        known = self._known([document.path for document in documents])
        touched = []
        for document in documents:
            row = known.get(path_text(document.path))
            if row is None or row["commit_id"] != document.commit_id:
                raise ValueError(f"{document.path} is not in the index as {document.commit_id}")
            now = {"size": document.size, "mtime_ns": document.mtime_ns}
            touched.append(row | now | {"awaits_ocr": document.awaits_ocr})
        if touched:
            self._put(_manifest_rows(touched), replaces=True)

    def remove(self, paths: Sequence[str]) -> int:
        """Forget these documents, their segments and thumbnails; return how many there were."""
        known = self._known(paths)
        for some in _some_at_a_time(list(known)):
            self._documents.delete(any_of("path", some))
            self._give_up({path: known[path] for path in some})
        self.drop_superseded()
        return len(known)

    def refresh(self) -> None:
        """Make search fast for what a run added, and merge small files, where that pays."""
        self._beside.finish()
        self.drop_superseded()
        self._merge(self._documents, now=is_worth_it(self._documents, at_end=True))
        now = self._merged_beside or is_worth_it(self._segments, at_end=True)
        self._merge(self._segments, now=now)
        if now:  # no vector index is outgrown without that
            ann.refresh(self._segments)
        self._num_changes, self._merged_beside = 0, False

    def optimize(self) -> None:
        """Merge all small files, bring every index up to date, drop old versions."""
        self._beside.finish()
        self.drop_superseded()
        for table in (self._documents, self._segments):
            self._merge(table, now=True)
        ann.refresh(self._segments)
        self._num_changes, self._merged_beside = 0, False

    def collect_garbage(self) -> int:
        """Free what nobody needs; return how many bytes that were.

        These are rows and thumbnails without a document, old versions of the tables, and
        what killed writers left. What a tag needs is kept, and for half an hour what
        readers may be at work in.
        """
        self._beside.finish()
        before = _num_bytes(self._folder)
        self.sweep(thoroughly=True)
        self._rewrite_half_dead_packs()
        for table in (self._segments, self._documents):
            indexes.mend(table)
            table.tidy(is_alone=True)
        return max(0, before - _num_bytes(self._folder))

    def repair(self) -> list[str]:
        """Mend what `Store.check` finds; return a sentence for each thing that was done.

        Documents that are not whole are forgotten: index their files again. Raises
        StoreError where the tables themselves are damaged.
        """
        self._beside.finish()
        mended = []
        snapshot = take_snapshot(self._documents, self._segments, self._media)
        problems = problems_of(snapshot, self._media)
        broken = dict.fromkeys(problem.path for problem in problems if problem.path)
        self.remove(list(broken))
        mended += [f"forgot {path}, which was not whole: index it again" for path in broken]
        self.sweep(thoroughly=True)
        missing = [one for one in indexes.missing(self._segments) if one in TEXT_COLUMNS]
        if missing:
            mended.append(f"made the full-text index over {' and '.join(missing)} anew")
        mended += [f"made the index {name} anew" for name in indexes.damaged(self._segments)]
        self.optimize()
        return mended

    # ------------------------------------------------------------ tags

    def tag(self, name: str) -> Tag:
        """Keep the state of now under a name that is not taken. Raises StoreError."""
        self.drop_superseded()
        return self._tags.create(name, self._documents.rows(documents_schema().names))

    def untag(self, name: str) -> None:
        """Forget a tag, and the rows and thumbnails that only it needed."""
        self._tags.delete(name)
        self.sweep(thoroughly=True)

    def restore(self, name: str) -> int:
        """Make the index hold what it held when it was tagged; return how many documents.

        The manifest is put in the place of today's at once: before that nothing has
        happened, and after it there are only rows to remove that nobody counts any more.
        The tag stays. Raises StoreError where there is no such tag.
        """
        self._beside.finish()
        manifest = self._tags.manifest(name).replace_schema_metadata(None)
        if manifest.num_rows:
            self._documents.put("path", manifest, alone=True)
        else:
            self._documents.delete("true")
        self.sweep(thoroughly=True)
        return manifest.num_rows

    # ------------------------------------------------------------ what nobody counts

    def sweep(self, *, thoroughly: bool = False) -> int:
        """Remove rows and packs that no document and no tag names; return how many.

        Where there are as many rows as documents say there are, each is of one of them, so
        the table is not read; ``thoroughly`` reads it nonetheless.
        """
        import pyarrow.compute as pc

        tagged = self._tagged()
        if tagged is None:
            return 0
        counts = self._counted(tagged)
        counted = counts.filter(pc.greater(counts["num_segments"], 0))
        if thoroughly or self._segments.count() != (pc.sum(counted["num_segments"]).as_py() or 0):
            dead = self._dead_commits(counted["commit_id"].combine_chunks())
        else:
            dead = []
        self._superseded = dict.fromkeys(dead)
        self._given_up.clear()
        self.drop_superseded()
        return len(dead) + self._media.sweep(frozenset(pc.unique(counts["pack"]).to_pylist()))

    def drop_superseded(self) -> None:
        """Remove the rows and thumbnails of versions that were replaced or removed.

        Not while files are merged beside a run: of two changes to one file Lance takes
        only the first.
        """
        if self._beside.is_running or not (self._superseded or self._given_up):
            return
        self._beside.finish()
        tagged = self._tagged()
        if tagged is None:
            return
        kept = {one for table in tagged for one in table["commit_id"].to_pylist()}
        for some in _some_at_a_time([one for one in self._superseded if one not in kept]):
            self._segments.delete(any_of("commit_id", some))
        self._superseded.clear()
        named = {pack for table in tagged for pack in table["pack"].to_pylist()}
        for some in _some_at_a_time(list(self._given_up)):
            named |= set(self._documents.rows(["pack"], any_of("pack", some))["pack"].to_pylist())
        for pack in self._given_up:
            if pack not in named:
                self._media.remove(pack)
        self._given_up.clear()

    def close(self, *, is_done: bool) -> None:
        """End the work: nothing of it goes on when this returns.

        is_done: False when something else has gone wrong and is to be told instead
        """
        if is_done:
            self._beside.finish()
            self.drop_superseded()
        else:
            self._beside.stop()

    # ------------------------------------------------------------ inside

    def _known(self, paths: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the manifest rows of those paths that are in the index, by path."""
        import pyarrow as pa
        import pyarrow.compute as pc

        names = list(dict.fromkeys(map(path_text, paths)))
        columns = documents_schema().names
        found: list[dict[str, Any]] = []
        if len(names) <= MANY_PATHS:
            for some in _some_at_a_time(names):
                found += self._documents.rows(columns, any_of("path", some)).to_pylist()
        else:
            wanted = pa.array(names, pa.string())
            for batch in self._documents.batches(columns):
                found += batch.filter(pc.is_in(batch["path"], value_set=wanted)).to_pylist()
        return {row["path"]: row for row in found}

    def _tagged(self) -> "list[pa.Table] | None":
        """Return the manifests of all tags; None where one is damaged: then nothing may go."""
        try:
            return [manifest for _, manifest in self._tags.manifests()]
        except StoreDamaged as error:
            log.warning("nothing is removed until '%s': %s", error.hint, error)
            return None

    def _counted(self, tagged: "list[pa.Table]") -> "pa.Table":
        """Return commit_id, num_segments and pack of all documents and of those of all tags."""
        import pyarrow as pa

        columns = ["commit_id", "num_segments", "pack"]
        tables = [self._documents.rows(columns).select(columns)]
        tables += [manifest.select(columns) for manifest in tagged]
        tables = [table.replace_schema_metadata(None) for table in tables]
        if len(tables) == 1:
            return tables[0]
        every = pa.concat_tables(tables).group_by(["commit_id", "pack"], use_threads=False)
        return every.aggregate([("num_segments", "max")]).rename_columns(
            {"num_segments_max": "num_segments"}
        )

    def _dead_commits(self, live: "pa.Array") -> list[str]:
        import pyarrow.compute as pc

        dead: set[str] = set()
        for batch in self._segments.batches(["commit_id"]):
            commits = batch["commit_id"]
            rest = commits.filter(pc.invert(pc.is_in(commits, value_set=live)))
            dead.update(pc.unique(rest).to_pylist())
        return sorted(dead)

    def _write_pack(self, pack: str, thumbnails: dict[str, bytes]) -> None:
        try:
            self._media.write(pack, thumbnails)
        except OSError as error:
            failed = StoreError(f"cannot write to {self._folder}: {error.strerror or error}")
            failed.hint = "check free space and permissions and run it again; nothing was lost"
            raise failed from error

    def _rewrite_half_dead_packs(self) -> None:
        """Write the rest of packs that are mostly dead anew, then all that name them."""
        if self._tagged() is None:
            return
        manifests = dict(self._tags.manifests())
        today = self._documents.rows(documents_schema().names)
        shown: dict[str, dict[str, int]] = {}  # thumbnails by commit, of each pack
        for table in (today, *manifests.values()):
            columns = (table[name].to_pylist() for name in ("pack", "commit_id", "num_thumbnails"))
            for pack, commit, num_thumbnails in zip(*columns, strict=True):
                if pack:
                    shown.setdefault(pack, {})[commit] = num_thumbnails
        renamed = {}
        for pack, commits in sorted(shown.items()):
            held = self._thumbnails_of(pack)
            if not 0 < sum(commits.values()) < HALF_DEAD * len(held):
                continue
            found = (
                self._segments.rows(["segment_id"], any_of("commit_id", some))
                for some in _some_at_a_time(sorted(commits))
            )
            ids = {one for some in found for one in some["segment_id"].to_pylist()}
            renamed[pack] = new_commit_id()
            self._write_pack(renamed[pack], {one: held[one] for one in held if one in ids})
        if not renamed:
            return
        moved = [row for row in today.to_pylist() if row["pack"] in renamed]
        if moved:
            rows = [row | {"pack": renamed[row["pack"]]} for row in moved]
            self._put(_manifest_rows(rows), replaces=True)
        for name, manifest in manifests.items():
            rows = manifest.to_pylist()
            if any(row["pack"] in renamed for row in rows):
                rows = [row | {"pack": renamed.get(row["pack"], row["pack"])} for row in rows]
                self._tags.replace(name, _manifest_rows(rows))
        self._given_up.update(dict.fromkeys(renamed))
        self.drop_superseded()

    def _thumbnails_of(self, pack: str) -> dict[str, bytes]:
        try:
            return self._media.read(pack)
        except (FileNotFoundError, StoreError):
            return {}  # lost: that is for doctor to say

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
        for some in _some_at_a_time(commits):
            used = self._segments.rows(["commit_id"], any_of("commit_id", some), limit=1)
            if used.num_rows:
                raise ValueError(f"commit id {used['commit_id'][0]} was used before")

    def _put(self, rows: "pa.Table", *, replaces: bool) -> None:
        if replaces:
            self._documents.put("path", rows)
        else:
            self._documents.add(rows)  # the only writer may add what it knows to be new

    def _give_up(self, replaced: dict[str, dict[str, Any]]) -> None:
        """Note that the rows and packs of these manifest rows count no more."""
        for row in replaced.values():
            if row["num_segments"]:
                self._superseded[row["commit_id"]] = None
            if row["pack"]:
                self._given_up[row["pack"]] = None

    def _give_up_what_failed(
        self, documents: Sequence[Document], pack: str, before: dict[str, dict[str, Any]]
    ) -> None:
        """Note what of a batch counts no more, or not yet: what reached the disk is the truth."""
        with contextlib.suppress(StoreError):  # then the next writer sweeps
            now = self._known([document.path for document in documents])
            counts = {row["commit_id"] for row in now.values()}
            commits = [document.commit_id for document in documents if document.num_segments]
            commits += [row["commit_id"] for row in before.values() if row["num_segments"]]
            self._superseded.update(dict.fromkeys(one for one in commits if one not in counts))
            packs = [pack, *(row["pack"] for row in before.values())]
            self._given_up.update(dict.fromkeys(filter(None, packs)))

    def _tidy_now_and_then(self) -> None:
        self._num_changes += 1
        if len(self._superseded) >= DROP_AFTER:
            self.drop_superseded()
        if self._num_changes < TIDY_AFTER or self._beside.is_running:
            return
        self._num_changes = 0
        self._merge(self._documents, now=is_worth_it(self._documents))
        if is_worth_it(self._segments):
            table = self._segments.beside()
            self._beside.start(lambda: self._merge(table, now=True, is_beside=True))
            self._merged_beside = True

    @staticmethod
    def _merge(table: Table, *, now: bool, is_beside: bool = False) -> None:
        """Mend the indexes of a table and, if it is to be ``now``, merge its small files."""
        indexes.mend(table)
        if now:
            table.tidy(is_beside=is_beside)


def _as_kept(document: Document, rows: Sequence[Row]) -> Document:
    return replace(document, path=path_text(document.path), num_segments=len(rows))


def _thumbnails(rows: Sequence[Row]) -> dict[str, bytes]:
    return {row.segment_id: row.thumbnail for row in rows if row.thumbnail}


def _manifest_rows(rows: Sequence[dict[str, Any]]) -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows), schema=documents_schema())


def _some_at_a_time(values: list[str]) -> list[list[str]]:
    return [values[start : start + BATCH] for start in range(0, len(values), BATCH)]


def _num_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(Path(parent, name), follow_symlinks=False).st_size
    return total
