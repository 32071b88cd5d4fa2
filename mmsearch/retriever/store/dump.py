"""An index as one folder of Parquet, for other machines and other programs, and back.

    index.json              the space, the schema, and of each file its rows, bytes and hash
    documents.parquet       the manifest
    segments-00000.parquet  text, place and vectors of each segment, some 100,000 a file
    thumbnails-00000.parquet

Rows go through a few thousand at a time, so memory does not grow with the index. Both ways
write aside and rename last: what is there under its name is whole.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.errors import StoreDamaged, StoreError
from mmsearch.retriever.store.durable import flush, write_file
from mmsearch.retriever.store.header import NAME, SCHEMA_VERSION, Header, read_space, write_header
from mmsearch.retriever.store.lock import WriteLock
from mmsearch.retriever.store.media import Media
from mmsearch.retriever.store.rows import any_of, documents_schema, segments_schema
from mmsearch.retriever.store.snapshot import Snapshot
from mmsearch.retriever.store.tables import Table, create_tables
from mmsearch.values import Space

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "mmsearch-parquet"
ROWS_A_FILE = 100_000
BYTES_A_FILE = 256 * 2**20  # of thumbnails
BATCH_ROWS = 4_096
CHUNK_BYTES = 2**20
FILE_NAME = re.compile(r"(documents|segments-[0-9]{5,}|thumbnails-[0-9]{5,})\.parquet")
PACK_NAME = re.compile(r"[0-9a-zA-Z_-]{4,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """What an export holds.

    files: by name, how many rows and bytes each has, and blake2b of it, 32 hex digits
    """

    space: Space
    num_documents: int
    num_segments: int
    num_thumbnails: int
    files: Mapping[str, Mapping[str, Any]]
    schema_version: int = SCHEMA_VERSION

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file["bytes"] for file in self.files.values())

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "model": self.space.model,
            "space": self.space.id,
            "documents": self.num_documents,
            "segments": self.num_segments,
            "thumbnails": self.num_thumbnails,
            "bytes": self.num_bytes,
        }


# ---------------------------------------------------------------- out


def write_dump(
    documents: Table, snapshot: Snapshot, media: Media, header: Header, out: Path
) -> Dump:
    """Write one state of an index to the new or empty folder ``out``.

    documents: the manifest, pinned at the version of ``snapshot``

    Raises StoreError where ``out`` holds something, where the disk refuses, and where a
    document of the state has lost its thumbnails, or loses them meanwhile.
    """
    _refuse_filled(out)
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        aside.mkdir(parents=True)
        dump = _write_files(documents, snapshot, media, header, aside)
        content = {
            "format": FORMAT,
            "mmsearch_version": _version(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **asdict(dump),
            "space_id": dump.space.id,
        }
        write_file(aside / NAME, (json.dumps(content, indent=2) + "\n").encode())
        aside.replace(out)
        flush(out.parent)
    except OSError as error:
        raise _cannot_write(out, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return dump


def _write_files(
    documents: Table, snapshot: Snapshot, media: Media, header: Header, folder: Path
) -> Dump:
    import pyarrow as pa

    segments = _Files(folder, "segments", segments_schema(header.space.dim), numbered=True)
    for batch in _live_rows(snapshot, segments.schema.names):
        segments.write(batch)
        if segments.num_rows >= ROWS_A_FILE:
            segments.end_file()
    thumbnails = _Files(folder, "thumbnails", _thumbnails_schema(), numbered=True)
    for pack, owners in _packs(documents):
        held = _thumbnails(snapshot.table, media, pack, owners)
        columns = [[pack] * len(held), list(held), list(held.values())]
        thumbnails.write(pa.record_batch(columns, thumbnails.schema))
        if thumbnails.num_bytes >= BYTES_A_FILE:
            thumbnails.end_file()
    manifest = _Files(folder, "documents", documents_schema(), numbered=False)
    for batch in documents.batches(manifest.schema.names):
        manifest.write(batch.select(manifest.schema.names))
    return Dump(
        space=header.space,
        num_documents=manifest.total_rows,
        num_segments=segments.total_rows,
        num_thumbnails=thumbnails.total_rows,
        files=dict(sorted({**manifest.close(), **segments.close(), **thumbnails.close()}.items())),
    )


def _live_rows(snapshot: Snapshot, columns: list[str]) -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa
    import pyarrow.compute as pc

    live = pa.array(snapshot.live, pa.string())
    for batch in snapshot.table.batches(columns):
        rows = batch.filter(pc.is_in(batch["commit_id"], value_set=live))
        if rows.num_rows:
            yield rows.select(columns)


def _packs(documents: Table) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Give each pack and the documents that have thumbnails in it."""
    rows = documents.rows(["pack", "commit_id", "num_thumbnails"]).to_pylist()
    owners = sorted((row for row in rows if row["num_thumbnails"]), key=itemgetter("pack"))
    for pack, some in groupby(owners, key=itemgetter("pack")):
        yield pack, list(some)


