"""What the model said of words before training is what it is held to, and nothing else."""

import pytest
import torch
from toy_pairs import BACKBONES, learning, recipe, tiny_model, training_batch, word_pairs

from mmsearch.retriever.training.objectives import build_objective
from mmsearch.retriever.training.objectives.hold import Held
from mmsearch.retriever.training.toy import toy_examples


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_reference_stays_what_the_model_said_at_the_start(backbone: str) -> None:
    model = tiny_model(backbone, "none").eval()
    batch = training_batch(model, word_pairs(3))
    held = Held(model, effort=0, readout="last")
    start = held.reference(model, batch.query)
    with torch.no_grad():
        for parameter in learning(model):
            parameter.add_(0.1)
    moved = Held(model, effort=0, readout="last").reference(model, batch.query)
    now = {name: parameter.clone() for name, parameter in model.named_parameters()}

    again = held.reference(model, batch.query)

    assert (moved - start).abs().max() > 1e-3
    torch.testing.assert_close(again, start, atol=0, rtol=0)
    assert not again.requires_grad
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, now[name])


def test_asking_leaves_the_model_as_it_was_even_where_it_fails() -> None:
    model = tiny_model("default", "none")
    model.backbone.vision.eval()
    modes = [module.training for module in model.modules()]
    held = Held(model, effort=7, readout="last")  # there are no such steps
    with torch.no_grad():
        model.get_parameter("head.alpha").add_(1.0)

    with pytest.raises(ValueError, match="effort 7"):
        held.reference(model, training_batch(model, word_pairs(2)).query)

    assert [module.training for module in model.modules()] == modes
    assert model.get_parameter("head.alpha").item() == 1.5


def test_what_never_learns_is_not_copied() -> None:
    model = tiny_model("default", "none")
    model.backbone.vision.requires_grad_(False)

    weights = Held(model, effort=0, readout="last").weights

    learning_names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert weights.keys() == learning_names
    assert not any(name.startswith("backbone.vision.") for name in weights)


def test_items_with_pictures_are_held_to_nothing() -> None:
    model = tiny_model("default", "none")
    batch = training_batch(model, [*toy_examples(1, seed=0), *word_pairs(1)])

    reference = Held(model, effort=0, readout="last").reference(model, batch.positive)

    assert not reference[0].any()
    assert reference[1].norm().item() == pytest.approx(1.0, abs=1e-5)


def test_a_gradient_goes_to_the_model_as_it_is() -> None:
    model = tiny_model("default", "none")
    objective = build_objective(recipe("plain", weights={"gen": 0.0, "hold": 2.0}), model)
    batch = training_batch(model, word_pairs(4))
    stage = objective.stages[0]
    assert objective.loss(objective.represent(model, batch, stage), stage).parts[
        "hold"
    ].item() == pytest.approx(0.0, abs=1e-5)
    with torch.no_grad():
        model.get_parameter("head.out.weight").mul_(3.0)

    optimiser = torch.optim.Adam(model.get_submodule("head.out").parameters(), lr=3e-2)
    losses = []
    for _ in range(40):
        loss = objective.loss(objective.represent(model, batch, stage), stage)
        optimiser.zero_grad()
        torch.autograd.backward(loss.total)
        optimiser.step()
        losses.append(loss.parts["hold"].item())

    assert loss.total.item() == pytest.approx(2.0 * losses[-1])
    assert losses[0] > 0.01
    assert losses[-1] < losses[0] / 5
