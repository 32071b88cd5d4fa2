"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: one backbone for words, pictures and films.

    items --collate, on the CPU--> QwenBatch        conversations, patches, positions
          --prefill--> hidden [B, n, D], KVCache    features put where their pads stood
          --extend-->  hidden [B, m, D], KVCache

This file joins the parts: chat.py writes an item as tokens, patches.py sizes and cuts its
pixels, positions.py says where each token stands, qwen_vision.py sees, qwen_text.py reads
and goes on. Rows are left-padded, masks and positions are explicit, and nothing is kept
between calls: an item alone is the same as in any batch, from any thread.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmsearch.retriever.models.backbones.chat import Chat, Shown, ShownPart, Written, shown_parts
from mmsearch.retriever.models.backbones.graphs import run_steps
from mmsearch.retriever.models.backbones.kv_cache import KVCache
from mmsearch.retriever.models.backbones.patches import Grid, cut_patches, film_grid, still_grid
from mmsearch.retriever.models.backbones.positions import TEXT, Placed, place
from mmsearch.retriever.models.backbones.qwen_text import (
    TextHalf,
    build_language,
    family_of,
    text_config,
)
from mmsearch.retriever.models.backbones.qwen_vision import build_vision, geometry_of, see
from mmsearch.retriever.models.policy import Limits, VisualPolicy
from mmsearch.retriever.models.prompts import ChatFormat, Prompts
from mmsearch.values import Frames, Item, Role, Text

POSITION_MODES = ("contiguous", "cache_length")
BYTES_PER_TOKEN = 4  # of UTF-8 in any script, about
TOKENS_OF_TIME = 8  # "<1.5 seconds>" and what encloses a moment of a film, about
CUDA_STEP = 32  # lengths are multiples of it on a GPU, so that recorded graphs serve again


@dataclass(frozen=True, slots=True)
class QwenConfig:
    """What a folder says of its backbone.

    hf:            ``config.json`` of transformers, as the folder had it
    chat:          the conversation that an item becomes
    policy:        how its pictures are sized
    position_mode: where latent states and suffix stand after the prompt: "contiguous" goes
                   on from its last position; "cache_length" from its number of tokens, as
                   the published evaluation of PLUME did, which differs after any picture
    max_tokens:    of one item, the template among them
    """

    hf: Mapping[str, Any]
    chat: ChatFormat = field(default_factory=ChatFormat)
    policy: VisualPolicy = field(default_factory=VisualPolicy)
    position_mode: str = "contiguous"
    max_tokens: int = 8_192


