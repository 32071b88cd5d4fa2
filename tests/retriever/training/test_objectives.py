"""Every recipe learns sixteen pairs by heart, on every backbone, and embeds them as it trained."""

import dataclasses

import pytest
import torch
from toy_pairs import (
    BACKBONES,
    REASONERS,
    gradients,
    learning,
    recipe,
    tiny_model,
    training_batch,
    word_pairs,
)

from mmsearch.errors import BadSetting
from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.training.examples import Example, Side, TrainingBatch
from mmsearch.retriever.training.gathering import World
from mmsearch.retriever.training.grad_cache import backward
from mmsearch.retriever.training.objective import Objective
from mmsearch.retriever.training.objectives import build_objective
from mmsearch.retriever.training.starting import parts_of
from mmsearch.retriever.training.toy import toy_examples


def recall_at_1(model: Model, batch: TrainingBatch, *, effort: int, readout: str) -> float:
    """Return how often a query's own positive is nearest, embedded without the objective."""
    model.eval()
    sides = []
    with torch.no_grad():
        for side in (batch.query, batch.positive):
            base = model.backbone.readouts(side.batch).get("base")
            thought = model.reasoner.think(model.backbone, side.batch, effort=effort)
            sides.append(model.head(base, thought[readout]))
    scores = sides[0] @ sides[1].T
    return (scores.argmax(dim=1) == torch.arange(len(scores))).float().mean().item()


def learnt(model: Model, objective: Objective, batch: TrainingBatch, *, steps: int) -> None:
    """Go through all stages of the objective, each with its own parts."""
    trained = learning(model, objective.extras)
    optimiser = torch.optim.AdamW(trained, lr=6e-3, weight_decay=0.0)
    parts, before = parts_of(model, objective), objective.stages[0]
    for step in range(steps):
        stage = [one for one in objective.stages if one.start <= step / steps][-1]
        if stage.is_new and stage is not before:
            optimiser.state.clear()
        before = stage
        optimiser.zero_grad()
        for parameter in trained:
            parameter.requires_grad_(False)
        for name in stage.trained:
            for _, parameter in parts[name]:
                parameter.requires_grad_(True)
        loss = objective.loss(objective.represent(model, batch, stage), stage)
        torch.autograd.backward(loss.total)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(
    ("name", "readout", "rationale"),
    [
        ("plain", "last", False),
        ("plume", "gen", True),
        ("plume", "gen", False),
        ("lame", "mean", False),
        ("lame", "disc", False),
    ],
)
def test_sixteen_pairs_are_learnt_by_heart_in_seconds(
    backbone: str, name: str, readout: str, rationale: bool
) -> None:
    torch.manual_seed(0)
    model = tiny_model(backbone, REASONERS[name])
    objective = build_objective(recipe(name), model, readout=readout)
    pairs = word_pairs(rationale=rationale)
    effort = objective.stages[-1].effort
    before = recall_at_1(model, training_batch(model, pairs), effort=effort, readout=readout)

    learnt(model.train(), objective, training_batch(model, pairs), steps=64 if rationale else 32)

    after = recall_at_1(model, training_batch(model, pairs), effort=effort, readout=readout)
    assert before < 0.5
    assert after == 1.0


def mixed_pairs() -> list[Example]:
    """Return pairs of words and of drawings, some with rationales, some with hard negatives."""
    words, bare = word_pairs(3), word_pairs(2, rationale=False, seed=1)
    far = tuple(Side((one,)) for one in ("nothing", "of the kind"))
    hard = dataclasses.replace(words[1], negatives=far)
    harder = dataclasses.replace(bare[1], negatives=far[1:])
    return [words[0], hard, bare[0], harder, words[2], *toy_examples(2, seed=0)]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", REASONERS)
