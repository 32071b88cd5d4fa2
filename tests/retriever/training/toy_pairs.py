"""Pairs of words for each backbone, batches of them, and a loop of a few lines."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.models.tiny import random_model
from mmsearch.retriever.models.tiny_qwen import random_qwen, tiny_description
from mmsearch.retriever.training.examples import Example, Media, Side, SideBatch, TrainingBatch
from mmsearch.retriever.training.grad_cache import backward
from mmsearch.retriever.training.gathering import World
from mmsearch.retriever.training.objective import Loss, Objective, Stage
from mmsearch.values import Item, Role

BACKBONES = ("default", "qwen2_vl")
NOWHERE = torch.zeros(0, dtype=torch.long)


def tiny_model(backbone: str, reasoner: str, *, seed: int = 0) -> Model:
    """Return a tiny model of random weights that learns, every one of them."""
    if backbone == "default":
        model = random_model(seed=seed, reasoner=reasoner)
    else:
        model = random_qwen(tiny_description(backbone, reasoner=reasoner), seed=seed)
    return model.requires_grad_(True).train()


def word_pairs(count: int = 16, *, rationale: bool = True) -> list[Example]:
    """Return pairs of made-up words that have nothing in common but that they are pairs."""
    noise = np.random.default_rng(0)

    def word() -> str:
        return "".join(chr(97 + letter) for letter in noise.integers(0, 26, 5))

    examples = []
    for number in range(count):
        thought = f"It is {word()}. So it is {word()}." if rationale else ""
        sides = [Side((word(),), thought, word() if rationale else "") for _ in range(2)]
        examples.append(Example(sides[0], sides[1], dataset="words", row=f"words:{number + 1}"))
    return examples


def side_batch(model: Model, sides: Sequence[Side], role: Role) -> SideBatch:
    items = []
    for side in sides:
        opened = [part if isinstance(part, str) else part.open() for part in parts_of(side)]
        items.append(Item(opened))
    keys = [zlib.crc32(side.text.encode()) + 10**10 * (not side.text) * i for i, side in enumerate(sides)]
    batch = model.backbone.collate(items, role=role)
    return SideBatch(batch, tuple(sides), role, torch.tensor(keys), torch.zeros(len(sides), 3))


def parts_of(side: Side):
    return [part for part in side.parts if not isinstance(part, Media)]


def training_batch(model: Model, examples: Sequence[Example]) -> TrainingBatch:
    hard = [(row, side) for row, one in enumerate(examples) for side in one.negatives]
    return TrainingBatch(
        side_batch(model, [one.query for one in examples], Role.QUERY),
        side_batch(model, [one.positive for one in examples], Role.DOCUMENT),
        side_batch(model, [side for _, side in hard], Role.DOCUMENT) if hard else None,
        torch.tensor([row for row, _ in hard]) if hard else NOWHERE,
        tuple(examples),
    )


def recall_at_1(objective: Objective, model: Model, batch: TrainingBatch, name: str) -> float:
    """Return how often a query's own positive is nearest, of vectors as embedding has them."""
    model.eval()
    with torch.no_grad():
        rows = objective.represent(model, batch, objective.stages[-1])
    model.train()
    scores = rows[f"query.{name}"] @ rows[f"positive.{name}"].T
    return (scores.argmax(dim=1) == torch.arange(len(scores))).float().mean().item()