def _thumbnails(
    segments: Table, media: Media, pack: str, owners: Sequence[Mapping[str, Any]]
) -> dict[str, bytes]:
    """Return the thumbnails of a pack by segment, without those that no document has any more."""
    try:
        held = media.read(pack)
    except FileNotFoundError as error:
        lost = StoreError(f"a file of thumbnails ({pack}) is missing")
        lost.hint = "if it was being indexed, run it again; else mmsearch doctor"
        raise lost from error
    if len(held) == sum(owner["num_thumbnails"] for owner in owners):
        return held
    ours = any_of("commit_id", (owner["commit_id"] for owner in owners))
    counted = segments.rows(["segment_id"], ours)["segment_id"]
    return {one: held[one] for one in counted.to_pylist() if one in held}


def _thumbnails_schema() -> "pa.Schema":
    import pyarrow as pa

    columns = {"pack": pa.string(), "segment_id": pa.string(), "bytes": pa.binary()}
    return pa.schema(list(columns.items()))


class _Files:
    """Parquet files of one schema, written one after another."""

    def __init__(self, folder: Path, name: str, schema: "pa.Schema", *, numbered: bool) -> None:
        self.schema = schema
        self.num_rows = self.num_bytes = self.total_rows = 0  # of the file at hand; of all
        self._folder, self._name, self._numbered = folder, name, numbered
        self._written: dict[str, dict[str, Any]] = {}
        self._writer: Any = None

    def write(self, batch: "pa.RecordBatch") -> None:
        """Add rows to the file at hand."""
        if self._writer is None:
            self._begin_file()
        self._writer.write_batch(batch.cast(self.schema) if batch.schema != self.schema else batch)
        self.num_rows += batch.num_rows
        self.num_bytes += batch.nbytes
        self.total_rows += batch.num_rows

    def end_file(self) -> None:
        """Bring the file at hand to the disk; what is written next goes to another."""
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        path = self._path(len(self._written))
        flush(path)
        self._written[path.name] = {
            "rows": self.num_rows,
            "bytes": path.stat().st_size,
            "blake2b": _hash(path),
        }
        self.num_rows = self.num_bytes = 0

    def close(self) -> dict[str, dict[str, Any]]:
        """Return what was written, by name: one file at least."""
        if not self._written and self._writer is None:
            self._begin_file()
        self.end_file()
        return self._written

    def _begin_file(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        words = [field.name for field in self.schema if field.type == pa.string()]
        self._writer = pq.ParquetWriter(
            self._path(len(self._written)), self.schema, compression="zstd", use_dictionary=words
        )

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}{f'-{number:05}' if self._numbered else ''}.parquet"


# ---------------------------------------------------------------- and back


