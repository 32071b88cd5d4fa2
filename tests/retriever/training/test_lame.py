"""LaME's decoder teaches the reason tokens what is to be found, and no vector needs it."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_pairs import BACKBONES, gradients, recipe, tiny_model, training_batch, word_pairs

from mmsearch.retriever.models.checkpoint import Model, read_checkpoint, write_checkpoint
from mmsearch.retriever.models.tiny import tiny_description
from mmsearch.retriever.training.examples import Side
from mmsearch.retriever.training.objective import Loss
from mmsearch.retriever.training.objectives.lame import Lame
from mmsearch.retriever.training.toy import toy_examples


def lame(model: Model, *, readout: str = "disc", **choices: object) -> Lame:
    torch.manual_seed(0)
    return Lame(recipe("lame", **choices), model, readout=readout)


def loss_of(objective: Lame, model: Model, *, stage: int = -1, count: int = 3) -> Loss:
    batch = training_batch(model, word_pairs(count, rationale=False))
    rows = objective.represent(model, batch, objective.stages[stage])
    return objective.loss(rows, objective.stages[stage])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_decoder_reaches_the_model_through_the_first_reason_tokens_alone(backbone: str) -> None:
    model = tiny_model(backbone, "bottleneck")
    objective = lame(model)
    states: list[Tensor] = []
    prefill = model.backbone.prefill

    def watched(*args: object, **kwargs: object) -> tuple[Tensor, object]:
        hidden, cache = prefill(*args, **kwargs)
        hidden.retain_grad()
        states.append(hidden)
        return hidden, cache

    model.backbone.prefill = watched
    loss = loss_of(objective, model)
    torch.autograd.backward(loss.parts["reconstruction"])

    num_tokens, decoded = model.reasoner.config.num_tokens, model.reasoner.config.num_decoded
    for hidden in states:
        assert hidden.grad is not None
        places = hidden.grad.any(dim=-1).any(dim=0).nonzero().flatten() - hidden.shape[1]
        # The tail is the reason tokens and [EMBED].
        assert places.tolist() == [i - num_tokens - 1 for i in range(decoded)]
    assert gradients(objective.extras)
    assert "reason" in gradients(model.reasoner)
    assert "embed" not in gradients(model.reasoner)
    assert not gradients(model.head)

    model.zero_grad(set_to_none=True)
    cut = model.reasoner.reason_states
    model.reasoner.reason_states = lambda *args: tuple(one.detach() for one in cut(*args))
    torch.autograd.backward(loss_of(objective, model).parts["reconstruction"])
    assert not gradients(model)


def test_each_side_is_to_tell_the_words_of_the_other_or_its_answer_or_nothing() -> None:
    model = tiny_model("default", "bottleneck").eval()
    objective = lame(model)
    pairs = toy_examples(2, seed=0)
    bare = dataclasses.replace(pairs[1].positive, answer="")
    pairs = [pairs[0], dataclasses.replace(pairs[1], positive=bare), *word_pairs(1)]
    targets: list[list[int]] = []
    assert objective.decoder is not None
    losses = objective.decoder.losses

    def watched(reason: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        targets.extend(row[real].tolist() for row, real in zip(target, mask, strict=True))
        return losses(reason, target, mask)

    objective.decoder.losses = watched  # type: ignore[method-assign]
    stage = objective.stages[-1]
    with torch.no_grad():
        rows = objective.represent(model, training_batch(model, pairs), stage)
        loss = objective.loss(rows, stage)

    queries = [pairs[0].positive.answer, "", pairs[2].positive.text]
    positives = [pair.query.text for pair in pairs]
    assert targets == [model.backbone.tokens(text) for text in [*queries, *positives]]
    assert rows["query.told"].tolist() == [1, 0, 1]
    assert rows["positive.told"].tolist() == [1, 1, 1]
    told = [rows["query.reconstruction"][row].item() for row in (0, 2)]
    told += rows["positive.reconstruction"].tolist()
    assert loss.parts["reconstruction"].item() == pytest.approx(sum(told) / 5, rel=1e-5)


def test_a_target_that_is_too_long_is_cut_and_its_special_tokens_are_words() -> None:
    model = tiny_model("qwen2_vl", "bottleneck").eval()
    objective = lame(model, max_rationale_tokens=8)
    assert objective.decoder is not None
    seen: list[Tensor] = []
    losses = objective.decoder.losses
    objective.decoder.losses = lambda *args: seen.append(args[1]) or losses(*args)  # type: ignore

    batch = training_batch(model, word_pairs(1))
    sides = [Side(("<|im_end|> and much more",))]
    objective.represent(
        model,
        dataclasses.replace(
            batch, positive=dataclasses.replace(batch.positive, sides=tuple(sides))
        ),
        objective.stages[-1],
    )

    assert seen[0].tolist() == [model.backbone.tokens("< |im_en")]


def test_the_warm_up_trains_what_is_fresh_on_reason_alone() -> None:
    model = tiny_model("default", "bottleneck")
    objective = lame(model, warm_up=0.25)

    warm_up, joint = objective.stages
    assert joint.start == 0.25
    assert "backbone" not in warm_up.trained
    assert loss_of(objective, model, stage=0).parts.keys() == {"gen", "reconstruction"}
    assert loss_of(objective, model, stage=1).parts.keys() == {"gen", "disc", "reconstruction"}


def test_with_the_backbone_frozen_tokens_head_and_decoder_learn() -> None:
    model = tiny_model("default", "bottleneck")
    model.backbone.requires_grad_(False)
    objective = lame(model, warm_up=0.25)

    torch.autograd.backward(loss_of(objective, model, stage=0).total)

    assert gradients(model).keys() == {
        "reasoner.reason",
        "head.alpha",
        "head.out.weight",
        "head.out.bias",
    }
    assert gradients(objective.extras)


def test_the_total_weighs_the_parts_as_they_are_asked_for() -> None:
    model = tiny_model("default", "bottleneck")
    weights = {"gen": 2.0, "disc": 3.0, "reconstruction": 0.5}

    loss = loss_of(lame(model, weights=weights), model, count=4)

    parts = {name: value.item() for name, value in loss.parts.items()}
    expected = sum(weights[name] * value for name, value in parts.items())
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)


def test_the_mean_is_contrasted_where_it_makes_the_vector() -> None:
    model = tiny_model("default", "bottleneck")

    assert "mean" in loss_of(lame(model, readout="mean"), model).parts
    assert "mean" not in loss_of(lame(model, readout="gen"), model).parts


def test_without_a_reconstruction_there_is_no_decoder() -> None:
    model = tiny_model("default", "bottleneck")
    objective = lame(model, weights={"reconstruction": 0.0})

    assert not list(objective.extras.parameters())
    assert loss_of(objective, model).parts.keys() == {"gen", "disc"}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_leaving_the_decoder_out_changes_no_bit_of_a_vector(backbone: str, tmp_path: Path) -> None:
    model = tiny_model(backbone, "bottleneck")
    objective = lame(model, readout="mean")
    batch = training_batch(model, word_pairs(3))
    loss = objective.loss(
        objective.represent(model, batch, objective.stages[-1]), objective.stages[-1]
    )
    torch.autograd.backward(loss.total)
    with torch.no_grad():
        for parameter in (*model.parameters(), *objective.extras.parameters()):
            if parameter.grad is not None:
                parameter.sub_(0.01 * parameter.grad)
    model.requires_grad_(False).eval()

    beside = objective.represent(model, batch, objective.stages[-1])
    alone = lame(model, readout="mean", weights={"reconstruction": 0.0})
    without = alone.represent(model, batch, alone.stages[-1])

    for name in ("query.gen", "query.disc", "positive.mean"):
        assert torch.equal(beside[name], without[name])
    if backbone == "default":
        write_checkpoint(tmp_path, model, tiny_description(reasoner="bottleneck"))
        _, read = read_checkpoint(tmp_path)
        assert not [name for name in read.state_dict() if "decoder.words" in name]
        written = alone.represent(read, training_batch(read, word_pairs(3)), alone.stages[-1])
        assert torch.equal(beside["query.mean"], written["query.mean"])
