"""What a network would have bet against each token, without keeping what it bet on all others.

    hidden [N, D], targets [N] -> -log p(target) [N], float32

A row of logits is as wide as the vocabulary: those of a batch of rationales take gigabytes.
They are computed a few rows at a time, and once more on the way back.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

ROWS_AT_ONCE = 512  # of logits: 0.3 GB for a vocabulary of 150,000


def token_losses(logits: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of each target ``[N]``, float32 whatever comes in.

    logits:  gives ``[r, vocabulary]`` for some of the rows of ``hidden [N, D]``; it is called
             without autocast, so that they are as exact as its weights
    targets: ``[N]`` ids
    """

    def some(rows: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(logits(rows).float(), wanted, reduction="none")

    found = [hidden.new_zeros(0, dtype=torch.float32)]
    with torch.autocast(hidden.device.type, enabled=False):
        for rows, wanted in zip(
            torch.split(hidden, ROWS_AT_ONCE), torch.split(targets, ROWS_AT_ONCE), strict=True
        ):
            if not torch.is_grad_enabled():
                found.append(some(rows, wanted))
            else:
                found.append(checkpoint(some, rows, wanted, use_reentrant=False))
    return torch.cat(found)


def row_means(losses: Tensor, mask: Tensor) -> Tensor:
    """Return the mean loss of each row ``[B]`` of ``mask [B, m]``; 0 for a row of none.

    ``losses [N]`` are those of its N True places, row by row.
    """
    places = losses.new_zeros(mask.shape).masked_scatter(mask, losses)
    return places.sum(dim=1) / mask.sum(dim=1).clamp_min(1)
