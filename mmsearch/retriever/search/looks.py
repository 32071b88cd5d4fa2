"""Near-duplicates: which segments show the same picture, however it was stored.

    looks [n] -> pairs within a distance -> groups of segments, each around its first

A look is 64 bits (`values.Segment.look`); two pictures are near-duplicates when their looks
differ in at most MAX_BITS of them and the words that can be read in them are about the same.

Measured on the 124 pictures, pages and clips of ``sample_corpus`` that have a look and on copies
made of them, the share of copies found at 3 bits (at 6): JPEG of quality 75 100 % (100), of 40
98 % (100), WebP of 50 100 % (100), half as large 98 % (100), a quarter as large in JPEG 85 %
(100), no colour 100 %, an edge of 1 % cut off 73 % (98), of 2 % 37 % (84), mirrored 6 % (9).
Pairs of others at 3 bits (at 6), by look alone: 2 of 7,626 in the corpus (4), a photo and a film
that shows it, which is right, and two pages of one layout; 81 of 2.7 million pairs of textbook
figures (227), many of them one figure in two books; 433 of 125,000 pairs of example charts
(705), most of them one chart with a detail changed. Six bits find more of what was cropped, and
up to three times as much of what was not copied: so it is three.

Words settle what the look cannot: pages of one layout share few (0.18 of all for those above),
while what OCR read in 26 charts, plans and screenshots and in copies of them (JPEG 50, half as
large, 1 % cut off) shared 0.52 at the least and 0.95 in the median. So MIN_SHARED is a half.
What is spoken in a film is not seen in it, and is not compared.
"""

import re
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmsearch.retriever.store.store import Snapshot, StoredSegment
from mmsearch.values import TextOrigin

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Looks = npt.NDArray[np.uint64]
    Pairs = npt.NDArray[np.int64]

MAX_BITS = 3
MIN_SHARED = 0.5  # of the words of both
MIN_WORDS = 3  # fewer are chance
LOOK_BITS = 64
_SKETCH = 64  # words of a text that are compared: those of the smallest hashes
_SMALL_BUCKET = 64  # looks; so few are compared with each other at once
_BLOCK_PAIRS = 4_000_000  # compared at once: 32 MB
_FEW = 256  # new looks, which are held against all others without any buckets
_BATCH = 500  # ids of one question to the store
_WORD = re.compile(r"\w+")
_SEEN = (TextOrigin.LAYER, TextOrigin.OCR)


@dataclass(frozen=True, slots=True)
class Appearance:
    """What decides whether two segments look the same.

    words: hashes of words that can be seen; None where nobody knows (a film's are spoken)
    """

    look: int
    words: frozenset[int] | None

    def is_alike(self, other: "Appearance") -> bool:
        """Say whether both show the same picture with about the same words."""
        if (self.look ^ other.look).bit_count() > MAX_BITS:
            return False
        if self.words is None or other.words is None:
            return True
        if max(len(self.words), len(other.words)) < MIN_WORDS:
            return True
        both = sorted(self.words | other.words)[:_SKETCH]
        shared = sum(one in self.words and one in other.words for one in both)
        return shared >= MIN_SHARED * len(both)


def appearance(segment: StoredSegment) -> Appearance | None:
    """Return what a segment looks like; None for text, and for pixels that are all alike."""
    if segment.look is None:
        return None
    if segment.text_origin is TextOrigin.SUBTITLES:
        return Appearance(segment.look, None)
    text = segment.text if segment.text_origin in _SEEN else ""
    words = set(_WORD.findall(text.lower()))
    hashes = sorted({zlib.crc32(word.encode("utf-8", "replace")) for word in words})
    return Appearance(segment.look, frozenset(hashes[:_SKETCH]))


def groups_of(snapshot: Snapshot) -> list[list[StoredSegment]]:
    """Return the near-duplicates of an index: groups of two or more, the largest first.

    Inside a group by path and place; every member is a near-duplicate of the first. No
    segment is in two groups.
    """
    ids, looks, _ = _looks_of(snapshot)
    return _groups(snapshot, ids, near_pairs(looks))


