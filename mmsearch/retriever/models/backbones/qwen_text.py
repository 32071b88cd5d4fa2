"""The text half of Qwen2-VL, Qwen2.5-VL and Qwen3-VL.

    build_language(config.json) -> transformers' text module: its names, its weights
    TextHalf(language, config.json)
        prefill  embeds [B, n, D], positions [3, B, n] -> hidden [B, n, D], cache
        extend   embeds [B, m, D], cache               -> hidden [B, m, D], longer cache

Transformers' modules keep the parameters; what drives them is here, because its forward
makes masks and repeats keys at every step, keeps positions in the module, and grows its
cache. Attention never sees left padding: a batch is rolled so that its padding comes last,
where causality alone hides it, and the fast kernels, which take no mask, serve every batch.
A latent step of Qwen2-VL-2B (28 layers, D = 1,536) reads 3.1 GB of weights in bfloat16 and
computes 3.1 GFLOP a row.
"""

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.retriever.models.backbones.attention import (
    attend_causally,
    attend_grouped,
    grouped_bias,
)
from mmsearch.retriever.models.backbones.checkpointing import run
from mmsearch.retriever.models.backbones.fused import fused
from mmsearch.retriever.models.backbones.graphs import StepGraphs, cuda_graphs
from mmsearch.retriever.models.backbones.kv_cache import (
    BufferShape,
    Extension,
    KVCache,
    allocate,
    joined_pieces,
)
from mmsearch.retriever.models.backbones.layers import (
    Layer,
    Norm,
    Packed,
    attention_inputs,
    feed_forward_inputs,
    lies_in,
    pack_layers,
)
from mmsearch.retriever.models.backbones.rotary import Rotary, rotate

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
ROPE_TYPES = (None, "default", "mrope")
# Of the whole model, not of its text half: a flat config.json has both in one.
NOT_TEXT = ("model_type", "architectures", "text_config", "vision_config", "auto_map")
# Ids of the published vocabulary, which a shrunken one may not reach; no weight depends on them.
NO_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


DEFAULT_SECTIONS = {False: (16, 24, 24), True: (24, 20, 20)}


def family_of(hf: Mapping[str, Any]) -> str:
    """Return ``model_type`` of a config.json; ValueError for one that is not known here."""
    family = hf.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"model_type is one of {', '.join(FAMILIES)}, not {family!r}")
    return str(family)


class TextConfig(Protocol):
    """What is read of transformers' text configs."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_parameters: Mapping[str, Any]


def text_config(hf: Mapping[str, Any]) -> TextConfig:
    """Return transformers' text config of a config.json, nested or flat.

    Raises ValueError for what would compute something else than is written here: sliding
    windows, stretched rotary positions, another activation.
    """
    from transformers import Qwen2_5_VLTextConfig, Qwen2VLTextConfig, Qwen3VLTextConfig

    family = family_of(hf)
    fields = {**(hf.get("text_config") or hf), **NO_TOKENS}
    fields = {name: value for name, value in fields.items() if name not in NOT_TEXT}
    if fields.get("use_sliding_window") or "sliding_attention" in (fields.get("layer_types") or ()):
        raise ValueError("sliding windows are not supported")
    for name in ("rope_scaling", "rope_parameters"):
        if not fields.get(name):
            continue
        rope = dict(fields[name])  # transformers writes into what it is given
        kind = rope.get("rope_type", rope.get("type"))
        if kind not in ROPE_TYPES:
            raise ValueError(f"rotary positions of type {kind!r} are not supported")
        fields[name] = {**rope, "rope_type": "default", "type": "default"}
    if fields.get("hidden_act", "silu") != "silu":
        raise ValueError(f"the activation is silu, not {fields['hidden_act']!r}")
    classes = (Qwen2VLTextConfig, Qwen2_5_VLTextConfig, Qwen3VLTextConfig)
    config: TextConfig = dict(zip(FAMILIES, classes, strict=True))[family](**fields)
    return config


def build_language(hf: Mapping[str, Any]) -> nn.Module:
    """Return transformers' text module of a config.json, randomly initialised.

    It can be built under ``torch.device("meta")`` and filled by
    ``load_state_dict(assign=True)``: it has no buffers. Raises ValueError as `text_config`.
    """
    from transformers import Qwen2_5_VLTextModel, Qwen2VLTextModel, Qwen3VLTextModel

    classes = (Qwen2VLTextModel, Qwen2_5_VLTextModel, Qwen3VLTextModel)
    language: nn.Module = dict(zip(FAMILIES, classes, strict=True))[family_of(hf)](text_config(hf))
    del language.rotary_emb  # its buffers are in no checkpoint; TextHalf has its own
    return language


def head_width(config: TextConfig) -> int:
    """Return the width of one attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def swiglu(joint: Tensor) -> Tensor:
    """Return ``silu(gate) * up`` of both side by side, ``[T, 2 * ffn_width]``."""
    gate, up = joint.chunk(2, dim=-1)
    return F.silu(gate) * up


