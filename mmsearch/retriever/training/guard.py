"""What must not be trained on: a row that gives itself away, and what is held out.

    held-out Rows -> hold_out;  training Rows -> clean -> the Rows that may be trained on

A row whose query shows a picture of its positive would be learnt as "the same file", so it
goes. A row that shows a held-out picture goes too, by the bytes of its file and, where looks
are compared, by how it looks: figures recur from book to book at other sizes. So do rows
that repeat a held-out pair of words, or a held-out passage.

Rows are read one after the other, and what is remembered of one is its media's hashes. A
file is only read where its size is that of one it may be equal to.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mmsearch.errors import UnreadableFile
from mmsearch.retriever.training.examples import Example, Media, Picture, Side
from mmsearch.retriever.training.loading import Opener, open_still
from mmsearch.retriever.training.looks import look
from mmsearch.retriever.training.records import BadRow, Rows, side_key
from mmsearch.values import Item

if TYPE_CHECKING:
    from mmsearch.values import Vectors

Shown: TypeAlias = Media | Picture

PASSAGE_WORDS = 12  # a held-out text of so many words is a passage: it is not met by chance
COMPARED = 512  # looks that are compared at once
READ = 2**20  # bytes; of a file over 16 of them, its beginning, middle and end are hashed

SAME_MEDIA = "its query shows a picture of its positive"
HELD_OUT_MEDIA = "it shows a held-out picture"
HELD_OUT_LOOK = "it looks like a held-out picture"
HELD_OUT_WORDS = "it repeats a held-out pair or passage"


class Guard:
    """Keeps a query's picture from its positive, and held-out content from training.

    opener: opens media so that their looks are compared
    above:  cosine of two looks from which on they are one picture
    looks:  whether looks are compared: every picture is opened once for it, where pictures
            are held out

    ``counts`` says how many rows were left out for which reason. A picture that cannot be
    opened is left to the loading of batches, which replaces its row.
    """

    def __init__(
        self, opener: Opener = open_still, *, above: float = 0.97, looks: bool = True
    ) -> None:
        self._opener, self._above, self._compares = opener, above, looks
        self._media: set[int] = set()
        self._sizes: set[int] = set()
        self._words: set[int] = set()
        self._looks: list[Vectors] = []
        self._hashes: dict[str, int] = {}
        self.counts: Counter[str] = Counter()

    def hold_out(self, rows: Rows) -> None:
        """Remember what these rows show and say."""
        for number in range(len(rows)):
            example = rows[number]
            self._words.add(_pair_key(example))
            for side in _sides(example):
                if is_passage(side):
                    self._words.add(side_key(side))
                for one in _shown(side):
                    size = _size(one)
                    code = None if size is None else self._hash(one)
                    if size is None or code is None or code in self._media:
                        continue
                    self._sizes.add(size)
                    self._media.add(code)
                    seen = self._look(one) if self._compares else None
                    if seen is not None:
                        self._looks.append(seen)

    def clean(self, rows: Rows) -> tuple[Rows, list[BadRow]]:
        """Return the rows that may be trained on, and why each of the others may not."""
        alike = self._alike(rows)
        kept = np.ones(len(rows), dtype=bool)
        left: list[BadRow] = []
        for number in range(len(rows)):
            example = rows[number]
            if reason := self._reason(example, alike):
                left.append(BadRow(example.row, reason, rows.names[rows.dataset[number]]))
                kept[number] = False
        self.counts.update(row.reason for row in left)
        return (rows.select(np.flatnonzero(kept)) if left else rows), left

    def _reason(self, example: Example, alike: set[int]) -> str:
        shown = list(_shown(example.query)), list(_shown(example.positive))
        if self._share_one(*shown):
            return SAME_MEDIA
        wrong = [one for side in example.negatives for one in _shown(side)]
        for one in (*shown[0], *shown[1], *wrong):
            if self._sizes and _size(one) in self._sizes and self._hash(one) in self._media:
                return HELD_OUT_MEDIA
            if alike and _name(one) in alike:
                return HELD_OUT_LOOK
        if self._words:
            said = {side_key(side) for side in _sides(example)} | {_pair_key(example)}
            if not self._words.isdisjoint(said):
                return HELD_OUT_WORDS
        return ""

    def _share_one(self, query: list[Shown], positive: list[Shown]) -> bool:
        sizes = {size for one in query if (size := _size(one)) is not None}
        twins = [one for one in positive if _size(one) in sizes]
        mine = {code for one in query if twins and (code := self._hash(one)) is not None}
        return any(self._hash(one) in mine for one in twins)

    def _alike(self, rows: Rows) -> set[int]:
        """Return the names of the media in ``rows`` that look like a held-out one."""
        if not self._looks:
            return set()
        held = np.stack(self._looks)
        met: set[int] = set()
        alike: set[int] = set()
        names: list[int] = []
        looks: list[Vectors] = []

        def compare() -> None:
            if looks:
                nearest = (np.stack(looks) @ held.T).max(axis=1)
                alike.update(np.array(names)[nearest > self._above].tolist())
            names.clear()
            looks.clear()

        for number in range(len(rows)):
            for side in _sides(rows[number]):
                for one in _shown(side):
                    name = _name(one)
                    if name in met:
                        continue
                    met.add(name)
                    seen = self._look(one)
                    if seen is not None:
                        names.append(name)
                        looks.append(seen)
            if len(looks) >= COMPARED:
                compare()
        compare()
        return alike

    def _hash(self, one: Shown) -> int | None:
        """Return the hash of what is shown; None where it cannot be read."""
        if not isinstance(one, Media):
            return _code(one.key)
        try:
            files = [self._hash_of_file(path) for path in one.frames or (one.path,)]
        except OSError:
            return None
        return _code(f"{files} {one.page} {one.start} {one.end}")

    def _hash_of_file(self, path: Path) -> int:
        name = str(path)
        if name not in self._hashes:
            self._hashes[name] = _hash_of_file(path)
        return self._hashes[name]

    def _look(self, one: Shown) -> "Vectors | None":
        try:
            opened = self._opener(one) if isinstance(one, Media) else one.open()
        except (UnreadableFile, OSError, ValueError):
            return None
        seen = look(Item([opened]))
        return seen if seen.any() else None


def is_passage(side: Side) -> bool:
    """Whether a side is words alone, and enough of them to be met only on purpose."""
    return not any(_shown(side)) and len(side.text.split()) >= PASSAGE_WORDS


def _sides(example: Example) -> tuple[Side, ...]:
    return (example.query, example.positive, *example.negatives)


def _shown(side: Side) -> Iterator[Shown]:
    return (part for part in side.parts if not isinstance(part, str))


def _pair_key(example: Example) -> int:
    return _code(f"{side_key(example.query)} {side_key(example.positive)}")


def _name(one: Shown) -> int:
    return side_key(Side((one,)))


def _size(one: Shown) -> int | None:
    """Return the bytes of what is shown; None where there is no such file."""
    if not isinstance(one, Media):
        return -1  # at hand: its key is as good as its bytes
    try:
        return sum(os.stat(path).st_size for path in one.frames or (one.path,))
    except OSError:
        return None


def _hash_of_file(path: Path) -> int:
    size = os.stat(path).st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=8)
    with path.open("rb") as file:
        if size <= 16 * READ:
            digest.update(file.read())
        else:
            for start in (0, size // 2, size - READ):
                file.seek(start)
                digest.update(file.read(READ))
    return int.from_bytes(digest.digest(), "little", signed=True)


def _code(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
