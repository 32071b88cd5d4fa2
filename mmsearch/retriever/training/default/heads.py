"""Train what stands on the frozen towers: a head for pictures and one for words.

    pooled [n, 1280] of each view, words [n, 384] of each kind -> visual head, words head

Both begin as nothing: a picture is the mixture of its classes' names, words are MiniLM's.
What the head of words may change is held down hard, by how far a vector moves and by what
the similarities of a batch become, so that texts still find texts. Several members are
trained from different seeds and joined into one wide head, which is their mean: nothing
else that was tried on validation books helped as surely.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.retriever.models.backbones.default import DefaultBackbone
from mmsearch.retriever.training.losses import info_nce


@dataclass(frozen=True, slots=True)
class HeadsRecipe:
    """How long and how hard; dropout and noise are what keeps unseen books from falling.

    noise:        of each feature's standard deviation
    same_picture: weight of a picture against its changed view
    hold:         weight of 1 - cosine between words before and after their head
    similarities: weight, inside ``hold``, of the squared change of their products
    soft:         share of the target that goes to other words by how alike they are
    """

    members: int = 2
    epochs: int = 24
    batch: int = 1_024
    learning_rate: float = 1e-3
    words_learning_rate: float = 2e-4
    weight_decay: float = 0.05
    dropout: float = 0.5
    words_dropout: float = 0.3
    noise: float = 0.3
    temperature: float = 0.05
    same_picture: float = 0.7
    hold: float = 5.0
    similarities: float = 20.0
    soft: float = 0.3
    soft_temperature: float = 0.1
    ema: float = 0.995
    seed: int = 0


class Member(nn.Module):
    """One pair of heads; ``visual`` and ``words`` have the layers of the backbone's own.

    Without a width for words there is no head of theirs.
    """

    def __init__(self, features: int, dim: int, width: int, words_width: int) -> None:
        super().__init__()
        self.visual = nn.Sequential(
            nn.LayerNorm(features), nn.Linear(features, width), nn.GELU(), nn.Linear(width, dim)
        )
        self.words: nn.Sequential | None = None
        if words_width:
            self.words = nn.Sequential(
                nn.Linear(dim, words_width), nn.GELU(), nn.Linear(words_width, dim)
            )
        # The entries of a unit vector are small, and so would be what a layer makes of them.
        self.scale = 0.5 * dim**0.5
        for head in (self.visual, self.words):
            if head is not None:
                for parameter in head[-1].parameters():
                    nn.init.zeros_(parameter)

    def see(self, pooled: Tensor, mixture: Tensor, dropout: float = 0.0) -> Tensor:
        """Return unit vectors as `pictures_base` does, with dropout inside the head."""
        norm, widen, bend, narrow = self.visual
        hidden = bend(widen(F.dropout(norm(pooled), dropout / 2)))
        return F.normalize(mixture + narrow(F.dropout(hidden, dropout)).float(), dim=-1)

    def read(self, means: Tensor, dropout: float = 0.0) -> Tensor:
        """Return unit vectors as `words_base` does, with dropout inside the head."""
        if self.words is None:
            return means
        widen, bend, narrow = self.words
        hidden = F.dropout(bend(widen(means * self.scale)), dropout)
        return F.normalize(means + narrow(hidden).float(), dim=-1)


def alike_rows(rows: Tensor, *, above: float = 0.97) -> Tensor:
    """Return ``[B, B]``, True where unit ``rows`` have a cosine above that."""
    return (rows @ rows.T) > above


def soft_nce(rows: Tensor, columns: Tensor, likeness: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of ``likeness [B, B]``, rows that sum to 1, both ways."""
    scores = rows @ columns.T / temperature
    both = scores.log_softmax(dim=1) + scores.T.log_softmax(dim=1)
    return -0.5 * (likeness * both).sum(dim=1).mean()