def test_chunks_have_the_gradient_of_the_whole_batch(backbone: str, name: str) -> None:
    torch.manual_seed(0)
    model = tiny_model(backbone, REASONERS[name])
    weights = {"hold": 0.5}
    objective = build_objective(recipe(name, weights=weights, dims=(8, 16)), model)
    examples = mixed_pairs()
    with torch.no_grad():  # else there is nothing to hold
        for parameter in learning(model):
            parameter.mul_(1.05)
    stage = objective.stages[-2 if name == "plume" else -1]

    loss = objective.loss(objective.represent(model, training_batch(model, examples), stage), stage)
    torch.autograd.backward(loss.total)
    direct = gradients(model) | gradients(objective.extras)
    model.zero_grad(set_to_none=True)
    objective.extras.zero_grad(set_to_none=True)
    chunks = [training_batch(model, part) for part in (examples[:1], examples[1:4], examples[4:])]
    cached = backward(
        model, objective, chunks, stage, world=World(), seeds=[1, 2, 3], autocast=None
    )

    assert loss.parts.keys() == cached.parts.keys()
    for part, value in loss.parts.items():
        torch.testing.assert_close(cached.parts[part], value, atol=1e-4, rtol=1e-4)
    found = gradients(model) | gradients(objective.extras)
    assert found.keys() == direct.keys()
    scale = max(gradient.abs().max() for gradient in direct.values()).item()
    for part, gradient in direct.items():
        torch.testing.assert_close(found[part], gradient, atol=1e-5 * scale, rtol=1e-3)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", REASONERS)
def test_autocast_rounds_the_network_and_no_loss(backbone: str, name: str) -> None:
    torch.manual_seed(0)
    model = tiny_model(backbone, REASONERS[name])
    objective = build_objective(recipe(name, weights={"hold": 0.5}), model)
    batch = training_batch(model, mixed_pairs())
    stage = objective.stages[0]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = objective.represent(model, batch, stage)
        loss = objective.loss(rows, stage)
    torch.autograd.backward(loss.total)

    assert loss.total.dtype is torch.float32
    floating = {of: one.dtype for of, one in rows.items() if one.is_floating_point()}
    assert set(floating.values()) == {torch.float32}
    exact = objective.loss(objective.represent(model, batch, stage), stage)
    for part, value in exact.parts.items():
        torch.testing.assert_close(loss.parts[part], value, atol=0.1, rtol=0.05)


@pytest.mark.parametrize("name", ["plume", "lame"])
def test_another_reasoner_is_refused_with_the_line_to_write(name: str) -> None:
    model = tiny_model("default", "none")

    with pytest.raises(BadSetting, match="reasoner is 'none'") as caught:
        build_objective(recipe(name), model)

    assert caught.value.hint == f'model.reasoner = "{REASONERS[name]}"'


def test_a_thought_that_is_written_has_no_gradient() -> None:
    with pytest.raises(BadSetting, match="no gradient goes through the reasoner 'cot'"):
        build_objective(recipe("plain"), tiny_model("default", "cot"))


def test_sizes_that_the_vectors_do_not_have_are_refused() -> None:
    with pytest.raises(BadSetting, match="vectors have 32 dimensions, not 64, 8"):
        build_objective(recipe("plain", dims=(64, 8)), tiny_model("default", "none"))


def test_segments_that_no_steps_replace_are_refused() -> None:
    with pytest.raises(BadSetting, match="4 latent steps do not replace 3 segments"):
        build_objective(recipe("plume", segments=3), tiny_model("default", "rollout"))


@pytest.mark.parametrize(("reasoner", "effort"), [("rollout", 4), ("bottleneck", 4)])
def test_plain_contrast_trains_every_reasoner_at_its_effort(reasoner: str, effort: int) -> None:
    model = tiny_model("default", reasoner)
    objective = build_objective(recipe("plain"), model)
    [stage] = objective.stages

    loss = objective.loss(
        objective.represent(model, training_batch(model, word_pairs(4)), stage), stage
    )
    torch.autograd.backward(loss.total)

    assert stage.effort == effort
    assert gradients(model.reasoner)


def test_a_head_that_stays_closed_asks_for_no_thought() -> None:
    model = tiny_model("default", "none")
    torch.nn.init.zeros_(model.get_parameter("head.alpha"))
    objective = build_objective(recipe("plain"), model)
    batch = training_batch(model, word_pairs(4))
    passes = []
    model.backbone.decoder.layers[0].register_forward_pre_hook(lambda *_: passes.append(1))

    open_ = objective.represent(model, batch, objective.stages[0])
    assert passes
    passes.clear()
    model.head.requires_grad_(False)
    closed = objective.represent(model, batch, objective.stages[0])

    assert not passes
    torch.testing.assert_close(closed["query.vector"], open_["query.vector"])
