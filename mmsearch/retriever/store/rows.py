"""What a row is: the values a store takes and gives, and their columns in Arrow.

    Document, Row --> columns of ``documents``, ``segments`` --> Document, StoredSegment

Tables hold UTF-8: a lone surrogate in a path or a text is kept as its escape.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.errors import BadVectors
from mmsearch.values import Document, Kind, Locator, Status, TextOrigin, View, stored_path

if TYPE_CHECKING:
    import pyarrow as pa

    from mmsearch.values import Vectors

VECTOR_COLUMN = {View.VISUAL: "visual_vector", View.TEXT: "text_vector"}
LOCATOR_COLUMNS = ("page", "start", "end", "char_start", "char_end")
SEGMENT_COLUMNS = (
    "segment_id",
    "commit_id",
    "path",
    "kind",
    *LOCATOR_COLUMNS,
    "text",
    "text_origin",
    "about",
    "num_words",
    "views",
    "look",
    "modified",
)
# A unit vector in float32, or one that passed through float16 on its way.
UNIT_TOLERANCE = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One segment ready to be kept.

    vectors: ``[d]``, unit, for the views it has; kept in half precision
    look:    see `values.Segment`
    """

    segment_id: str
    kind: Kind
    locator: Locator
    text: str
    text_origin: TextOrigin
    about: str
    vectors: "Mapping[View, Vectors]"
    thumbnail: bytes
    look: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSegment:
    """A segment as the store gives it back; vectors and thumbnail are asked for apart.

    modified: when the content of its file was last written, as its time said when it was
              read; UTC
    """

    segment_id: str
    path: str
    kind: Kind
    locator: Locator
    text: str
    text_origin: TextOrigin
    about: str
    num_words: int
    views: frozenset[View]
    look: int | None
    modified: datetime


def segments_schema(dim: int) -> "pa.Schema":
    """Return the columns of ``segments``; a view that a segment lacks is null."""
    import pyarrow as pa

    types = {
        "page": pa.int32(),
        "start": pa.float64(),
        "end": pa.float64(),
        "char_start": pa.int64(),
        "char_end": pa.int64(),
        "num_words": pa.int32(),
        "look": pa.uint64(),
        "modified": pa.timestamp("us", "UTC"),
    }
    fields = [pa.field(name, types.get(name, pa.string())) for name in SEGMENT_COLUMNS]
    vectors = [pa.field(name, pa.list_(pa.float16(), dim)) for name in VECTOR_COLUMN.values()]
    return pa.schema([*fields, *vectors])


def documents_schema() -> "pa.Schema":
    """Return the columns of ``documents``: a Document, and how many thumbnails it owns."""
    import pyarrow as pa

    return pa.schema(
        [
            ("path", pa.string()),
            ("kind", pa.string()),
            ("content_hash", pa.string()),
            ("size", pa.int64()),
            ("mtime_ns", pa.int64()),
            ("status", pa.string()),
            ("commit_id", pa.string()),
            ("num_segments", pa.int32()),
            ("num_thumbnails", pa.int32()),
            ("pack", pa.string()),
            ("error", pa.string()),
            ("awaits_ocr", pa.bool_()),
        ]
    )


# ---------------------------------------------------------------- paths and words as UTF-8


def path_text(path: str) -> str:
    """Return ``path`` as the tables hold it: itself, undecodable bytes escaped."""
    return path if utf8(path) == path else stored_path(Path(path))


