"""Held-out figures: how often the right one is first, and among the first ten.

Each figure is a recall over a pool of known size; equal scores count against us.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the model card. Recalls are shares of the queries, in [0, 1]."""

    task: str
    queries: int
    pool: int
    recall_at_1: float
    recall_at_5: float
    recall_at_10: float

    def __str__(self) -> str:
        """A row of a Markdown table, recalls in per cent."""
        shares = (self.recall_at_1, self.recall_at_5, self.recall_at_10)
        told = " | ".join(f"{100 * share:.1f}" for share in shares)
        return f"| {self.task} | {self.queries} of {self.pool} | {told} |"


TABLE_HEAD = "| task | queries of pool | R@1 % | R@5 % | R@10 % |\n|---|---|---|---|---|"


def recall(task: str, queries: Tensor, pool: Tensor, relevant: Tensor) -> Figure:
    """Return the recalls of unit ``queries [q, d]`` in ``pool [p, d]``.

    ``relevant [q, p]`` is True at right answers; a query's best one counts. Its rank is
    one more than the number of wrong answers that score at least as much.
    """
    scores = queries @ pool.T
    best = scores.masked_fill(~relevant, -2.0).amax(dim=1, keepdim=True)
    rank = 1 + ((scores >= best) & ~relevant).sum(dim=1)
    return Figure(
        task,
        len(queries),
        len(pool),
        (rank <= 1).float().mean().item(),
        (rank <= 5).float().mean().item(),
        (rank <= 10).float().mean().item(),
    )


def own(count: int) -> Tensor:
    """Return ``relevant`` where query i is answered by entry i alone."""
    return torch.eye(count, dtype=torch.bool)
