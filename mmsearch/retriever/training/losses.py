"""What is minimised: every loss is a number made of the rows of the whole batch.

    vectors [B, D] of two sides -> info_nce      the positive before every other row
    info_nce at each size       -> matryoshka    leading dimensions are vectors too
    routing [B, steps, experts] -> balance_loss  no expert is left out
    vectors, old vectors        -> hold_loss     what the model knew, it still knows

All of it is float32, whatever comes in and whatever precision is asked for around it: at a
temperature of 0.02 the logits reach 50, where bfloat16 has steps of 0.25. A row of zeros
is a vector of nothing: its cosine is 0 with every other, and no gradient reaches it.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(
    queries: Tensor,
    positives: Tensor,
    *,
    temperature: float | Tensor,
    alike: Tensor | None = None,
    negatives: Tensor | None = None,
    negative_of: Tensor | None = None,
    negative_alike: Tensor | None = None,
) -> Tensor:
    """Return the mean of query -> positive and positive -> query, float32 ``[]``.

    queries, positives: ``[B, D]`` of any length; row i of one belongs to row i of the other
    alike:              ``[B, B]`` bool, query by positive: pairs that are no negatives; the
                        diagonal always counts
    negatives:          ``[N, D]``, further columns of query -> positive for every query
    negative_of:        ``[N]``, the query each was named for, which it is a negative of
                        however alike it looks
    negative_alike:     ``[B, N]`` bool, query by negative: pairs that are no negatives

    The loss of one pair without negatives is 0, and so is its gradient.
    """
    if queries.ndim != 2 or queries.shape != positives.shape or len(queries) == 0:
        shapes = f"{list(queries.shape)} and {list(positives.shape)}"
        raise ValueError(f"queries and positives are rows of the same shape, got {shapes}")
    targets = torch.arange(len(queries), device=queries.device)
    with torch.autocast(queries.device.type, enabled=False):
        queries = unit_rows(queries)
        scores = _cosines(queries, unit_rows(positives)) / temperature  # (B, B)
        if alike is not None:
            itself = targets[:, None] == targets
            scores = scores.masked_fill(alike & ~itself, -math.inf)
        columns = scores
        if negatives is not None:
            further = _cosines(queries, unit_rows(negatives)) / temperature  # (B, N)
            if negative_alike is not None:
                if negative_of is not None:
                    negative_alike = negative_alike & (targets[:, None] != negative_of)
                further = further.masked_fill(negative_alike, -math.inf)
            columns = torch.cat([scores, further], dim=1)
        forth, back = F.cross_entropy(columns, targets), F.cross_entropy(scores.T, targets)
        return 0.5 * (forth + back)


def matryoshka(
    loss_at: Callable[[int], Tensor], dims: Sequence[int], weights: Sequence[float]
) -> Tensor:
    """Return the weighted sum of a loss at several sizes of the vectors.

    ``loss_at(d)`` is the loss of their leading ``d`` dimensions, normalised again.
    """
    if not dims or len(dims) != len(weights) or min(dims) < 1:
        raise ValueError(f"every size has a weight, got sizes {dims} and weights {weights}")
    losses = [weight * loss_at(dim) for dim, weight in zip(dims, weights, strict=True)]
    return torch.stack(losses).sum()


def alike_pairs(
    key_a: Tensor, key_b: Tensor, look_a: Tensor, look_b: Tensor, *, above: float = 0.97
) -> Tensor:
    """Return ``[B, B']`` bool: the same content, or looks that have a cosine above that.

    key_a, key_b:   ``[B]`` and ``[B']``, equal where the content is the same
    look_a, look_b: ``[B, d]`` and ``[B', d]``; a row of zeros looks like nothing
    """
    same = key_a[:, None] == key_b
    if look_a.shape[-1] == 0:
        return same
    with torch.no_grad(), torch.autocast(look_a.device.type, enabled=False):
        return same | (_cosines(unit_rows(look_a), unit_rows(look_b)) > above)


def balance_loss(probabilities: Tensor) -> Tensor:
    """Return how far the experts' shares are from equal, over the whole batch, float32 ``[]``.

    probabilities: ``[B, steps, experts]``, each row of experts sums to 1

        (1/M) sum_m (mean over batch and steps of p_m - 1/M)^2

    A row may go to one expert alone as long as another goes elsewhere: the published code
    takes the mean for each sample, and so forbids the experts to differ in what they do.
    Without rows or steps it is 0.
    """
    if probabilities.ndim != 3:
        shape = list(probabilities.shape)
        raise ValueError(f"probabilities are [batch, steps, experts], got {shape}")
    with torch.autocast(probabilities.device.type, enabled=False):
        probabilities = probabilities.float()
        if probabilities.numel() == 0:
            return probabilities.sum()
        shares = probabilities.mean(dim=(0, 1))  # (experts,)
        return (shares - 1.0 / len(shares)).square().mean()


def hold_loss(vectors: Tensor, reference: Tensor) -> Tensor:
    """Return how far vectors have moved from what they were, float32 ``[]``.

    vectors, reference: ``[B, d]``; of the second a row of zeros means that there is none

    One minus the mean cosine, and the mean squared difference of all similarities inside
    the batch: the first keeps each row, the second what is near what.
    """
    if vectors.shape != reference.shape or vectors.ndim != 2:
        shapes = f"{list(vectors.shape)} and {list(reference.shape)}"
        raise ValueError(f"vectors and reference have one shape, got {shapes}")
    with torch.autocast(vectors.device.type, enabled=False):
        vectors, reference = unit_rows(vectors), unit_rows(reference.detach())
        counts = reference.any(dim=-1).float()  # (B,)
        pairs = counts[:, None] * counts
        moved = (1 - (vectors * reference).sum(dim=-1)) * counts
        bent = (_cosines(vectors, vectors) - _cosines(reference, reference)).square() * pairs
        return moved.sum() / counts.sum().clamp(min=1) + bent.sum() / pairs.sum().clamp(min=1)


def unit_rows(x: Tensor) -> Tensor:
    """Return the rows ``[..., D]`` as unit vectors, float32; a row of zeros stays one.

    Rows of any length are right, however near the ends of float32: a square would overflow
    or vanish long before. NaN stays NaN. No gradient reaches a row of zeros, where
    `F.normalize` would send one a million million times too long.
    """
    x = x.float()
    largest = x.detach().abs().amax(dim=-1, keepdim=True)
    is_zero = largest < torch.finfo(torch.float32).tiny
    scaled = (x / largest.masked_fill(is_zero, 1.0)).masked_fill(is_zero, 0.0)
    return F.normalize(scaled, dim=-1)


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a [n, D] @ b.T [D, m]`` of float32, as exact as float32 is."""
    if not _float32_is_exact():
        return (a.double() @ b.double().T).float()
    return a @ b.T


def _float32_is_exact() -> bool:
    """Return whether matrix products of float32 are not left to TF32 or bfloat16."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set for one device alone, which this question cannot be asked about
        return False
