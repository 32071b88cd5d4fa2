"""Rows opened ahead, as batches of tensors (being written: names and promises first)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from mmsearch.retriever.training.examples import Collate, Example, Media, TrainingBatch
from mmsearch.retriever.training.records import BadRow, Rows
from mmsearch.retriever.training.sampling import BatchPlan
from mmsearch.values import Frames, Image

Opener: TypeAlias = Callable[[Media], Image | Frames]


def open_still(media: Media) -> Image | Frames:
    """Open a picture or frame files; raises UnreadableFile, also for pages and films."""
    raise NotImplementedError


class MediaCollate:
    """See `mmsearch.retriever.training.examples.Collate`; opens media with ``opener``."""

    def __init__(self, backbone: Any, opener: Opener = open_still, *, max_text: int = 0) -> None:
        """Cut the words of a side at ``max_text`` characters; 0 cuts none."""

    def __call__(self, examples: Sequence[Example], *, seed: int) -> TrainingBatch:
        raise NotImplementedError


class Loader:
    """Iterates the chunks of each step of one process, opened ahead by threads.

    ``with Loader(rows, plan, collate, ...) as loader: for chunks in loader.steps(start, end)``
    """

    bad: list[BadRow]  # rows that could not be opened, each once

    def __init__(
        self,
        rows: Rows,
        plan: BatchPlan,
        collate: Collate,
        *,
        seed: int,
        rank: int = 0,
        size: int = 1,
        chunk: int = 0,
        workers: int = 2,
        bad_rows: str = "drop",
        on_bad: Callable[[BadRow], None] | None = None,
    ) -> None: ...

    def steps(self, start: int, end: int) -> Iterator[list[TrainingBatch]]:
        """Yield, for each step of ``[start, end)``, its chunks; the seed of chunk c of step s
        is a function of (seed, s, place of its first row), so it does not depend on workers.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Stop the threads."""