def rolled(x: Tensor, index: Tensor) -> Tensor:
    """Return ``x [B, n, ...]`` with place j of row b taken from place ``index[b, j]``."""
    index = index.reshape(*index.shape, *[1] * (x.ndim - 2))
    return x.gather(1, index.expand(x.shape))


def _of_products(x: Tensor) -> torch.dtype:
    """Return what matrix products of ``x`` come in: its own precision, or autocast's."""
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return x.dtype
    return torch.get_autocast_dtype(kind)


class TextHalf:
    """Drives the layers of ``language``; has no parameters of its own.

    Nothing is kept from one call to the next, so several threads may call it at once.
    ``checkpointing`` keeps the layers' inputs for their gradients and nothing else.
    """

    def __init__(
        self, language: nn.Module, hf: Mapping[str, Any], *, graphs: StepGraphs | None = None
    ) -> None:
        config = text_config(hf)
        self.language = language
        self.head_dim = head_width(config)
        self.num_heads: int = config.num_attention_heads
        self.num_kv_heads: int = config.num_key_value_heads
        in_turn = family_of(hf) == "qwen3_vl"
        self.rotary = Rotary.of(
            head_dim=self.head_dim,
            base=config.rope_parameters["rope_theta"],
            sections=config.rope_parameters.get("mrope_section") or DEFAULT_SECTIONS[in_turn],
            in_turn=in_turn,
        )
        self.graphs = cuda_graphs() if graphs is None else graphs
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self._packed: tuple[Packed, ...] = ()
        self.checkpointing = False
        eps: float = config.rms_norm_eps

        # Under autocast weights and angles are float32 and states are not: `to` says whose
        # precision counts, and elsewhere does nothing.
        def norm(x: Tensor, weight: Tensor) -> Tensor:
            return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)

        def add_norm(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
            x = x + y
            return x, norm(x, weight)

        heads = self.num_heads, self.num_kv_heads

        def turn(qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
            return rotate(qkv[:, : sum(heads)], cos, sin).to(qkv.dtype)

        def norm_turn(
            qkv: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor
        ) -> tuple[Tensor, Tensor]:
            q, k = qkv[:, : heads[0]], qkv[:, heads[0] : sum(heads)]
            turned = rotate(norm(q, q_weight), cos, sin), rotate(norm(k, k_weight), cos, sin)
            return turned[0].to(qkv.dtype), turned[1].to(qkv.dtype)

        self._norm, self._add_norm = norm, fused(add_norm)
        self._turn, self._norm_turn = fused(turn), fused(norm_turn)
        self._swiglu = fused(swiglu)

    def prefill(
        self,
        embeds: Tensor,
        positions: Tensor,
        mask: Tensor,
        next_position: Tensor,
        *,
        room: int,
        deep: Sequence[Tensor] = (),
        visual: Tensor | None = None,
    ) -> tuple[Tensor, KVCache]:
        """Return hidden states ``[B, n, D]`` after the final norm, and the cache.

        embeds:        ``[B, n, D]``, left-padded
        positions:     ``[3, B, n]``: time, height, width
        mask:          ``[B, n]``, False at left padding, where the result means nothing
        next_position: ``[B]``, where `extend` goes on
        room:          how many places `extend` will be asked for; more can be had
        deep:          Qwen3-VL's features ``[V, D]``, added after the first layers at the V
                       places where ``visual [B, n]`` is True, row by row
        """
        if deep and visual is None:
            raise ValueError("deep features need to know their places")
        length = embeds.shape[1]
        place = torch.arange(length, device=embeds.device)
        padding = length - mask.sum(dim=1, keepdim=True)  # (B, 1)
        # Padding goes to the end: there no token sees it, and it sees real ones.
        to_end, back = (place + padding) % length, (place - padding) % length
        x, mask = rolled(embeds, to_end), rolled(mask, to_end)
        positions = torch.stack([rolled(axis, to_end) for axis in positions])
        added = []
        if visual is not None:
            seen = rolled(visual, to_end)[..., None]
            added = [torch.zeros_like(x).masked_scatter(seen, d.to(x.dtype)) for d in deep]

        cache, start = self._open(x, room)
        extension = Extension(cache, length, mask)
        per_pair = positions[self._rotary_on(x.device)[0]].permute(1, 2, 0)  # (B, n, head_dim / 2)
        hidden = self._run(x, per_pair, extension, None, added)
        cache = replace(extension.close(next_position), length=start)
        return rolled(hidden, back), cache

    def extend(self, embeds: Tensor, cache: KVCache) -> tuple[Tensor, KVCache]:
        """Return the hidden states of ``embeds [B, m, D]`` after the cache, and the longer cache.

        The new places stand at ``next_position + 0 .. m - 1`` on all three axes. Without
        gradients the cache that is handed in must not be used again; with gradients it may.
        """
        num_new = embeds.shape[1]
        extension = Extension(cache, num_new)
        ahead = torch.arange(num_new, device=embeds.device)
        positions = (cache.next_position[:, None] + ahead)[..., None]  # (B, m, 1)
        group = self.num_heads // self.num_kv_heads
        bias = grouped_bias(extension.mask, cache.length, num_new, group=group, dtype=embeds.dtype)
        hidden = self._run(embeds, positions, extension, bias, [])
        return hidden, extension.close(cache.next_position + num_new)

    def pack(self) -> None:
        """Lay q, k, v and gate, up of every layer side by side, as one matrix product each.

        The modules' parameters become views of the joint matrices, so that no memory is
        doubled. To be called once weights are where they stay: moved ones are used one by
        one again, until the next call. Nothing is done where a layer has anything but plain
        Linears.
        """
        self._packed = pack_layers(self._layers())

    def _layers(self) -> Sequence[Layer]:
        return cast("Sequence[Layer]", self.language.layers)

    def _last_norm(self) -> Norm:
        return cast("Norm", self.language.norm)

    def _version(self) -> Hashable:
        """Return what changes when weights are moved, which no recording survives."""
        packed = self._packed[0].qkv.data_ptr() if self._packed else None
        return self._last_norm().weight.data_ptr(), packed

    def _open(self, x: Tensor, room: int) -> tuple[KVCache, int]:
        """Return an empty cache for ``x [B, n, D]`` and the place where `extend` goes on."""
        batch, length, _ = x.shape
        if torch.is_grad_enabled():
            return allocate(self._buffers(x, batch, 0)), length
        if room:
            shape = self._buffers(x, batch, length + room)
            lease = self.graphs.reserve(shape, length, version=self._version())
            if lease is not None:
                return lease.cache(), lease.start
        return allocate(self._buffers(x, batch, length + room)), length

    def _buffers(self, x: Tensor, rows: int, places: int) -> BufferShape:
        heads, width, dtype = self.num_kv_heads, self.head_dim, _of_products(x)
        return BufferShape(len(self._layers()), rows, heads, places, width, dtype, x.device)

    def _rotary_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return axes and frequencies there; copied once, for a recording may not copy."""
        if device not in self._on_device:
            with torch.inference_mode(False):
                axes = torch.tensor(self.rotary.axes, device=device)
                self._on_device[device] = axes, self.rotary.frequencies.to(device)
        return self._on_device[device]

    def _run(
        self,
        x: Tensor,
        positions: Tensor,
        extension: Extension,
        bias: Tensor | None,
        added: Sequence[Tensor],
    ) -> Tensor:
        """Return ``x [B, m, D]`` after all layers and the final norm.

        positions: ``[B, m, head_dim / 2]``, or ``[B, m, 1]`` where all axes agree
        bias:      None for the first places, which are causal among themselves
        added:     ``[B, m, D]`` after each of the first layers
        """
        batch, length, _ = x.shape
        x = x.flatten(0, 1)  # (B * m, D): two shapes, one row and more, are compiled for
        angles = positions.float() * self._rotary_on(x.device)[1]  # (B, m, head_dim / 2)
        angles = angles.flatten(0, 1)[:, None]  # (B * m, 1, head_dim / 2)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        layers, last = self._layers(), self._last_norm().weight
        if self.checkpointing and torch.is_grad_enabled():
            for i in range(len(layers)):
                seen = extension.cache.pieces(i)
                x, k, v = run(self._layer_again, i, x, cos, sin, batch, bias, seen, again=True)
                extension.keep(i, k, v)
                if i < len(added):
                    x = x + added[i].flatten(0, 1)
            return self._norm(x, last).view(batch, length, -1)
        norms = [layer.input_layernorm.weight for layer in layers] + [last]
        y = self._norm(x, norms[0])
        for i in range(len(layers)):
            put = functools.partial(extension.put, i)
            x, y = self._layer(i, x, y, cos, sin, batch, bias, put)
            if i < len(added):
                x, y = x + y, added[i].flatten(0, 1)
            x, y = self._add_norm(x, y, norms[i + 1])
        return y.view(batch, length, -1)

    def _layer(
        self,
        i: int,
        x: Tensor,
        y: Tensor,
        cos: Tensor,
        sin: Tensor,
        batch: int,
        bias: Tensor | None,
        put: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, Tensor]:
        """Return what comes out of a layer's attention, and what is to be added to it.

        x, y: ``[B * m, D]``, the layer's input and the same after its norm
        put:  takes keys and values of the new places, gives back those of all
        """
        layer = self._layers()[i]
        q, k, v = self._qkv(i, y, cos, sin)  # (B * m, heads, head_dim)
        k, v = (t.view(batch, -1, *t.shape[1:]).transpose(1, 2) for t in (k, v))
        q = q.view(batch, -1, *q.shape[1:])
        keys, values = put(k, v)
        mixed = attend_causally(q, k, v) if bias is None else attend_grouped(q, keys, values, bias)
        mixed = layer.self_attn.o_proj(mixed.flatten(2).flatten(0, 1))
        x, y = self._add_norm(x, mixed, layer.post_attention_layernorm.weight)
        return x, layer.mlp.down_proj(self._swiglu(self._gate_up(i, y)))

    def _layer_again(
        self,
        i: int,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        batch: int,
        bias: Tensor | None,
        seen: tuple[tuple[Tensor, Tensor], ...],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return a layer's output ``[B * m, D]``, and keys and values of the new places.

        A function of its arguments alone, so that it can be computed again: ``seen`` are
        those of the places before, one piece after the other.
        """
        new: list[Tensor] = []

        def put(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            new[:] = k.clone(), v.clone()  # as views they would keep the queries as well
            return joined_pieces((*seen, (k, v))) if seen else (k, v)

        y = self._norm(x, self._layers()[i].input_layernorm.weight)
        x, y = self._layer(i, x, y, cos, sin, batch, bias, put)
        return x + y, new[0], new[1]

    def _qkv(self, i: int, y: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values ``[B * m, heads, head_dim]``, the first two turned."""
        layer, packed = self._layers()[i], self._packed_layer(i)
        modules, attention = attention_inputs(layer), layer.self_attn
        if packed is not None and lies_in(packed.qkv, modules):
            qkv = F.linear(y, packed.qkv, packed.qkv_bias)
        else:
            qkv = torch.cat([module(y) for module in modules], dim=-1)
        qkv = qkv.view(len(y), -1, self.head_dim)
        if hasattr(attention, "q_norm") and hasattr(attention, "k_norm"):
            weights = attention.q_norm.weight, attention.k_norm.weight
            q, k = self._norm_turn(qkv, *weights, cos, sin)
        else:
            turned = self._turn(qkv, cos, sin)
            q, k = turned[:, : self.num_heads], turned[:, self.num_heads :]
        return q, k, qkv[:, -self.num_kv_heads :]

    def _gate_up(self, i: int, y: Tensor) -> Tensor:
        """Return both inputs of SwiGLU side by side, ``[B * m, 2 * ffn_width]``."""
        modules, packed = feed_forward_inputs(self._layers()[i]), self._packed_layer(i)
        if packed is not None and lies_in(packed.gate_up, modules):
            return F.linear(y, packed.gate_up)
        return torch.cat([module(y) for module in modules], dim=-1)

    def _packed_layer(self, i: int) -> Packed | None:
        if not self._packed or torch.is_grad_enabled():
            return None
        return self._packed[i]
