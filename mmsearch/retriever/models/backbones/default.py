"""The default backbone: MobileNetV2 sees, MiniLM reads, a small decoder goes on from both.

    items -> collate -> DefaultBatch                 pixels resized, words cut into windows
          -> readouts -> {"base": [B, 384]}          what both towers say without the decoder
          -> prefill  -> hidden [B, n, 384], cache   parts in order, then a learned end token

The base of words is MiniLM's mean over tokens. The base of pixels is the mixture of the
names of the ten likeliest ImageNet classes (ConSE), plus what a trained head adds to it.
An item's base is the mean of its parts' unit vectors, whatever their order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as pil
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmsearch.retriever.models.backbones.decoder import Decoder, DecoderCache, DecoderConfig
from mmsearch.retriever.models.backbones.minilm import MiniLM, MiniLMConfig
from mmsearch.retriever.models.backbones.mobilenet import MobileNet, MobileNetConfig
from mmsearch.retriever.models.policy import Limits
from mmsearch.retriever.models.prompts import Prompts
from mmsearch.values import Frames, Item, Role, Text

if TYPE_CHECKING:
    from mmsearch.values import Pixels

CHARACTERS_PER_TOKEN = 4  # of English prose, about
TOKENS_PER_PICTURE = 128  # a picture costs as much time as so many tokens, about
PICTURES_AT_ONCE = 16  # the first maps of a picture take 5 MB


@dataclass(frozen=True, slots=True)
class DefaultConfig:
    """Sizes of the three networks and of what joins them.

    image_area:    pixels of a picture as the network sees it; both sides are multiples of
                   32 and keep the picture's shape, about
    window_tokens: tokens of one window of words, [CLS] and [SEP] among them
    max_windows:   windows read of one text; words beyond them are left out
    top_classes:   classes that are mixed into the base of a picture
    words_width:   of what is trained between MiniLM's mean and the base of words; 0 for none
    image_grid:    a picture becomes ``image_grid ** 2`` tokens of the decoder
    frame_grid:    a frame of a film becomes ``frame_grid ** 2``
    """

    vision: MobileNetConfig = field(default_factory=MobileNetConfig)
    text: MiniLMConfig = field(default_factory=MiniLMConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    head_width: int = 768
    words_width: int = 0
    image_area: int = 224 * 224
    window_tokens: int = 256
    max_windows: int = 4
    top_classes: int = 10
    image_grid: int = 4
    frame_grid: int = 2


class Span(NamedTuple):
    """One part of an item: rows ``[start, end)`` of the windows, or of the pictures."""

    of: str  # "words", "image" or "frames"
    start: int
    end: int


class Towers(NamedTuple):
    """What both towers computed for one batch.

    states:   ``[W, n, 384]`` of the windows' tokens
    pooled:   ``[P, 1280]`` of the pictures
    grids:    one ``[cells, 1280]`` a picture
    """

    states: Tensor
    pooled: Tensor
    grids: tuple[Tensor, ...]


@dataclass(slots=True, eq=False)
class DefaultBatch:
    """Collated items; the towers' results are kept, because base and prefill both read them.

    items:    the parts of each item, in order
    ids:      ``[W, n]`` windows of word pieces, right-padded
    mask:     ``[W, n]``, False at padding
    pictures: uint8 RGB ``[3, h, w]`` each, sides multiples of 32
    """

    items: tuple[tuple[Span, ...], ...]
    ids: Tensor
    mask: Tensor
    pictures: tuple[Tensor, ...]
    towers: Towers | None = None


class DefaultBackbone(nn.Module):
    """See `mmsearch.retriever.seams.Backbone` for what each method promises."""

    token_bytes = 100_000  # measured: a batch of 512 tokens takes some 50 MB

    def __init__(
        self, config: DefaultConfig, tokenizer: Tokenizer, prompts: Prompts, limits: Limits
    ) -> None:
        super().__init__()
        if config.image_area < 32 * 32:
            raise ValueError(f"image_area is at least {32 * 32}, not {config.image_area}")
        if config.window_tokens < 3 or config.max_windows < 1:
            raise ValueError("words need a window that holds one of them")
        self.config, self.tokenizer, self.prompts = config, tokenizer, prompts
        self.limits = limits
        self.first, self.last, self.pad = special_tokens(tokenizer)
        self.width = width = config.decoder.width
        features = config.vision.head_width
        self.vision = MobileNet(config.vision)
        self.text = MiniLM(config.text)
        self.class_names = nn.Parameter(torch.zeros(config.vision.num_classes, config.text.width))
        self.visual_head = nn.Sequential(
            nn.LayerNorm(features),
            nn.Linear(features, config.head_width),
            nn.GELU(),
            nn.Linear(config.head_width, config.text.width),
        )
        self.words_head: nn.Sequential | None = None
        if config.words_width:
            self.words_head = nn.Sequential(
                nn.Linear(config.text.width, config.words_width),
                nn.GELU(),
                nn.Linear(config.words_width, config.text.width),
            )
        self.words_in = nn.Linear(config.text.width, width)
        self.picture_in = nn.Sequential(
            nn.Linear(features, width), nn.GELU(), nn.Linear(width, width)
        )
        self.end = nn.Parameter(torch.zeros(width))
        self.decoder = Decoder(config.decoder)

    @property
    def dim(self) -> int:
        """Width of ``base``."""
        return self.config.text.width

    @property
    def checkpointing(self) -> bool:
        """Whether layers are computed again for their gradients instead of being kept."""
        return self.decoder.checkpointing

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        self.vision.checkpointing = self.text.checkpointing = self.decoder.checkpointing = on

    def num_tokens(self, item: Item) -> int:
        total = 0
        for part in item.parts:
            if isinstance(part, Text):
                most = self.config.window_tokens * self.config.max_windows
                total += min(len(part.text) // CHARACTERS_PER_TOKEN + 2, most)
            else:
                frames = 1
                if isinstance(part, Frames):
                    frames = len(self.limits.kept_frames(len(part.pixels)))
                total += frames * TOKENS_PER_PICTURE
        return total

    def collate(self, items: Sequence[Item], *, role: Role) -> DefaultBatch:
        windows: list[list[int]] = []
        pictures: list[Tensor] = []
        spans: list[tuple[Span, ...]] = []
        for item in items:
            parts: list[Span] = []
            for part in item.parts:
                if isinstance(part, Text):
                    cut = self._windows(self.prompts.of(role) + part.text)
                    parts.append(Span("words", len(windows), len(windows) + len(cut)))
                    windows += cut
                else:
                    frames, of = [part.pixels], "image"
                    if isinstance(part, Frames):
                        kept = self.limits.kept_frames(len(part.pixels))
                        frames, of = [part.pixels[i] for i in kept], "frames"
                    parts.append(Span(of, len(pictures), len(pictures) + len(frames)))
                    pictures += [self._picture(pixels) for pixels in frames]
            spans.append(tuple(parts))
        length = max((len(window) for window in windows), default=0)
        ids = torch.full((len(windows), length), self.pad)
        mask = torch.zeros(len(windows), length, dtype=torch.bool)
        for row, window in enumerate(windows):
            ids[row, : len(window)] = torch.tensor(window)
            mask[row, : len(window)] = True
        device = self.end.device
        return DefaultBatch(tuple(spans), ids.to(device), mask.to(device), tuple(pictures))

    def readouts(self, batch: DefaultBatch) -> dict[str, Tensor]:
        towers = self.towers(batch)
        words = self._words_base(towers, batch.mask)  # (W, 384), unit
        pictures = self.pictures_base(towers.pooled)  # (P, 384), unit
        rows = []
        for spans in batch.items:
            parts = [(words if s.of == "words" else pictures)[s.start : s.end] for s in spans]
            means = torch.stack([F.normalize(part.mean(dim=0), dim=0) for part in parts])
            rows.append(means.mean(dim=0))
        return {"base": F.normalize(torch.stack(rows), dim=-1)}

    def prefill(
        self, batch: DefaultBatch, *, tail: Tensor | None = None, room: int = 0
    ) -> tuple[Tensor, DecoderCache]:
        towers = self.towers(batch)
        last = self.end[None] if tail is None else torch.cat([self.end[None], tail])
        rows: list[Tensor] = []
        for spans in batch.items:
            tokens: list[Tensor] = []
            for span in spans:
                for i in range(span.start, span.end):
                    if span.of == "words":
                        tokens.append(self.words_in(towers.states[i][batch.mask[i]]))
                    else:
                        tokens.append(self.picture_in(towers.grids[i]))
            rows.append(torch.cat([*tokens, last]))  # (n_row, D)
        length = max(len(row) for row in rows)
        embeds = torch.stack([F.pad(row, (0, 0, length - len(row), 0)) for row in rows])
        real = torch.tensor([len(row) for row in rows], device=embeds.device)
        mask = torch.arange(length, device=embeds.device) >= length - real[:, None]
        return self.decoder.prefill(embeds, mask)

    def extend(self, embeds: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        return self.decoder.extend(embeds, cache)

    def run_steps(
        self, steps: Callable[..., Tensor], cache: DecoderCache, *inputs: Tensor
    ) -> Tensor:
        return steps(cache, *inputs)

    def anchors(self, batch: DefaultBatch) -> Tensor:
        return torch.zeros(len(batch.items), dtype=torch.long, device=self.end.device)

    def tokens(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def embed(self, ids: Tensor) -> Tensor:
        return self.words_in(self.text.words(ids))

    def logits(self, hidden: Tensor) -> Tensor:
        """Tied: a word is as likely as its input embedding points along the state."""
        everything = torch.arange(self.config.text.vocabulary, device=hidden.device)
        # Equal to hidden @ embed(everything).T, without embedding every word anew.
        along = hidden @ self.words_in.weight  # (B, 384)
        return along @ self.text.words(everything).T + (hidden @ self.words_in.bias)[:, None]

    def pictures_base(self, pooled: Tensor) -> Tensor:
        """Return unit vectors ``[P, 384]`` from pooled features ``[P, 1280]``."""
        return F.normalize(self.class_mixture(pooled) + self.visual_head(pooled), dim=-1)

    def class_mixture(self, pooled: Tensor) -> Tensor:
        """Return ConSE's unit vectors ``[P, 384]``: the likeliest classes' names, weighted."""
        likeliest = self.vision.class_probabilities(pooled).topk(self.config.top_classes, dim=-1)
        names = self.class_names[likeliest.indices]  # (P, 10, 384)
        return F.normalize((names * likeliest.values[..., None]).sum(dim=1), dim=-1)

    def _words_base(self, towers: Towers, mask: Tensor) -> Tensor:
        """Return unit vectors ``[W, 384]``: each window's mean over its real tokens."""
        weights = mask[..., None].to(towers.states.dtype)
        mean = (towers.states * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1.0)
        return self.words_base(F.normalize(mean, dim=-1))

    def words_base(self, means: Tensor) -> Tensor:
        """Return unit vectors ``[W, 384]`` from MiniLM's unit means ``[W, 384]``."""
        if self.words_head is None:
            return means
        return F.normalize(means + self.words_head(means), dim=-1)

    def towers(self, batch: DefaultBatch) -> Towers:
        """Return what both towers make of a batch, computed once."""
        if batch.towers is None:
            pooled, grids = self._see(batch)
            if len(batch.ids):
                states = self.text(batch.ids, batch.mask)
            else:
                states = self.end.new_zeros(0, 0, self.config.text.width)
            batch.towers = Towers(states, pooled, grids)
        return batch.towers

    def _see(self, batch: DefaultBatch) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return pooled features and grid tokens; pictures of one shape go together."""
        cells = [self.config.image_grid] * len(batch.pictures)
        for span in (span for spans in batch.items for span in spans if span.of == "frames"):
            cells[span.start : span.end] = [self.config.frame_grid] * (span.end - span.start)
        pooled = self.end.new_zeros(len(batch.pictures), self.config.vision.head_width)
        grids: list[Tensor] = [pooled] * len(batch.pictures)
        shapes: dict[tuple[int, ...], list[int]] = {}
        for i, picture in enumerate(batch.pictures):
            shapes.setdefault(tuple(picture.shape), []).append(i)
        for alike in shapes.values():
            for start in range(0, len(alike), PICTURES_AT_ONCE):
                rows = alike[start : start + PICTURES_AT_ONCE]
                pixels = torch.stack([batch.pictures[i] for i in rows]).to(self.end.device)
                maps = self.vision(pixels)  # (P', 1280, h / 32, w / 32)
                pooled[rows] = maps.mean(dim=(2, 3)).to(pooled.dtype)  # autocast rounds maps
                for i, one in zip(rows, maps, strict=True):
                    grids[i] = F.adaptive_avg_pool2d(one, cells[i]).flatten(1).T
        return pooled, tuple(grids)

    def _windows(self, text: str) -> list[list[int]]:
        """Return the word pieces of ``text`` in windows of about equal length."""
        room = self.config.window_tokens - 2
        most = room * self.config.max_windows
        # Nobody's word pieces average sixteen characters; the rest is never looked at.
        ids = self.tokenizer.encode(text[: most * 16], add_special_tokens=False).ids[:most]
        count = max(-(-len(ids) // room), 1)
        size = max(-(-len(ids) // count), 1)
        cuts = [ids[i * size : (i + 1) * size] for i in range(count)]
        return [[self.first, *cut, self.last] for cut in cuts]

    def _picture(self, pixels: "Pixels") -> Tensor:
        """Return ``[3, h, w]`` with the configured area and sides that are multiples of 32."""
        height, width = network_size(*pixels.shape[:2], area=self.config.image_area)
        resized = pil.fromarray(pixels).resize((width, height), pil.Resampling.BILINEAR)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def special_tokens(tokenizer: Tokenizer) -> tuple[int, int, int]:
    """Return the ids of [CLS], [SEP] and [PAD]; ValueError where the vocabulary lacks one."""
    ids = [tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "[PAD]")]
    first, last, pad = ids
    if first is None or last is None or pad is None:
        raise ValueError("the tokenizer has no [CLS], [SEP] or [PAD]")
    return first, last, pad


def network_size(height: int, width: int, *, area: int) -> tuple[int, int]:
    """Return the sides, multiples of 32, of about ``area`` pixels in the shape of the picture.

    The longest strip is as long as ``area`` allows at 32 pixels of the other side.
    """
    scale = (area / (height * width)) ** 0.5
    longest = area // 32 // 32 * 32
    sides = [min(max(round(side * scale / 32) * 32, 32), longest) for side in (height, width)]
    return sides[0], sides[1]
