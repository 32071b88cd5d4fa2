"""Does the index hold together: what is wrong with it, and mending what can be mended.

The manifest says how many segments and thumbnails each document has; the tables and the
sidecar must agree. A document that is not whole cannot be completed from here, so mending
forgets it, and the next ``mmsearch index`` reads its file again.
"""

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmsearch.errors import StoreError
from mmsearch.retriever.store import indexes
from mmsearch.retriever.store.header import index_folder
from mmsearch.retriever.store.media import Media
from mmsearch.retriever.store.rows import UNIT_TOLERANCE, VECTOR_COLUMN
from mmsearch.retriever.store.tables import Table
from mmsearch.retriever.store.words import TEXT_COLUMNS

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
    fix = f"mmsearch doctor --fix --db {shlex.quote(str(index_folder(snapshot.home)))}"
    segments = snapshot.table
    try:
        return [
            *_broken(_doubled_documents(snapshot.manifest), fix),
            *_broken(_broken_documents(snapshot.manifest, segments, media), fix),
            *(Problem(sentence=one, remedy=fix) for one in _missing_indexes(segments)),
            *(Problem(sentence=one, remedy=fix) for one in _damaged_indexes(segments)),
        ]
    except StoreError as error:
        sentence, remedy = str(error), "index the files again into a new folder (--db DIR)"
        return [Problem(sentence=sentence, remedy=remedy)]


def _doubled_documents(manifest: "Manifest") -> Iterator[tuple[str, str]]:
    times = Counter(document.path for document in manifest.documents)
    for path, count in times.items():
        if count > 1:
            yield path, f"is in the manifest {count} times"


def _broken_documents(
    manifest: "Manifest", segments: Table, media: Media
) -> Iterator[tuple[str, str]]:
    """Give the paths of documents that are not whole, and what they lack."""
    held = segments.rows(["segment_id", "commit_id"]).select(["segment_id", "commit_id"])
    rows = _count_by_commit(held)
    distinct = _count_by_commit(held.group_by(["segment_id", "commit_id"]).aggregate([]))
    crooked = _crooked_vectors(segments)
    shown = _Shown(held, manifest, media)
    counts = manifest.counts.select(["commit_id", "num_thumbnails", "pack"])
    expected = {row["commit_id"]: row for row in counts.to_pylist()}
    for document in manifest.documents:
        commit_id, num_segments = document.commit_id, document.num_segments
        if num_segments and rows[commit_id] > distinct[commit_id]:
            yield document.path, "has segments that are kept twice"
        elif num_segments and rows[commit_id] != num_segments:
            yield document.path, f"has {rows[commit_id]} segments, not {num_segments}"
        elif num_segments and crooked[commit_id]:
            yield document.path, f"has {crooked[commit_id]} vectors not finite and of unit length"
        elif num_thumbnails := expected[commit_id]["num_thumbnails"]:
            pack = expected[commit_id]["pack"]
            if pack in shown.lost:
                yield document.path, "has lost its thumbnails"
            elif pack in shown.unreadable:
                yield document.path, "has unreadable thumbnails"
            elif shown.counts[commit_id] != num_thumbnails:
                found = shown.counts[commit_id]
                yield document.path, f"has {found} thumbnails, not {num_thumbnails}"


class _Shown:
    """What the sidecar holds: thumbnails by commit, and packs that are lost or unreadable."""

    def __init__(self, held: "pa.Table", manifest: "Manifest", media: Media) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self.lost: set[str] = set()
        self.unreadable: set[str] = set()
        needed = manifest.counts.filter(pc.greater(manifest.counts["num_thumbnails"], 0))
        packs, ids = [], []
        for pack in pc.unique(needed["pack"]).to_pylist():
            try:
                found = media.segment_ids(pack)
            except FileNotFoundError:
                self.lost.add(pack)
            except StoreError:
                self.unreadable.add(pack)
            else:
                ids += found.chunks
                packs += [pa.repeat(pack, len(chunk)) for chunk in found.chunks]
        there = pa.table(
            [pa.chunked_array(packs, pa.string()), pa.chunked_array(ids, pa.string())],
            names=["pack", "segment_id"],
        )
        named = held.join(needed.select(["commit_id", "pack"]), "commit_id", join_type="inner")
        shown = named.join(there, ["pack", "segment_id"], join_type="left semi")
        self.counts = _count_by_commit(shown.group_by(["segment_id", "commit_id"]).aggregate([]))


def _count_by_commit(rows: "pa.Table") -> Counter[str]:
    counts = rows.group_by("commit_id").aggregate([([], "count_all")])
    pairs = zip(counts["commit_id"].to_pylist(), counts["count_all"].to_pylist(), strict=True)
    return Counter(dict(pairs))


def _crooked_vectors(segments: Table) -> Counter[str]:
    """Count by commit the vectors that are not finite or not of unit length."""
    crooked: Counter[str] = Counter()
    for column in VECTOR_COLUMN.values():
        for batch in segments.batches(["commit_id", column], f"{column} IS NOT NULL"):
            numbers = _crooked(batch[column])
            crooked.update(batch["commit_id"].take(numbers).to_pylist())
    return crooked


def _crooked(vectors: "pa.FixedSizeListArray") -> "pa.Array":
    import numpy as np
    import pyarrow as pa

    values = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    lengths = np.linalg.norm(values.reshape(len(vectors), -1), axis=1)
    straight = np.abs(lengths - 1.0) <= UNIT_TOLERANCE  # NaN and infinity compare false
    return pa.array(np.flatnonzero(~straight))


def _missing_indexes(segments: Table) -> Iterator[str]:
    missing = [column for column in indexes.missing(segments) if column in TEXT_COLUMNS]
    if missing:
        yield f"the full-text index over {' and '.join(missing)} is missing"


def _damaged_indexes(segments: Table) -> Iterator[str]:
    for name in indexes.damaged(segments):
        yield f"the index {name} cannot be read"


def _broken(found: Iterable[tuple[str, str]], fix: str) -> Iterator[Problem]:
    for path, what in found:
        yield Problem(sentence=f"{path} {what}", remedy=f"{fix}, then index it again", path=path)
