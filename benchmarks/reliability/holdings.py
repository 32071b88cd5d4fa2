"""What an index holds, as values that can be compared.

    Store -> Holdings(documents, rows by path)

Rows are read whole: text, vectors, thumbnail. What names a commit is left out, and so is
when a file was read, because two runs over the same files differ in these alone.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsearch.retriever.store.rows import LOCATOR_COLUMNS, VECTOR_COLUMN
from mmsearch.retriever.store.store import Snapshot, Store
from mmsearch.values import Kind, View
from reliability.world import EVERYWHERE

_COLUMNS = ("text", "text_origin", "about", "num_words", "views", "look", "kind", *LOCATOR_COLUMNS)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What one snapshot of an index shows.

    documents: by path, what the manifest says of it
    rows:      by path, its rows in the order of their places
    leftovers: rows that no document counts
    wrong:     a sentence for whatever does not hold together
    """

    documents: Mapping[str, tuple[Any, ...]]
    rows: Mapping[str, tuple[tuple[Any, ...], ...]]
    leftovers: int
    wrong: tuple[str, ...]


NOTHING = Holdings({}, {}, 0, ())


def holdings(path: Path) -> Holdings:
    """Open the index at ``path`` and return what it holds."""
    return holdings_of(Store.open(path))


def holdings_of(store: Store) -> Holdings:
    """Return what ``store`` shows now."""
    snapshot = store.snapshot()
    wrong: list[str] = []
    documents = {
        one.path: (
            *(one.kind, one.content_hash, one.size, one.mtime_ns, one.status),
            *(one.num_segments, one.error, one.awaits_ocr),
        )
        for one in snapshot.documents
    }
    if len(documents) != len(snapshot.documents):
        wrong.append("a document is in the manifest twice")
    columns = ("segment_id", "commit_id", "path", *_COLUMNS, *VECTOR_COLUMN.values())
    found = snapshot.table.rows(columns).to_pylist()
    live = [row for row in found if row["commit_id"] in snapshot.live]
    rows = defaultdict(list)
    for row in live:
        thumbnail = b"" if row["kind"] == Kind.TEXT else snapshot.thumbnail(row["segment_id"])
        vectors = tuple(tuple(row[name] or ()) for name in VECTOR_COLUMN.values())
        digest = hashlib.blake2b(thumbnail + repr(vectors).encode(), digest_size=8).hexdigest()
        rows[row["path"]].append((*(row[name] for name in _COLUMNS), bool(thumbnail), digest))
    for one in snapshot.documents:
        if len(rows[one.path]) != one.num_segments:
            wrong.append(f"{one.path} has {len(rows[one.path])} rows, not {one.num_segments}")
    wrong += _not_found(snapshot, live)
    return Holdings(
        documents,
        {path: tuple(sorted(some, key=repr)) for path, some in rows.items() if some},
        len(found) - len(live),
        tuple(wrong),
    )


def _not_found(snapshot: Snapshot, live: list[dict[str, Any]]) -> list[str]:
    """Hold what searching finds against the rows that are there."""
    import numpy as np

    wrong = []
    everything = len(live) + 1
    for view, column in VECTOR_COLUMN.items():
        there = sorted(row["segment_id"] for row in live if row[column] is not None)
        first = next((row[column] for row in live if row[column] is not None), None)
        if first is not None:
            vector = np.asarray(first, dtype=np.float32)
            found = sorted(n.segment_id for n in snapshot.nearest(view, vector, k=everything))
            if found != there:
                wrong.append(f"nearest({View(view)}) finds {len(found)} rows of {len(there)}")
    there = sorted(row["segment_id"] for row in live if EVERYWHERE in row["text"])
    found = sorted(n.segment_id for n in snapshot.matching(EVERYWHERE, k=everything))
    if found != there:
        wrong.append(f"matching finds {len(found)} rows of {len(there)}")
    return wrong


def differences(seen: Holdings, *allowed: Holdings) -> list[str]:
    """Return where ``seen`` shows a document as none of the ``allowed`` states has it.

    With one state: also which of its documents are lost. With several, each document may
    be as in any one of them, or missing where it is missing in any one.
    """
    wrong = list(seen.wrong)
    for path in sorted(set(seen.documents).union(*(one.documents for one in allowed))):
        what = (seen.documents.get(path), seen.rows.get(path))
        states = [(one.documents.get(path), one.rows.get(path)) for one in allowed]
        if what not in states:
            wrong.append(f"{path}: {_told(what)}, where {' or '.join(map(_told, states))} is right")
    return wrong


def _told(state: tuple[Any, Any]) -> str:
    document, rows = state
    if document is None:
        return f"not there (rows: {len(rows or ())})"
    digest = hashlib.blake2b(repr(state).encode(), digest_size=3).hexdigest()
    return f"{document[4]}, {len(rows or ())} rows, {digest} {document[6]}".strip()
