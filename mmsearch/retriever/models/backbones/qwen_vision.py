"""The vision towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL, all pictures of a batch in one pass.

    patches [P, C] --normalise, one matmul--> [P, D] --blocks--> [P, D] --merge 4--> [V, D']

The parts and their names are transformers'; how they are driven is ours. There the patch
embedding is a convolution (many times slower in bfloat16 on some versions of torch), and
every block loops over the pictures and asks the device how long each is. Here sequences of
equal length lie next to one another, so that one call without a mask attends in all of
them, and everything about their shapes is worked out on the host, once a call.

A sequence is a frame, or a window of one in most blocks of Qwen2.5-VL. No picture sees
another: its features do not depend on what else is in the batch.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.retriever.models.backbones.attention import attend_wholly
from mmsearch.retriever.models.backbones.checkpointing import run
from mmsearch.retriever.models.backbones.fused import fused
from mmsearch.retriever.models.backbones.patches import (
    CLIP_MEAN,
    CLIP_STD,
    Grid,
    PatchGeometry,
    normalise,
)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

PATCHES_AT_ONCE = 32_768  # 8,192 tokens: some 1 GB of activations at 1,280 wide in bfloat16
ROPE_THETA = 10_000.0

Indices = npt.NDArray[np.int64]


def geometry_of(hf: Mapping[str, Any]) -> PatchGeometry:
    """Return how the model of that ``config.json`` cuts pixels."""
    vision = hf["vision_config"]
    later = hf["model_type"] == "qwen3_vl"
    halves = (0.5, 0.5, 0.5)
    return PatchGeometry(
        patch=int(vision.get("patch_size", 16 if later else 14)),
        merge=int(vision.get("spatial_merge_size", 2)),
        temporal=int(vision.get("temporal_patch_size", 2)),
        mean=halves if later else CLIP_MEAN,
        std=halves if later else CLIP_STD,
    )


def build_vision(hf: Mapping[str, Any]) -> "VisionTower":
    """Return the tower that a ``config.json`` describes, its weights as torch draws them.

    It holds parameters only, no buffers: it may be made on the meta device and be given its
    weights by ``load_state_dict(assign=True)``. Raises ValueError for another family.
    """
    family, fields = hf["model_type"], dict(hf["vision_config"])
    fields.pop("model_type", None)  # older folders have the whole model's there
    config: PreTrainedConfig
    published: nn.Module
    if family == "qwen2_vl":
        from transformers.models.qwen2_vl import configuration_qwen2_vl, modeling_qwen2_vl

        config = configuration_qwen2_vl.Qwen2VLVisionConfig(**fields)
        published = modeling_qwen2_vl.Qwen2VisionTransformerPretrainedModel(config)
    elif family == "qwen2_5_vl":
        from transformers.models.qwen2_5_vl import configuration_qwen2_5_vl, modeling_qwen2_5_vl

        config = configuration_qwen2_5_vl.Qwen2_5_VLVisionConfig(**fields)
        published = modeling_qwen2_5_vl.Qwen2_5_VisionTransformerPretrainedModel(config)
    elif family == "qwen3_vl":
        from transformers.models.qwen3_vl import configuration_qwen3_vl, modeling_qwen3_vl

        config = configuration_qwen3_vl.Qwen3VLVisionConfig(**fields)
        published = modeling_qwen3_vl.Qwen3VLVisionModel(config)
    else:
        raise ValueError(f"no vision tower of the family {family!r}")
    return VisionTower(published, config, geometry_of(hf))


def see(
    vision: "VisionTower", patches: Tensor, grids: Sequence[Grid]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the features of all pictures and films, ``[V, D]``, one row a token, in order.

    ``patches`` is uint8 ``[P, C]``, on the host or on the tower's device; ``grids`` share
    them out. The second value is Qwen3-VL's deepstack features, each ``[V, D]`` likewise,
    empty for the other families. Raises ValueError where grids and patches do not agree.
    """
    total = sum(grid.num_patches for grid in grids)
    if total != len(patches):
        raise ValueError(f"the grids have {total} patches, and there are {len(patches)}")
    frames = [(grid.rows, grid.columns) for grid in grids for _ in range(grid.frames)]
    if not frames:
        shape = 0, vision.merger_width
        nothing = torch.zeros(shape, dtype=vision.dtype, device=vision.device)
        return nothing, (nothing,) * len(vision.deep_blocks)
    outputs = []
    start = 0
    for together in _chunks(frames):
        end = start + sum(rows * columns for rows, columns in together)
        outputs.append(vision(patches[start:end], together))
        start = end
    features, *deep = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    return features, tuple(deep)


