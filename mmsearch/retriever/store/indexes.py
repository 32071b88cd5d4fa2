"""Which indexes the tables have, and keeping them: by key, by word; vectors are `ann`'s.

    documents   path
    segments    segment_id; from MANY_ROWS on also path, commit_id, page, modified and kind
                text and about, by word and by phrase

All of them are made of the rows and can be made again; rows that one does not cover yet
are found without it.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mmsearch.errors import BadFilter, StoreError
from mmsearch.retriever.store.ann import Probe
from mmsearch.retriever.store.words import TEXT_COLUMNS, one_word, words_index

if TYPE_CHECKING:
    from lancedb.table import IndexConfigType

    from mmsearch.retriever.store.tables import Index, Table

log = logging.getLogger(__name__)

# Below this a scan of a column is as fast as a look into its index.
MANY_ROWS = 2_000

ALWAYS = {"documents": ("path",), "segments": ("segment_id", *TEXT_COLUMNS)}
WITH_MANY_ROWS = {"documents": (), "segments": ("path", "commit_id", "page", "modified", "kind")}

# A condition that makes lancedb open the index of a column.
_TOUCH = {
    "path": "path = ''",
    "segment_id": "segment_id = ''",
    "commit_id": "commit_id = ''",
    "kind": "kind = 'pdf'",
    "page": "page = 1",
    "modified": "modified = timestamp '2000-01-01'",
}


def missing(table: "Table", *, many_rows: int = MANY_ROWS) -> list[str]:
    """Return the columns whose index is not there or is of an older kind."""
    wanted = ALWAYS[table.name]
    if table.count() >= many_rows:
        wanted += WITH_MANY_ROWS[table.name]
    there = {index.column for index in table.indexes() if _is_current(index)}
    return [column for column in wanted if column not in there]


def damaged(table: "Table") -> list[str]:
    """Return the names of indexes that cannot be read, by asking each a small question."""
    return [index.name for index in table.indexes() if not _answers(table, index)]


def make_missing(table: "Table", *, many_rows: int = MANY_ROWS) -> list[str]:
    """Make the indexes that `missing` names; return their columns. Raises StoreError."""
    columns = missing(table, many_rows=many_rows)
    for column in columns:
        table.make_index(column, _config(column))
    return columns


def mend(table: "Table", *, many_rows: int = MANY_ROWS) -> list[str]:
    """Forget damaged indexes and make what is missing; return what was made or forgotten.

    To be called before `Table.tidy`, which fails over a damaged index. Raises StoreError.
    """
    broken = damaged(table)
    for name in broken:
        log.warning("an index of %s is damaged and is made anew: %s", table.name, name)
        table.drop_index(name)
    return [*broken, *make_missing(table, many_rows=many_rows)]


def _config(column: str) -> "IndexConfigType":
    from lancedb.index import Bitmap, BTree

    if column in TEXT_COLUMNS:
        return words_index()
    return Bitmap() if column == "kind" else BTree()


def _is_current(index: "Index") -> bool:
    """Whether it is of today's kind: those of older versions knew no phrases."""
    return index.kind != "FTS" or index.has_positions


def _answers(table: "Table", index: "Index") -> bool:
    import numpy as np

    with _failures() as failed:
        if index.kind == "FTS":
            table.matching(one_word("a", index.column), ("segment_id",), limit=1, where=None)
        elif index.column in _TOUCH:
            table.count(_TOUCH[index.column])
        else:
            dim = table.schema.field(index.column).type.list_size
            anywhere = np.ones(dim, dtype=np.float32)
            table.nearest(
                index.column, anywhere, ("segment_id",), limit=1, where=None, probe=Probe(1, 1)
            )
    return not failed


@contextlib.contextmanager
def _failures() -> Iterator[list[Exception]]:
    failed: list[Exception] = []
    try:
        yield failed
    except (StoreError, BadFilter) as error:
        failed.append(error)
