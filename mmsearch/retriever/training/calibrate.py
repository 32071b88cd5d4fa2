"""How a cosine reads as evidence, fitted on held-out pairs.

    cosines of queries with a pool, which are right -> Calibration(midpoint, slope)

The midpoint is what the best wrong entry of about POOL usually reaches, so 0.5 reads "no
better than the best of the rest would be anyway". The slope is how fast the odds of a
right entry against any wrong one grow with the cosine. Both stay sensible on a side where
the best wrong entry often beats the right one (words to photographs); a logistic between
those two would have no slope there, or a negative one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.retriever.seams import Calibration

POOL = 500


def calibrate(queries: Tensor, pool: Tensor, relevant: Tensor, *, seed: int) -> Calibration:
    """Return how to read a cosine of unit ``queries [q, d]`` with entries like ``pool [p, d]``.

    ``relevant [q, p]`` is True at right answers, of which each query has at least one; its
    best one counts. POOL entries are drawn by ``seed`` for the wrong ones.
    """
    right = (queries @ pool.T).masked_fill(~relevant, -2.0).amax(dim=1)
    draw = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(pool), generator=draw)[:POOL]
    scores, is_wrong = queries @ pool[drawn].T, ~relevant[:, drawn]
    best_wrong = scores.masked_fill(~is_wrong, -2.0).amax(dim=1)
    midpoint = best_wrong.median().item()
    return Calibration(round(midpoint, 4), round(odds_slope(right, scores[is_wrong]), 3))


def odds_slope(right: Tensor, wrong: Tensor) -> float:
    """Return the slope of the logistic between ``right [r]`` and ``wrong [w]`` cosines.

    Both kinds weigh the same, however many of each there are.
    """
    cosines = torch.cat([right, wrong]).double()
    labels = torch.cat([torch.ones(len(right)), torch.zeros(len(wrong))]).double()
    weights = torch.where(labels > 0, 0.5 / len(right), 0.5 / len(wrong))
    # Far from its start the loss is flat; centred and scaled it is not.
    centre, spread = cosines.mean(), cosines.std()
    scaled = (cosines - centre) / spread
    line = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # offset, slope
    optimiser = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = line[0] + line[1] * scaled
        loss = F.binary_cross_entropy_with_logits(logits, labels, weights, reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return (line[1] / spread).item()
