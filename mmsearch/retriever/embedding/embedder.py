"""Items into unit vectors, whatever model does it.

    items -> longest first, cut by token budget -> backbone x reasoner -> head -> [n, d]

Batches are cut by work and not by count, so that a page and a word do not wait for each
other padded to one length, and memory is bounded however long the list is. A batch that
does not fit is embedded in halves, and the batches after it are cut smaller.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.errors import BadVectors, OutOfMemory
from mmsearch.retriever.embedding.memory import (
    TokenBudget,
    free_memory,
    is_out_of_memory,
    plan_tokens,
    queue_of_caller,
)
from mmsearch.retriever.embedding.schedule import Schedule, SideBySide
from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.models.description import ModelDescription
from mmsearch.retriever.seams import Calibration
from mmsearch.values import Item, Role, Space, View

if TYPE_CHECKING:
    from mmsearch.values import Vectors


Batch: TypeAlias = Any  # the backbone's own, which only it understands


@dataclass(frozen=True, slots=True)
class _Cut:
    """Items that are embedded together; ``sizes`` are their tokens, the longest first."""

    rows: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Work of them all: everything is padded to the longest."""
        return len(self.rows) * self.sizes[0]

    def halves(self) -> "tuple[_Cut, _Cut]":
        """Return the longer and the shorter half."""
        middle = (len(self.rows) + 1) // 2
        return (
            _Cut(self.rows[:middle], self.sizes[:middle]),
            _Cut(self.rows[middle:], self.sizes[middle:]),
        )


class LatentEmbedder:
    """See `mmsearch.retriever.seams.Embedder`.

    batch_tokens: tokens of work in a batch to begin with; planned from the memory there is
                  where it is not given
    schedule:     on which threads; one batch after the other on one thread by default

    Several threads may call it at once: all it ever changes is the budget, which falls
    where a batch did not fit. Raises OutOfMemory for one item alone that does not.
    """

    def __init__(
        self,
        description: ModelDescription,
        model: Model,
        *,
        batch_tokens: int | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        self._description, self._model, self._space = description, model, description.space
        self._device = next(model.parameters()).device
        if batch_tokens is None:
            batch_tokens = plan_tokens(self._device, model.backbone.token_bytes)
        self._budget = TokenBudget(batch_tokens)
        self._schedule = schedule or SideBySide(1)

    @property
    def space(self) -> Space:
        return self._space

    @property
    def calibration(self) -> Mapping[tuple[View, View], Calibration]:
        return self._description.calibration

    @property
    def batch_tokens(self) -> int:
        """Tokens of work that a batch holds by now."""
        return self._budget.tokens

    @property
    def call_tokens(self) -> int:
        return self._schedule.num_wanted * self._budget.tokens

    def num_tokens(self, item: Item) -> int:
        return self._model.backbone.num_tokens(item)

    def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        role = Role(role)
        vectors = np.zeros((len(items), self._space.dim), dtype=np.float32)
        if not items:
            return vectors
        order: list[int] = []
        done: list[Tensor] = []

        queue = queue_of_caller(self._device)

        def collate(cut: _Cut) -> Batch | None:
            with queue():
                return self._collate([items[row] for row in cut.rows], role)

        def compute(cut: _Cut, batch: Batch | None) -> tuple[_Cut, Tensor]:
            with queue():
                return cut, self._compute(cut, batch, collate)

        for cut, embedded in self._schedule.run(self._cuts(items), collate, compute):
            order += cut.rows
            done.append(embedded)
        # Once for the whole call: on a GPU every copy back waits for all that was asked of it.
        vectors[order] = torch.cat(done).cpu().numpy()
        unusable = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(unusable):
            shown = ", ".join(str(row) for row in unusable[:5])
            raise BadVectors(f"NaN or infinity for {len(unusable)} of {len(items)} items ({shown})")
        return vectors

    def _cuts(self, items: Sequence[Item]) -> Iterator[_Cut]:
        """Yield items of like size together, longest first, each cut within the budget.

        An item over the budget is cut alone. The budget is asked for every cut anew.
        """
        sizes = [self._model.backbone.num_tokens(item) for item in items]
        order = sorted(range(len(items)), key=lambda row: -sizes[row])
        start = 0
        while start < len(order):
            longest = max(sizes[order[start]], 1)
            end = start + max(self._budget.tokens // longest, 1)
            rows = tuple(order[start:end])
            yield _Cut(rows, tuple(sizes[row] for row in rows))
            start = end

    @torch.inference_mode()
    def _collate(self, items: Sequence[Item], role: Role) -> Batch | None:
        """Return a batch on the device, or None where it does not fit."""
        try:
            return self._model.backbone.collate(items, role=role)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _compute(
        self, cut: _Cut, batch: Batch | None, collate: Callable[[_Cut], Batch | None]
    ) -> Tensor:
        """Return the unit vectors ``[B, d]`` of a batch, in halves where it does not fit."""
        alone = len(cut.rows) == 1
        if alone or cut.tokens <= self._budget.tokens:  # else it was cut before that fell
            vectors = self._embed_batch(batch)
            if vectors is not None:
                return vectors
            if not alone:
                self._budget.did_not_fit(cut.tokens)
        del batch
        free_memory(self._device)
        if alone:  # once more: what another thread held may be free by now
            vectors = self._embed_batch(collate(cut))
            if vectors is None:
                raise OutOfMemory(str(self._device))
            return vectors
        return torch.cat([self._compute(half, collate(half), collate) for half in cut.halves()])

    @torch.inference_mode()
    def _embed_batch(self, batch: Batch | None) -> Tensor | None:
        """Return unit vectors ``[B, d]`` on the device; None for None, or if memory ran out.

        None and no exception: the exception would hold the tensors that filled the memory.
        """
        if batch is None:
            return None
        backbone, head = self._model.backbone, self._model.head
        try:
            base = backbone.readouts(batch).get("base")
            readout = None
            if not head.is_closed():
                effort = self._space.effort
                thought = self._model.reasoner.think(backbone, batch, effort=effort)
                readout = thought[self._description.readout]
            return F.normalize(head(base, readout)[:, : self._space.dim], dim=-1)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
