"""The head adds what was thought to what the towers say."""

import pytest
import torch

from mmsearch.retriever.models.head import PlainHead, ResidualHead, TurnedHead


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


def test_a_turned_head_changes_no_cosine_and_says_the_most_first() -> None:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(200, 2, generator=draw) @ torch.randn(2, 8, generator=draw)
    base = hidden + 0.05 * torch.randn(200, 8, generator=draw)  # nearly all in two directions
    head = TurnedHead(3, 8).requires_grad_(False)
    before = head(base, None)

    head.turn_towards(before)
    after = head(base, None)

    torch.testing.assert_close(after @ after.T, before @ before.T, atol=1e-5, rtol=0)
    assert after[:, :2].norm(dim=1).mean() > 0.98
    assert before[:, :2].norm(dim=1).mean() < 0.7


def test_turning_again_turns_what_was_turned() -> None:
    head = TurnedHead(3, 4).requires_grad_(False)
    vectors = head(torch.randn(50, 4, generator=torch.Generator().manual_seed(1)), None)
    head.turn_towards(vectors)
    once = head(vectors, None)

    head.turn_towards(once)

    torch.testing.assert_close(head(vectors, None).abs(), once.abs(), atol=1e-5, rtol=0)
