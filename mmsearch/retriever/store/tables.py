"""The two LanceDB tables; beside `words` and `ann` no other module imports lancedb.

    documents   the manifest, one row a document: a document is in the index when it is here
    segments    the rows of every commit, those of killed or running writers among them

LanceDB's own answers are kept away from the rest of the store: what it raises becomes
one of our errors here, and what it writes is brought to the disk here.
"""

import asyncio
import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from mmsearch.errors import BadFilter, StoreDamaged, StoreError
from mmsearch.retriever.store.durable import NewFiles
from mmsearch.retriever.store.header import index_folder
from mmsearch.retriever.store.indexes import make_missing
from mmsearch.retriever.store.rows import documents_schema, segments_schema

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb import Session
    from lancedb.db import DBConnection
    from lancedb.query import AsyncStandardQuery, FullTextQuery
    from lancedb.table import AsyncTable, IndexConfigType
    from lancedb.table import Table as LanceTable

    from mmsearch.retriever.store.ann import Probe
    from mmsearch.values import Vectors

Answer = TypeVar("Answer")

FOLDER = "tables"
DOCUMENTS, SEGMENTS = "documents", "segments"

# A reader may still be at work in a version this old; lancedb warns below minutes.
KEEP_VERSIONS = timedelta(minutes=30)
MERGE_TIME = timedelta(minutes=10)  # may pass before Lance looks at its clock
BATCH_ROWS = 4_096


# What Lance keeps in a table's folder; a version is there when all of its files are.
_FOLDERS = ("data", "_deletions", "_indices", "_transactions", "_versions")
_END = b"LANC"  # the last bytes of a file of rows
_INDEX_CACHE_BYTES, _FACTS_CACHE_BYTES = 1 << 30, 64 << 20
_VERSIONS_REMEMBERED = 64  # of which most are of the same few indexes
SPARE_BYTES = 16 * 2**20  # left free when files are merged
ROW_ID = "_rowid"  # where a row lies; true of one version of a table


class Index(NamedTuple):
    """An index of one column, as the table lists it.

    kind:          ``BTree``, ``Bitmap``, ``FTS``, ``IvfRq``
    num_parts:     1, and one more with every time that rows were added to it
    has_positions: of a full-text index, whether it knows phrases
    """

    name: str
    column: str
    kind: str
    num_parts: int
    has_positions: bool


class Files(NamedTuple):
    """Of what files a table is; small rows are those outside its large files, about."""

    num_files: int
    num_rows: int
    num_small_rows: int


