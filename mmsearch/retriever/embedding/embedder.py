"""Items into unit vectors, whatever model does it.

    items -> longest first, cut by token budget -> backbone x reasoner -> head -> [n, d]

Batches are cut by work and not by count, so that a page and a word do not wait for each
other padded to one length, and memory is bounded however long the list is. On a CPU they
run side by side, each on one thread: torch's own threads wait for each other at every
layer, and where reader processes want the same cores that wait is ten times the work.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from mmsearch.errors import BadVectors
from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.models.description import ModelDescription
from mmsearch.retriever.seams import Calibration
from mmsearch.values import Item, Role, Space, View

if TYPE_CHECKING:
    from mmsearch.values import Vectors

# Measured: 2,048 is no faster on a CPU and takes 300 MB more.
BATCH_TOKENS = 512


class LatentEmbedder:
    """See `mmsearch.retriever.seams.Embedder`.

    Several threads may call it at once: nothing it holds changes.
    """

    def __init__(
        self,
        description: ModelDescription,
        model: Model,
        *,
        batch_tokens: int = BATCH_TOKENS,
        num_threads: int = 1,
    ) -> None:
        self._description, self._model, self._batch_tokens = description, model, batch_tokens
        self._space = description.space
        # What a pool thread sets is the default of every thread that has not asked yet.
        torch.get_num_threads()  # so the caller's asks now, and keeps its own
        self._pool = ThreadPoolExecutor(num_threads, "mmsearch-embed", initializer=_one_thread)

    @property
    def space(self) -> Space:
        return self._space

    @property
    def calibration(self) -> Mapping[tuple[View, View], Calibration]:
        return self._description.calibration

    def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        role = Role(role)
        vectors = np.zeros((len(items), self._space.dim), dtype=np.float32)
        batches = list(self._batches(items))
        done = self._pool.map(
            lambda rows: self._embed_batch([items[row] for row in rows], role), batches
        )
        for rows, embedded in zip(batches, done, strict=True):
            vectors[rows] = embedded
        unusable = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(unusable):
            shown = ", ".join(str(row) for row in unusable[:5])
            raise BadVectors(f"NaN or infinity for {len(unusable)} of {len(items)} items ({shown})")
        return vectors

    @torch.inference_mode()
    def _embed_batch(self, items: Sequence[Item], role: Role) -> "Vectors":
        backbone, head = self._model.backbone, self._model.head
        batch = backbone.collate(items, role=role)
        base = backbone.readouts(batch).get("base")
        readout = None
        if not head.is_closed():
            thought = self._model.reasoner.think(backbone, batch, effort=self._space.effort)
            readout = thought[self._description.readout]
        vectors = head(base, readout)[:, : self._space.dim]
        return F.normalize(vectors, dim=-1).cpu().numpy()

    def _batches(self, items: Sequence[Item]) -> Iterator[list[int]]:
        """Yield row numbers of items of like size, each batch within the token budget.

        An item over the budget is a batch of its own.
        """
        sizes = [self._model.backbone.num_tokens(item) for item in items]
        rows: list[int] = []
        for row in sorted(range(len(items)), key=lambda row: -sizes[row]):
            # Everything is padded to the first, the longest.
            if rows and (len(rows) + 1) * sizes[rows[0]] > self._batch_tokens:
                yield rows
                rows = []
            rows.append(row)
        if rows:
            yield rows


def _one_thread() -> None:
    torch.set_num_threads(1)
