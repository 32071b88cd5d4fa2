"""MiniLM: how the default model reads.

    token ids [W, n], mask [W, n] -> states [W, n, 384]

A BERT encoder, six post-norm layers 384 wide, started from all-MiniLM-L6-v2. Its word
table is a third of the default's bytes and stays int8. 10.6 M parameters do work, so a
token costs 21 MFLOP and some attention.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.retriever.models.backbones.checkpointing import run
from mmsearch.retriever.models.quantise import RowTable


@dataclass(frozen=True, slots=True)
class MiniLMConfig:
    """The sizes of all-MiniLM-L6-v2."""

    vocabulary: int = 30_522
    width: int = 384
    num_layers: int = 6
    num_heads: int = 12
    ffn_width: int = 1_536
    max_positions: int = 512
    norm_eps: float = 1e-12


class EncoderLayer(nn.Module):
    """Self-attention, then a two-layer MLP; each is added and normalised after."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        width = config.width
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(width, 3 * width)  # one product instead of three
        self.out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.up = nn.Linear(width, config.ffn_width)
        self.down = nn.Linear(config.ffn_width, width)
        self.ffn_norm = nn.LayerNorm(width, eps=config.norm_eps)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        windows, length, width = x.shape
        qkv = self.qkv(x).view(windows, length, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (W, heads, n, head_dim)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        mixed = mixed.transpose(1, 2).reshape(windows, length, width)
        x = self.attention_norm(x + self.out(mixed))
        return self.ffn_norm(x + self.down(F.gelu(self.up(x))))


class MiniLM(nn.Module):
    """The encoder; pooling is its caller's business.

    ``checkpointing`` keeps the layers' inputs for their gradients and nothing else.
    """

    checkpointing = False

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        self.words = RowTable(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.zeros(config.max_positions, config.width))
        self.segment = nn.Parameter(torch.zeros(config.width))  # BERT's "sentence A", the only one
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return states ``[W, n, 384]`` of right-padded ``ids``; padding is never attended to.

        States at padded places are finite but mean nothing.
        """
        x = self.norm(self.words(ids) + self.positions[: ids.shape[1]] + self.segment)
        visible = mask[:, None, None, :]  # (W, 1, 1, n), over keys
        for layer in self.layers:
            x = run(layer, x, visible, again=self.checkpointing)
        return x
