"""The head adds what was thought to what the towers say."""

import pytest
import torch

from mmsearch.retriever.models.head import PlainHead, ResidualHead


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


def test_a_plain_head_normalises_the_readout_in_float32_and_leaves_out_the_base() -> None:
    readout = torch.tensor([[3.0, 4.0]], dtype=torch.bfloat16)

    vector = PlainHead()(torch.ones(1, 7), readout)

    assert not PlainHead().is_closed()
    torch.testing.assert_close(vector, torch.tensor([[0.6, 0.8]]))


def test_a_plain_head_needs_a_readout() -> None:
    with pytest.raises(ValueError, match="takes a readout"):
        PlainHead()(torch.ones(1, 7), None)


def test_a_residual_head_needs_a_base() -> None:
    with pytest.raises(ValueError, match="takes a base"):
        ResidualHead(2, 2)(None, torch.ones(1, 2))
