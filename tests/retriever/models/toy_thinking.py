"""A small backbone with an anchor in its prompts, and items of every sort and length."""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mmsearch.retriever.models.backbones.decoder import DecoderCache
from mmsearch.retriever.models.backbones.default import DefaultBackbone, DefaultBatch
from mmsearch.retriever.models.prompts import Prompts
from mmsearch.retriever.models.tiny import CONFIG, LIMITS, letter_tokenizer, random_model
from mmsearch.values import Frames, Image, Item, Role


class WatchedBackbone(DefaultBackbone):
    """Writes down what it is asked for, and keeps the prompt's last hidden states.

    The anchor of a row that begins with words is two places before its end, that of any
    other row three.
    """

    hidden: Tensor
    asked: list[tuple[str, int, int]]  # ("prefill", tail, room) or ("extend", tokens, 0)

    def prefill(
        self, batch: DefaultBatch, *, tail: Tensor | None = None, room: int = 0
    ) -> tuple[Tensor, DecoderCache]:
        self.asked.append(("prefill", 0 if tail is None else len(tail), room))
        self.hidden, cache = super().prefill(batch, tail=tail, room=room)
        if self.hidden.requires_grad:
            self.hidden.retain_grad()
        return self.hidden, cache

    def extend(self, embeds: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        self.asked.append(("extend", embeds.shape[1], 0))
        return super().extend(embeds, cache)

    def anchors(self, batch: DefaultBatch) -> Tensor:
        return torch.tensor([2 if parts[0].of == "words" else 3 for parts in batch.items])


class ScriptedBackbone(WatchedBackbone):
    """Speaks fourteen tokens by a table of its own, so that thoughts wander and end.

    The tied table of random weights would say one token for ever.
    """

    letters = "abcdefghijkl~!"

    def logits(self, hidden: Tensor) -> Tensor:
        table = torch.randn(14, self.width, generator=torch.Generator().manual_seed(5))
        logits = hidden.new_full((len(hidden), self.config.text.vocabulary), -1e4)
        logits[:, self.tokens(" ".join(self.letters))] = hidden @ table.T
        return logits


Watched = TypeVar("Watched", bound=WatchedBackbone)


def watched_backbone(kind: type[Watched]) -> Watched:
    """Return one with random weights, always the same."""
    backbone = kind(CONFIG, letter_tokenizer(), Prompts(), LIMITS)
    backbone.load_state_dict(random_model().backbone.state_dict())
    backbone.asked = []
    return backbone.requires_grad_(False).eval()


def mixed_items() -> list[Item]:
    """Return words, a picture, a film, and several of them in one item."""
    noise = np.random.default_rng(0)

    def pixels(*shape: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
        return noise.integers(0, 256, (*shape, 3), dtype=np.uint8)

    picture, other = Image(pixels(40, 60)), Image(pixels(64, 30))
    film = Frames(pixels(3, 50, 50))
    return [
        Item(["a red bus"]),
        Item([picture]),
        Item([film, "what happens"]),
        Item(["b"]),
        Item([picture, "between", other, film]),
    ]


def collated(backbone: DefaultBackbone, *items: Item) -> DefaultBatch:
    return backbone.collate(items, role=Role.QUERY)
