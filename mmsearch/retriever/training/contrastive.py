"""Train the visual head on cached features: pictures towards what people wrote about them.

    pooled [n, 1280], words [n, v, 384] -> visual head, in about a minute of CPU

The towers stay as they are. The words are MiniLM's and never move, so whatever is
learned about pictures cannot harm the search for words.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.retriever.models.backbones.default import DefaultBackbone


@dataclass(frozen=True)
class HeadRecipe:
    """How long and how hard; dropout and noise are what keeps unseen books from falling."""

    epochs: int = 30
    batch: int = 1_024
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    dropout: float = 0.5
    noise: float = 0.3  # of each feature's standard deviation
    temperature: float = 0.05
    same_picture: float = 0.5  # weight of picture -> its changed view
    seed: int = 0


def info_nce(rows: Tensor, columns: Tensor, alike: Tensor, temperature: float) -> Tensor:
    """Return the symmetric contrastive loss of unit ``rows [B, d]`` and ``columns [B, d]``.

    ``alike [B, B]`` marks pairs off the diagonal that are no negatives: the same figure
    in three books, or the same words under two pictures.
    """
    scores = (rows @ columns.T / temperature).masked_fill(alike, -math.inf)
    targets = torch.arange(len(rows), device=rows.device)
    return (F.cross_entropy(scores, targets) + F.cross_entropy(scores.T, targets)) / 2


def no_negatives(rows: Tensor, *, above: float) -> Tensor:
    """Return ``[B, B]``, True off the diagonal where unit ``rows`` have a cosine above that."""
    return ((rows @ rows.T) > above).fill_diagonal_(False)


def visual_vectors(
    backbone: DefaultBackbone, pooled: Tensor, mixture: Tensor, dropout: float
) -> Tensor:
    """Return unit vectors as `pictures_base` does, with dropout inside the head."""
    norm, widen, bend, narrow = backbone.visual_head
    hidden = bend(widen(F.dropout(norm(pooled), dropout / 2)))
    return F.normalize(mixture + narrow(F.dropout(hidden, dropout)), dim=-1)


def train_head(
    backbone: DefaultBackbone, views: list[Tensor], words: list[Tensor], recipe: HeadRecipe
) -> None:
    """Fit ``backbone.visual_head`` in place.

    ``views``: pooled features ``[n, 1280]`` of each view of the pictures, the plain one first.
    ``words``: unit vectors ``[n, 384]`` of each kind of words; a row of zeros means none.
    """
    torch.manual_seed(recipe.seed)
    draw = torch.Generator().manual_seed(recipe.seed)
    views = [view.float() for view in views]
    spread = views[0].std(dim=0)
    looks = F.normalize(views[0], dim=-1)
    with torch.no_grad():
        mixtures = [backbone.class_mixture(view) for view in views]
    head = backbone.visual_head.requires_grad_(True)
    optimiser = torch.optim.AdamW(
        head.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    steps = recipe.epochs * (len(looks) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, steps)
    for step in range(steps):
        if step % (len(looks) // recipe.batch) == 0:
            order = torch.randperm(len(looks), generator=draw)
        start = step % (len(looks) // recipe.batch) * recipe.batch
        rows = order[start : start + recipe.batch]
        seen = []
        for view, mixture in zip(views, mixtures, strict=True):
            noise = torch.randn(len(rows), view.shape[1], generator=draw) * spread * recipe.noise
            seen.append(visual_vectors(backbone, view[rows] + noise, mixture[rows], recipe.dropout))
        alike_looks = no_negatives(looks[rows], above=0.97)
        loss = torch.zeros(())
        for i, kind in enumerate(words):
            said = kind[rows].any(dim=1)
            targets = kind[rows][said]
            alike = alike_looks[said][:, said] | no_negatives(targets, above=0.97)
            picked = seen[(step + i) % len(seen)][said]
            loss = loss + info_nce(picked, targets, alike, recipe.temperature) / len(words)
        if len(seen) > 1:
            same = info_nce(seen[0], seen[1], alike_looks, recipe.temperature)
            loss = loss + recipe.same_picture * same
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"head: step {step} of {steps}, loss {loss.item():.3f}", flush=True)
    head.requires_grad_(False)
