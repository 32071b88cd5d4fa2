"""Whether it learns what it has not seen: recall over held-out pairs while it trains.

    held-out rows -> vectors of both sides -> R@1, R@5, R@10, either way

The vectors are those a user would get: of the readout, the head and the effort that the
model is described with, without dropout.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.errors import BadExample, TrainingStopped
from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.models.description import ModelDescription
from mmsearch.retriever.training.examples import Collate, Example, SideBatch, TrainingBatch
from mmsearch.retriever.training.gathering import World, gather_rows
from mmsearch.retriever.training.records import Rows
from mmsearch.retriever.training.sampling import share

DEPTHS = (1, 5, 10)
CHUNK = 16  # pairs at once where nobody says


class Probe:
    """Held-out pairs of one run, of which the first ``most`` are looked at.

    ``bad`` counts those that could not be opened, which are left out.
    """

    def __init__(self, rows: Rows, collate: Collate, *, most: int, chunk: int = 0) -> None:
        # Spread over all of them: the first rows of a file are often of one kind.
        stride = max(len(rows) / most, 1.0) if most else 1.0
        numbers = range(len(rows)) if not most else range(min(len(rows), most))
        self._numbers = [int(number * stride) for number in numbers]
        self._rows, self._collate, self._chunk = rows, collate, chunk or CHUNK
        self.bad = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def recalls(
        self,
        model: Model,
        description: ModelDescription,
        *,
        world: World,
        effort: int | None = None,
        autocast: torch.dtype | None = None,
    ) -> dict[str, Any]:
        """Return ``{"pairs": n, "query_to_positive": {"1": ..}, "positive_to_query": {..}}``.

        Every process embeds its share, and all of them get the recalls. ``effort`` is the
        model's own where it is not given.
        """
        steps = description.effort if effort is None else effort
        sides: dict[str, list[Tensor]] = {"query": [], "positive": []}
        keys: dict[str, list[Tensor]] = {"query": [], "positive": []}
        was_training = model.training
        model.eval()
        try:
            for batch in self._batches(world):
                for name, side in (("query", batch.query), ("positive", batch.positive)):
                    vectors = embed_side(model, description, side, effort=steps, autocast=autocast)
                    sides[name].append(vectors)
                    keys[name].append(side.key.to(vectors.device))
        finally:
            model.train(was_training)
        device = next(model.parameters()).device
        found = {}
        for name in sides:
            vectors = torch.cat(sides[name]) if sides[name] else _none(description, device)
            key = torch.cat(keys[name]) if keys[name] else _none(None, device)
            found[name] = gather_rows(vectors, world), gather_rows(key, world)
        if not all(bool(vectors.isfinite().all()) for vectors, _ in found.values()):
            raise TrainingStopped(
                "the vectors of the held-out pairs are not numbers",
                hint="lower optimiser.learning_rate, and train again",
            )
        query, query_key = found["query"]
        positive, positive_key = found["positive"]
        return {
            "pairs": len(query),
            "query_to_positive": recall(query, positive, query_key, positive_key),
            "positive_to_query": recall(positive, query, positive_key, query_key),
        }

    def _batches(self, world: World) -> Iterator[TrainingBatch]:
        mine = self._numbers[share(len(self._numbers), world.rank, world.size)]
        for start in range(0, len(mine), self._chunk):
            examples = [self._rows[number] for number in mine[start : start + self._chunk]]
            batch = self._opened(examples)
            if batch is not None:
                yield batch

    def _opened(self, examples: Sequence[Example]) -> TrainingBatch | None:
        """Return the examples as a batch, without those that cannot be opened."""
        while examples:
            try:
                return self._collate(examples, seed=0)
            except BadExample as error:
                left = [one for one in examples if one.row not in error.reasons]
                if len(left) == len(examples):
                    raise
                self.bad += len(examples) - len(left)
                examples = left
        return None


@torch.no_grad()
def embed_side(
    model: Model,
    description: ModelDescription,
    side: SideBatch,
    *,
    effort: int,
    autocast: torch.dtype | None = None,
) -> Tensor:
    """Return the unit vectors ``[B, d]`` of one side, float32, as `LatentEmbedder` makes them."""
    device = next(model.parameters()).device.type
    with torch.autocast(device, autocast or torch.bfloat16, enabled=autocast is not None):
        base = model.backbone.readouts(side.batch).get("base")
        readout = None
        if not model.head.is_closed():
            thought = model.reasoner.think(model.backbone, side.batch, effort=effort)
            readout = thought[description.readout]
        vectors = model.head(base, readout)
    return F.normalize(vectors[:, : description.dims or description.dim].float(), dim=-1)


def recall(queries: Tensor, pool: Tensor, query_key: Tensor, pool_key: Tensor) -> dict[str, float]:
    """Return ``{"1": R@1, "5": R@5, "10": R@10}`` of pairs that stand in the same row.

    Entries of the pool with one key are one entry. An entry is right where any query of the
    same key has it for its own; equal scores count against us. 0 of no pairs.

    queries, pool: unit ``[n, d]``;  query_key, pool_key: ``[n]`` int64
    """
    if not len(queries):
        return {str(depth): 0.0 for depth in DEPTHS}
    entries, which = torch.unique(pool_key, return_inverse=True)
    asked, who = torch.unique(query_key, return_inverse=True)
    place = torch.arange(len(pool), device=pool.device)
    first = torch.full_like(entries, len(pool)).scatter_reduce_(0, which, place, "amin")
    belongs = torch.zeros(len(asked), len(entries), dtype=torch.bool, device=pool.device)
    belongs[who, which] = True
    relevant = belongs[who]  # (n, entries)
    scores = queries @ pool[first].T
    best = scores.masked_fill(~relevant, -2.0).amax(dim=1, keepdim=True)
    rank = 1 + ((scores >= best) & ~relevant).sum(dim=1)
    return {str(depth): (rank <= depth).float().mean().item() for depth in DEPTHS}


def _none(description: ModelDescription | None, device: torch.device) -> Tensor:
    """Return no vectors of the model, or no keys: a process may have nothing to embed."""
    if description is None:
        return torch.zeros(0, dtype=torch.long, device=device)
    return torch.zeros(0, description.dims or description.dim, device=device)
