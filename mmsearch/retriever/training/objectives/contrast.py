"""What all recipes share: vectors of the sides of a batch, and the contrast between them.

    TrainingBatch -> {"query.key": [B], "query.look": [B, d], "negative_of": [N], ...}
    vectors of a readout, "query.gen" [B, d] and so on -> InfoNCE, at each size that is asked

A pair is no negative where its two items are the same or look alike, where their queries
are, or where the query and the other's positive are. A query that has words as well as a
picture is told by its key alone: "this, but in red" is not what its picture shows.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mmsearch.errors import BadSetting
from mmsearch.retriever.models.head import ResidualHead
from mmsearch.retriever.training.config import ObjectiveConfig
from mmsearch.retriever.training.examples import SideBatch, TrainingBatch
from mmsearch.retriever.training.losses import alike_pairs, info_nce, matryoshka
from mmsearch.retriever.training.objective import Loss, Representations

if TYPE_CHECKING:
    from mmsearch.retriever.models.checkpoint import Model

SIDES = ("query", "positive", "negative")


def sides_of(batch: TrainingBatch) -> Iterator[tuple[str, SideBatch]]:
    """Yield the sides that the batch has, by their names in representations."""
    for name, side in zip(SIDES, (batch.query, batch.positive, batch.negatives), strict=True):
        if side is not None:
            yield name, side


def own_batch(side: SideBatch) -> Any:  # noqa: ANN401 - a backbone's own type
    """Return what the backbone collated, to be used once.

    A backbone may keep in its batch what its towers computed; a chunk that is represented a
    second time needs a graph of its own.
    """
    return copy.copy(side.batch)


def vector(model: "Model", base: Tensor | None, readout: Tensor | None) -> Tensor:
    """Return the unit vectors ``[B, d]`` that a readout ``[B, D]`` makes, as in embedding.

    A residual head is as exact as its weights, whatever autocast made of the readout.
    """
    given = next(one for one in (readout, base) if one is not None)
    dtype = next((weight.dtype for weight in model.head.parameters()), given.dtype)
    with torch.autocast(given.device.type, enabled=False):
        readout, base = (None if one is None else one.to(dtype) for one in (readout, base))
        vectors: Tensor = model.head(base, readout)
    return vectors


def base_of(model: "Model", batch: Any) -> Tensor | None:  # noqa: ANN401 - a backbone's own type
    """Return the backbone's own vectors ``[B, d]``, where it has any."""
    base: Tensor | None = model.backbone.readouts(batch).get("base")
    return base


def is_silent(model: "Model") -> bool:
    """Return whether no readout can change a vector, nor learn to."""
    learns = any(parameter.requires_grad for parameter in model.head.parameters())
    return not learns and bool(model.head.is_closed())


def weighted(parts: Mapping[str, Tensor], weights: Mapping[str, float]) -> Loss:
    """Return the losses, and their sum by the weights of the same names."""
    total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
    return Loss(total, parts)


def width_of(model: "Model") -> int:
    """Return how many dimensions the model's vectors have."""
    is_residual = isinstance(model.head, ResidualHead)
    return int(model.backbone.dim if is_residual else model.reasoner.dim)


class NoNegatives(NamedTuple):
    """Pairs that are none: query by positive ``[B, B]``, query by hard negative ``[B, N]``."""

    positives: Tensor
    hard: Tensor | None


class Contrast:
    """InfoNCE of the vectors of any readout, at one size or several.

    width: of the vectors; the whole of them counts once where no size says how much
    """

    def __init__(self, config: ObjectiveConfig, width: int) -> None:
        if any(not 1 <= dim <= width for dim in config.dims):
            asked = ", ".join(map(str, config.dims))
            raise BadSetting("objective.dims", f"vectors have {width} dimensions, not {asked}")
        self.temperature, self.above = config.temperature, config.near_duplicate
        weights = config.dim_weights or (1.0,) * len(config.dims)
        self.sizes = dict(zip(config.dims, weights, strict=True))
        if width not in self.sizes:
            self.sizes = {width: 1.0, **self.sizes}

    def rows(self, batch: TrainingBatch, device: torch.device) -> dict[str, Tensor]:
        """Return what tells alike items, and whose hard negatives they are."""
        found: dict[str, Tensor] = {}
        for name, side in sides_of(batch):
            look = side.look.to(device)
            if name == "query":
                wordless = torch.tensor([not one.text for one in side.sides], device=device)
                look = look * wordless[:, None]
            found |= {f"{name}.key": side.key.to(device), f"{name}.look": look}
            if name == "negative":
                found["negative_of"] = batch.negative_of.to(device)
        return found

    def no_negatives(self, rows: Representations) -> NoNegatives:
        """Return the pairs that are no negatives, by keys and looks."""

        def alike(one: str, other: str) -> Tensor:
            keys, looks = ((rows[f"{one}.{of}"], rows[f"{other}.{of}"]) for of in ("key", "look"))
            return alike_pairs(*keys, *looks, above=self.above)

        positives = alike("positive", "positive") | alike("query", "query")
        positives = positives | alike("query", "positive")
        if not len(rows.get("negative_of", ())):
            return NoNegatives(positives, None)
        return NoNegatives(positives, alike("positive", "negative") | alike("query", "negative"))

    def loss(self, rows: Representations, readout: str, none: NoNegatives) -> Tensor:
        """Return the InfoNCE of the vectors of ``readout``, summed over the sizes."""
        queries, positives = rows[f"query.{readout}"], rows[f"positive.{readout}"]
        negatives = None if none.hard is None else rows[f"negative.{readout}"]
        of = None if none.hard is None else rows["negative_of"]

        def at(dim: int) -> Tensor:
            return info_nce(
                queries[:, :dim],
                positives[:, :dim],
                temperature=self.temperature,
                alike=none.positives,
                negatives=None if negatives is None else negatives[:, :dim],
                negative_of=of,
                negative_alike=none.hard,
            )

        return matryoshka(at, tuple(self.sizes), tuple(self.sizes.values()))
