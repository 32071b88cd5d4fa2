"""An index of an older schema becomes one of this: into a new data folder, then the switch.

    old tables -> rows of this schema, some thousands at a time -> generation-N
    thumbnails -> the same files under a second name
    index.json names generation-N: until then nothing has happened, and a run that was
    killed leaves a folder that the next writer removes

`_FROM` has one way for each older schema, and each leads straight to the newest: whoever
raises SCHEMA_VERSION brings all of them along, and makes a fixture first (CONTRIBUTING.md).
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.errors import StoreError
from mmsearch.retriever.store.generations import (
    next_generation,
    remove_generation,
    remove_unnamed,
    take_over,
)
from mmsearch.retriever.store.header import SCHEMA_VERSION, Header
from mmsearch.retriever.store.media import FOLDER as MEDIA_FOLDER
from mmsearch.retriever.store.rows import VECTOR_COLUMN, documents_schema, segments_schema
from mmsearch.retriever.store.tables import Table, create_tables, open_as_they_are

if TYPE_CHECKING:
    import pyarrow as pa


def migrate(path: Path, header: Header) -> Header:
    """Bring the index at ``path`` to this schema and return what it says of itself then.

    For the one writer. Raises StoreDamaged for tables that cannot be read, StoreError
    where the disk refuses; the index is then as it was.
    """
    remove_unnamed(path, header)
    name = next_generation(path, header)
    try:
        _FROM[header.schema_version](path / header.data, path / name, header.space.dim)
    except BaseException as error:
        remove_generation(path / name)  # it may be what has filled the disk
        if isinstance(error, OSError):
            raise StoreError(f"cannot write to {path}: {error.strerror or error}") from error
        raise
    return take_over(path, replace(header, schema_version=SCHEMA_VERSION, data=name))


# ---------------------------------------------------------------- from schema 1


def _from_1(old: Path, new: Path, dim: int) -> None:
    """Half-precision vectors, the time a file was changed, and a name for its thumbnails.

    What a picture looks like is not known without reading it again and stays null.
    """
    import pyarrow as pa

    old_documents, old_segments = open_as_they_are(old)
    manifest = old_documents.rows(old_documents.schema.names)
    commits = manifest["commit_id"].to_pylist()
    has_thumbnails = [count > 0 for count in manifest["num_thumbnails"].to_pylist()]
    modified = {
        commit: mtime_ns // 1_000
        for commit, mtime_ns, count in zip(
            commits,
            manifest["mtime_ns"].to_pylist(),
            manifest["num_segments"].to_pylist(),
            strict=True,
        )
        if count
    }
    packs = [commit if has else "" for commit, has in zip(commits, has_thumbnails, strict=True)]
    schema = documents_schema()
    fresh = {
        "pack": pa.array(packs, pa.string()),
        "awaits_ocr": pa.array([False] * len(commits), pa.bool_()),
    }
    rows = [fresh[column] if column in fresh else manifest[column] for column in schema.names]
    new.mkdir(exist_ok=True)
    documents, segments = create_tables(new, dim)
    segments.add_batches(_segments_from_1(old_segments, modified, segments_schema(dim)))
    for pack in filter(None, packs):
        _link_thumbnails(old, new, pack)
    documents.add(pa.Table.from_arrays(rows, schema=schema))
    for table in (segments, documents):
        table.tidy()


def _segments_from_1(
    old: Table, modified: Mapping[str, int], schema: "pa.Schema"
) -> "Iterator[pa.RecordBatch]":
    """Give the rows that count, as they are kept now; ``modified`` has the commits that do."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counted = pa.array(modified.keys(), pa.string())
    for batch in old.batches(old.schema.names):
        batch = batch.filter(pc.is_in(batch["commit_id"], value_set=counted))
        times = [modified[commit] for commit in batch["commit_id"].to_pylist()]
        fresh: dict[str, pa.Array] = {
            "look": pa.nulls(len(batch), schema.field("look").type),
            "modified": pa.array(times, schema.field("modified").type),
        }
        for column in VECTOR_COLUMN.values():
            fresh[column] = _in_half_precision(batch[column])
        rows = [fresh[column] if column in fresh else batch[column] for column in schema.names]
        yield pa.RecordBatch.from_arrays(rows, schema=schema)


def _in_half_precision(vectors: "pa.FixedSizeListArray") -> "pa.FixedSizeListArray":
    import numpy as np
    import pyarrow as pa

    dim = vectors.type.list_size
    missing = vectors.is_null().to_numpy(zero_copy_only=False)
    matrix = np.zeros((len(vectors), dim), dtype=np.float16)
    matrix[~missing] = vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), dim, mask=pa.array(missing))


def _link_thumbnails(old: Path, new: Path, pack: str) -> None:
    """Give a file of thumbnails a second name; its bytes never change, so they may be shared."""
    below = Path(MEDIA_FOLDER, pack[:2], f"{pack}.arrow")
    (new / below).parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):  # lost before: for doctor to find
        try:
            os.link(old / below, new / below)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without second names
            shutil.copyfile(old / below, new / below)


_FROM: Mapping[int, Callable[[Path, Path, int], None]] = {1: _from_1}
