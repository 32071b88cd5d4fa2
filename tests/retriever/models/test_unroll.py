"""What training sees of a rollout is what embedding does, and its gradient is the equations'."""

import copy

import pytest
import torch
from torch import Tensor
from toy_thinking import collated, mixed_items

from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.models.rollout import Rollout
from mmsearch.retriever.models.tiny import random_model
from mmsearch.retriever.models.tiny_qwen import random_qwen, tiny_description
from mmsearch.values import Item

BACKBONES = ("default", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")
EFFORT = 3


def thinking(backbone: str) -> Model:
    if backbone == "default":
        return random_model(reasoner="rollout")
    return random_qwen(tiny_description(backbone, reasoner="rollout"))


def forced(reasoner: Rollout, rows: int) -> Tensor:
    return torch.tensor(reasoner.suffix).expand(rows, -1)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("effort", [0, EFFORT])
@torch.no_grad()
def test_the_forced_suffix_is_read_out_as_in_thinking(backbone: str, effort: int) -> None:
    model = thinking(backbone)
    batch = collated(model.backbone, *mixed_items())

    thought = model.reasoner.think(model.backbone, batch, effort=effort)
    suffix = forced(model.reasoner, 5)
    unrolled = model.reasoner.unroll(model.backbone, batch, effort=effort, suffix=suffix)

    torch.testing.assert_close(unrolled.suffix[:, -1], thought["gen"], atol=1e-5, rtol=1e-5)
    assert unrolled.readouts.keys() == thought.keys() - {"gen"}
    for name, readout in unrolled.readouts.items():
        torch.testing.assert_close(readout, thought[name], atol=1e-5, rtol=1e-5)
    assert unrolled.routing.shape == (5, effort, 4 if effort else 0)
    if effort == 0:
        torch.testing.assert_close(unrolled.state, thought["last"])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_states_and_gradient_are_those_of_computing_everything_anew(backbone: str) -> None:
    model = thinking(backbone).requires_grad_(True)
    reasoner, network = model.reasoner, model.backbone
    # Not a prompt with pictures: those of a Qwen stand elsewhere than words, all else is alike.
    batch = collated(network, Item(["a red bus"]))
    suffix = torch.tensor([[7, 8, 9, 10]])
    weights = torch.randn(network.width, generator=torch.Generator().manual_seed(0))

    unrolled = reasoner.unroll(network, fresh(batch), effort=EFFORT, suffix=suffix)
    torch.autograd.backward((unrolled.suffix @ weights).sum() + (unrolled.state @ weights).sum())
    found = taken(model)

    # No cache: each step is the whole prompt again, and what was thought so far behind it.
    hidden, _ = network.prefill(fresh(batch))
    z, anchor = hidden[:, -1], hidden[:, hidden.shape[1] - 1 - int(network.anchors(batch)[0])]
    tail: list[Tensor] = []
    for step in range(EFFORT):
        tail.append(reasoner.adapter(z, step, anchor)[0])
        hidden, _ = network.prefill(fresh(batch), tail=torch.stack(tail))
        z = hidden[:, -1]
    hidden, _ = network.prefill(fresh(batch), tail=torch.stack([*tail, *network.embed(suffix)[0]]))
    torch.testing.assert_close(unrolled.state, z, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(unrolled.suffix, hidden[:, -4:], atol=1e-4, rtol=1e-4)
    torch.autograd.backward((hidden[:, -4:] @ weights).sum() + (z @ weights).sum())

    expected = taken(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = max(gradient.abs().max().item(), 1e-3)
        torch.testing.assert_close(found[name], gradient, atol=2e-4 * scale, rtol=1e-3)


def fresh(batch: object) -> object:
    """Return a batch that has not been through the towers: a graph serves once."""
    return copy.copy(batch)


def taken(model: Model) -> dict[str, Tensor]:
    """Return the gradients that are not zero everywhere, and take them away."""
    found = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("with_gradient", [False, True])
def test_what_stands_behind_a_suffix_changes_nothing_in_it(
    backbone: str, with_gradient: bool
) -> None:
    model = thinking(backbone).requires_grad_(with_gradient)
    items = mixed_items()[:2]
    long = torch.tensor([[7, 8, 9, 10, 11], [12, 13, 14, 3, 3]])

    with torch.set_grad_enabled(with_gradient):
        both = model.reasoner.unroll(
            model.backbone, collated(model.backbone, *items), effort=EFFORT, suffix=long
        )
        alone = model.reasoner.unroll(
            model.backbone,
            collated(model.backbone, items[1]),
            effort=EFFORT,
            suffix=torch.tensor([[12, 13, 14]]),
        )

    torch.testing.assert_close(both.suffix[1:, :3], alone.suffix, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both.state[1:], alone.state, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both.routing[1:], alone.routing, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_routing_is_what_the_adapter_chose_by() -> None:
    model = thinking("default")
    batch = collated(model.backbone, *mixed_items())
    asked: list[Tensor] = []
    route = model.reasoner.adapter.route

    def watched(*args: object) -> Tensor:
        asked.append(route(*args))
        return asked[-1]

    model.reasoner.adapter.route = watched

    unrolled = model.reasoner.unroll(
        model.backbone, batch, effort=EFFORT, suffix=forced(model.reasoner, 5)
    )

    torch.testing.assert_close(unrolled.routing, torch.stack(asked, dim=1))
    assert unrolled.routing.dtype is torch.float32


@torch.no_grad()
def test_autocast_does_not_blur_the_choice_of_experts() -> None:
    adapter = thinking("default").reasoner.adapter
    z, anchor = torch.randn(2, 64, adapter.ln.weight.shape[0]).unbind()

    exact = adapter.route(z, 1, anchor)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = adapter.route(z, 1, anchor)

    assert torch.equal(rounded, exact)


@pytest.mark.parametrize("effort", [-1, 5])
def test_more_steps_than_there_are_cannot_be_unrolled(effort: int) -> None:
    model = thinking("default")

    with pytest.raises(ValueError, match="trained with 4 steps"):
        model.reasoner.unroll(
            model.backbone,
            collated(model.backbone, Item(["a"])),
            effort=effort,
            suffix=forced(model.reasoner, 1),
        )
