"""Train every layer of MobileNetV2 a little further, the visual head along with it.

    pictures, words [n, v, 384] -> backbone.vision and backbone.visual_head, in minutes

A picture is contrasted with the words of the whole training side at once: words never
move, so thousands of negatives cost nothing. Small steps, and features held near those
of ImageNet, because a few hundred batches of textbook figures would otherwise unlearn
more about photographs than they teach.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.retriever.models.backbones.default import DefaultBackbone
from mmsearch.retriever.training.default.pairs import open_picture
from mmsearch.values import Item, Role


@dataclass(frozen=True)
class TrunkRecipe:
    """``steps`` 0 leaves the network as it is."""

    steps: int = 120
    batch: int = 32
    learning_rate: float = 2e-5
    head_learning_rate: float = 1e-4
    weight_decay: float = 0.05
    dropout: float = 0.5
    temperature: float = 0.05
    stay_near: float = 5.0  # weight of 1 - cosine to the features before training
    seed: int = 0


def train_trunk(
    backbone: DefaultBackbone,
    paths: Sequence[Path],
    views: list[Tensor],
    words: list[Tensor],
    recipe: TrunkRecipe,
) -> None:
    """Fit ``backbone.vision`` and ``backbone.visual_head`` in place.

    ``views``: features ``[n, 1280]`` of view 0, 1, ... of each picture before this training.
    ``words``: unit vectors ``[n, 384]`` of each kind of words; a row of zeros means none.
    """
    torch.manual_seed(recipe.seed)
    draw = torch.Generator().manual_seed(recipe.seed)
    vision = list(backbone.vision.requires_grad_(True).parameters())
    head = list(backbone.visual_head.requires_grad_(True).parameters())
    optimiser = torch.optim.AdamW(
        [
            {"params": vision, "lr": recipe.learning_rate},
            {"params": head, "lr": recipe.head_learning_rate},
        ],
        weight_decay=recipe.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / 20, 1.0 - step / max(recipe.steps, 1))
    )
    for step in range(recipe.steps):
        rows = torch.randperm(len(paths), generator=draw)[: recipe.batch]
        view, kind = step % len(views), words[step % len(words)]
        rows = rows[kind[rows].any(dim=1)]
        items = [Item([open_picture(paths[row], view=view)]) for row in rows.tolist()]
        with torch.autocast("cpu", torch.bfloat16):
            pooled = backbone.towers(backbone.collate(items, role=Role.DOCUMENT)).pooled
        seen = visual_vectors(backbone, pooled, backbone.class_mixture(pooled), recipe.dropout)
        scores = seen @ kind.T / recipe.temperature  # (B, n)
        alike = (kind[rows] @ kind.T) > 0.97
        alike[torch.arange(len(rows)), rows] = False
        fit = F.cross_entropy(scores.masked_fill(alike, -torch.inf), rows)
        drift = 1 - F.cosine_similarity(pooled, views[view][rows].float(), dim=-1).mean()
        loss = fit + recipe.stay_near * drift
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 20 == 0:
            print(f"trunk: step {step}, fit {fit.item():.3f}, drift {drift.item():.4f}", flush=True)
    backbone.requires_grad_(False)


def visual_vectors(
    backbone: DefaultBackbone, pooled: Tensor, mixture: Tensor, dropout: float
) -> Tensor:
    """Return unit vectors as `pictures_base` does, with dropout inside the head."""
    norm, widen, bend, narrow = backbone.visual_head
    hidden = bend(widen(F.dropout(norm(pooled), dropout / 2)))
    return F.normalize(mixture + narrow(F.dropout(hidden, dropout)), dim=-1)
