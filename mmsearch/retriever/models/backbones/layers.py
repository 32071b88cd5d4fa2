"""The parts of transformers' Qwen decoder layers that are read, and their joint matrices.

    q_proj, k_proj, v_proj   read the same input: one matrix product instead of three
    gate_proj, up_proj       likewise

Packed matrices hold the weights themselves; the modules' parameters become views of them,
under the names they had.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Norm(Protocol):
    """A norm's part that is read."""

    weight: Tensor


class Attention(Protocol):
    """Its projections; Qwen3-VL has ``q_norm`` and ``k_norm`` besides."""

    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    o_proj: nn.Linear


class FeedForward(Protocol):
    """SwiGLU's projections."""

    gate_proj: nn.Linear
    up_proj: nn.Linear
    down_proj: nn.Linear


class Layer(Protocol):
    """One of transformers' decoder layers."""

    self_attn: Attention
    mlp: FeedForward
    input_layernorm: Norm
    post_attention_layernorm: Norm


def attention_inputs(layer: Layer) -> Sequence[nn.Linear]:
    """Return the three projections that read the normed input of attention."""
    attention = layer.self_attn
    return attention.q_proj, attention.k_proj, attention.v_proj


def feed_forward_inputs(layer: Layer) -> Sequence[nn.Linear]:
    """Return the two projections that read the normed input of the feed-forward part."""
    return layer.mlp.gate_proj, layer.mlp.up_proj


class Packed(NamedTuple):
    """Matrices of one layer that read the same input, one below the other.

    qkv:     ``[(heads + 2 kv_heads) * head_dim, D]``, and its bias where there is one
    gate_up: ``[2 * ffn_width, D]``
    """

    qkv: Tensor
    qkv_bias: Tensor | None
    gate_up: Tensor


def stacked(modules: Sequence[nn.Linear], name: str) -> Tensor | None:
    """Return the parameters ``name`` of all modules as one tensor that they share from now on."""
    parts = [getattr(module, name) for module in modules]
    if any(part is None for part in parts):
        return None
    with torch.no_grad():
        whole = torch.cat([part.detach() for part in parts])
    rows = torch.split(whole, [len(part) for part in parts])
    for module, part, view in zip(modules, parts, rows, strict=True):
        setattr(module, name, nn.Parameter(view, requires_grad=part.requires_grad))
    return whole


def lies_in(whole: Tensor, modules: Sequence[nn.Linear]) -> bool:
    """Return whether the modules' weights still are the rows of ``whole``."""
    address = whole.data_ptr()
    for module in modules:
        if type(module) is not nn.Linear or module.weight.data_ptr() != address:
            return False
        address += module.weight.numel() * whole.element_size()
    return True


def pack_layers(layers: Sequence[Layer]) -> tuple[Packed, ...]:
    """Return the joint matrices of all layers, which the modules share from now on.

    Empty, and nothing is changed, where a layer has anything but plain Linears.
    """
    modules = [(attention_inputs(layer), feed_forward_inputs(layer)) for layer in layers]
    if any(type(module) is not nn.Linear for pair in modules for one in pair for module in one):
        return ()
    packed = []
    for qkv, gate_up in modules:
        weight, bias, wide = (
            stacked(qkv, "weight"),
            stacked(qkv, "bias"),
            stacked(gate_up, "weight"),
        )
        assert weight is not None
        assert wide is not None
        packed.append(Packed(weight, bias, wide))
    return tuple(packed)