def train_heads(
    backbone: DefaultBackbone, views: Sequence[Tensor], words: Sequence[Tensor], recipe: HeadsRecipe
) -> None:
    """Fit ``backbone.visual_head`` and ``backbone.words_head`` in place.

    Their widths are shared out among the members.

    views: pooled features ``[n, 1280]`` of each view of the pictures, the plain one first
    words: MiniLM's unit means ``[n, 384]`` of each kind of words; a row of zeros has none
    """
    config = backbone.config
    features, dim, count = config.vision.head_width, backbone.dim, recipe.members
    if config.head_width % count or config.words_width % count:
        raise ValueError(f"{count} members do not share widths evenly")
    plain = [view.float() for view in views]
    with torch.no_grad():
        mixtures = [
            torch.cat([backbone.class_mixture(rows) for rows in torch.split(view, 1_024)])
            for view in plain
        ]
    members = []
    for number in range(count):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed + number)
            member = Member(features, dim, config.head_width // count, config.words_width // count)
            members.append(_trained(member, plain, mixtures, list(words), recipe, number))
    visual = joined([member.visual for member in members])
    backbone.visual_head.load_state_dict(visual.state_dict())
    if backbone.words_head is not None:
        heads = [member.words for member in members if member.words is not None]
        read = joined(heads, scale=members[0].scale)
        backbone.words_head.load_state_dict(read.state_dict())
    backbone.requires_grad_(False)


def _trained(
    member: Member,
    views: list[Tensor],
    mixtures: list[Tensor],
    words: list[Tensor],
    recipe: HeadsRecipe,
    number: int,
) -> Member:
    """Return the average of ``member`` over its training."""
    average = copy.deepcopy(member).eval()
    groups = [{"params": list(member.visual.parameters())}]
    rates = [recipe.learning_rate]
    if member.words is not None:
        groups.append({"params": list(member.words.parameters())})
        rates.append(recipe.words_learning_rate)
    optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    count = len(views[0])
    batch = min(recipe.batch, count)
    per_epoch = count // batch
    steps = recipe.epochs * per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, max(steps, 2))
    spread, looks = views[0].std(dim=0), F.normalize(views[0], dim=-1)
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(count)
        rows = order[step % per_epoch * batch :][:batch]
        same = alike_rows(looks[rows])
        seen = []
        for at in torch.randperm(len(views))[:2].tolist():
            noisy = views[at][rows] + torch.randn(len(rows), len(spread)) * spread * recipe.noise
            with torch.autocast("cpu", torch.bfloat16):
                seen.append(member.see(noisy, mixtures[at][rows], recipe.dropout))
        loss = torch.zeros(())
        for place, kind in enumerate(words):
            said = kind[rows].any(dim=1)
            means = kind[rows][said]
            if len(means) < 2:
                continue
            targets = means
            if member.words is not None:
                with torch.autocast("cpu", torch.bfloat16):
                    targets = member.read(means, recipe.words_dropout)
                loss = loss + held(targets, means, recipe) / len(words)
            alike = same[said][:, said] | alike_rows(means)
            pictures = seen[(step + place) % len(seen)][said]
            fit = info_nce(pictures, targets, temperature=recipe.temperature, alike=alike)
            likeness = (means @ means.T / recipe.soft_temperature).softmax(dim=1)
            soft = soft_nce(pictures, targets, likeness, recipe.temperature)
            loss = loss + ((1 - recipe.soft) * fit + recipe.soft * soft) / len(words)
        if len(seen) > 1:
            fit = info_nce(*seen, temperature=recipe.temperature, alike=same)
            loss = loss + recipe.same_picture * fit
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        decay = min(recipe.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for mean, now in zip(average.parameters(), member.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        if step % 50 == 0:
            print(f"head {number}: step {step} of {steps}, loss {loss.item():.3f}", flush=True)
    return average


def held(vectors: Tensor, before: Tensor, recipe: HeadsRecipe) -> Tensor:
    """Return how far words have moved, and what that made of their similarities."""
    away = 1 - (vectors * before).sum(dim=-1).mean()
    some_now, some_before = vectors[:512], before[:512]
    changed = (some_now @ some_now.T - some_before @ some_before.T).square().mean()
    return recipe.hold * (away + recipe.similarities * changed)


def joined(heads: Sequence[nn.Sequential], *, scale: float = 1.0) -> nn.Sequential:
    """Return one head that adds what the mean of ``heads`` adds; theirs side by side.

    What they were given was ``scale`` times as long. The scale and shift of each one's norm
    go into the layer behind it, so that they share a plain norm.
    """
    firsts, biases, lasts = [], [], []
    for head in heads:
        norm = head[0] if isinstance(head[0], nn.LayerNorm) else None
        widen, narrow = cast(nn.Linear, head[-3]), cast(nn.Linear, head[-1])
        weight, bias = widen.weight.detach() * scale, widen.bias.detach()
        if norm is not None:
            bias = bias + weight @ norm.bias.detach()
            weight = weight * norm.weight.detach()
        firsts.append(weight)
        biases.append(bias)
        lasts.append(narrow.weight.detach() / len(heads))
    first, last = torch.cat(firsts), torch.cat(lasts, dim=1)
    widen = nn.Linear(first.shape[1], len(first))
    narrow = nn.Linear(last.shape[1], len(last))
    with torch.no_grad():
        widen.weight.copy_(first)
        widen.bias.copy_(torch.cat(biases))
        narrow.weight.copy_(last)
        narrow.bias.copy_(
            torch.stack([cast(nn.Linear, head[-1]).bias.detach() for head in heads]).mean(dim=0)
        )
    layers = [widen, nn.GELU(), narrow]
    if isinstance(heads[0][0], nn.LayerNorm):
        layers.insert(0, nn.LayerNorm(first.shape[1]))
    return nn.Sequential(*layers)
