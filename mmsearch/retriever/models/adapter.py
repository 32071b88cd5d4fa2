"""PLUME's transition adapter: what turns one latent state into the next one's input.

Algorithm: PLUME (arXiv 2604.02073), semantic-anchor-guided mixture of experts.

    z [B, D] --norm--> u --shared expert---------------------------.
    z + anchor, step --router--> top 2 of 4 experts of u, weighted --+--> z + both

Four experts are small: all are computed and the two that were not chosen weigh nothing,
so that no kernel waits for a decision and a batch may choose differently in every row.
At D = 1,536 it has 47,273,476 parameters.
"""

import contextlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.retriever.models.backbones.fused import fused

NUM_STEP_ROWS = 32  # a later step has the embedding of the last of them


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """Sizes: ``num_experts`` routed, ``top_k`` of them used; each is D -> 2D -> D."""

    num_experts: int = 4
    top_k: int = 2
    dropout: float = 0.0


class Expert(nn.Module):
    """Two layers and an exact GELU."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * width)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, u: Tensor) -> Tensor:
        return self.fc2(self.dropout(F.gelu(self.fc1(u))))


class LatentAdapter(nn.Module):
    """The names of its parts are those of the published weights."""

    def __init__(self, width: int, config: AdapterConfig) -> None:
        super().__init__()
        if not 1 <= config.top_k <= config.num_experts:
            raise ValueError(f"cannot choose {config.top_k} of {config.num_experts} experts")
        self.config = config
        self.ln = nn.LayerNorm(width)
        self.step_embed = nn.Embedding(NUM_STEP_ROWS, width)
        self.router = nn.Linear(2 * width, config.num_experts)
        self.experts = nn.ModuleList(
            Expert(width, config.dropout) for _ in range(config.num_experts)
        )
        self.shared_expert = Expert(width, config.dropout)

    def route(self, z: Tensor, step: int, anchor: Tensor) -> Tensor:
        """Return the probability of every expert, float32 ``[B, experts]``.

        All of it is computed in float32: two logits rounded to bfloat16 are equal often
        enough that a row would choose by chance, and otherwise alone than in a batch.
        """
        position = self.step_embed.weight[min(step, NUM_STEP_ROWS - 1)].expand_as(z)
        asked = torch.cat([z.float() + anchor.float(), position.float()], dim=-1)
        with exactly(z):
            logits = F.linear(asked, self.router.weight.float(), self.router.bias.float())
        return logits.softmax(dim=-1)

    def weigh(self, probabilities: Tensor) -> Tensor:
        """Return the weight of every expert ``[B, experts]``: its probability, or 0.

        The chosen keep the probabilities of the softmax over all of them: they are not made
        to sum to 1. Of equally likely experts the one of the lower number is chosen.
        """
        order = probabilities.sort(dim=-1, descending=True, stable=True).indices
        chosen = torch.zeros_like(probabilities).scatter(-1, order[:, : self.config.top_k], 1.0)
        return probabilities * chosen

    def forward(self, z: Tensor, step: int, anchor: Tensor) -> Tensor:
        """Return the input ``[B, D]`` of latent step ``step``, counted from 0.

        z, anchor: ``[B, D]``, the state before it and what steers the choice of experts
        """
        return self.mix(z, self.route(z, step, anchor))

    def mix(self, z: Tensor, probabilities: Tensor) -> Tensor:
        """Return ``z [B, D]`` and what the experts of ``probabilities [B, experts]`` add."""
        weights = self.weigh(probabilities)
        u = self.ln(z)
        return _mixed(z, weights, self.shared_expert(u), *(expert(u) for expert in self.experts))


def exactly(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a context in which autocast, where training uses it, rounds nothing of ``x``."""
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return contextlib.nullcontext()
    return torch.autocast(kind, enabled=False)


@fused
def _mixed(z: Tensor, weights: Tensor, shared: Tensor, *experts: Tensor) -> Tensor:
    """Return ``z`` and what the experts add to it, summed in float32."""
    thought = shared.float()
    for i, expert in enumerate(experts):
        thought = thought + weights[:, i, None] * expert.float()
    return (z.float() + thought).to(z.dtype)
