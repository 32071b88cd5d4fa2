"""What training reads: a query, its answer, and how a person would reason about either.

    records (JSONL, PLUME, MMEB) or drawings -> Example -> TrainingBatch -> Objective

An `Example` is two sides that belong together and perhaps some that do not. A side's
words are at hand, its pictures are opened when a batch is made: a corpus of a million
pairs is a list of paths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from mmsearch.values import Frames, Image, Role

if TYPE_CHECKING:
    from torch import Tensor


class Picture(Protocol):
    """Pixels that are not opened yet: a file, a page of one, a drawing."""

    @property
    def name(self) -> str:
        """What a report of bad rows calls it, such as its path."""
        ...

    @property
    def key(self) -> str:
        """Equal for the same content: what the leakage guard and the masks compare."""
        ...

    def open(self) -> Image | Frames:
        """Return its pixels; raises UnreadableFile."""
        ...


@dataclass(frozen=True, slots=True)
class Media:
    """A picture, a page or a clip by its path.

    page:       counted from 1, of a PDF; None for other files
    start, end: seconds of a film; None for all of it
    frames:     frame files of a film that was cut already, in order; ``path`` is their folder
    """

    path: Path
    page: int | None = None
    start: float | None = None
    end: float | None = None
    frames: tuple[Path, ...] = ()


SidePart: TypeAlias = str | Media | Picture


@dataclass(frozen=True, slots=True)
class Side:
    """One item as it stands in a training file.

    parts:     words and media in reading order; at least one
    rationale: how one reasons from the item to its answer, in sentences; PLUME's latent
               steps replace it. Empty where nobody wrote one
    answer:    the item in a word or a sentence, what the rationale ends in
    """

    parts: tuple[SidePart, ...]
    rationale: str = ""
    answer: str = ""

    @property
    def text(self) -> str:
        """All its words, one part a line."""
        return "\n".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True, slots=True)
class Example:
    """A query, its positive, and hard negatives, from one row of one data set.

    dataset: batches are made of one data set at a time, so that negatives are of its kind
    row:     where it was read, for reports: ``pairs.jsonl:12``
    """

    query: Side
    positive: Side
    negatives: tuple[Side, ...] = ()
    dataset: str = ""
    row: str = ""


@dataclass(frozen=True, slots=True)
class SideBatch:
    """One side of several examples, collated for one backbone.

    batch: what the backbone's ``collate`` returned
    sides: the sides it was made of, in order
    role:  query or document
    key:   ``[B]`` int64; equal where the content is the same
    look:  ``[B, d]`` unit float32, near 1 in cosine where two items look alike; a row of
           zeros where an item has nothing to look at
    """

    batch: Any
    sides: tuple[Side, ...]
    role: Role
    key: "Tensor"
    look: "Tensor"

    def __len__(self) -> int:
        return len(self.sides)


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """A part of one step that fits the memory; the rows of all sides go together.

    negatives:   hard negatives of all rows, one after another; None where there are none
    negative_of: ``[N]`` int64, the row of `query` that each of them belongs to
    """

    query: SideBatch
    positive: SideBatch
    negatives: SideBatch | None
    negative_of: "Tensor"
    examples: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.examples)


class Collate(Protocol):
    """Makes batches of examples: opens media, or looks up features computed before."""

    def __call__(self, examples: Sequence[Example], *, seed: int) -> TrainingBatch:
        """Return the examples as one batch; ``seed`` decides views, crops and dropped words.

        Raises BadExample, which names the row, where a side cannot be opened.
        """
        ...
