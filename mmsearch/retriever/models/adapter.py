"""PLUME's transition adapter: what turns one latent state into the next one's input.

Algorithm: PLUME (arXiv 2604.02073), semantic-anchor-guided mixture of experts.

    z [B, D] --norm--> u --shared expert---------------------------.
    z + anchor, step --router--> top 2 of 4 experts of u, weighted --+--> z + both

Four experts are small: all are computed and the two that were not chosen weigh nothing,
so that no kernel waits for a decision and a batch may choose differently in every row.
At D = 1,536 it has 47,273,476 parameters.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        """Return the probability of every expert, float32 ``[B, experts]``."""
        position = self.step_embed.weight[min(step, NUM_STEP_ROWS - 1)].expand_as(z)
        logits = self.router(torch.cat([z + anchor, position], dim=-1))
        return logits.float().softmax(dim=-1)

    def forward(self, z: Tensor, step: int, anchor: Tensor) -> Tensor:
        """Return the input ``[B, D]`` of latent step ``step`` (from 0), given ``z [B, D]``.

        The chosen experts keep the probabilities of the softmax over all of them: they are
        not made to sum to 1.
        """
        weights = self.route(z, step, anchor)
        best = weights.topk(self.config.top_k, dim=-1).indices
        chosen = torch.zeros_like(weights).scatter(-1, best, 1.0)
        u = self.ln(z)
        mixed = torch.stack([expert(u) for expert in self.experts], dim=1)  # (B, experts, D)
        routed = ((weights * chosen).to(u.dtype)[..., None] * mixed).sum(dim=1)
        return z + self.shared_expert(u) + routed
