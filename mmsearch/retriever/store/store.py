"""The store: one folder that keeps the documents and segments of one embedding space.

    index.json     what the folder is: schema version, space, who made it, where its data lie
    tables/        LanceDB: documents (the manifest) and segments
    media/         thumbnails, one Arrow file a batch of documents
    tags/          manifests of earlier states that were given a name
    write.lock     held by the one process that is writing
    generation-N/  tables/ and media/ once the index was made anew (see `generations`)

Reading needs no lock and sees whole documents only; writing is `Store.writing`.
"""

import contextlib
import shlex
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.errors import (
    SegmentNotFound,
    SpaceMismatch,
    StoreDamaged,
    StoreError,
    StoreNotFound,
    StoreOutdated,
)
from mmsearch.retriever.seams import Neighbour
from mmsearch.retriever.store.check import Problem, problems_of
from mmsearch.retriever.store.dump import Dump, write_dump
from mmsearch.retriever.store.generations import remove_unnamed
from mmsearch.retriever.store.header import NAME, SCHEMA_VERSION, Header, read_header, write_header
from mmsearch.retriever.store.lock import LOCK_NAME, WriteLock
from mmsearch.retriever.store.media import FOLDER as MEDIA_FOLDER
from mmsearch.retriever.store.media import Media
from mmsearch.retriever.store.migrate import migrate
from mmsearch.retriever.store.rows import Row, StoredSegment
from mmsearch.retriever.store.snapshot import Snapshot, take_snapshot
from mmsearch.retriever.store.tables import FOLDER as TABLES_FOLDER
from mmsearch.retriever.store.tables import Table, create_tables, memory, open_tables, versions
from mmsearch.retriever.store.tags import Tag, Tags
from mmsearch.retriever.store.together import Together
from mmsearch.retriever.store.writer import Writer, new_commit_id
from mmsearch.values import Document, Kind, Space, Status, View

if TYPE_CHECKING:
    from mmsearch.values import Vectors

