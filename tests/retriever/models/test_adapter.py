"""The transition adapter computes the paper's equations, in each row for itself."""

import pytest
import torch
from plain_plume import plain_adapter
from torch import Tensor

from mmsearch.retriever.models.adapter import AdapterConfig, LatentAdapter

WIDTH = 6


@pytest.fixture
def adapter() -> LatentAdapter:
    """Return one with weights large enough for the curve of GELU to show."""
    torch.manual_seed(0)
    adapter = LatentAdapter(WIDTH, AdapterConfig()).requires_grad_(False).eval()
    for parameter in adapter.parameters():
        parameter.copy_(torch.randn(parameter.shape) * 0.8)
    return adapter


def states(rows: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("step", [0, 7, 31, 40])
@pytest.mark.parametrize("scale", [1.0, 1e-3])  # at 1e-3 the norm's epsilon outweighs the variance
def test_it_equals_a_loop_that_evaluates_only_the_chosen_experts(
    adapter: LatentAdapter, step: int, scale: float
) -> None:
    z, anchor = states(16) * scale, states(16, seed=2)
    weights = {name: tensor.tolist() for name, tensor in adapter.state_dict().items()}

    out = adapter(z, step, anchor)

    expected = [
        torch.tensor(plain_adapter(weights, row, step, c))
        for row, c in zip(z.tolist(), anchor.tolist(), strict=True)
    ]
    torch.testing.assert_close(out, torch.stack(expected), atol=1e-5, rtol=1e-5)
    choices = {tuple(row) for row in (adapter.weigh(adapter.route(z, step, anchor)) > 0).tolist()}
    assert len(choices) > 1  # the rows of this batch choose differently


@pytest.mark.parametrize(("width", "count"), [(1_536, 47_273_476), (3_584, 257_105_412)])
def test_it_has_as_many_parameters_as_published(width: int, count: int) -> None:
    with torch.device("meta"):
        adapter = LatentAdapter(width, AdapterConfig())

    assert sum(parameter.numel() for parameter in adapter.parameters()) == count


def test_its_tensors_have_the_published_names_and_shapes(adapter: LatentAdapter) -> None:
    d = WIDTH
    experts = [*(f"experts.{m}" for m in range(4)), "shared_expert"]
    expected = {
        "ln.weight": [d],
        "ln.bias": [d],
        "step_embed.weight": [32, d],
        "router.weight": [4, 2 * d],
        "router.bias": [4],
    }
    for name in experts:
        expected |= {f"{name}.fc1.weight": [2 * d, d], f"{name}.fc1.bias": [2 * d]}
        expected |= {f"{name}.fc2.weight": [d, 2 * d], f"{name}.fc2.bias": [d]}

    shapes = {name: list(tensor.shape) for name, tensor in adapter.state_dict().items()}

    assert shapes == expected


def test_the_chosen_keep_their_probabilities(adapter: LatentAdapter) -> None:
    weights = adapter.weigh(torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.7, 0.1, 0.05, 0.15]]))

    torch.testing.assert_close(weights, torch.tensor([[0.0, 0.4, 0.0, 0.3], [0.7, 0.0, 0.0, 0.15]]))


def test_of_equally_likely_experts_the_lower_number_is_chosen(adapter: LatentAdapter) -> None:
    probabilities = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.2, 0.3, 0.3, 0.2]])

    chosen = adapter.weigh(probabilities) > 0

    assert chosen.tolist() == [[True, True, False, False], [False, True, True, False]]


def test_steps_beyond_the_last_row_share_its_embedding(adapter: LatentAdapter) -> None:
    z, anchor = states(3), states(3, seed=2)

    last = adapter.route(z, 31, anchor)

    torch.testing.assert_close(adapter.route(z, 32, anchor), last, atol=0, rtol=0)
    torch.testing.assert_close(adapter.route(z, 1_000, anchor), last, atol=0, rtol=0)
    assert not torch.allclose(adapter.route(z, 30, anchor), last)


def test_a_row_alone_equals_the_row_in_a_batch(adapter: LatentAdapter) -> None:
    z, anchor = states(9), states(9, seed=2)

    together = adapter(z, 3, anchor)

    for row in range(9):
        alone = adapter(z[row : row + 1], 3, anchor[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)


def test_bfloat16_does_not_blur_the_choice() -> None:
    adapter = LatentAdapter(WIDTH, AdapterConfig()).requires_grad_(False)
    adapter.router.weight.zero_()
    adapter.router.bias.copy_(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    adapter.router.weight[1, 0] = 2.0**-9  # a quarter of what bfloat16 tells apart at 1.0
    adapter = adapter.bfloat16()
    ones = torch.ones(1, WIDTH, dtype=torch.bfloat16)

    [probabilities] = adapter.route(ones, 0, ones)

    assert probabilities.dtype is torch.float32
    assert probabilities[1] > probabilities[0]
    assert adapter(ones, 0, ones).dtype is torch.bfloat16


def test_gradients_reach_the_router_the_chosen_experts_and_the_anchor(
    adapter: LatentAdapter,
) -> None:
    adapter.requires_grad_(True)
    z, anchor = states(1), states(1, seed=2).requires_grad_(True)

    adapter(z, 0, anchor).square().sum().backward()

    [chosen] = (adapter.weigh(adapter.route(z, 0, anchor)) > 0).tolist()
    for m, is_chosen in enumerate(chosen):
        gradient = adapter.get_parameter(f"experts.{m}.fc1.weight").grad
        assert gradient is not None
        assert bool(gradient.any()) is is_chosen
    assert adapter.router.weight.grad is not None
    assert adapter.router.weight.grad.any()
    assert anchor.grad is not None
    assert anchor.grad.any()


def test_dropout_is_of_training_alone() -> None:
    torch.manual_seed(0)
    adapter = LatentAdapter(WIDTH, AdapterConfig(dropout=0.5))
    z = states(4)

    trained = [adapter(z, 0, z) for _ in range(2)]
    adapter.eval()
    read = [adapter(z, 0, z) for _ in range(2)]

    assert not torch.equal(*trained)
    assert torch.equal(*read)


@pytest.mark.parametrize("top_k", [0, 5])
def test_more_or_fewer_experts_than_there_are_cannot_be_chosen(top_k: int) -> None:
    with pytest.raises(ValueError, match=f"cannot choose {top_k} of 4"):
        LatentAdapter(WIDTH, AdapterConfig(top_k=top_k))
