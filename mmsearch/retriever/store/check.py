"""Does the index hold together: what is wrong with it, and mending what can be mended.

The manifest says how many segments and thumbnails each document has; the tables and the
sidecar must agree. A document that is not whole cannot be completed from here, so mending
forgets it, and the next ``mmsearch index`` reads its file again.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmsearch.errors import StoreError
from mmsearch.retriever.store import indexes
from mmsearch.retriever.store.media import Media
from mmsearch.retriever.store.rows import UNIT_TOLERANCE, VECTOR_COLUMN
from mmsearch.retriever.store.tables import Table
from mmsearch.retriever.store.words import TEXT_COLUMNS
from mmsearch.values import Document

if TYPE_CHECKING:
    import pyarrow as pa

    from mmsearch.retriever.store.snapshot import Manifest, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong with an index.

    sentence: what, naming the thing
    remedy:   what to type
    path:     the document that is not whole; empty where it is not about one
    """

    sentence: str
    remedy: str
    path: str = ""


def problems_of(snapshot: "Snapshot", media: Media) -> list[Problem]:
    """Return everything wrong with what readers of ``snapshot`` see; nothing if it is whole."""
    segments = snapshot.table
    try:
        return [
            *_doubled_documents(snapshot.manifest),
            *_broken_documents(snapshot.manifest, segments, media),
            *_missing_indexes(segments),
            *_damaged_indexes(segments),
        ]
    except StoreError as error:
        sentence, remedy = str(error), "index the files again into a new folder (--db DIR)"
        return [Problem(sentence=sentence, remedy=remedy)]


def _doubled_documents(manifest: "Manifest") -> Iterator[Problem]:
    times = Counter(document.path for document in manifest.documents)
    for path, count in times.items():
        if count > 1:
            yield _broken(path, f"is in the manifest {count} times")


def _broken_documents(manifest: "Manifest", segments: Table, media: Media) -> Iterator[Problem]:
    held = segments.rows(["segment_id", "commit_id"])
    rows = Counter(held["commit_id"].to_pylist())
    distinct = Counter(
        commit_id
        for commit_id, _ in set(
            zip(held["commit_id"].to_pylist(), held["segment_id"].to_pylist(), strict=True)
        )
    )
    crooked = _crooked_vectors(segments)
    for document in manifest.documents:
        commit_id, expected = document.commit_id, document.num_segments
        if expected and rows[commit_id] > distinct[commit_id]:
            yield _broken(document.path, "has segments that are kept twice")
        elif expected and rows[commit_id] != expected:
            yield _broken(document.path, f"has {rows[commit_id]} segments, not {expected}")
        elif expected and crooked[commit_id]:
            yield _broken(
                document.path, f"has {crooked[commit_id]} vectors not finite and of unit length"
            )
        else:
            yield from _broken_thumbnails(document, manifest.num_thumbnails[commit_id], media)


def _broken_thumbnails(document: Document, expected: int, media: Media) -> Iterator[Problem]:
    if not expected:
        return
    try:
        found = len(media.read(document.commit_id))
    except FileNotFoundError:
        yield _broken(document.path, "has lost its thumbnails")
    except StoreError:
        yield _broken(document.path, "has unreadable thumbnails")
    else:
        if found != expected:
            yield _broken(document.path, f"has {found} thumbnails, not {expected}")


def _crooked_vectors(segments: Table) -> Counter[str]:
    """Count by commit the vectors that are not finite or not of unit length."""
    crooked: Counter[str] = Counter()
    for column in VECTOR_COLUMN.values():
        for batch in segments.batches(["commit_id", column], f"{column} IS NOT NULL"):
            commits = batch["commit_id"].to_pylist()
            crooked.update(commits[number] for number in _crooked(batch[column]))
    return crooked


def _crooked(vectors: "pa.FixedSizeListArray") -> list[int]:
    import numpy as np

    values = vectors.flatten().to_numpy(zero_copy_only=False)
    lengths = np.linalg.norm(values.reshape(len(vectors), -1), axis=1)
    straight = np.abs(lengths - 1.0) <= UNIT_TOLERANCE  # NaN and infinity compare false
    return np.flatnonzero(~straight).tolist()


def _missing_indexes(segments: Table) -> Iterator[Problem]:
    missing = [column for column in indexes.missing(segments) if column in TEXT_COLUMNS]
    if missing:
        yield Problem(
            sentence=f"the full-text index over {' and '.join(missing)} is missing",
            remedy="mmsearch doctor --fix",
        )


def _damaged_indexes(segments: Table) -> Iterator[Problem]:
    for name in indexes.damaged(segments):
        yield Problem(sentence=f"the index {name} cannot be read", remedy="mmsearch doctor --fix")


def _broken(path: str, what: str) -> Problem:
    return Problem(
        sentence=f"{path} {what}",
        remedy="mmsearch doctor --fix, then index it again",
        path=path,
    )