__all__ = [
    "SCHEMA_VERSION",
    "Counts",
    "Problem",
    "Row",
    "Snapshot",
    "Store",
    "StoredSegment",
    "Tag",
    "Writer",
    "new_commit_id",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much an index holds.

    documents, failed:  by kind; the kind of a failed file may be unknown (None)
    segments:           by the kind of their document
    num_bytes:          on disk, all files of the index
    """

    documents: Mapping[Kind | None, int]
    failed: Mapping[Kind | None, int]
    segments: Mapping[Kind | None, int]
    num_bytes: int

    @property
    def num_documents(self) -> int:
        """Documents that can be found."""
        return sum(self.documents.values())

    @property
    def num_failed(self) -> int:
        """Documents that could not be read."""
        return sum(self.failed.values())

    @property
    def num_segments(self) -> int:
        """Segments that can be found."""
        return sum(self.segments.values())


# Of index.json: inode, modification time, size; and of what is remembered of its tables.
_Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Opened:
    """The data folder that answers, opened; ``stamp`` is of the index.json that names it."""

    stamp: _Stamp
    header: Header
    documents: Table
    segments: Table
    media: Media


class Store:
    """One index; `Store.create` and `Store.open` make one. Safe to read from many threads.

    It follows the index into another data folder as soon as index.json names one, and
    raises SpaceMismatch once that one holds vectors of another space.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self._header = header
        self._opened: _Opened | None = None
        self._latest: Snapshot | None = None
        self._taking = threading.RLock()
        self._look = Together(self._newest, self._taking)

    @classmethod
    def create(cls, path: Path, space: Space) -> "Store":
        """Make ``path`` an empty index of ``space`` and open it.

        What a killed `create` left is taken over, and an index of the same space that is
        already there is opened. Raises StoreDamaged where the folder holds other things, or
        documents without their ``index.json``, SpaceMismatch for an index of another space,
        StoreLocked while it is written to.
        """
        path = path.absolute()
        if not cls.exists(path):
            _refuse_foreign(path)
            try:
                path.mkdir(parents=True, exist_ok=True)
                with WriteLock(path):
                    if not cls.exists(path):
                        documents, _ = create_tables(path, space.dim)
                        if documents.count():
                            raise _without_header(path)
                        write_header(path, Header(space=space))
            except OSError as error:
                failed = StoreError(f"cannot make {path}: {error.strerror or error}")
                failed.hint = "check free space and permissions, or name another folder (--db DIR)"
                raise failed from error
        store = cls.open(path)
        store.check_space(space)
        return store

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open the index at ``path``; never makes one.

        One of an older schema can be opened and, by `writing`, be brought up to date;
        everything else raises StoreOutdated until then. Raises StoreNotFound, or
        StoreDamaged where it is unreadable or of a newer schema.
        """
        path = path.absolute()
        store = cls(path, read_header(path))
        if store.header.schema_version == SCHEMA_VERSION:
            store._current()
        return store

    @staticmethod
    def exists(path: Path) -> bool:
        """Say whether ``path`` is an index (damaged ones included)."""
        return (path / NAME).is_file()

    @property
    def header(self) -> Header:
        """What the index says of itself."""
        return self._header

    @property
    def home(self) -> Path:
        """The folder in which its tables, its media and what is beside them lie."""
        return self.path / self.header.data

    @property
    def space(self) -> Space:
        """What its vectors may be compared with."""
        return self.header.space

    def check_space(self, space: Space) -> None:
        """Raise SpaceMismatch unless ``space`` is the one whose vectors are kept here."""
        if space.id != self.space.id:
            raise _mismatch(self.path, stored=self.space, asked=space)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writer]:
        """Be the one writer for the length of a ``with``.

        What a killed writer left half done is swept away first, and an index of an older
        schema is brought up to date. Raises StoreLocked while another is at work.
        """
        with WriteLock(self.path):
            if self.header.schema_version < SCHEMA_VERSION:
                header = read_header(self.path)  # another may have been here before us
                if header.schema_version < SCHEMA_VERSION:
                    migrate(self.path, header)
            now = self._current()
            remove_unnamed(self.path, now.header)
            writer = Writer(self.home, self.space, now.documents, now.segments, now.media)
            writer.sweep()
            is_done = False
            try:
                yield writer
                is_done = True
            finally:  # before the lock is free again
                writer.close(is_done=is_done)

    def tags(self) -> list[Tag]:
        """Return the states that were given a name, oldest first."""
        return Tags(self.path / self._current().header.data).all()

    # ------------------------------------------------------------ reading

    def snapshot(self) -> Snapshot:
        """Return the state of the index now; use one snapshot for what belongs together."""
        return self._look.ask()

    def _newest(self) -> Snapshot:
        """Look at the versions of the tables, with ``_taking`` held."""
        now, latest = self._current(), self._latest
        known = None if latest is None else [latest.manifest.version, latest.version]
        if latest is None or known != versions(now.documents, now.segments):
            self._latest = latest = take_snapshot(now.documents, now.segments, now.media)
        return latest

    def _current(self) -> _Opened:
        """Return the data folder that answers, opened anew where index.json has changed."""
        with self._taking:
            try:
                state = (self.path / NAME).stat()
            except (FileNotFoundError, NotADirectoryError):
                raise StoreNotFound(self.path) from None
            stamp = (state.st_ino, state.st_mtime_ns, state.st_size, memory())
            if self._opened is None or self._opened.stamp != stamp:
                header = read_header(self.path)
                self._refuse_another(header)
                tables = open_tables(self.path / header.data, header.space.dim)
                media = Media(self.path / header.data)
                self._opened = _Opened(stamp, header, *tables, media)
                self._header, self._latest = header, None
            return self._opened

    def _refuse_another(self, header: Header) -> None:
        """Raise where ``header`` is of an older schema, or not of the space opened."""
        if header.schema_version < SCHEMA_VERSION:
            raise StoreOutdated(self.path, schema=header.schema_version, current=SCHEMA_VERSION)
        if header.space.id != self.space.id:
            rebuilt = _mismatch(self.path, stored=header.space, asked=self.space)
            rebuilt.hint = "it was rebuilt meanwhile: open it again"
            raise rebuilt

    def documents(self, path: str | None = None) -> list[Document]:
        """Return the manifest by path, or the document of ``path`` alone."""
        documents = self.snapshot().documents
        return [document for document in documents if path is None or document.path == path]

    def counts(self) -> Counts:
        """Return how much there is."""
        documents: Counter[Kind | None] = Counter()
        failed: Counter[Kind | None] = Counter()
        segments: Counter[Kind | None] = Counter()
        for document in self.snapshot().documents:
            whole = document.status is Status.DONE
            (documents if whole else failed)[document.kind] += 1
            segments[document.kind] += document.num_segments
        return Counts(
            documents=documents,
            failed=failed,
            segments=+segments,
            num_bytes=_size_on_disk(self.path),
        )

    def nearest(
        self, view: View, vector: "Vectors", *, k: int, where: str | None = None
    ) -> list[Neighbour]:
        """Return the nearest segments now; see `seams.VectorIndex`."""
        return self.snapshot().nearest(view, vector, k=k, where=where)

    def matching(self, text: str, *, k: int, where: str | None = None) -> list[Neighbour]:
        """Return the segments that hold words of ``text`` now; see `Snapshot.matching`."""
        return self.snapshot().matching(text, k=k, where=where)

    def segments(self, ids: Sequence[str]) -> list[StoredSegment]:
        """Return these segments in this order; unknown ids are left out."""
        return self.snapshot().segments(ids)

    def segments_of(self, path: str) -> list[StoredSegment]:
        """Return the segments of one document in the order they lie in it."""
        return self.snapshot().segments_of(path)

    def vectors(self, segment_id: str) -> "Mapping[View, Vectors]":
        """Return the ``[d]`` vectors of a segment, for the views it has.

        Raises SegmentNotFound.
        """
        found = self.snapshot().vectors([segment_id])
        if segment_id not in found:
            raise SegmentNotFound(segment_id)
        return found[segment_id]

    def thumbnail(self, segment_id: str) -> bytes:
        """Return the thumbnail of a segment, empty where it has none.

        Raises SegmentNotFound.
        """
        try:
            return self.snapshot().thumbnail(segment_id)
        except FileNotFoundError:
            pass  # its document was replaced just now: the next snapshot has the new one
        try:
            return self.snapshot().thumbnail(segment_id)
        except FileNotFoundError as error:
            raise StoreDamaged(self.path, "a file of thumbnails is missing") from error

    def export(self, out: Path) -> Dump:
        """Write the state of the index now to the new or empty folder ``out``; see `dump`."""
        with self._taking:
            now, snapshot = self._current(), self._newest()
        documents = now.documents.at(snapshot.manifest.version)
        return write_dump(documents, snapshot, now.media, now.header, out)

    def check(self) -> list[Problem]:
        """Return what is wrong with the index; nothing where it is whole.

        Rows and files of a killed or running writer are not wrong: nobody counts them.
        """
        problems = problems_of(self.snapshot(), self._current().media)
        try:
            self.tags()
        except StoreDamaged as error:
            problems.append(Problem(sentence=str(error), remedy=error.hint))
        return problems


def _size_on_disk(folder: Path) -> int:
    """Return the bytes of all files in a folder.

    Arrow walks it in one call: a loop of Python waits for the interpreter after each file, and
    in a server at work that takes a hundred times as long.
    """
    from pyarrow.fs import FileSelector, LocalFileSystem

    while True:
        try:
            files = LocalFileSystem().get_file_info(FileSelector(str(folder), recursive=True))
        except FileNotFoundError:  # a writer removed a folder before it was looked into
            if not folder.is_dir():
                raise StoreNotFound(folder) from None
        else:
            return sum(file.size or 0 for file in files)


def _without_header(path: Path) -> StoreDamaged:
    reason = f"{NAME} is lost, and nothing else says with which model it was made"
    lost = StoreDamaged(path, reason)
    lost.hint = f"bring {NAME} back from a copy, or index again into a new folder (--db DIR)"
    return lost


def _mismatch(path: Path, *, stored: Space, asked: Space) -> SpaceMismatch:
    return SpaceMismatch(
        path,
        stored=str(stored),
        asked=str(asked),
        difference=asked.difference(stored),
        same_model=asked.weights_hash == stored.weights_hash,
        same_name=asked.model == stored.model,
        options=_options(stored, asked),
    )


def _options(stored: Space, asked: Space) -> str:
    """Return the options of ``mmsearch rebuild`` that make an index of ``asked``, if any do."""
    if asked.weights_hash != stored.weights_hash:
        return f"--model {shlex.quote(asked.model)}"
    settings = {"effort": "--effort", "dim": "--dims", "max_pixels": "--max-pixels"}
    return " ".join(
        f"{option} {getattr(asked, name)}"
        for name, option in settings.items()
        if getattr(asked, name) != getattr(stored, name)
    )


def _refuse_foreign(path: Path) -> None:
    """Raise StoreDamaged where ``path`` holds what no index ever puts there."""
    ours = {TABLES_FOLDER, MEDIA_FOLDER, LOCK_NAME}
    try:
        names = {entry.name for entry in path.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreDamaged(path, error.strerror or str(error)) from error
    foreign = sorted(name for name in names - ours if not name.startswith(f".{NAME}."))
    if foreign:
        failed = StoreDamaged(path, f"it holds other things ({foreign[0]}) and is not an index")
        failed.hint = "name a new or empty folder (--db DIR)"
        raise failed
