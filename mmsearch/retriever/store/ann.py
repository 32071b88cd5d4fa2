"""Nearest neighbours among many rows: which index there is, and how hard it is asked.

    rows of a view   up to EXACT_ROWS: none, every row is compared
                     more: IVF_RQ (cells of alike vectors, one bit a dimension), whose best
                     candidates are compared again with the vectors themselves

An index never decides what is true, only where to look: scores are cosines of the vectors
that are kept, rows that it does not cover are compared one by one, and one that is missing
or damaged costs time and nothing else.
"""

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from mmsearch.retriever.store.rows import VECTOR_COLUMN

if TYPE_CHECKING:
    from lancedb.table import IndexConfigType

    from mmsearch.retriever.store.tables import Table

# Median ms of the best 10 / 200 rows of 384 dimensions, half precision, on two cores:
#     rows       5,000        10,000        20,000        50,000       200,000
#     exact   7.4 /  7.9   11.8 / 13.3   22.7 / 24.8   70.1 / 77.8   168 / 171
#     index   5.8 /  7.3    6.2 /  9.3    6.8 / 11.0    6.7 / 11.8   5.4 / 11.5
# Below ten thousand the index would save five milliseconds and cost its upkeep.
EXACT_ROWS = 10_000
# So few rows that fit a filter are compared one by one (16 ms for a thousand rows that lie
# apart), which is also all that can be done about a filter that no cell knows of.
FEW_ROWS = 1_000
# It is trained anew when there are so many times more or fewer rows than it was trained
# on, or when its upkeep has cut it into so many parts: each costs a question 0.35 ms.
RETRAIN_FACTOR = 4
MAX_PARTS = 32

# How many cells an unfiltered question looks into, at least, and of how many.
CELLS, CELLS_SHARE = 64, 1 / 8
# Candidates that are compared again. With a filter the nearest that fits may be far away,
# where one bit a dimension tells little apart: recall@10 of 54,000 rows of one cluster
# asked from another one is .963 with 220 candidates and .997 with 600 (of a million).
CANDIDATES, CANDIDATES_FILTERED = 300, 450
LEAST_REFINE = 2
# Fewer dimensions are fewer bits, and more candidates are needed.
FULL_DIM = 384

NAME = re.compile(r"(?P<column>\w+)_of_(?P<rows>[0-9]+)")


class Trained(NamedTuple):
    """The vector index of a column: its name, the rows it was trained on, its parts."""

    name: str
    num_rows: int
    num_parts: int

    @property
    def num_cells(self) -> int:
        """How many cells its rows lie in."""
        return num_cells(self.num_rows)


class Probe(NamedTuple):
    """How hard an index is asked: cells looked into, candidates compared a wanted row."""

    cells: int
    refine: int


def num_cells(num_rows: int) -> int:
    """Return how many cells an index over so many rows has."""
    return max(1, math.isqrt(num_rows))


def trained(table: "Table", column: str) -> Trained | None:
    """Return the vector index of ``column``, the one trained on most rows."""
    found = [
        Trained(index.name, int(match["rows"]), index.num_parts)
        for index in table.indexes()
        if (match := NAME.fullmatch(index.name)) and match["column"] == column
    ]
    return max(found, key=lambda one: one.num_rows, default=None)


def probe(index: Trained, *, limit: int, dim: int, filtered: bool) -> Probe:
    """Return how to ask ``index`` for ``limit`` rows of ``dim`` dimensions.

    What fits a filter may lie in any cell (in none of the nearest 64 where the filter goes
    by what the cells go by: recall@10 0.0), so with one all cells are looked into.
    """
    wanted = CANDIDATES_FILTERED if filtered else CANDIDATES
    refine = math.ceil(wanted / limit * max(1.0, FULL_DIM / dim))
    cells = index.num_cells if filtered else max(CELLS, math.ceil(index.num_cells * CELLS_SHARE))
    return Probe(min(cells, index.num_cells), max(LEAST_REFINE, refine))


def refresh(table: "Table", *, exact_rows: int = EXACT_ROWS) -> list[str]:
    """Make, train anew or drop the vector indexes of ``table``; return columns indexed anew.

    New rows are added to an index by `Table.tidy`: this is called after it, when files are
    few, and does nothing most of the time. Raises StoreError where the disk refuses.
    """
    made = []
    for view, column in VECTOR_COLUMN.items():
        index = trained(table, column)
        if table.count() <= exact_rows and index is None:
            continue
        num_rows = table.count(f"views LIKE '%{view}%'")
        if index is not None and not _outgrown(index, num_rows):
            continue
        old = [one.name for one in table.indexes() if one.column == column]
        if num_rows > exact_rows and table.schema.field(column).type.list_size % 8 == 0:
            name = f"{column}_of_{num_rows}"
            table.make_index(column, _ivf_rq(num_rows), name=name)
            made.append(column)
            old = [other for other in old if other != name]
        for name in old:
            table.drop_index(name)
    return made


def _outgrown(index: Trained, num_rows: int) -> bool:
    grown = max(num_rows, 1) / max(index.num_rows, 1)
    return not 1 / RETRAIN_FACTOR < grown < RETRAIN_FACTOR or index.num_parts > MAX_PARTS


def _ivf_rq(num_rows: int) -> "IndexConfigType":
    from lancedb.index import IvfRq

    return IvfRq(distance_type="cosine", num_partitions=num_cells(num_rows))