def utf8(text: str) -> str:
    """Return ``text`` without lone surrogates, which no table can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


# ---------------------------------------------------------------- to Arrow and back


def segments_table(batch: "Iterable[tuple[Document, Sequence[Row]]]", dim: int) -> "pa.Table":
    """Return the rows of several documents, each tagged with its document's commit.

    Raises BadVectors for a vector of another dimension, not finite or not of unit length.
    """
    import pyarrow as pa

    pairs = [(document, row) for document, rows in batch for row in rows]
    columns: dict[str, Any] = {
        "segment_id": [row.segment_id for _, row in pairs],
        "commit_id": [document.commit_id for document, _ in pairs],
        "path": [path_text(document.path) for document, _ in pairs],
        "kind": [str(row.kind) for _, row in pairs],
        **{name: [getattr(row.locator, name) for _, row in pairs] for name in LOCATOR_COLUMNS},
        "text": [utf8(row.text) for _, row in pairs],
        "text_origin": [str(row.text_origin) for _, row in pairs],
        "about": [utf8(row.about) for _, row in pairs],
        "num_words": [len(row.text.split()) for _, row in pairs],
        "views": [" ".join(sorted(row.vectors)) for _, row in pairs],
        "look": [row.look for _, row in pairs],
        "modified": [document.mtime_ns // 1_000 for document, _ in pairs],
    }
    for view, name in VECTOR_COLUMN.items():
        columns[name] = _vector_column([row for _, row in pairs], view, dim)
    schema = segments_schema(dim)
    arrays = [
        value if isinstance(value, pa.Array) else pa.array(value, schema.field(name).type)
        for name, value in columns.items()
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _vector_column(rows: Sequence[Row], view: View, dim: int) -> "pa.Array":
    import numpy as np
    import pyarrow as pa

    matrix = np.zeros((len(rows), dim), dtype=np.float16)
    missing = np.ones(len(rows), dtype=bool)
    for number, row in enumerate(rows):
        if view not in row.vectors:
            continue
        vector = np.asarray(row.vectors[view], dtype=np.float32)
        if vector.shape != (dim,):
            raise BadVectors(f"shape {vector.shape} where ({dim},) is kept")
        length = float(np.linalg.norm(vector))
        if not abs(length - 1.0) <= UNIT_TOLERANCE:  # also true of NaN and infinity
            raise BadVectors(f"length {length:.3g} instead of 1, for segment {row.segment_id}")
        matrix[number], missing[number] = vector, False
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), dim, mask=pa.array(missing))


def documents_table(documents: "Iterable[tuple[Document, int, str]]") -> "pa.Table":
    """Return manifest rows of (document, number of its thumbnails, the pack they are in)."""
    import pyarrow as pa

    return pa.Table.from_pylist(
        [
            {
                "path": path_text(document.path),
                "kind": None if document.kind is None else str(document.kind),
                "content_hash": document.content_hash,
                "size": document.size,
                "mtime_ns": document.mtime_ns,
                "status": str(document.status),
                "commit_id": document.commit_id,
                "num_segments": document.num_segments,
                "num_thumbnails": num_thumbnails,
                "pack": pack if num_thumbnails else "",
                "error": utf8(document.error),
                "awaits_ocr": document.awaits_ocr,
            }
            for document, num_thumbnails, pack in documents
        ],
        schema=documents_schema(),
    )


def document_from(row: Mapping[str, Any]) -> Document:
    """Return the document of one manifest row."""
    return Document(
        path=row["path"],
        kind=None if row["kind"] is None else Kind(row["kind"]),
        content_hash=row["content_hash"],
        size=row["size"],
        mtime_ns=row["mtime_ns"],
        status=Status(row["status"]),
        commit_id=row["commit_id"],
        num_segments=row["num_segments"],
        error=row["error"],
        awaits_ocr=row["awaits_ocr"],
    )


def segment_from(row: Mapping[str, Any]) -> StoredSegment:
    """Return the segment of one row of ``segments``."""
    return StoredSegment(
        segment_id=row["segment_id"],
        path=row["path"],
        kind=Kind(row["kind"]),
        locator=Locator(**{name: row[name] for name in LOCATOR_COLUMNS}),
        text=row["text"],
        text_origin=TextOrigin(row["text_origin"]),
        about=row["about"],
        num_words=row["num_words"],
        views=frozenset(View(view) for view in row["views"].split()),
        look=row["look"],
        modified=row["modified"],
    )


def quoted(text: str) -> str:
    """Return ``text`` as an SQL string, safe whatever it holds."""
    return "'" + utf8(text).replace("'", "''") + "'"


def any_of(column: str, values: Iterable[str]) -> str:
    """Return SQL that is true where ``column`` is one of ``values`` (at least one)."""
    return f"{column} IN ({', '.join(quoted(value) for value in values)})"
