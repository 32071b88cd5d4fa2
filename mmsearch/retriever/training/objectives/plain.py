"""Contrast alone: the readout that makes the vector, drawn to its answer's.

    think -> readout -> head -> InfoNCE at each size

It is how the reasoner "none" is trained, which the others are measured against, and how
any trained model learns from pairs that nobody has reasoned about.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from mmsearch.errors import BadSetting
from mmsearch.retriever.training.config import ObjectiveConfig
from mmsearch.retriever.training.examples import TrainingBatch
from mmsearch.retriever.training.losses import hold_loss
from mmsearch.retriever.training.objective import Loss, Representations, Stage
from mmsearch.retriever.training.objectives.contrast import (
    Contrast,
    base_of,
    is_silent,
    own_batch,
    sides_of,
    vector,
    weighted,
    width_of,
)
from mmsearch.retriever.training.objectives.hold import Held, held_rows

if TYPE_CHECKING:
    from torch import Tensor

    from mmsearch.retriever.models.checkpoint import Model

EFFORTS = {"none": "", "rollout": "steps", "bottleneck": "num_tokens"}


class Plain:
    """One stage, at the reasoner's full effort."""

    name = "plain"

    def __init__(self, config: ObjectiveConfig, model: "Model", *, readout: str) -> None:
        kind = model.reasoner.name
        if kind not in EFFORTS:
            raise BadSetting("objective 'plain'", f"no gradient goes through the reasoner {kind!r}")
        effort = getattr(model.reasoner.config, EFFORTS[kind]) if EFFORTS[kind] else 0
        self.config, self.readout = config, readout
        self.stages: Sequence[Stage] = (Stage("plain", 0.0, effort),)
        self.extras: nn.Module = nn.ModuleDict()
        self.contrast = Contrast(config, width_of(model))
        self.held: Held | None = None
        if config.weights.hold:
            self.held = Held(model, effort=effort, readout=readout)

    def represent(self, model: "Model", batch: TrainingBatch, stage: Stage) -> Representations:
        found: dict[str, Tensor] = {}
        for name, side in sides_of(batch):
            if self.held is not None and name != "negative":
                found[f"{name}.reference"] = self.held.reference(model, side)
            collated = own_batch(side)
            base = base_of(model, collated)
            if is_silent(model):
                found[f"{name}.vector"] = vector(model, base, None)
                continue
            thought = model.reasoner.think(model.backbone, collated, effort=stage.effort)
            found[f"{name}.vector"] = vector(model, base, thought[self.readout])
        return found | self.contrast.rows(batch, found["query.vector"].device)

    def loss(self, representations: Representations, stage: Stage) -> Loss:
        none = self.contrast.no_negatives(representations)
        parts = {"contrast": self.contrast.loss(representations, "vector", none)}
        weights = {"contrast": self.config.weights.gen}
        if "query.reference" in representations:
            parts["hold"] = hold_loss(*held_rows(representations, "vector"))
            weights["hold"] = self.config.weights.hold
        return weighted(parts, weights)