class Table:
    """One table: asks, adds and removes rows; every change is one version of it.

    It is read through the part of lancedb that is made of coroutines: a whole question is then
    one turn of lancedb's thread, where the other part takes five, each of which waits for the
    interpreter while others compute.
    """

    def __init__(self, folder: Path, name: str, asked: "AsyncTable") -> None:
        self.name = name
        self.asked = asked  # what is read
        self._folder = folder  # of the index, for messages
        self._new_files: NewFiles | None = None

    @functools.cached_property
    def _written(self) -> "LanceTable":
        """The table, opened to be written to."""
        return _connect(self._folder).open_table(self.name)

    @property
    def path(self) -> Path:
        """Where its files lie."""
        return self._folder / FOLDER / f"{self.name}.lance"

    @property
    def version(self) -> int:
        """The newest version, whoever made it."""
        [version] = versions(self)
        return version

    @property
    def schema(self) -> "pa.Schema":
        """Its columns."""
        with self.reading():
            return _wait(self.asked.schema())

    def at(self, version: int | None = None) -> "Table":
        """Return the table as it is now, or was at ``version``; it stays so while others write.

        Not for writing.
        """
        _looked_at.num += 1

        async def pinned() -> "AsyncTable":
            table = await _open(self._folder, self.name)
            await table.checkout(await self.asked.version() if version is None else version)
            return table

        with self.reading():
            return Table(self._folder, self.name, _wait(pinned()))

    # ------------------------------------------------------------ reading

    def count(self, where: str | None = None) -> int:
        """Return how many rows there are."""
        with self.reading(where):
            return _wait(self.asked.count_rows(where))

    def rows(
        self, columns: Sequence[str], where: str | None = None, *, limit: int | None = None
    ) -> "pa.Table":
        """Return the columns of every row that fits, or of some ``limit`` of them, in no order."""
        with self.reading(where):
            query = self.asked.query().select(list(columns))
            if where is not None:
                query = query.where(where)
            if limit is not None:
                query = query.limit(limit)
            return _wait(query.to_arrow())

    def batches(
        self, columns: Sequence[str], where: str | None = None
    ) -> "Iterator[pa.RecordBatch]":
        """Give the same rows some thousands at a time."""
        with self.reading(where):
            query = self.asked.query().select(list(columns))
            if where is not None:
                query = query.where(where)
            batches = _wait(query.to_batches(max_batch_length=BATCH_ROWS))
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    yield _wait(anext(batches))

    def row_ids(self, where: str, *, limit: int) -> list[int]:
        """Return where rows that fit lie, at most ``limit`` of them, for `take`."""
        with self.reading(where):
            query = self.asked.query().where(where).with_row_id()
            return _wait(query.select([ROW_ID]).limit(limit).to_arrow())[ROW_ID].to_pylist()

    def take(self, row_ids: Sequence[int], columns: Sequence[str]) -> "pa.Table":
        """Return the columns of the rows that lie there, in no order."""
        with self.reading():
            query = self.asked.take_row_ids(list(row_ids)).select(list(columns))
            return _wait(query.to_arrow())

    def nearest(
        self,
        column: str,
        vector: "Vectors",
        columns: Sequence[str],
        *,
        limit: int,
        where: str | None,
        probe: "Probe | None" = None,
    ) -> "pa.Table":
        """Return the rows nearest by cosine, best first, with ``_distance`` = 1 - cosine.

        Every row is compared, unless ``probe`` says how its vector index is to be asked.
        """
        with self.reading(where):
            query = self.asked.query().nearest_to(vector).column(column).distance_type("cosine")
            if probe is None:
                query = query.bypass_vector_index()
            else:
                query = query.nprobes(probe.cells).refine_factor(probe.refine)
            return self._best(query, [*columns, "_distance"], limit, where)

    def matching(
        self, asked: "FullTextQuery", columns: Sequence[str], *, limit: int, where: str | None
    ) -> "pa.Table":
        """Return the rows that fit a full-text query, best first, with ``_score`` (BM25)."""
        with self.reading(where):
            query = self.asked.query().nearest_to_text(asked)
            return self._best(query, [*columns, "_score"], limit, where)

    def _best(
        self, query: "AsyncStandardQuery", columns: list[str], limit: int, where: str | None
    ) -> "pa.Table":
        """Return the first rows of a query that ranks them, where they lie among the columns."""
        query = query.select(columns).limit(limit).with_row_id()
        return _wait((query if where is None else query.where(where)).to_arrow())

    def indexes(self) -> list[Index]:
        """Return its indexes; a damaged one may be among them."""
        with self.reading():
            return [
                Index(
                    name=index.name,
                    column=index.columns[0],
                    kind=index.index_type,
                    num_parts=index.num_segments or 1,
                    has_positions=bool((index.index_details or {}).get("with_position")),
                )
                for index in _wait(self.asked.list_indices())
            ]

    def files(self) -> Files:
        """Return how many files its rows are in."""
        with self.reading():
            stats: Any = _wait(self.asked.stats())  # a dict, whatever its annotation says
        files = stats["fragment_stats"]
        num_rows, lengths = stats["num_rows"], files["lengths"]
        num_files, num_small = files["num_fragments"], files["num_small_fragments"]
        if num_files - num_small > 1:  # several large ones: what most of the others hold
            small_rows = num_small * lengths["p50"] if 2 * num_small > num_files else 0
        else:
            small_rows = num_rows - lengths["max"] if num_files else 0
        return Files(num_files, num_rows, max(0, small_rows))

    def num_uncovered(self) -> int:
        """Return how many rows its indexes do not cover, of the one that covers least."""
        with self.reading():
            names = [one.name for one in _wait(self.asked.list_indices())]
            stats = (_wait(self.asked.index_stats(name)) for name in names)
            return max((one.num_unindexed_rows for one in stats if one), default=0)

    # ------------------------------------------------------------ writing, one writer at a time

    def beside(self) -> "Table":
        """Return the table once more, for another thread that writes to it."""
        return Table(self._folder, self.name, _wait(_open(self._folder, self.name)))

    def add(self, rows: "pa.Table") -> None:
        """Add rows, durably."""
        self._unless_torn(lambda: self._written.add(rows))

    def add_batches(self, batches: "Iterable[pa.RecordBatch]") -> None:
        """Add rows as they come, all of them or none, durably; few are in memory at a time.

        What ``batches`` raises passes on.
        """
        import pyarrow as pa

        raised: list[Exception] = []

        def given() -> "Iterator[pa.RecordBatch]":
            try:
                yield from batches
            except Exception as error:
                raised.append(error)
                raise

        with self._writing():
            try:
                self._written.add(pa.RecordBatchReader.from_batches(self._written.schema, given()))
            except Exception:
                if raised:
                    raise raised[0] from None
                raise

    def put(self, key: str, rows: "pa.Table", *, alone: bool = False) -> None:
        """Replace the rows of the same ``key`` and add the others, at once and durably.

        alone: and remove all that are not among ``rows``
        """
        merge = self._written.merge_insert(key).when_matched_update_all()
        merge = merge.when_not_matched_insert_all()
        if alone:
            merge = merge.when_not_matched_by_source_delete()
        self._unless_torn(lambda: merge.execute(rows))

    def delete(self, where: str) -> None:
        """Remove the rows that fit, durably."""
        with self._writing():
            self._written.delete(where)

    def make_index(
        self, column: str, config: "IndexConfigType", *, name: str | None = None
    ) -> None:
        """Make an index of lancedb's over a column; rows added later are found without it too.

        Without a name it is called after its column, and takes the place of one so called.
        """
        with self._writing():
            self._written.create_index(column, config=config, name=name)

    def drop_index(self, name: str) -> None:
        """Forget an index; a damaged one too."""
        with self._writing():
            self._written.drop_index(name)

    def tidy(self, *, is_alone: bool = False, is_beside: bool = False) -> None:
        """Merge small files, bring indexes up to date, drop versions nobody can be reading.

        Nothing is dropped before what was merged is known to be whole. Raises StoreError,
        and the table is then as it was.

        is_alone:  nobody else is writing, so files that no version names are of a killed
                   writer and go too
        is_beside: another thread is adding rows
        """
        self._refuse_without_room()
        self._unless_torn(self._written.optimize, is_beside=is_beside)
        # A merged file is covered by indexes only now, and Lance merges it with others
        # that are: this may merge again, and what it is made of is too young to go.
        with self.reading():
            made = [version["timestamp"].astimezone() for version in self._written.list_versions()]
        clean = functools.partial(
            self._written.optimize,
            cleanup_older_than=_age_to_keep(made, datetime.now(UTC)),
            delete_unverified=is_alone,
        )
        self._unless_torn(clean, is_beside=is_beside)

    def _refuse_without_room(self) -> None:
        """Raise StoreError unless all files of the table fit on the disk once more."""
        try:
            with os.scandir(self.path / "data") as files:
                needed = sum(file.stat().st_size for file in files)
            free = shutil.disk_usage(self.path).free
        except OSError:
            return  # what is wrong will show
        if free < needed + SPARE_BYTES:
            full = StoreError(f"cannot write to {self._folder}: no room to merge its files")
            full.hint = f"free {(needed + SPARE_BYTES - free) // 10**6 + 1} MB and run it again"
            raise full

    def _unless_torn(self, change: "Callable[[], object]", *, is_beside: bool = False) -> None:
        """Change the table, and go back to the version of before if a file of rows is torn.

        Where the disk is full, Lance may take a file that was cut short for a whole one.
        """
        before, there = self.version, _data_files(self.path)
        try:
            with self._writing():
                change()
        finally:
            new = (self.path / "data" / name for name in _data_files(self.path) - there)
            torn = [file for file in new if _is_torn(file)]
            if torn and not is_beside and self.version != before:
                self._go_back(before, torn)
        if torn:
            raise StoreError(f"cannot write to {self._folder}: {torn[0].name} was cut short")

    def _go_back(self, version: int, torn: Sequence[Path]) -> None:
        """Restore a version, and remove the files of rows that are of no use then."""
        try:
            with self._writing():
                self._written.restore(version)
        except StoreError:  # there may be room once they are gone
            for file in torn:
                file.unlink(missing_ok=True)
            with self._writing():
                self._written.restore(version)
        for file in torn:
            file.unlink(missing_ok=True)

    # ------------------------------------------------------------ errors

    @contextlib.contextmanager
    def reading(self, where: str | None = None) -> Iterator[None]:
        """Make errors of ours of what lancedb raises; ``where`` is a filter of the caller's."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, ValueError | RuntimeError | OSError) and not _is_panic(error):
                raise
            reason = _reason(error)
            # lancedb refuses a filter with a ValueError when it plans, and with a
            # RuntimeError when a comparison fails on the rows.
            by_filter = isinstance(error, ValueError) or "filter expression" in reason
            if where is not None and by_filter:
                raise BadFilter(where, reason) from error
            raise StoreDamaged(index_folder(self._folder), reason) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        if self._new_files is None:
            self._new_files = NewFiles(self.path / name for name in _FOLDERS)
        try:
            yield
            self._new_files.flush()
        except (RuntimeError, OSError) as error:
            failed = StoreError(f"cannot write to {self._folder}: {_reason(error)}")
            failed.hint = "check free space and permissions and run it again; nothing was lost"
            raise failed from error


def create_tables(folder: Path, dim: int) -> tuple[Table, Table]:
    """Return empty tables ``documents`` and ``segments``, made where they are missing."""
    database = _connect(folder)
    schemas = {DOCUMENTS: documents_schema(), SEGMENTS: segments_schema(dim)}
    tables = []
    try:
        for name, schema in schemas.items():
            database.create_table(name, schema=schema, exist_ok=True)
            tables.append(Table(folder, name, _wait(_open(folder, name))))
    except (RuntimeError, OSError, ValueError) as error:
        failed = StoreError(f"cannot make an index at {folder}: {_reason(error)}")
        failed.hint = "check free space and permissions, or name another folder (--db DIR)"
        raise failed from error
    documents, segments = tables
    make_missing(documents)
    make_missing(segments)
    return documents, segments


def open_tables(folder: Path, dim: int) -> tuple[Table, Table]:
    """Return the tables of an index. Raises StoreDamaged where they are not as they should be."""
    if not (folder / FOLDER).is_dir():  # lancedb would make it, and reads never create
        raise StoreDamaged(index_folder(folder), f"{folder.name}/{FOLDER} is missing")
    tables = []
    for name, schema in ((DOCUMENTS, documents_schema()), (SEGMENTS, segments_schema(dim))):
        try:
            asked = _wait(_open(folder, name))
        except (RuntimeError, OSError, ValueError) as error:
            raise StoreDamaged(index_folder(folder), f"table {name}: {_reason(error)}") from error
        table = Table(folder, name, asked)
        missing = set(schema.names) - set(table.schema.names)
        if missing or any(table.schema.field(n).type != schema.field(n).type for n in schema.names):
            reason = f"table {name} has other columns than this version's"
            raise StoreDamaged(index_folder(folder), reason)
        tables.append(table)
    return tables[0], tables[1]


def open_as_they_are(folder: Path) -> tuple[Table, Table]:
    """Return the tables of an index of any schema: for `migrate`, which knows their columns."""
    try:
        documents, segments = (_wait(_open(folder, name)) for name in (DOCUMENTS, SEGMENTS))
    except (RuntimeError, OSError, ValueError) as error:
        raise StoreDamaged(folder, f"its tables: {_reason(error)}") from error
    return Table(folder, DOCUMENTS, documents), Table(folder, SEGMENTS, segments)


def versions(*tables: Table) -> list[int]:
    """Return the newest version of each, whoever made it, looked at together."""

    async def newest() -> list[int]:
        return await asyncio.gather(*(table.asked.version() for table in tables))

    with tables[0].reading():
        return _wait(newest())


def _age_to_keep(made: Iterable[datetime], now: datetime) -> timedelta:
    """Return up to which age versions are kept, given when each was made.

    Readers may be at work in every one that was the newest at some time since
    KEEP_VERSIONS ago, and the first of these may have been made long before.
    """
    newest_then = max((time for time in made if time <= now - KEEP_VERSIONS), default=None)
    return KEEP_VERSIONS if newest_then is None else now - newest_then + MERGE_TIME


def _data_files(table: Path) -> set[str]:
    """Return the names of files of rows; what is being written has no such name yet."""
    try:
        names = os.listdir(table / "data")
    except FileNotFoundError:
        return set()
    return {name for name in names if name.endswith(".lance")}


def _is_torn(file: Path) -> bool:
    """Say whether a file of rows lacks its end."""
    try:
        with file.open("rb") as opened:
            opened.seek(-len(_END), os.SEEK_END)
            return opened.read() != _END
    except FileNotFoundError:
        return False  # of no use any more
    except OSError:
        return True


def _wait(answer: "Coroutine[Any, Any, Answer]") -> Answer:
    """Return what lancedb answers, in whose own thread its coroutines run."""
    told: Answer = _lancedb().background_loop.LOOP.run(answer)
    return told


async def _open(folder: Path, name: str) -> "AsyncTable":
    """Open a table to be read."""
    connection = await _lancedb().connect_async(folder / FOLDER, **_how())
    return await connection.open_table(name)


def _connect(folder: Path) -> "DBConnection":
    """Open the tables of a folder to be written to."""
    return _lancedb().connect(folder / FOLDER, **_how())


@functools.cache
def _lancedb() -> Any:  # noqa: ANN401  a module
    # Read once, when the native library loads. Lance leaves two cores to its input and
    # output, so that of two none is left for the lists of one question to be made on at once.
    os.environ.setdefault("LANCE_IO_CORE_RESERVATION", "0")
    os.environ.setdefault("RUST_LOG", "error")
    import lancedb
    import lancedb.background_loop

    return lancedb


def _how() -> dict[str, Any]:
    """Return how all connections are made."""
    # Zero: every question sees what other processes have committed.
    interval = timedelta(0)
    return {"read_consistency_interval": interval, "session": _session(os.getpid(), memory())}


class _LookedAt:
    """How many versions this process looked at, about: two threads may count one."""

    num = 0


_looked_at = _LookedAt()


def memory() -> int:
    """Say which memory connections share now: after so many versions it is another.

    Lance keeps the index files of every version that was asked open, four or so of each, until
    its memory is full: a process that lives long would run out of descriptors first.
    """
    return _looked_at.num // _VERSIONS_REMEMBERED


@functools.lru_cache(maxsize=1)
def _session(process: int, memory: int) -> "Session":
    """Return what all connections of a process remember: indexes, and facts about versions.

    A process that was forked makes its own: in what it inherits another thread's lock may
    be closed for ever.

    Left to itself each connection has its own, and one that writes grows with every commit
    (0.3 MiB) until it holds a gigabyte of versions that nobody will ask for again.
    """
    import lancedb

    return lancedb.Session(
        index_cache_size_bytes=_INDEX_CACHE_BYTES, metadata_cache_size_bytes=_FACTS_CACHE_BYTES
    )


def _is_panic(error: Exception) -> bool:
    """Whether the native library gave up, as it does over some damaged files."""
    return type(error).__name__ == "RustPanic"


def _reason(error: BaseException) -> str:
    """The first line of what lancedb says, without the places in its own source."""
    line = str(error).strip().split("\n")[0]
    head = line.split(", /")[0].split("Valid fields are")[0]
    return head.removeprefix("lance error: ").removeprefix("Invalid input, ").strip(" .")
