"""The reasoner that does not think: one pass, read out where the prompt ends.

    prefill -> hidden [B, n, D] -> {"last": [B, D], "disc": [B, D], "disc_next": [B, D]}

It is what every latent reasoner is measured against.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmsearch.retriever.seams import Backbone, Batch, Cache


@dataclass(frozen=True, slots=True)
class NoneConfig:
    """Nothing to choose."""


class NoReasoner(nn.Module):
    """Effort 0 is its only one."""

    name = "none"

    def __init__(self, config: NoneConfig, backbone: Backbone[Batch, Cache]) -> None:
        super().__init__()
        self.config, self.dim = config, backbone.width

    def think(
        self, backbone: Backbone[Batch, Cache], batch: Batch, *, effort: int
    ) -> Mapping[str, Tensor]:
        if effort != 0:
            raise ValueError(f"reasoner 'none' takes no latent steps, got effort {effort}")
        hidden, _ = backbone.prefill(batch)
        return prefix_readouts(hidden, backbone.anchors(batch))


def prefix_readouts(hidden: Tensor, anchors: Tensor) -> dict[str, Tensor]:
    """Return what one pass over the prompt can be read out at, ``[B, D]`` each.

    ``hidden [B, n, D]`` ends where the prompt ends; ``anchors [B]`` counts back from there.

    last:      the last token
    disc:      the semantic anchor, ``<disc_emb>``, where training and the adapter read
    disc_next: the token after it, where the published evaluation of PLUME reads
    """
    rows = torch.arange(len(hidden), device=hidden.device)
    end = hidden.shape[1] - 1
    return {
        "last": hidden[:, -1],  # left-padded: the last place is the last token
        "disc": hidden[rows, end - anchors],
        "disc_next": hidden[rows, end - (anchors - 1).clamp_min(0)],
    }
