"""LaME: reason tokens that learn to find, and to tell what is to be found.

    reason_states -> R [B, N, D], [EMBED] -> gen, disc        contrast
                     R[1 .. K] -> TargetDecoder               the words of the other side
    warm-up  L = gen + 0.5 reconstruction                     the backbone stays as it is
    joint    L = disc + gen + 0.5 reconstruction

Algorithm: LaME (arXiv 2606.13061), as far as it is public. A query is to tell its answer's
words, and an answer those of its query; where there are none, nothing is asked. The decoder
sees the first K reason states alone and is left out at export.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmsearch.errors import BadSetting
from mmsearch.retriever.models.backbones.decoder import DecoderConfig
from mmsearch.retriever.models.bottleneck import Bottleneck
from mmsearch.retriever.models.target_decoder import TargetDecoder, TargetDecoderConfig
from mmsearch.retriever.models.vocabulary import as_words, special_spellings
from mmsearch.retriever.training.config import ObjectiveConfig
from mmsearch.retriever.training.curriculum import lame_stages
from mmsearch.retriever.training.examples import Side, TrainingBatch
from mmsearch.retriever.training.losses import hold_loss
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
from mmsearch.retriever.training.objectives.plume import told_mean

if TYPE_CHECKING:
    from mmsearch.retriever.models.checkpoint import Model


class Lame:
    """For a model whose reasoner is a `Bottleneck`; ``extras.decoder`` is what it tells with.

    Where "mean" makes the vector it is contrasted besides: a residual head has to see it.
    """

    name = "lame"

    def __init__(self, config: ObjectiveConfig, model: "Model", *, readout: str = "mean") -> None:
        reasoner = model.reasoner
        if not isinstance(reasoner, Bottleneck):
            raise BadSetting(
                "objective 'lame'",
                f"it trains reason tokens, and the model's reasoner is {reasoner.name!r}",
                hint='model.reasoner = "bottleneck"',
            )
        self.config, self.readout = config, readout
        tokens = reasoner.config.num_tokens
        self.stages: Sequence[Stage] = lame_stages(tokens, config.warm_up)
        self.contrast = Contrast(config, width_of(model))
        self.backbone = model.backbone
        self.spellings = special_spellings(model.backbone.tokenizer)
        sizes = config.decoder
        decoder = DecoderConfig(
            width=sizes.width,
            num_layers=sizes.num_layers,
            num_heads=sizes.num_heads,
            num_kv_heads=sizes.num_kv_heads,
            ffn_width=sizes.ffn_width,
        )
        words = model.backbone.tokenizer.get_vocab(with_added_tokens=True)
        told = TargetDecoderConfig(max(words.values()) + 1, decoder)
        self.decoder: TargetDecoder | None = None
        if config.weights.reconstruction:
            self.decoder = TargetDecoder(told, reasoner).to(next(model.parameters()).device)
        parts = {} if self.decoder is None else {"decoder": self.decoder}
        self.extras: nn.Module = nn.ModuleDict(parts)
        self.held: Held | None = None
        if config.weights.hold:
            self.held = Held(model, effort=tokens, readout=readout)

    def represent(self, model: "Model", batch: TrainingBatch, stage: Stage) -> Representations:
        found: dict[str, Tensor] = {}
        others = {"query": batch.positive, "positive": batch.query}
        for name, side in sides_of(batch):
            if self.held is not None and name in others:
                found[f"{name}.reference"] = self.held.reference(model, side)
            collated = own_batch(side)
            base = base_of(model, collated)
            reasoner: Bottleneck = model.reasoner
            reason, embed = reasoner.reason_states(model.backbone, collated)
            for of, rows in reasoner.readouts(reason, embed).items():
                if of in self._contrasted(stage):
                    found[f"{name}.{of}"] = vector(model, base, rows)
            if self.decoder is not None and name in others:
                losses, told = self._telling(self.decoder, reason, others[name].sides)
                found |= {f"{name}.reconstruction": losses, f"{name}.told": told}
        return found | self.contrast.rows(batch, found["query.gen"].device)

    def loss(self, representations: Representations, stage: Stage) -> Loss:
        rows = representations
        none = self.contrast.no_negatives(rows)
        parts = {of: self.contrast.loss(rows, of, none) for of in self._contrasted(stage)}
        if "query.reconstruction" in rows:
            losses, told = (
                torch.cat([rows[f"{side}.{of}"] for side in ("query", "positive")])
                for of in ("reconstruction", "told")
            )
            parts["reconstruction"] = told_mean(losses, told)
        if "query.reference" in rows:
            of = self.readout if f"query.{self.readout}" in rows else "gen"
            parts["hold"] = hold_loss(*held_rows(rows, of))
        weights = self.config.weights
        given = {name: getattr(weights, name) for name in parts if name != "mean"}
        return weighted(parts, {"mean": weights.disc, **given})

    def _contrasted(self, stage: Stage) -> tuple[str, ...]:
        """Return the readouts that are contrasted: in the warm-up, what reasons alone."""
        if "backbone" not in stage.trained:
            return ("gen",)
        return ("gen", "disc", "mean") if self.readout == "mean" else ("gen", "disc")

    def _telling(
        self, decoder: TargetDecoder, reason: Tensor, targets: Sequence[Side]
    ) -> tuple[Tensor, Tensor]:
        """Return each row's loss of its target's words ``[B]``, and whether it has any ``[B]``."""
        most = self.config.max_rationale_tokens
        texts = [as_words(side.text.strip() or side.answer, self.spellings) for side in targets]
        ids = [self.backbone.tokens(text)[:most] for text in texts]
        length = max(1, *(len(one) for one in ids))
        target = torch.tensor([[*one, *[0] * (length - len(one))] for one in ids])
        lengths = torch.tensor([len(one) for one in ids])
        mask = (torch.arange(length) < lengths[:, None]).to(reason.device)
        losses = decoder.losses(reason, target.to(reason.device), mask)
        return losses, mask.any(dim=1).float()
