"""Tiny models that learn, pairs of made-up words, and batches of them without a file."""

import zlib
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor, nn

from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.models.rollout import RolloutConfig
from mmsearch.retriever.models.tiny import random_model
from mmsearch.retriever.models.tiny_qwen import random_qwen, tiny_description
from mmsearch.retriever.training.config import DecoderSizes, LossWeights, ObjectiveConfig
from mmsearch.retriever.training.examples import Example, Media, Side, SideBatch, TrainingBatch
from mmsearch.values import Item, Role

BACKBONES = ("default", "qwen2_vl")
DECODER = DecoderSizes(width=32, num_layers=1, num_heads=2, num_kv_heads=1, ffn_width=64)
REASONERS = {"plain": "none", "plume": "rollout", "lame": "bottleneck"}


def recipe(name: str, **choices: object) -> ObjectiveConfig:
    """Return a configuration; ``weights`` may be a dict of some of them."""
    weights = choices.pop("weights", {})
    given = {"name": name, "decoder": DECODER, "weights": LossWeights(**weights), **choices}  # type: ignore[arg-type]
    return ObjectiveConfig(**given)  # type: ignore[arg-type]


def tiny_model(backbone: str, reasoner: str, *, seed: int = 0) -> Model:
    """Return a tiny model of random weights; every one of them learns. Rollouts have 4 steps."""
    if backbone == "default":
        model = random_model(seed=seed, reasoner=reasoner)
    else:
        description = tiny_description(backbone, reasoner=reasoner)
        if reasoner == "rollout":
            config = asdict(RolloutConfig(steps=4))
            description = tiny_description(
                backbone, reasoner=reasoner, reasoner_config=config, effort=4
            )
        model = random_qwen(description, seed=seed)
    return model.requires_grad_(True).train()


def word_pairs(count: int = 16, *, rationale: bool = True, seed: int = 0) -> list[Example]:
    """Return pairs of words that have nothing in common but that they belong together."""
    noise = np.random.default_rng(seed)

    def word() -> str:
        return "".join(chr(97 + letter) for letter in noise.integers(0, 26, 5))

    examples = []
    for number in range(1, count + 1):
        query, positive = (
            Side((word(),), f"It is {word()}. So.", word()) if rationale else Side((word(),))
            for _ in range(2)
        )
        examples.append(Example(query, positive, dataset="words", row=f"words:{number}"))
    return examples


def side_batch(model: Model, sides: Sequence[Side], role: Role) -> SideBatch:
    """Return sides collated; those of the same words and drawings have the same key."""
    items, keys = [], []
    for side in sides:
        parts = [part for part in side.parts if not isinstance(part, Media)]
        items.append(Item([part if isinstance(part, str) else part.open() for part in parts]))
        spelled = [part if isinstance(part, str) else part.key for part in parts]
        keys.append(zlib.crc32("\n".join(spelled).encode()))
    batch = model.backbone.collate(items, role=role)
    return SideBatch(batch, tuple(sides), role, torch.tensor(keys), torch.zeros(len(sides), 3))


def training_batch(model: Model, examples: Sequence[Example]) -> TrainingBatch:
    """Return examples as one batch."""
    hard = [(row, side) for row, one in enumerate(examples) for side in one.negatives]
    return TrainingBatch(
        side_batch(model, [one.query for one in examples], Role.QUERY),
        side_batch(model, [one.positive for one in examples], Role.DOCUMENT),
        side_batch(model, [side for _, side in hard], Role.DOCUMENT) if hard else None,
        torch.tensor([row for row, _ in hard], dtype=torch.long),
        tuple(examples),
    )


def learning(*modules: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that require a gradient."""
    return [p for module in modules for p in module.parameters() if p.requires_grad]


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Return the gradients that are not all zeros, by name."""
    found = ((name, parameter.grad) for name, parameter in module.named_parameters())
    return {name: grad.clone() for name, grad in found if grad is not None and grad.any()}