def num_alike(snapshot: Snapshot, commits: Collection[str]) -> int:
    """Return how many segments of these commits are near-duplicates of another segment.

    Of several new ones that are alike and like no older one, the first counts as new.
    """
    import numpy as np

    if not commits:
        return 0
    ids, looks, is_new = _looks_of(snapshot, frozenset(commits))
    new = np.flatnonzero(is_new)
    if not len(new):
        return 0
    pairs = _pairs_with(looks, new) if len(new) <= _FEW else near_pairs(looks)
    pairs = pairs[is_new[pairs].any(axis=1)]
    near = np.unique(pairs)
    fresh = set(ids.take(near[is_new[near]]).to_pylist())
    count = 0
    for group in _groups(snapshot, ids, pairs):
        num_new = sum(one.segment_id in fresh for one in group)
        count += num_new if num_new < len(group) else num_new - 1
    return count


def near_pairs(looks: "Looks", *, max_bits: int = MAX_BITS) -> "Pairs":
    """Return all pairs ``[m, 2]`` of places whose looks differ in ``max_bits`` or fewer.

    Equal looks are chained, not paired each with each: of n equal ones n - 1 pairs. Exact:
    where ``max_bits`` differ, one of ``max_bits + 1`` parts of the bits is the same in both,
    so only looks that share a part are compared (and those of a large bucket by the parts of
    what is left of their bits).
    """
    import numpy as np

    if not len(looks):
        return np.zeros((0, 2), dtype=np.int64)
    order = np.argsort(looks, kind="stable")
    in_order = looks[order]
    is_first = np.concatenate([[True], in_order[1:] != in_order[:-1]])
    chained = np.stack([order[:-1], order[1:]], axis=1)[~is_first[1:]]
    places, unique = order[is_first], in_order[is_first]
    found: list[Pairs] = []
    _search(unique, np.arange(len(unique)), tuple(range(LOOK_BITS)), max_bits, found)
    near = np.unique(np.concatenate(found), axis=0) if found else np.zeros((0, 2), dtype=np.int64)
    return np.concatenate([chained, places[near]])


def _search(
    looks: "Looks", rows: "Pairs", bits: tuple[int, ...], max_bits: int, found: "list[Pairs]"
) -> None:
    """Append the near pairs among ``rows``, whose looks differ in no other than ``bits``."""
    import numpy as np

    if len(rows) < 2:
        return
    parts = [bits[start :: max_bits + 1] for start in range(max_bits + 1)]
    if len(rows) <= _SMALL_BUCKET or not all(parts):
        _compare(looks, rows, max_bits, found)
        return
    for part in parts:
        mask = np.uint64(sum(1 << bit for bit in part))
        keys = looks[rows] & mask
        order = np.argsort(keys, kind="stable")
        ends = np.flatnonzero(np.diff(keys[order])) + 1
        rest = tuple(bit for bit in bits if bit not in part)
        small: list[Pairs] = []
        for bucket in np.split(rows[order], ends):
            if len(bucket) == 1:
                continue
            if len(bucket) <= _SMALL_BUCKET:
                small.append(bucket)
            elif len(bucket) == len(rows):  # this part tells nothing apart
                _search(looks, bucket, rest, max_bits, found)
                return
            else:
                _search(looks, bucket, rest, max_bits, found)
        _compare_all(looks, small, max_bits, found)


