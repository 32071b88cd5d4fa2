"""LaME: N reason tokens and an [EMBED] token after the prompt, all in one pass.

Algorithm: LaME (arXiv 2606.13061), as far as it is public; the rest is chosen here and
is a field of the configuration.

    prefill(batch, tail=[r_1 .. r_N, e]) -> R [B, N, D], h_e [B, D]
    gen  = W_gen  mean(R[K+1 .. N])     the reason tokens that no decoder reads
    disc = W_disc h_e                   what the contrastive loss trains
    mean = unit(gen) + unit(disc)

In training a decoder (target_decoder.py) tells the target's text from R[1 .. K] alone:
whatever it is to say has to pass through K vectors. No vector depends on it, and it is
no part of a model that is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.retriever.seams import Backbone, Batch, Cache

TOKEN_STD = 0.02  # of the tokens' initial values


@dataclass(frozen=True, slots=True)
class BottleneckConfig:
    """How many tokens think, and who reads them.

    num_tokens:  reason tokens N
    num_decoded: the first K of them, which the decoder of training reads; with K = N the
                 generative readout is the mean of all of them
    projection:  width of the readouts; None leaves them at D without a projection
    """

    num_tokens: int = 8
    num_decoded: int = 4
    projection: int | None = None


class Bottleneck(nn.Module):
    """Effort is the number of its reason tokens, and has no other value."""

    name = "bottleneck"

    def __init__(self, config: BottleneckConfig, backbone: Backbone[Batch, Cache]) -> None:
        super().__init__()
        if not 1 <= config.num_decoded <= config.num_tokens:
            raise ValueError(f"cannot decode from {config.num_decoded} of {config.num_tokens}")
        self.config = config
        self.dim = config.projection or backbone.width
        self.reason = nn.Parameter(torch.empty(config.num_tokens, backbone.width))
        self.embed = nn.Parameter(torch.empty(backbone.width))
        nn.init.normal_(self.reason, std=TOKEN_STD)
        nn.init.normal_(self.embed, std=TOKEN_STD)
        self.out_gen: nn.Module = nn.Identity()
        self.out_disc: nn.Module = nn.Identity()
        if config.projection is not None:
            self.out_gen = nn.Linear(backbone.width, config.projection)
            self.out_disc = nn.Linear(backbone.width, config.projection)

    def reason_states(
        self, backbone: Backbone[Batch, Cache], batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Return the states of the reason tokens ``[B, N, D]`` and of [EMBED] ``[B, D]``."""
        tail = torch.cat([self.reason, self.embed[None]])
        hidden, _ = backbone.prefill(batch, tail=tail)
        return hidden[:, -len(tail) : -1], hidden[:, -1]

    def think(
        self, backbone: Backbone[Batch, Cache], batch: Batch, *, effort: int
    ) -> Mapping[str, Tensor]:
        if effort != self.config.num_tokens:
            raise ValueError(f"it has {self.config.num_tokens} reason tokens, got effort {effort}")
        return self.readouts(*self.reason_states(backbone, batch))

    def readouts(self, reason: Tensor, embed: Tensor) -> dict[str, Tensor]:
        """Return ``gen``, ``disc`` and ``mean`` ``[B, d]`` of what `reason_states` returned."""
        decoded, num_tokens = self.config.num_decoded, self.config.num_tokens
        left = reason[:, decoded:] if decoded < num_tokens else reason
        gen = self.out_gen(left.mean(dim=1))
        disc = self.out_disc(embed)
        mean = F.normalize(gen.float(), dim=-1) + F.normalize(disc.float(), dim=-1)
        return {"gen": gen, "disc": disc, "mean": mean.to(disc.dtype)}
