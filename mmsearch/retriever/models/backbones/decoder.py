"""A small causal decoder: where the default model can think.

    prefill  embeds [B, n, D], mask [B, n] -> hidden [B, n, D], cache
    extend   embeds [B, m, D], cache       -> hidden [B, m, D], longer cache

Qwen2's layer (RMSNorm before, grouped-query attention with biased q, k, v, rotary
positions, SwiGLU) at a width of 384. Rows are left-padded, so the last place of every
row is its last token. Positions count real tokens only and masks are always explicit:
padding never changes a row, and going on from a cache equals computing all at once.
6.3 M parameters; a token costs 12.6 MFLOP.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.retriever.models.backbones.checkpointing import run


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Sizes; ``num_heads`` is a multiple of ``num_kv_heads``."""

    width: int = 384
    num_layers: int = 4
    num_heads: int = 6
    num_kv_heads: int = 2
    ffn_width: int = 1_024
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6


@dataclass(frozen=True, slots=True)
class DecoderCache:
    """What was seen so far; `extend` hands on a new one and leaves this as it is.

    keys, values: one ``[B, kv_heads, n, head_dim]`` a layer
    mask:         ``[B, n]``, False at padding
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor


class RMSNorm(nn.Module):
    """Divide by the root mean square, taken in float32; a learned scale, no shift."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return wide.to(x.dtype) * self.weight


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn ``x [B, heads, m, head_dim]`` by float32 ``angles [B, 1, m, head_dim / 2]``."""
    a, b = x.float().chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


class DecoderLayer(nn.Module):
    """Attention over the cache and the new tokens, then SwiGLU."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim = config.width // config.num_heads
        kv_width = config.num_kv_heads * self.head_dim
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.q = nn.Linear(config.width, config.width)
        self.k = nn.Linear(config.width, kv_width)
        self.v = nn.Linear(config.width, kv_width)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.ffn_norm = RMSNorm(config.width, config.norm_eps)
        self.gate = nn.Linear(config.width, config.ffn_width, bias=False)
        self.up = nn.Linear(config.width, config.ffn_width, bias=False)
        self.down = nn.Linear(config.ffn_width, config.width, bias=False)

    def forward(
        self, x: Tensor, angles: Tensor, visible: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch, length, width = x.shape
        y = self.attention_norm(x)
        # (B, heads, m, head_dim)
        q = self.q(y).view(batch, length, self.num_heads, -1).transpose(1, 2)
        k = self.k(y).view(batch, length, self.num_kv_heads, -1).transpose(1, 2)
        v = self.v(y).view(batch, length, self.num_kv_heads, -1).transpose(1, 2)
        q, k = rotate(q, angles), rotate(k, angles)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        group = self.num_heads // self.num_kv_heads
        wide_k, wide_v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        mixed = F.scaled_dot_product_attention(q, wide_k, wide_v, attn_mask=visible)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        y = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y)), (k, v)


class Decoder(nn.Module):
    """The layers and the final norm; it embeds nothing itself.

    ``checkpointing`` keeps the layers' inputs for their gradients and nothing else.
    """

    checkpointing = False

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.head_dim, self.rope_theta = config.width // config.num_heads, config.rope_theta
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.width, config.norm_eps)

    def prefill(self, embeds: Tensor, mask: Tensor) -> tuple[Tensor, DecoderCache]:
        """Return hidden states of left-padded ``embeds`` and the cache that holds them."""
        return self._run(embeds, mask, None)

    def extend(self, embeds: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """Return hidden states of ``embeds``, every one of them real, after the cache."""
        new = cache.mask.new_ones(embeds.shape[:2])
        return self._run(embeds, torch.cat([cache.mask, new], dim=1), cache)

    def _run(
        self, embeds: Tensor, mask: Tensor, cache: DecoderCache | None
    ) -> tuple[Tensor, DecoderCache]:
        """Run ``embeds [B, m, D]``, the last m of the places in ``mask [B, n + m]``."""
        length, total = embeds.shape[1], mask.shape[1]
        positions = (mask.long().cumsum(dim=1) - 1).clamp_min(0)[:, -length:]  # (B, m)
        half = torch.arange(self.head_dim // 2, device=embeds.device)
        frequencies = self.rope_theta ** (-2.0 * half / self.head_dim)
        angles = (positions[:, :, None] * frequencies)[:, None]  # (B, 1, m, head_dim / 2)
        causal = torch.ones(length, total, dtype=torch.bool, device=embeds.device)
        causal = causal.tril(total - length)
        # A padded place sees itself: a row that sees nothing would be NaN.
        itself = torch.eye(total, dtype=torch.bool, device=embeds.device)[-length:]
        visible = ((causal & mask[:, None, :]) | itself)[:, None]  # (B, 1, m, n + m)

        x, keys, values = embeds, [], []
        for i, layer in enumerate(self.layers):
            past = None if cache is None else (cache.keys[i], cache.values[i])
            x, (k, v) = run(layer, x, angles, visible, past, again=self.checkpointing)
            keys.append(k)
            values.append(v)
        return self.norm(x), DecoderCache(tuple(keys), tuple(values), mask)
