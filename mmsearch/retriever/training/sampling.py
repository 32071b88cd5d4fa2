"""Which rows a step trains on (being written: names and promises first)."""

from typing import TYPE_CHECKING

from mmsearch.retriever.training.records import Rows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class BatchPlan:
    """Which rows each step reads; pure in (rows, batch, seed), so a resumed run goes on alike."""

    def __init__(self, rows: Rows, *, batch: int, seed: int) -> None: ...

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every row of weight 1 is seen once."""
        raise NotImplementedError

    def rows_of(self, step: int) -> "npt.NDArray[np.int64]":
        """Return the numbers of the ``batch`` rows of a step (from 0), all of one data set."""
        raise NotImplementedError

    def spare(self, step: int, place: int, attempt: int) -> int:
        """Return the row that stands in for the one at that place of a step's batch."""
        raise NotImplementedError


def share(count: int, rank: int, size: int) -> slice:
    """Return the places of a batch of ``count`` that a process computes, in order of ranks."""
    raise NotImplementedError