@dataclass(frozen=True, slots=True, eq=False)
class QwenBatch:
    """Collated items on the backbone's device, left-padded to one length n.

    ids:           ``[B, n]``
    mask:          ``[B, n]``, False at padding
    positions:     ``[3, B, n]``
    next_position: ``[B]``, where what follows the prompt stands
    anchors:       ``[B]``, see `seams.Backbone.anchors`
    patches:       uint8 ``[P, C]`` of all pictures and films, row by row
    grids:         of each of them
    places:        ``[V]``, which of the ``B * n`` places each feature goes to
    visual:        ``[B, n]``, True at those places
    spare:         how many of the first places are padding in every row
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    next_position: Tensor
    anchors: Tensor
    patches: Tensor
    grids: tuple[Grid, ...]
    places: Tensor
    visual: Tensor
    spare: int = 0


class NewRows(nn.Module):
    """Rows of a table that learn while the rest of it does not; in their places it is not read.

    ids:  which rows, ``[k]``;  rows: what stands for them, ``[k, D]``
    """

    ids: Tensor

    def __init__(self, ids: Sequence[int], table: Tensor) -> None:
        super().__init__()
        self.register_buffer("ids", torch.tensor(ids, device=table.device), persistent=False)
        self.rows = nn.Parameter(table.detach()[self.ids].clone())

    def put_in(self, ids: Tensor, embeds: Tensor) -> Tensor:
        """Return ``embeds [..., D]`` of ``ids [...]`` with these rows where they belong."""
        matches = ids[..., None] == self.ids  # (..., k)
        rows = self.rows[matches.int().argmax(dim=-1)]
        return torch.where(matches.any(dim=-1, keepdim=True), rows, embeds)


class QwenBackbone(nn.Module):
    """See `mmsearch.retriever.seams.Backbone` for what each method promises.

    Raises ValueError for a configuration that makes no model, or a vocabulary that is not
    the model's.
    """

    def __init__(
        self, config: QwenConfig, tokenizer: Tokenizer, prompts: Prompts, limits: Limits
    ) -> None:
        super().__init__()
        if config.position_mode not in POSITION_MODES:
            known = ", ".join(POSITION_MODES)
            raise ValueError(f"position_mode is one of {known}, not {config.position_mode!r}")
        if config.policy.frame_rate <= 0 or limits.max_frames < 1:
            raise ValueError("films need a frame rate and at least one frame")
        hf, text = config.hf, text_config(config.hf)
        most = text.max_position_embeddings
        if not 1 <= config.max_tokens <= most:
            raise ValueError(f"max_tokens is 1 to the model's {most}, not {config.max_tokens}")
        if max(tokenizer.get_added_tokens_decoder(), default=0) >= text.vocab_size:
            raise ValueError(f"the tokenizer has more tokens than the model's {text.vocab_size}")
        self.config, self.tokenizer, self.limits = config, tokenizer, limits
        self.width: int = text.hidden_size
        self.geometry = geometry_of(hf)
        family = family_of(hf)
        self.chat = Chat(
            tokenizer,
            config.chat,
            prompts,
            image_pad=_pad_id(hf, tokenizer, "image"),
            video_pad=_pad_id(hf, tokenizer, "video"),
            merge=self.geometry.merge,
            max_tokens=config.max_tokens,
            split_films=self.geometry.temporal if family == "qwen3_vl" else 0,
        )
        vision = hf["vision_config"]
        # Only Qwen2.5-VL lets time pass between the moments of a film.
        self.tokens_per_second = vision.get("tokens_per_second", 4) if family == "qwen2_5_vl" else 0
        self.num_template_tokens = len(self.tokens(config.chat.template + prompts.query))
        self.language = build_language(hf)
        self.vision = build_vision(hf)
        nested = hf.get("text_config") or {}  # Qwen3-VL says it there, some folders only there
        tied = hf.get("tie_word_embeddings", nested.get("tie_word_embeddings", False))
        self.lm_head = None if tied else nn.Linear(self.width, text.vocab_size, bias=False)
        self.new_rows: NewRows | None = None  # of tokens that a frozen table was given
        self.text_half = TextHalf(self.language, hf)

    @property
    def checkpointing(self) -> bool:
        """Whether layers are computed again for their gradients instead of being kept."""
        return self.text_half.checkpointing

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        self.text_half.checkpointing = self.vision.checkpointing = on

    @property
    def token_bytes(self) -> int:
        """Keys and values, what one layer computes, and four patches on their way, about."""
        text, vision = self.text_half, self.config.hf["vision_config"]
        size = self._table.element_size()
        config = text_config(self.config.hf)
        kept = 2 * config.num_hidden_layers * text.num_kv_heads * text.head_dim
        read = 8 * config.hidden_size + 3 * config.intermediate_size
        wide = vision.get("embed_dim", vision.get("hidden_size"))
        inner = vision.get("intermediate_size", wide * vision.get("mlp_ratio", 4))
        seen = (12 * wide + 2 * inner) * size + self.geometry.channels * (5 + size)
        return int((kept + read) * size + self.geometry.merge**2 * seen)

    def num_tokens(self, item: Item) -> int:
        total = self.num_template_tokens
        for part in item.parts:
            if isinstance(part, Text):
                num_bytes = len(part.text.encode("utf-8", "replace"))
                total += min(num_bytes // BYTES_PER_TOKEN + 1, self.config.max_tokens)
                continue
            is_film, frames = isinstance(part, Frames), 1
            if is_film:
                frames = len(self.limits.kept_frames(len(part.pixels)))
            shape = (frames, *part.pixels.shape[-3:-1])
            grid = self._grid(shape, is_film, self.limits.max_pixels)
            total += grid.num_tokens(self.geometry.merge)
            if is_film and self.chat.split_films:
                total += grid.frames * TOKENS_OF_TIME
        return min(total, self.config.max_tokens)

    def collate(self, items: Sequence[Item], *, role: Role) -> QwenBatch:
        written: list[Written] = []
        placed: list[Placed] = []
        patches: list[Tensor] = []
        for item in items:
            parts = shown_parts(item, self.config.policy, self.limits)
            shown = [part for part in parts if isinstance(part, Shown)]
            one = self._written(parts, shown, role)
            written.append(one)
            placed.append(self._placed(one, shown))
            patches += [
                cut_patches(picture.pixels, grid, self.geometry, self.config.policy, one.max_pixels)
                for picture, grid in zip(shown, one.grids, strict=True)
            ]
        return self._padded(written, placed, patches)

    def _written(self, parts: list[ShownPart], shown: list[Shown], role: Role) -> Written:
        def sizes(max_pixels: int) -> list[Grid]:
            return [self._grid(one.pixels.shape[:3], one.is_film, max_pixels) for one in shown]

        return self.chat.write(parts, sizes, max_pixels=self.limits.max_pixels, role=role)

    def _grid(self, shape: tuple[int, ...], is_film: bool, max_pixels: int) -> Grid:
        """Return the grid of frames ``(number, height, width)``."""
        num_frames, height, width = shape
        policy = self.config.policy
        if is_film:
            return film_grid(num_frames, height, width, self.geometry, policy, max_pixels)
        return still_grid(height, width, self.geometry, policy, max_pixels)

    def _placed(self, written: Written, shown: list[Shown]) -> Placed:
        """Return where the tokens stand, and where what follows them does."""
        merge = self.geometry.merge
        if self.config.chat.visual_positions:
            moments = [1.0] * len(written.runs)
            if self.tokens_per_second:  # such a model has one run a film
                seconds = [self.geometry.temporal / one.rate if one.is_film else 0 for one in shown]
                moments = [self.tokens_per_second * s if s else 1.0 for s in seconds]
            placed = place(written.types, written.runs, moments, merge=merge)
        else:
            placed = place(np.full_like(written.types, TEXT), (), (), merge=merge)
        if self.config.position_mode == "cache_length":
            return placed._replace(next_position=len(written.ids))
        return placed

    def _padded(
        self, written: list[Written], placed: list[Placed], patches: list[Tensor]
    ) -> QwenBatch:
        """Return the rows as one batch, left-padded, on the backbone's device."""
        device = self._table.device
        longest = max(len(one.ids) for one in written)
        length = padded_length(longest, device)
        ids = np.zeros((len(written), length), dtype=np.int64)
        mask, visual = np.zeros(ids.shape, dtype=bool), np.zeros(ids.shape, dtype=bool)
        positions = np.zeros((3, *ids.shape), dtype=np.int64)
        for row, (one, where) in enumerate(zip(written, placed, strict=True)):
            start = length - len(one.ids)
            ids[row, start:], mask[row, start:] = one.ids, True
            visual[row, start:] = one.types != TEXT
            positions[:, row, start:] = where.positions
        nothing = torch.empty(0, self.geometry.channels, dtype=torch.uint8)

        def there(values: Any) -> Tensor:  # noqa: ANN401 - anything that makes a tensor
            tensor = torch.as_tensor(values)
            if device.type == "cuda":  # the copy goes on while the CPU does
                return tensor.pin_memory().to(device, non_blocking=True)
            return tensor.to(device)

        return QwenBatch(
            ids=there(ids),
            mask=there(mask),
            positions=there(positions),
            next_position=there([where.next_position for where in placed]),
            anchors=there([one.anchor for one in written]),
            patches=there(torch.cat([nothing, *patches])),
            grids=tuple(grid for one in written for grid in one.grids),
            places=there(np.flatnonzero(visual)),
            visual=there(visual),
            spare=length - longest,
        )

    def prefill(
        self, batch: QwenBatch, *, tail: Tensor | None = None, room: int = 0
    ) -> tuple[Tensor, KVCache]:
        embeds = self.embed(batch.ids)  # (B, n, D)
        deep: tuple[Tensor, ...] = ()
        if batch.grids:
            features, deep = see(self.vision, batch.patches, batch.grids)  # (V, D)
            flat = embeds.flatten(0, 1)
            embeds = flat.index_copy(0, batch.places, features.to(flat.dtype)).view_as(embeds)
        mask, positions, visual = batch.mask, batch.positions, batch.visual
        next_position = batch.next_position
        if tail is not None:
            rows, new = len(embeds), len(tail)
            cut = min(batch.spare, new)  # it takes the place of padding where there is some
            embeds = torch.cat([embeds[:, cut:], tail.to(embeds.dtype).expand(rows, -1, -1)], dim=1)
            mask = torch.cat([mask[:, cut:], mask.new_ones(rows, new)], dim=1)
            visual = torch.cat([visual[:, cut:], visual.new_zeros(rows, new)], dim=1)
            after = next_position[:, None] + torch.arange(new, device=mask.device)  # (B, m)
            positions = torch.cat([positions[..., cut:], after.expand(3, -1, -1)], dim=2)
            next_position = next_position + new
        return self.text_half.prefill(
            embeds,
            positions,
            mask,
            next_position,
            room=room,
            deep=deep,
            visual=visual if deep else None,
        )

    def extend(self, embeds: Tensor, cache: KVCache) -> tuple[Tensor, KVCache]:
        return self.text_half.extend(embeds, cache)

    def run_steps(self, steps: Callable[..., Tensor], cache: KVCache, *inputs: Tensor) -> Tensor:
        return run_steps(steps, cache, *inputs)

    def pack(self) -> None:
        """Lay matrices that read the same input side by side; see `TextHalf.pack` for when."""
        self.text_half.pack()

    def anchors(self, batch: QwenBatch) -> Tensor:
        return batch.anchors

    def tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def embed(self, ids: Tensor) -> Tensor:
        embeds = nn.functional.embedding(ids, self._table)
        return embeds if self.new_rows is None else self.new_rows.put_in(ids, embeds)

    def logits(self, hidden: Tensor) -> Tensor:
        if self.lm_head is not None:
            return self.lm_head(hidden)
        logits = hidden @ self._table.T
        if self.new_rows is None:
            return logits
        return logits.index_copy(-1, self.new_rows.ids, hidden @ self.new_rows.rows.T)

    def readouts(self, batch: QwenBatch) -> dict[str, Tensor]:
        """It has none of its own."""
        return {}

    @property
    def _table(self) -> Tensor:
        """The input embeddings ``[vocabulary, D]``."""
        table: Tensor = self.language.get_parameter("embed_tokens.weight")
        return table


def padded_length(longest: int, device: torch.device) -> int:
    """Return how long a batch is made whose longest row has ``longest`` tokens."""
    step = CUDA_STEP if device.type == "cuda" else 1
    return -(-longest // step) * step


def _pad_id(hf: Mapping[str, Any], tokenizer: Tokenizer, kind: str) -> int:
    """Return the id of the token that stands for features; ValueError where there is none."""
    found = hf.get(f"{kind}_token_id", tokenizer.token_to_id(f"<|{kind}_pad|>"))
    if found is None:
        raise ValueError(f"the vocabulary has no token '<|{kind}_pad|>'")
    return int(found)
