"""The faiss accelerator of an index: a folder beside its tables, a cache of them.

    build, refresh     a snapshot --> home/faiss/
    open_accelerator   home/faiss/ --> Rows and a scanner, mapped into memory
    exists, remove, problems

    VIEW.json             what the view's files are and how long; it names them, and is
                          written last
    VIEW-TOKEN.index      the vectors and their codes, as faiss writes them
    VIEW-TOKEN.rows       which rows they are, VIEW-TOKEN.commits of which commits (Arrow)

Files are never changed, only replaced by others of another name, so a reader that has
them mapped goes on. What is not as its description says is as if it were not there.
"""

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.errors import StoreError
from mmsearch.retriever.search.backends.faiss_scanner import (
    FaissScanner,
    extend,
    load_faiss,
    train_index,
)
from mmsearch.retriever.search.backends.rows import (
    Rows,
    dim_of,
    found_by,
    id_list,
    id_numbers,
    num_new,
    standing,
)
from mmsearch.retriever.store.check import Problem
from mmsearch.retriever.store.durable import flush, write_file
from mmsearch.retriever.store.header import index_folder
from mmsearch.retriever.store.rows import VECTOR_COLUMN, any_of
from mmsearch.values import View

if TYPE_CHECKING:
    import faiss
    import pyarrow as pa

    from mmsearch.retriever.search.backends.rows import Places
    from mmsearch.retriever.store.snapshot import Snapshot

FOLDER = "faiss"
LOCK = "build.lock"
FORMAT = 2
_ROW_COLUMNS = ("ids", "commit_numbers", "per_length", "num_words", "views")
# The ends of the big file are looked at whenever it is opened, the whole of it by doctor.
END_BYTES = 1 << 16
# With this share of new and dead rows the lists no longer suit: all is made anew.
STALE_SHARE = 0.25
# Fewer new rows than this cost next to nothing beside the file; more are added to it.
CATCH_UP_ROWS, CATCH_UP_SHARE = 500, 1 / 1_000
CHECKED_VECTORS = 1_000

