"""Attention of few heads of keys under many heads of queries.

    attend_causally  a prompt among itself: no mask, padding comes last
    attend_wholly    the patches of a picture among themselves
    attend_grouped   a few places over all before them, with a bias that hides some

On CUDA the kernels are named and not left to torch: its choice on Hopper is cuDNN (from
2.10 on), which spends some 0.4 s on a plan for every shape it has not seen, and here every
batch, every picture and every latent step may be one.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.retriever.models.backbones.fused import compiled, fused


def attend_causally(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return ``[B, n, heads, head_dim]``: every place sees itself and those before it.

    ``q [B, n, heads, head_dim]``; ``k, v [B, kv_heads, n, head_dim]``. Flash attention
    reads grouped keys as they are; other CUDA kernels want them repeated.
    """
    q = q.transpose(1, 2)
    if has_flash(q):
        return _flash(q, k, v, is_causal=True).transpose(1, 2)
    if q.is_cuda and q.shape[1] != k.shape[1]:
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    mixed = F.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1]
    )
    return mixed.transpose(1, 2)


def attend_wholly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return ``[B, n, heads, head_dim]`` of as many each: every place sees all of its row."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if has_flash(q):
        return _flash(q, k, v, is_causal=False).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def has_flash(q: Tensor) -> bool:
    """Return whether flash attention takes ``q [..., head_dim]``."""
    if q.dtype not in (torch.bfloat16, torch.float16) or q.shape[-1] % 8 or q.shape[-1] > 256:
        return False
    return q.is_cuda and _capability(q.device) >= (8, 0)


@functools.cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _flash(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool) -> Tensor:
    mixed: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(
        q, k, v, is_causal=is_causal
    )[0]
    return mixed


def attend_grouped(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Return ``[B, m, heads, head_dim]`` of few queries over all keys.

    The heads that share a key become further queries of it, so that no key is repeated:
    ``q [B, m, heads, head_dim]``, ``k, v [B, kv_heads, T, head_dim]``, and ``bias``
    broadcasts to ``[B, kv_heads, group * m, T]``.
    """
    batch, length, heads, width = q.shape
    kv_heads = k.shape[1]
    q = q.view(batch, length, kv_heads, -1, width).permute(0, 2, 3, 1, 4)  # (B, kv, group, m, w)
    attend = attend_by_products if q.is_cuda else F.scaled_dot_product_attention
    mixed = attend(q.flatten(2, 3), k, v, bias)
    mixed = mixed.view(batch, kv_heads, -1, length, width).permute(0, 3, 1, 2, 4)
    return mixed.reshape(batch, length, heads, width)


def attend_by_products(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Return ``[B, kv_heads, rows, w]`` as two matrix products around a softmax in float32.

    ``q [B, kv_heads, rows, w]``, the rest as `attend_grouped`. Kernels that take a bias go
    over the keys of a head one after the other, which is slow where rows are few.
    """
    batch, kv_heads, rows, width = q.shape
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))  # (B * kv, rows or T, w)
    scores = _float_product(q, k.mT).view(batch, kv_heads, rows, -1)
    weights = _weights(scores, bias, width**-0.5, v.dtype)
    return torch.bmm(weights.flatten(0, 1), v).view(batch, kv_heads, rows, width)


def _float_product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b`` in float32, not rounded to less on the way where the device can."""
    if a.dtype is torch.float32 or not a.is_cuda or torch.is_grad_enabled():
        return torch.bmm(a, b).float()
    return torch.bmm(a, b, out_dtype=torch.float32)


def weights_of(scores: Tensor, bias: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """Return what each key weighs, in ``dtype``."""
    return (scores * scale + bias).softmax(dim=-1).to(dtype)


_weights = fused(weights_of, compiler=functools.partial(compiled, axes=(0, -1)))


def grouped_bias(
    mask: Tensor, start: int, num_new: int, *, group: int, dtype: torch.dtype
) -> Tensor:
    """Return the bias of `attend_grouped`, 0 or -inf: ``[B, 1, group * m, T]``, or 1 for m = 1.

    The ``num_new`` places that ask stand from ``start`` on; each sees itself and what is
    True before it in ``mask [B, T]``, and nothing behind it.
    """
    batch, total = mask.shape
    place = torch.arange(total, device=mask.device)
    visible = mask[:, None, None] & (place <= place[start : start + num_new, None])  # (B, 1, m, T)
    if num_new > 1:  # one broadcasts
        visible = visible.expand(-1, group, -1, -1)
    bias = torch.zeros(visible.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill(~visible, -torch.inf).view(batch, 1, -1, total)
