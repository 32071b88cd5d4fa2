"""Cross-entropies of single tokens, exact and a few rows at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.retriever.models import token_losses as module
from mmsearch.retriever.models.token_losses import row_means, token_losses

TABLE = torch.randn(11, 6, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([3, 1, 4, 1, 5, 9, 2])


def states() -> Tensor:
    return torch.randn(7, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("at_once", [2, 7, 512])
def test_they_are_the_cross_entropies_however_many_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", at_once)
    hidden, plain = states().requires_grad_(True), states().requires_grad_(True)
    asked: list[int] = []

    def logits(rows: Tensor) -> Tensor:
        asked.append(len(rows))
        return rows @ TABLE.T

    losses = token_losses(logits, hidden, TARGETS)
    assert max(asked) == min(at_once, 7)
    torch.autograd.backward(losses.square().sum())
    expected = F.cross_entropy(plain @ TABLE.T, TARGETS, reduction="none")
    torch.autograd.backward(expected.square().sum())

    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(hidden.grad, plain.grad)


def test_autocast_rounds_no_logit() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = token_losses(lambda rows: rows @ TABLE.T, states() * 20, TARGETS)

    expected = F.cross_entropy(states() * 20 @ TABLE.T, TARGETS, reduction="none")
    torch.testing.assert_close(losses, expected)
    assert losses.dtype is torch.float32


def test_no_tokens_have_no_losses() -> None:
    losses = token_losses(lambda rows: rows @ TABLE.T, states()[:0], TARGETS[:0])

    assert losses.shape == (0,)
    assert losses.dtype is torch.float32


def test_rows_have_the_mean_of_their_own_tokens() -> None:
    mask = torch.tensor([[True, True, False], [False, False, False], [False, True, False]])

    means = row_means(torch.tensor([1.0, 2.0, 5.0]), mask)

    assert means.tolist() == [1.5, 0.0, 5.0]
