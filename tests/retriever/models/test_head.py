"""The head adds what was thought to what the towers say."""

import torch

from mmsearch.retriever.models.head import ResidualHead


def test_a_closed_gate_leaves_the_base() -> None:
    head = ResidualHead(3, 2)
    base = torch.tensor([[3.0, 4.0]])

    assert head.is_closed()
    expected = torch.tensor([[0.6, 0.8]])
    torch.testing.assert_close(head(base, None), expected)
    torch.testing.assert_close(head(base, torch.ones(1, 3)), expected)


def test_an_open_gate_adds_alpha_times_the_projection() -> None:
    head = ResidualHead(2, 2).requires_grad_(False)
    head.out.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    head.out.bias.zero_()
    head.alpha.fill_(0.5)

    vector = head(torch.tensor([[1.0, 0.0]]), torch.tensor([[8.0, 4.0]]))

    assert not head.is_closed()
    torch.testing.assert_close(vector, torch.tensor([[0.6, 0.8]]))  # of (1 + 2, 0 + 4)