def read_dump(folder: Path) -> Dump:
    """Return what the export in ``folder`` says it holds; its files are not looked at.

    Raises StoreDamaged where it is none, or one of a schema that this mmsearch cannot take.
    """
    try:
        content = json.loads((folder / NAME).read_bytes())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        if content["schema_version"] != SCHEMA_VERSION:
            raise _damaged(
                folder,
                f"it was written by mmsearch {content.get('mmsearch_version')} (schema "
                f"{content['schema_version']}, this one takes {SCHEMA_VERSION})",
            )
        files = content["files"]
        if bad := [name for name in files if not FILE_NAME.fullmatch(name)]:
            raise ValueError(f"a file named {bad[0]!r}")
        counts = {
            name: int(content[name]) for name in ("num_documents", "num_segments", "num_thumbnails")
        }
        return Dump(space=read_space(content["space"]), files=files, **counts)
    except OSError as error:
        raise _damaged(folder, f"{NAME}: {(error.strerror or str(error)).lower()}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(folder, f"{NAME} is not that of an export ({error!r})") from error


@contextlib.contextmanager
def importing(folder: Path, path: Path) -> "Iterator[Path]":
    """Make an index of the export in ``folder`` aside, to be looked at; then name it ``path``.

    Nothing is at ``path`` until the ``with`` has ended well. Raises StoreDamaged for an
    export that is not what it says it is, StoreError where ``path`` holds something or the
    disk refuses, StoreLocked while another import to ``path`` is at work.
    """
    dump = read_dump(folder)
    _refuse_filled(path)
    aside = path.with_name(f".{path.name}.import")
    try:
        aside.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    with WriteLock(aside):
        new = aside / "index"
        shutil.rmtree(new, ignore_errors=True)  # of an import that was killed
        try:
            new.mkdir()
            _fill(dump, folder, new)
            write_header(new, Header(space=dump.space))
            yield new
            new.replace(path)
            flush(path.parent)
        except OSError as error:
            raise _cannot_write(path, error) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _fill(dump: Dump, folder: Path, new: Path) -> None:
    for name, said in dump.files.items():
        _refuse_changed(folder / name, said)
    documents, segments = create_tables(new, dump.space.dim)
    counts = {
        "segments": _add(segments, _rows(dump, folder, "segments", segments.schema)),
        "thumbnails": _write_thumbnails(dump, folder, Media(new)),
        "documents": _add(documents, _rows(dump, folder, "documents", documents.schema)),
    }
    for name, count in counts.items():
        said = getattr(dump, f"num_{name}")
        if count != said:
            raise _damaged(folder, f"it holds {count} {name}, not {said}")


def _add(table: Table, batches: "Iterable[pa.RecordBatch]") -> int:
    table.add_batches(batches)
    return table.count()


def _write_thumbnails(dump: Dump, folder: Path, media: Media) -> int:
    """Write packs as they come: the rows of one lie together; return how many rows there were."""
    count, name = 0, ""
    held: dict[str, bytes] = {}
    for batch in _rows(dump, folder, "thumbnails", _thumbnails_schema()):
        for row in batch.to_pylist():
            if row["pack"] != name:
                media.write(name, held)
                name, held = row["pack"], {}
                if not PACK_NAME.fullmatch(name):
                    raise _damaged(folder, f"{name!r} cannot name a file of thumbnails")
            held[row["segment_id"]] = row["bytes"]
        count += batch.num_rows
    media.write(name, held)
    return count


def _rows(dump: Dump, folder: Path, name: str, schema: "pa.Schema") -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in sorted(file for file in dump.files if file.startswith(name)):
        try:
            # With pre_buffer, bytes of the whole file would stay in memory.
            with pq.ParquetFile(folder / file, pre_buffer=False) as rows:
                found = rows.schema_arrow
                if found.names != schema.names or found.types != schema.types:
                    raise _damaged(folder, f"{file} has other columns than this version's")
                for batch in rows.iter_batches(BATCH_ROWS):
                    yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(folder, f"{file}: {error}") from error


def _refuse_changed(path: Path, said: Mapping[str, Any]) -> None:
    try:
        whole = path.stat().st_size == said["bytes"] and _hash(path) == said["blake2b"]
    except FileNotFoundError:
        raise _damaged(path.parent, f"{path.name} is missing") from None
    if not whole:
        raise _damaged(path.parent, f"{path.name} is not as it was written")


# ---------------------------------------------------------------- both ways


def _refuse_filled(path: Path) -> None:
    try:
        filled = any(path.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_write(path, error) from error
    if filled:
        there = StoreError(f"{path} is there already and holds something")
        there.hint = "name a new or an empty folder"
        raise there


def _cannot_write(path: Path, error: OSError) -> StoreError:
    failed = StoreError(f"cannot write to {path}: {(error.strerror or str(error)).lower()}")
    failed.hint = "check free space and permissions and run it again"
    return failed


def _damaged(folder: Path, reason: str) -> StoreDamaged:
    damaged = StoreDamaged(folder, reason)
    damaged.hint = "export the index again: mmsearch export OUT --db DIR"
    return damaged


def _hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _version() -> str:
    from importlib.metadata import version

    return version("mmsearch")
