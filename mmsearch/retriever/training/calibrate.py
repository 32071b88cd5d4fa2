"""How a cosine reads as evidence, fitted on held-out pairs.

    true cosines [q], best wrong cosines [q] -> Calibration(midpoint, slope)

The logistic separates a query's right answer from the best wrong one in a pool of about
POOL, both equally many: 0.5 means "as likely the answer as the best of the rest".
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.retriever.seams import Calibration

POOL = 500


def best_wrong(queries: Tensor, pool: Tensor, relevant: Tensor, *, seed: int) -> Tensor:
    """Return each query's best cosine ``[q]`` among POOL wrong entries drawn by ``seed``."""
    draw = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(pool), generator=draw)[:POOL]
    scores = (queries @ pool[drawn].T).masked_fill(relevant[:, drawn], -2.0)
    return scores.amax(dim=1)


def fit(right: Tensor, wrong: Tensor) -> Calibration:
    """Return the logistic of least cross entropy between ``right [q]`` and ``wrong [w]``.

    Where the two cannot be told apart, or in the wrong order, the slope is kept positive:
    a higher cosine never counts as less evidence.
    """
    cosines = torch.cat([right, wrong]).double()
    labels = torch.cat([torch.ones(len(right)), torch.zeros(len(wrong))]).double()
    weights = torch.where(labels > 0, 0.5 / len(right), 0.5 / len(wrong))
    midpoint = cosines.mean().clone().requires_grad_(True)
    log_slope = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [midpoint, log_slope], max_iter=200, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = log_slope.exp() * (cosines - midpoint)
        loss = F.binary_cross_entropy_with_logits(logits, labels, weights, reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return Calibration(round(midpoint.item(), 4), round(log_slope.exp().item(), 3))