OnProgress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What VIEW.json says; checksums are CRC-32."""

    format: int
    view: str
    token: str
    dim: int
    num_rows: int
    index_bytes: int
    index_ends: int
    index_checksum: int
    rows_bytes: int
    rows_checksum: int
    commits_bytes: int
    commits_checksum: int


@dataclass(frozen=True, eq=False)
class Accelerator:
    """The opened files of one view."""

    description: Description
    rows: Rows
    index: "faiss.Index"

    def scanner(self) -> FaissScanner:
        """Return what answers from it."""
        return FaissScanner(self.index, self.rows.per_length)


class _Unusable(Exception):
    """The files are not what they should be; says why."""


# ---------------------------------------------------------------- for those above


def exists(home: Path) -> bool:
    """Say whether there is an accelerator in ``home``, usable or not."""
    return any(_description_path(home, view).is_file() for view in View)


def state(home: Path, view: View) -> tuple[int, ...] | None:
    """Return what changes whenever the files of a view do; None where there are none."""
    try:
        stat = os.stat(_description_path(home, view))
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def build(snapshot: "Snapshot", home: Path, on_progress: OnProgress | None = None) -> None:
    """Make the accelerator anew from everything that counts in ``snapshot``.

    on_progress: called with (rows read, rows there are), over both views
    Raises MissingExtra, StoreError where the disk refuses.
    """
    counts = {view: _num_rows(snapshot, view) for view in View}
    done = 0
    with _building(home):
        for view in View:

            def on_rows(read: int, _: int, before: int = done) -> None:
                if on_progress:
                    on_progress(before + read, sum(counts.values()))

            _build_view(snapshot, home, view, on_rows)
            done += counts[view]


def refresh(snapshot: "Snapshot", home: Path) -> bool:
    """Bring an accelerator up to date where that pays; say whether it did anything.

    Some new rows are added; with more than a quarter of its rows new or dead, or with
    files that cannot be used, a view is made anew. Raises as `build` does.
    """
    changed = False
    with _building(home):
        for view in View:
            changed |= _refresh_view(snapshot, home, view)
    return changed


def remove(home: Path) -> bool:
    """Remove the accelerator; say whether there was one. Those who read from it go on."""
    if not (home / FOLDER).is_dir():
        return False
    with _building(home):
        for view in View:  # descriptions first: half a removal leaves no accelerator
            _description_path(home, view).unlink(missing_ok=True)
        shutil.rmtree(home / FOLDER)
    return True


def problems(snapshot: "Snapshot", home: Path) -> list[Problem]:
    """Return what is wrong with the accelerator; nothing where there is none.

    Being old is no problem. Reads the whole of it.
    """
    found = []
    for view in View:
        if state(home, view) is None:
            continue
        reason = _fault(snapshot, home, view)
        if reason:
            sentence = f"the faiss file of the {view} vectors {reason}; it is not used"
            remedy = f"mmsearch optimize --faiss --db {shlex.quote(str(index_folder(home)))}"
            found.append(Problem(sentence=sentence, remedy=remedy))
    return found


def open_accelerator(home: Path, view: View, dim: int) -> Accelerator | None:
    """Return the opened files of a view; None where there are none that can be used.

    Raises MissingExtra.
    """
    for _ in range(3):  # another process may just be replacing them
        before = state(home, view)
        if before is None:
            return None
        try:
            return _open(home, view, dim)
        except _Unusable:
            if state(home, view) == before:
                return None
    return None


# ---------------------------------------------------------------- making


def _build_view(snapshot: "Snapshot", home: Path, view: View, on_rows: OnProgress | None) -> None:
    rows, index = train_index(snapshot, view, dim_of(snapshot, view), on_rows)
    _write(home, view, rows, index)


def _refresh_view(snapshot: "Snapshot", home: Path, view: View) -> bool:
    here = open_accelerator(home, view, dim_of(snapshot, view))
    if here is None:
        _build_view(snapshot, home, view, None)
        return True
    stands = standing(here.rows, snapshot.live)
    new = num_new(snapshot, view, here.rows, stands)
    if new + stands.num_dead > STALE_SHARE * len(here.rows):
        _build_view(snapshot, home, view, None)
        return True
    if new <= max(CATCH_UP_ROWS, CATCH_UP_SHARE * len(here.rows)):
        return False
    path = _folder(home) / _name(here.description, "index")
    index = load_faiss().read_index(str(path))
    rows = extend(snapshot, view, here.rows, index, sorted(stands.missing))
    _write(home, view, rows, index)
    return True


def _write(home: Path, view: View, rows: Rows, index: "faiss.Index") -> None:
    """Write the files of one view and, last, the description that makes them count."""
    import pyarrow as pa

    faiss = load_faiss()
    folder = _folder(home)
    token = uuid.uuid4().hex
    paths = {kind: folder / f"{view}-{token}.{kind}" for kind in ("index", "rows", "commits")}
    try:
        faiss.write_index(index, str(paths["index"]))
        _write_arrow(paths["rows"], pa.table({n: getattr(rows, n) for n in _ROW_COLUMNS}))
        _write_arrow(paths["commits"], pa.table({"commit_id": rows.commits}))
        for path in paths.values():
            flush(path)
        flush(folder)
        description = Description(
            format=FORMAT,
            view=str(view),
            token=token,
            dim=index.d,
            num_rows=len(rows),
            index_bytes=paths["index"].stat().st_size,
            index_ends=_ends(paths["index"]),
            index_checksum=_checksum(paths["index"]),
            rows_bytes=paths["rows"].stat().st_size,
            rows_checksum=_checksum(paths["rows"]),
            commits_bytes=paths["commits"].stat().st_size,
            commits_checksum=_checksum(paths["commits"]),
        )
        _open_files(folder, description)  # a disk that filled up may not have said so
        content = json.dumps(asdict(description), sort_keys=True)
        signed = {"checksum": zlib.crc32(content.encode()), "description": content}
        write_file(_description_path(home, view), json.dumps(signed).encode())
    except (OSError, RuntimeError, _Unusable, pa.ArrowException) as error:
        for path in paths.values():
            path.unlink(missing_ok=True)
        failed = StoreError(f"cannot write {folder}: {str(error).splitlines()[0]}")
        failed.hint = "check free space and permissions; the index answers without it"
        raise failed from error
    _sweep(home)


def _sweep(home: Path) -> None:
    """Remove the files that no description names."""
    named = {LOCK}
    for view in View:
        named.add(_description_path(home, view).name)
        with contextlib.suppress(_Unusable):
            description = _read_description(home, view)
            named.update(_name(description, kind) for kind in ("index", "rows", "commits"))
    for entry in _folder(home).iterdir():
        if entry.name not in named:
            entry.unlink(missing_ok=True)


@contextlib.contextmanager
def _building(home: Path) -> Iterator[None]:
    """Be the one that changes the accelerator; waits for another that does."""
    folder = _folder(home)
    try:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        failed = StoreError(f"cannot write {folder}: {error.strerror}")
        failed.hint = "check free space and permissions; the index answers without it"
        raise failed from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        folder.mkdir(exist_ok=True)  # whom we waited for may have removed it
        yield
    finally:
        os.close(descriptor)


def _write_arrow(path: Path, table: "pa.Table") -> None:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())


# ---------------------------------------------------------------- opening


def _open(home: Path, view: View, dim: int) -> Accelerator:
    description = _read_description(home, view)
    if description.dim != dim:
        raise _Unusable("is of another embedding space")
    return _open_files(_folder(home), description)


def _read_description(home: Path, view: View) -> Description:
    try:
        signed = json.loads(_description_path(home, view).read_bytes())
        content = signed["description"]
        if zlib.crc32(content.encode()) != signed["checksum"]:
            raise ValueError("checksum")
        values = json.loads(content)
        if values["format"] != FORMAT:
            raise _Unusable("was written by another version of mmsearch")
        description = Description(
            **{field.name: values[field.name] for field in fields(Description)}
        )
    except OSError as error:
        raise _Unusable("cannot be read") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Unusable("has no readable description") from error
    if description.view != view or not description.token.isalnum():
        raise _Unusable("has the description of another")
    return description


def _open_files(folder: Path, description: Description) -> Accelerator:
    import pyarrow as pa

    faiss = load_faiss()
    path = folder / _name(description, "index")
    try:
        rows = _open_rows(folder, description)
        if path.stat().st_size != description.index_bytes:
            raise _Unusable("is cut off")
        if _ends(path) != description.index_ends:
            raise _Unusable("is damaged")
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except (OSError, RuntimeError, ValueError, KeyError, pa.ArrowException) as error:
        raise _Unusable("cannot be read") from error
    if index.ntotal != len(rows) or index.d != description.dim:
        raise _Unusable("and its rows are not of one size")
    return Accelerator(description, rows, index)


def _open_rows(folder: Path, description: Description) -> Rows:
    import pyarrow as pa

    tables = {}
    for kind, size, checksum in (
        ("rows", description.rows_bytes, description.rows_checksum),
        ("commits", description.commits_bytes, description.commits_checksum),
    ):
        path = folder / _name(description, kind)
        if path.stat().st_size != size or _checksum(path) != checksum:
            raise _Unusable("has damaged rows")
        with pa.memory_map(str(path)) as file:
            tables[kind] = pa.ipc.open_file(file).read_all().combine_chunks()
    kept = tables["rows"]
    rows = Rows(
        **{name: kept[name].to_numpy() for name in _ROW_COLUMNS},
        commits=tables["commits"]["commit_id"].combine_chunks(),
    )
    if len(rows) != description.num_rows:
        raise _Unusable("and its rows are not of one size")
    return rows


# ---------------------------------------------------------------- looking closely


def _fault(snapshot: "Snapshot", home: Path, view: View) -> str:
    """Return what is wrong with the files of a view, read from end to end; or nothing."""
    try:
        here = _open(home, view, dim_of(snapshot, view))
        path = _folder(home) / _name(here.description, "index")
        if _checksum(path) != here.description.index_checksum:
            return "is damaged"
    except _Unusable as error:
        return str(error)
    except OSError:
        return "cannot be read"
    column = VECTOR_COLUMN[view]
    rows, stands = here.rows, standing(here.rows, snapshot.live)
    ids, commits = found_by(snapshot, f"{column} IS NOT NULL")
    places = rows.places(ids, commits)
    num_counting = len(rows) - stands.num_dead
    kept = places[places >= 0]
    if len(np.unique(kept)) != num_counting or len(kept) != num_counting:
        return "has other rows than the index"
    if not _same_vectors(snapshot, view, here, kept):
        return "has other vectors than the index"
    return ""


def _same_vectors(snapshot: "Snapshot", view: View, here: Accelerator, places: "Places") -> bool:
    """Say whether some of the kept vectors, spread evenly, are those of the tables."""
    some = places[:: max(1, len(places) // CHECKED_VECTORS)][:CHECKED_VECTORS]
    if not len(some):
        return True
    column = VECTOR_COLUMN[view]
    where = f"{column} IS NOT NULL AND {any_of('segment_id', id_list(here.rows.ids[some]))}"
    vectors = here.scanner().vectors
    for batch in snapshot.table.batches(("segment_id", "commit_id", column), where):
        at = here.rows.places(id_numbers(batch.column("segment_id")), batch.column("commit_id"))
        stored = batch.column(column).flatten().to_numpy().reshape(len(batch), -1)
        if not np.array_equal(vectors[at[at >= 0]], stored[at >= 0]):
            return False
    return True


# ---------------------------------------------------------------- names and sizes


def _folder(home: Path) -> Path:
    return home / FOLDER


def _description_path(home: Path, view: View) -> Path:
    return home / FOLDER / f"{view}.json"


def _name(description: Description, kind: str) -> str:
    return f"{description.view}-{description.token}.{kind}"


def _num_rows(snapshot: "Snapshot", view: View) -> int:
    """Return how many rows of a view there are, at most: some may no longer count."""
    return snapshot.table.count(f"{VECTOR_COLUMN[view]} IS NOT NULL")


def _ends(path: Path) -> int:
    with path.open("rb") as file:
        start = file.read(END_BYTES)
        file.seek(max(0, path.stat().st_size - END_BYTES))
        return zlib.crc32(file.read(END_BYTES), zlib.crc32(start))


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum
