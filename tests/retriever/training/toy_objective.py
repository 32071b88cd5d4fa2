"""A network of a few dozen weights that has everything a gradient can get lost in.

Dropout, buffers that every pass changes, a weight that only marked chunks use, one that
nothing uses, weights outside the model, a weight that only the loss reads, hard negatives
in some chunks, and representations that nobody reads.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.retriever.training.examples import Example, Side, SideBatch, TrainingBatch
from mmsearch.retriever.training.losses import alike_pairs, balance_loss, info_nce
from mmsearch.retriever.training.objective import Loss, Representations, Stage
from mmsearch.values import Role

if TYPE_CHECKING:
    from mmsearch.retriever.models.checkpoint import Model

STAGE = Stage("all", 0.0, 0)
WIDTH = 6
MARKED = "marked"


class ToyNetwork(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.inside = nn.Linear(WIDTH, 16)
        self.norm = nn.BatchNorm1d(16)
        self.dropout = nn.Dropout(dropout)
        self.outside = nn.Linear(16, 8)
        self.router = nn.Linear(WIDTH, 2 * 3)
        self.sometimes = nn.Parameter(torch.randn(8))
        self.never = nn.Parameter(torch.randn(3))
        self.num_calls: Tensor
        self.register_buffer("num_calls", torch.zeros(()))

    def forward(self, x: Tensor, *, is_marked: bool) -> Tensor:
        hidden = self.inside(x).tanh()
        if self.training:  # what a chunk becomes depends on the chunks before it
            if len(x) > 1:
                self.norm(hidden)  # for its running mean alone: rows do not mix
            hidden = (hidden - self.norm.running_mean) * (1 + 0.1 * self.num_calls)
            self.num_calls = self.num_calls + 1  # not in place
        vectors = self.outside(self.dropout(hidden))
        return vectors + self.sometimes * x[:, :1] if is_marked else vectors


class ToyExtras(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(8, WIDTH)
        self.log_temperature = nn.Parameter(torch.tensor(-1.0))


class ToyObjective:
    name = "toy"
    stages: Sequence[Stage] = (STAGE,)

    def __init__(self) -> None:
        self.extras: nn.Module = ToyExtras()
        self.num_represented = 0
        self.parts: Sequence[str] = ("contrast", "ce", "balance")

    def represent(self, model: "Model", batch: TrainingBatch, stage: Stage) -> Representations:
        self.num_represented += 1
        network, extras = cast(ToyNetwork, model), cast(ToyExtras, self.extras)
        is_marked = batch.examples[0].dataset == MARKED
        x = batch.query.batch
        query = network(x, is_marked=is_marked)
        representations = {
            "query.gen": query,
            "positive.gen": network(batch.positive.batch, is_marked=is_marked),
            "query.ce": (extras.decoder(query) - x).square().mean(dim=-1),
            "query.routing": network.router(x).view(-1, 2, 3).softmax(dim=-1),
            "query.told": (query * network.sometimes).sum(-1) if is_marked else torch.zeros(len(x)),
            "query.unread": query.exp(),
            "positive.key": batch.positive.key,
            "positive.look": batch.positive.look,
        }
        if batch.negatives is not None:
            representations["negative.gen"] = network(batch.negatives.batch, is_marked=is_marked)
            representations["negative.key"] = batch.negatives.key
            representations["negative.look"] = batch.negatives.look
            representations["negative_of"] = batch.negative_of
        return representations

    def loss(self, representations: Representations, stage: Stage) -> Loss:
        rows = representations
        key, look = rows["positive.key"], rows["positive.look"]
        alike = alike_pairs(key, key, look, look)
        negatives = rows.get("negative.gen")
        negative_alike = None
        if negatives is not None:
            negative_alike = alike_pairs(key, rows["negative.key"], look, rows["negative.look"])
        parts = {
            "contrast": info_nce(
                rows["query.gen"],
                rows["positive.gen"],
                temperature=cast(ToyExtras, self.extras).log_temperature.exp(),
                alike=alike,
                negatives=negatives,
                negative_of=rows.get("negative_of"),
                negative_alike=negative_alike,
            ),
            "ce": rows["query.ce"].float().mean() + rows["query.told"].float().mean(),
            "balance": balance_loss(rows["query.routing"]),
        }
        return Loss(torch.stack([parts[name] for name in self.parts]).sum(), parts)


def toy_training(*, dropout: float = 0.0) -> tuple["Model", ToyObjective]:
    """The same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, objective = ToyNetwork(dropout), ToyObjective()
    return cast("Model", network), objective


def toy_chunk(num_rows: int, num_negatives: int = 0, *, seed: int, mark: str = "") -> TrainingBatch:
    """Random rows; the negatives belong to the last rows, and keys repeat between chunks.

    Each negative has the key of its own positive, so that it counts for its query alone
    because `negative_of` says so.
    """
    draw = torch.Generator().manual_seed(seed)

    def side(num: int, role: Role) -> SideBatch:
        return SideBatch(
            batch=torch.randn(num, WIDTH, generator=draw),
            sides=(Side(("words",)),) * num,
            role=role,
            key=torch.randint(0, 9, (num,), generator=draw),
            look=F.normalize(torch.randn(num, 3, generator=draw), dim=-1),
        )

    query, positive = side(num_rows, Role.QUERY), side(num_rows, Role.DOCUMENT)
    negative_of = num_rows - 1 - torch.arange(num_negatives) % num_rows
    negatives = None
    if num_negatives:
        negatives = replace(side(num_negatives, Role.DOCUMENT), key=positive.key[negative_of])
    example = Example(Side(("words",)), Side(("words",)), dataset=mark)
    return TrainingBatch(query, positive, negatives, negative_of, (example,) * num_rows)


def joined(chunks: Sequence[TrainingBatch]) -> TrainingBatch:
    """The chunks as one batch."""

    def side(sides: list[SideBatch]) -> SideBatch:
        return SideBatch(
            batch=torch.cat([side.batch for side in sides]),
            sides=tuple(one for side in sides for one in side.sides),
            role=sides[0].role,
            key=torch.cat([side.key for side in sides]),
            look=torch.cat([side.look for side in sides]),
        )

    negatives = [chunk.negatives for chunk in chunks if chunk.negatives is not None]
    starts = [sum(len(chunk) for chunk in chunks[:i]) for i in range(len(chunks))]
    of = [chunk.negative_of + start for chunk, start in zip(chunks, starts, strict=True)]
    return TrainingBatch(
        query=side([chunk.query for chunk in chunks]),
        positive=side([chunk.positive for chunk in chunks]),
        negatives=side(negatives) if negatives else None,
        negative_of=torch.cat(of),
        examples=tuple(example for chunk in chunks for example in chunk.examples),
    )


def gradients(model: "Model", objective: ToyObjective) -> dict[str, Tensor | None]:
    """The gradient of every weight by its name, None where it has none."""
    named = [*model.named_parameters(), *objective.extras.named_parameters()]
    return {name: parameter.grad for name, parameter in named}


def assert_same(
    found: dict[str, Tensor | None],
    expected: dict[str, Tensor | None],
    *,
    rtol: float = 1e-4,
    atol: float = 1e-6,
) -> None:
    """The same weights have a gradient, and it is the same."""
    have = {name: gradient for name, gradient in found.items() if gradient is not None}
    should = {name: gradient for name, gradient in expected.items() if gradient is not None}
    torch.testing.assert_close(have, should, rtol=rtol, atol=atol)