def _compare_all(
    looks: "Looks", buckets: "Sequence[Pairs]", max_bits: int, found: "list[Pairs]"
) -> None:
    """Append the near pairs inside each of many small buckets, those of one size at once."""
    import numpy as np

    by_size: dict[int, list[Pairs]] = {}
    for bucket in buckets:
        by_size.setdefault(len(bucket), []).append(bucket)
    for size, alike in by_size.items():
        first, second = np.triu_indices(size, 1)
        step = max(1, _BLOCK_PAIRS // len(first))
        for start in range(0, len(alike), step):
            rows = np.stack(alike[start : start + step])
            left, right = rows[:, first].ravel(), rows[:, second].ravel()
            near = np.bitwise_count(looks[left] ^ looks[right]) <= max_bits
            found.append(np.sort(np.stack([left[near], right[near]], axis=1), axis=1))


def _compare(looks: "Looks", rows: "Pairs", max_bits: int, found: "list[Pairs]") -> None:
    """Append the near pairs among ``rows``, each held against all others, in blocks."""
    import numpy as np

    mine = looks[rows]
    step = max(1, _BLOCK_PAIRS // len(rows))
    for start in range(0, len(rows), step):
        apart = np.bitwise_count(mine[start : start + step, None] ^ mine[None, :])
        left, right = np.nonzero(apart <= max_bits)
        left += start
        later = left < right
        near = np.stack([rows[left[later]], rows[right[later]]], axis=1)
        found.append(np.sort(near, axis=1))


def _pairs_with(looks: "Looks", new: "Pairs") -> "Pairs":
    """Return the near pairs of a few looks with any other."""
    import numpy as np

    found = [np.zeros((0, 2), dtype=np.int64)]
    for at in new:
        others = np.flatnonzero(np.bitwise_count(looks ^ looks[at]) <= MAX_BITS)
        others = others[others != at]
        found.append(np.stack([np.full(len(others), at), others], axis=1))
    return np.concatenate(found)


def _looks_of(
    snapshot: Snapshot, commits: Collection[str] = frozenset()
) -> "tuple[pa.ChunkedArray, Looks, npt.NDArray[np.bool_]]":
    """Return id and look of every live segment that has a look, and if it is of ``commits``.

    No Python object for each: there may be millions.
    """
    import numpy as np
    import pyarrow as pa

    ids: list[pa.Array] = []
    looks: list[Looks] = [np.zeros(0, dtype=np.uint64)]
    is_new: list[npt.NDArray[np.bool_]] = [np.zeros(0, dtype=bool)]
    columns = ("segment_id", "commit_id", "look")
    for batch in snapshot.table.batches(columns, "look IS NOT NULL"):
        encoded = batch["commit_id"].dictionary_encode()
        names = encoded.dictionary.to_pylist()
        of = encoded.indices.to_numpy()
        live = np.array([name in snapshot.live for name in names], dtype=bool)[of]
        ids.append(batch["segment_id"].filter(pa.array(live)))
        looks.append(batch["look"].to_numpy(zero_copy_only=False)[live])
        is_new.append(np.array([name in commits for name in names], dtype=bool)[of][live])
    return pa.chunked_array(ids, pa.string()), np.concatenate(looks), np.concatenate(is_new)


def _groups(
    snapshot: Snapshot, ids: "pa.ChunkedArray", pairs: "Pairs"
) -> list[list[StoredSegment]]:
    groups = []
    for places in _components(pairs):
        segments = _segments(snapshot, ids.take(places).to_pylist())
        groups += [group for group in _around_the_first(segments) if len(group) > 1]
    return sorted(groups, key=lambda group: (-len(group), _place(group[0])))


def _components(pairs: "Pairs") -> list[list[int]]:
    """Return the places that pairs join, directly or through others."""
    root: dict[int, int] = {}

    def find(place: int) -> int:
        above = root.setdefault(place, place)
        while above != place:
            root[place] = root[above]
            place, above = above, root[above]
        return place

    for left, right in pairs.tolist():
        root[find(left)] = find(right)
    members: dict[int, list[int]] = {}
    for place in root:
        members.setdefault(find(place), []).append(place)
    return list(members.values())


def _around_the_first(segments: Sequence[StoredSegment]) -> list[list[StoredSegment]]:
    """Put each segment to the first group whose first member it is like.

    Not to any whose last member it is like: a chain of small differences ends anywhere.
    """
    groups: list[tuple[Appearance, list[StoredSegment]]] = []
    for segment in sorted(segments, key=_place):
        seen = appearance(segment)
        if seen is None:
            continue
        for first, group in groups:
            if first.is_alike(seen):
                group.append(segment)
                break
        else:
            groups.append((seen, [segment]))
    return [group for _, group in groups]


def _segments(snapshot: Snapshot, ids: Sequence[str]) -> list[StoredSegment]:
    return [
        segment
        for start in range(0, len(ids), _BATCH)
        for segment in snapshot.segments(ids[start : start + _BATCH])
    ]


def _place(segment: StoredSegment) -> tuple[str, float, float]:
    where = segment.locator
    return segment.path, where.page or 0, where.start or 0.0
