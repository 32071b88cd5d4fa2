"""PLUME: a rationale that gives way to latent steps, while the readout learns to find.

    unroll(K steps, what is left of the rationale) -> gen, anchor, routing, next tokens
    L = CE + gen + anchor + 0.1 balance

Algorithm: PLUME (arXiv 2604.02073), section 3.3; the stages are curriculum.py's. CE is the
mean over a sample's suffix, then over the samples that have a rationale, and both sides
are added. The balance is that of the batch and not of every decision by itself, and what
is cut from a long sample is its rationale, never the query.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmsearch.errors import BadSetting
from mmsearch.retriever.models.rollout import Rollout, Unrolled
from mmsearch.retriever.models.token_losses import row_means, token_losses
from mmsearch.retriever.training.config import ObjectiveConfig
from mmsearch.retriever.training.curriculum import plume_stages
from mmsearch.retriever.training.examples import SideBatch, TrainingBatch
from mmsearch.retriever.training.losses import balance_loss, hold_loss
from mmsearch.retriever.training.objective import Loss, Representations, Stage
from mmsearch.retriever.training.objectives.contrast import (
    Contrast,
    base_of,
    own_batch,
    sides_of,
    vector,
    weighted,
    width_of,
)
from mmsearch.retriever.training.objectives.hold import Held, held_rows
from mmsearch.retriever.training.objectives.suffixes import SuffixBatch, SuffixWriter

if TYPE_CHECKING:
    from mmsearch.retriever.models.checkpoint import Model


class Plume:
    """For a model whose reasoner is a `Rollout`."""

    name = "plume"

    def __init__(self, config: ObjectiveConfig, model: "Model", *, readout: str = "gen") -> None:
        reasoner = model.reasoner
        if not isinstance(reasoner, Rollout):
            raise BadSetting(
                "objective 'plume'",
                f"it trains latent steps, and the model's reasoner is {reasoner.name!r}",
                hint='model.reasoner = "rollout"',
            )
        steps = reasoner.config.steps
        self.config = config
        try:
            self.stages: Sequence[Stage] = plume_stages(
                steps,
                ratios=config.ratios,
                final_share=config.final_share,
                segments=config.segments or None,
            )
        except ValueError as error:
            raise BadSetting("objective 'plume'", str(error)) from None
        self.extras: nn.Module = nn.ModuleDict()
        self.contrast = Contrast(config, width_of(model))
        self.writer = SuffixWriter(
            model.backbone,
            reasoner.suffix,
            count=config.segments or max(steps, 1),
            max_tokens=config.max_rationale_tokens,
        )
        self.held: Held | None = None
        if config.weights.hold:
            self.held = Held(model, effort=steps, readout=readout)

    def represent(self, model: "Model", batch: TrainingBatch, stage: Stage) -> Representations:
        found: dict[str, Tensor] = {}
        for name, side in sides_of(batch):
            for of, rows in self._side(model, side, stage, is_pair=name != "negative").items():
                found[f"{name}.{of}"] = rows
        return found | self.contrast.rows(batch, found["query.gen"].device)

    def _side(
        self, model: "Model", side: SideBatch, stage: Stage, *, is_pair: bool
    ) -> dict[str, Tensor]:
        """Return the vectors of a side, and of a pair's sides what the other losses read."""
        weights = self.config.weights
        found: dict[str, Tensor] = {}
        if self.held is not None and is_pair:
            found["reference"] = self.held.reference(model, side)
        collated = own_batch(side)
        base = base_of(model, collated)
        device = next(model.parameters()).device
        suffix = self.writer.write(side.sides, stage, device=device)
        rollout: Rollout = model.reasoner
        thought = rollout.unroll(model.backbone, collated, effort=stage.effort, suffix=suffix.ids)
        rows = torch.arange(len(side), device=device)
        found["gen"] = vector(model, base, thought.suffix[rows, suffix.readout])
        if weights.anchor:
            found["anchor"] = vector(model, base, thought.readouts["disc"])
        if not is_pair:
            return found
        if weights.balance and thought.routing.numel():
            found["routing"] = thought.routing
        if weights.ce:
            found["ce"] = suffix_losses(model, thought, suffix)
            found["told"] = suffix.is_told.float()
        return found

    def loss(self, representations: Representations, stage: Stage) -> Loss:
        rows, weights = representations, self.config.weights
        none = self.contrast.no_negatives(rows)
        parts = {"gen": self.contrast.loss(rows, "gen", none)}
        if "query.anchor" in rows:
            parts["anchor"] = self.contrast.loss(rows, "anchor", none)
        if "query.ce" in rows:
            parts["ce"] = told_mean(rows["query.ce"], rows["query.told"]) + told_mean(
                rows["positive.ce"], rows["positive.told"]
            )
        if "query.routing" in rows:
            sides = [rows["query.routing"], rows["positive.routing"]]
            parts["balance"] = balance_loss(torch.cat(sides))
        if "query.reference" in rows:
            parts["hold"] = hold_loss(*held_rows(rows, "gen"))
        return weighted(parts, {name: getattr(weights, name) for name in parts})


def suffix_losses(model: "Model", thought: Unrolled, suffix: SuffixBatch) -> Tensor:
    """Return each row's mean loss ``[B]`` over its suffix; 0 where it is not to be predicted.

    The last latent state predicts the first token, and each token's state the next one.
    """
    backbone = model.backbone
    before = torch.cat([thought.state[:, None], thought.suffix[:, :-1]], dim=1)  # (B, m, D)
    mask = suffix.mask & suffix.is_told[:, None]
    with torch.autocast(before.device.type, enabled=False):
        dtype = backbone.embed(suffix.ids[:1, :1]).dtype

    def logits(hidden: Tensor) -> Tensor:
        found: Tensor = backbone.logits(hidden.to(dtype))
        return found

    return row_means(token_losses(logits, before[mask], suffix.ids[mask]), mask)


def told_mean(losses: Tensor, told: Tensor) -> Tensor:
    """Return the mean of ``losses [B]`` over the rows where ``told [B]`` is 1; 0 of none."""
    return (losses.float() * told).sum() / told.sum().clamp_min(1.0)