def _chunks(frames: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Cut a batch between frames so that its activations stay within bounds."""
    together: list[tuple[int, int]] = []
    held = 0
    for rows, columns in frames:
        if together and held + rows * columns > PATCHES_AT_ONCE:
            yield together
            together, held = [], 0
        together.append((rows, columns))
        held += rows * columns
    yield together


class Layout(NamedTuple):
    """An order of the tokens in which sequences of equal length lie next to one another.

    order:    the token that stands at each place, ``[V]``, on the host
    runs:     how many sequences, and of how many patches each, run after run
    cos, sin: rotary angles of the patches in that order, ``[P, 1, 1, head_dim / 2]``
    """

    order: Indices
    runs: tuple[tuple[int, int], ...]
    cos: Tensor
    sin: Tensor


class Places(NamedTuple):
    """Where each token of a chunk lies, ``[V]`` each: counted in tokens, not in patches."""

    frame: Indices
    row: Indices
    column: Indices
    rows: Indices  # of its frame
    columns: Indices

    @classmethod
    def of(cls, frames: Sequence[tuple[int, int]], merge: int) -> "Places":
        """Return the places of frames of ``(rows, columns)`` patches."""
        sides = np.array(frames, dtype=np.int64) // merge
        counts = sides.prod(axis=1)
        frame = np.repeat(np.arange(len(frames)), counts)
        within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        rows, columns = sides[frame].T
        return cls(frame, within // columns, within % columns, rows, columns)

    def frames_together(self) -> tuple[Indices, tuple[tuple[int, int], ...]]:
        """Return the order and the runs of tokens that see their whole frame."""
        return _sorted_runs(self.rows * self.columns, self.frame)

    def windows_together(self, side: int) -> tuple[Indices, tuple[tuple[int, int], ...]]:
        """Return the order and the runs of tokens that see ``side`` x ``side`` tokens.

        Windows start at the first row and column; those at the other edges are smaller.
        """
        down, across = self.row // side, self.column // side
        high = np.minimum(self.rows - down * side, side)
        wide = np.minimum(self.columns - across * side, side)
        return _sorted_runs(high * wide, self.frame, down, across)

    def patches(self, order: Indices, merge: int) -> Indices:
        """Return row and column of every patch, ``[P, 2]``, tokens in that order."""
        corner = np.stack([self.row[order], self.column[order]], axis=-1) * merge  # (V, 2)
        inner = np.indices((merge, merge)).reshape(2, -1).T  # (merge ** 2, 2)
        return (corner[:, None] + inner).reshape(-1, 2)


def _sorted_runs(
    lengths: Indices, *sequence: Indices
) -> tuple[Indices, tuple[tuple[int, int], ...]]:
    """Sort tokens by the length of their sequence, then by what names it.

    Returns the order, and ``(sequences, tokens of each)`` of every length.
    """
    order = np.lexsort((*reversed(sequence), lengths))
    alike, tokens = np.unique(lengths, return_counts=True)
    runs = zip((tokens // alike).tolist(), alike.tolist(), strict=True)
    return order, tuple(runs)


class VisionTower(nn.Module):
    """Transformers' parts under their own names, driven over packed sequences.

    ``checkpointing`` keeps the blocks' inputs for their gradients and nothing else.
    """

    checkpointing = False

    def __init__(
        self, published: nn.Module, settings: "PreTrainedConfig", geometry: PatchGeometry
    ) -> None:
        super().__init__()
        config: Any = settings
        self.geometry = geometry
        self.patch_embed: Any = published.patch_embed
        self.blocks: Any = published.blocks
        self.merger: Any = published.merger
        self.num_heads = int(config.num_heads)
        self.activation = str(config.hidden_act)
        rope = getattr(config, "rope_parameters", None) or {}
        self.rope_theta = float(rope.get("rope_theta", ROPE_THETA))
        # Qwen2.5-VL: the side of a window in tokens, and the blocks that see whole frames.
        window = int(getattr(config, "window_size", 0) or 0)
        self.window = window // geometry.unit
        everywhere = range(int(config.depth))
        self.whole_blocks = frozenset(config.fullatt_block_indexes if self.window else everywhere)
        # Qwen3-VL: learned positions, and features of earlier blocks.
        self.pos_embed: Any = getattr(published, "pos_embed", None)
        self.deepstack_merger_list: Any = getattr(published, "deepstack_merger_list", None)
        self.deep_blocks: tuple[int, ...] = tuple(getattr(config, "deepstack_visual_indexes", ()))
        self.merger_width = int(getattr(config, "out_hidden_size", config.hidden_size))

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.patch_embed.proj.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What its weights are."""
        return self.patch_embed.proj.weight.dtype

    def forward(self, patches: Tensor, frames: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
        """Return features ``[V, D']`` and the deepstack features of some whole frames."""
        places = Places.of(frames, self.geometry.merge)
        layouts = self._layouts(places)
        here = layouts[0]
        patches = _by_token(patches.to(self.device, non_blocking=True), here.order)
        hidden = self._embed(patches, places, here)
        moves: dict[int, Tensor] = {}
        deep = []
        for number, block in enumerate(self.blocks):
            if layouts[number] is not here:
                there = layouts[number]
                if id(there) not in moves:  # there are two layouts at most: one way each
                    moves[id(there)] = _sent(np.argsort(here.order)[there.order], self.device)
                hidden = _taken(hidden, moves[id(there)])
                here = there
            hidden = run(self._block, block, hidden, here, again=self.checkpointing)
            if number in self.deep_blocks:
                merger = self.deepstack_merger_list[self.deep_blocks.index(number)]
                deep.append(merger(hidden))
        back = np.argsort(here.order)
        return tuple(_by_token(one, back) for one in (self.merger(hidden), *deep))

    def _layouts(self, places: Places) -> list[Layout]:
        """Return the layout of every block; blocks that see alike share one."""
        whole = self._layout(places, *places.frames_together())
        if len(self.whole_blocks) == len(self.blocks):
            return [whole] * len(self.blocks)
        windows = self._layout(places, *places.windows_together(self.window))
        return [whole if i in self.whole_blocks else windows for i in range(len(self.blocks))]

    def _layout(self, places: Places, order: Indices, runs: tuple[tuple[int, int], ...]) -> Layout:
        """Return an order of tokens with the rotary angles of its patches."""
        merge = self.geometry.merge
        positions = _sent(places.patches(order, merge), self.device)  # (P, 2)
        width = self.patch_embed.proj.weight.shape[0] // self.num_heads // 2
        steps = torch.arange(0, width, 2, device=self.device, dtype=torch.float32)
        frequencies = 1.0 / self.rope_theta ** (steps / width)  # (head_dim / 4,)
        angles = (positions[..., None].float() * frequencies).flatten(1)[:, None, None]
        in_patches = tuple((count, length * merge**2) for count, length in runs)
        return Layout(order, in_patches, angles.cos(), angles.sin())

    def _embed(self, patches: Tensor, places: Places, layout: Layout) -> Tensor:
        """Return the blocks' input ``[P, D]`` of bytes ``[P, C]``."""
        proj = self.patch_embed.proj
        pixels = normalise(patches, self.geometry).to(self.dtype)
        hidden = F.linear(pixels, proj.weight.flatten(1), proj.bias)
        if self.pos_embed is None:
            return hidden
        taps, weights = _bilinear(places, layout.order, self.geometry.merge, self.pos_embed)
        taps_there, weights_there = _sent(taps, self.device), _sent(weights, self.device)
        learned = torch.zeros_like(hidden, dtype=torch.float32)
        for tap, weight in zip(taps_there, weights_there, strict=True):
            learned = learned + self.pos_embed(tap) * weight[:, None]
        return hidden + learned.to(hidden.dtype)

    def _block(self, part: nn.Module, hidden: Tensor, layout: Layout) -> Tensor:
        """Return a block's output ``[P, D]``."""
        block: Any = part
        hidden = hidden + self._attend(block.attn, _norm(block.norm1, hidden), layout)
        return hidden + _feed_forward(block.mlp, _norm(block.norm2, hidden), self.activation)

    def _attend(self, part: nn.Module, hidden: Tensor, layout: Layout) -> Tensor:
        """Return what each patch gathers from its sequence, ``[P, D]``."""
        attention: Any = part
        qkv = attention.qkv(hidden).unflatten(-1, (3, self.num_heads, -1))  # (P, 3, heads, d)
        query, key = _rotate(qkv, layout.cos, layout.sin).unbind(1)
        value = qkv[:, 2]
        sizes = [count * length for count, length in layout.runs]
        gathered = []
        for shape, *parts in zip(
            layout.runs, *(torch.split(one, sizes) for one in (query, key, value)), strict=True
        ):
            one = attend_wholly(*(part.unflatten(0, shape) for part in parts))
            gathered.append(one.flatten(2).flatten(0, 1))
        return attention.proj(gathered[0] if len(gathered) == 1 else torch.cat(gathered))


@fused
def _rotate(qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries and keys of ``[P, 3, heads, head_dim]`` by their patches' angles.

    In float32 whatever the dtype; ``[P, 2, heads, head_dim]``.
    """
    first, second = qkv[:, :2].chunk(2, dim=-1)
    halves = first * cos - second * sin, second * cos + first * sin
    return torch.cat(halves, dim=-1).to(qkv.dtype)


@fused
def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


@fused
def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def _norm(part: nn.Module, hidden: Tensor) -> Tensor:
    """Apply a layer norm, or Qwen2.5-VL's root mean square in one kernel instead of six."""
    if isinstance(part, nn.LayerNorm):
        return part(hidden)
    norm: Any = part
    weight = norm.weight.to(hidden.dtype)  # which autocast leaves in float32
    return F.rms_norm(hidden, weight.shape, weight, norm.variance_epsilon)


def _feed_forward(part: nn.Module, hidden: Tensor, activation: str) -> Tensor:
    """Apply a block's layers, with one kernel over the widest tensor of the tower if it can be."""
    mlp: Any = part
    if activation == "quick_gelu" and hasattr(mlp, "fc1"):  # Qwen2-VL
        return mlp.fc2(_quick_gelu(mlp.fc1(hidden)))
    if activation == "silu" and hasattr(mlp, "gate_proj"):  # Qwen2.5-VL
        return mlp.down_proj(_swiglu(mlp.gate_proj(hidden), mlp.up_proj(hidden)))
    return mlp(hidden)


def _bilinear(
    places: Places, order: Indices, merge: int, table: nn.Embedding
) -> tuple[Indices, npt.NDArray[np.float32]]:
    """Return the four rows of a square table around each patch, and their weights, ``[4, P]``.

    The table is stretched over each picture, corner on corner.
    """
    side = int(table.num_embeddings**0.5)
    near, far = [], []
    for place, size in zip(
        places.patches(order, merge).T, (places.rows, places.columns), strict=True
    ):
        last = np.repeat(size[order], merge**2) * merge - 1
        at = place.astype(np.float32) * np.float32(side - 1) / np.maximum(last, 1)
        at = at.astype(np.float32)
        low = np.floor(at).astype(np.int64)
        near.append((low, 1 - (at - low).astype(np.float32)))
        far.append((np.minimum(low + 1, side - 1), (at - low).astype(np.float32)))
    corners = itertools.product((near[0], far[0]), (near[1], far[1]))
    taps, weights = zip(*((y * side + x, h * w) for (y, h), (x, w) in corners), strict=True)
    return np.stack(taps), np.stack(weights)


def _by_token(rows: Tensor, order: Indices) -> Tensor:
    """Return ``rows`` with its tokens in another order; a token may be several rows."""
    if np.array_equal(order, np.arange(len(order))):
        return rows
    return _taken(rows, _sent(order, rows.device))


def _taken(rows: Tensor, order: Tensor) -> Tensor:
    tokens = rows.reshape(len(order), -1, *rows.shape[1:])
    return tokens.index_select(0, order).flatten(0, 1)


def _sent(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Return an array on the device, without waiting for what is queued there."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
