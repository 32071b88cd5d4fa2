"""Grouped attention equals plain attention over repeated keys, worked out with a softmax."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.retriever.models.backbones.attention import (
    attend_by_products,
    attend_causally,
    attend_grouped,
    attend_wholly,
    grouped_bias,
)


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """Attend head by head: ``q [B, m, heads, w]``, ``k, v [B, kv_heads, T, w]``."""
    group = q.shape[2] // k.shape[1]
    out = torch.empty_like(q)
    for row in range(len(q)):
        for head in range(q.shape[2]):
            keys, values = k[row, head // group], v[row, head // group]
            scores = q[row, :, head] @ keys.T / q.shape[3] ** 0.5
            weights = scores.masked_fill(~visible[row], -torch.inf).softmax(dim=-1)
            out[row, :, head] = weights @ values
    return out


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (6, 2), (4, 4), (3, 1)])
@pytest.mark.parametrize("num_new", [1, 3])
@pytest.mark.parametrize("behind", [0, 2])
@pytest.mark.parametrize("on_cuda", [False, True])
def test_few_queries_over_all_keys(
    heads: int,
    kv_heads: int,
    num_new: int,
    behind: int,
    on_cuda: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if on_cuda:  # what is computed there in place of the kernel
        monkeypatch.setattr(F, "scaled_dot_product_attention", attend_by_products)
    total = 7 + behind
    q = noise(2, num_new, heads, 8, seed=0)
    k, v = noise(2, kv_heads, total, 8, seed=1), noise(2, kv_heads, total, 8, seed=2)
    mask = torch.ones(2, total, dtype=torch.bool)
    mask[1, :3] = False
    bias = grouped_bias(mask, 7 - num_new, num_new, group=heads // kv_heads, dtype=q.dtype)

    mixed = attend_grouped(q, k, v, bias)

    causal = torch.arange(total) <= 7 - num_new + torch.arange(num_new)[:, None]
    expected = plain(q, k, v, mask[:, None] & causal)
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (4, 4)])
def test_a_prompt_among_itself(heads: int, kv_heads: int) -> None:
    q = noise(2, 5, heads, 8, seed=3)
    k, v = noise(2, kv_heads, 5, 8, seed=4), noise(2, kv_heads, 5, 8, seed=5)

    mixed = attend_causally(q, k, v)

    causal = torch.ones(2, 5, 5, dtype=torch.bool).tril()
    torch.testing.assert_close(mixed, plain(q, k, v, causal), atol=1e-6, rtol=0)


def test_patches_among_themselves() -> None:
    q, k, v = (noise(2, 5, 4, 8, seed=seed) for seed in (6, 7, 8))

    mixed = attend_wholly(q, k, v)

    expected = plain(q, k.transpose(1, 2), v.transpose(1, 2), torch.ones(2, 5, 5).bool())
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=0)


def test_products_of_half_precision_round_a_weight_once() -> None:
    q, k, v = noise(2, 2, 3, 8, seed=9), noise(2, 2, 20, 8, seed=10), noise(2, 2, 20, 8, seed=11)
    bias = torch.zeros(2, 1, 1, 20)
    expected = attend_by_products(q, k, v, bias)

    half = attend_by_products(q.bfloat16(), k.bfloat16(), v.bfloat16(), bias.bfloat16())

    assert half.dtype is torch.bfloat16
    assert ((half.float() - expected).norm() / expected.norm()) < 0.02
