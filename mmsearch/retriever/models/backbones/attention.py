"""Attention of few heads of keys under many heads of queries, one kernel call each.

    attend_causally  a prompt among itself: no mask, padding comes last
    attend_grouped   a few places over all before them, with a bias that hides some

On CUDA, flash attention reads grouped keys and takes no mask; the memory-efficient kernel
takes a bias and wants as many heads of keys as of queries. Each function asks for what one
of them can do.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def attend_causally(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return ``[B, n, heads, head_dim]``: every place sees itself and those before it.

    ``q [B, n, heads, head_dim]``; ``k, v [B, kv_heads, n, head_dim]``. Flash attention
    reads grouped keys as they are; other CUDA kernels want them repeated.
    """
    q = q.transpose(1, 2)
    if q.shape[1] != k.shape[1] and not reads_grouped_keys(q):
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    mixed = F.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1]
    )
    return mixed.transpose(1, 2)


def reads_grouped_keys(q: Tensor) -> bool:
    """Return whether there is a fast kernel for fewer heads of keys than of queries."""
    if not q.is_cuda:
        return True
    half = q.dtype in (torch.bfloat16, torch.float16)
    return half and torch.cuda.get_device_capability(q.device) >= (8, 0)


def attend_grouped(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Return ``[B, m, heads, head_dim]`` of few queries over all keys.

    The heads that share a key become further queries of it, so that no key is repeated:
    ``q [B, m, heads, head_dim]``, ``k, v [B, kv_heads, T, head_dim]``, and ``bias``
    broadcasts to ``[B, kv_heads, group * m, T]``.
    """
    batch, length, heads, width = q.shape
    kv_heads = k.shape[1]
    q = q.view(batch, length, kv_heads, -1, width).permute(0, 2, 3, 1, 4)  # (B, kv, group, m, w)
    mixed = F.scaled_dot_product_attention(q.flatten(2, 3), k, v, attn_mask=bias)
    mixed = mixed.view(batch, kv_heads, -1, length, width).permute(0, 3, 1, 2, 4)
    return mixed.reshape(batch, length, heads, width)


def grouped_bias(mask: Tensor, num_new: int, *, group: int, dtype: torch.dtype) -> Tensor:
    """Return the bias of `attend_grouped`, 0 or -inf: ``[B, 1, group * m, T]``, or 1 for m = 1.

    ``mask [B, T]`` ends with the ``num_new`` places that ask; each sees itself and what is
    True before it. Rows lie a multiple of 8 apart, without which the attention kernels
    would copy the bias once a layer.
    """
    batch, total = mask.shape
    visible = mask[:, None, None]  # (B, 1, 1, T)
    if num_new == 1:
        group = 1  # it broadcasts
    else:
        causal = torch.ones(num_new, total, dtype=torch.bool, device=mask.device)
        visible = visible & causal.tril(total - num_new)
    shape = (batch, group, num_new, -(-total // 8) * 8)
    bias = torch.zeros(shape, dtype=dtype, device=mask.device)
    bias[..., :total].masked_fill_(~visible, -torch.inf)
    return bias.view(batch, 1, group * num_new, -1)[..., :total]
