"""PLUME's losses are the paper's, of the suffix alone, and their gradient goes all the way."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toy_pairs import BACKBONES, gradients, recipe, tiny_model, training_batch, word_pairs

from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.training.examples import Example, Side
from mmsearch.retriever.training.losses import balance_loss
from mmsearch.retriever.training.objective import Stage
from mmsearch.retriever.training.objectives.plume import Plume


def plume(model: Model, **choices: object) -> Plume:
    return Plume(recipe("plume", **choices), model)


def uneven_pairs() -> list[Example]:
    """Return pairs whose suffixes differ in length, one side of them without a rationale."""
    one, two, three = word_pairs(3)
    long = dataclasses.replace(two.query, rationale="First. Then. " * 4 + "Last.", answer="")
    bare = Side(three.positive.parts)
    return [
        one,
        dataclasses.replace(two, query=long),
        dataclasses.replace(three, positive=bare),
    ]


def told_surprise(model: Model, objective: Plume, side: Side, example: Example) -> float:
    """Return the mean surprise of a side's suffix, each token from a pass of its own."""
    stage, backbone = objective.stages[0], model.backbone
    batch = training_batch(model, [example])
    own = batch.query if side is example.query else batch.positive
    suffix = [*objective.writer.tokens(side, stage), *objective.writer.after]
    reasoner = model.reasoner
    surprises = []
    for place, token in enumerate(suffix):
        if place == 0:
            empty = torch.zeros(1, 0, dtype=torch.long)
            state = _state_before_suffix(model, own.batch, stage, empty)
        else:
            ids = torch.tensor([suffix[:place]])
            thought = reasoner.unroll(backbone, own.batch, effort=stage.effort, suffix=ids)
            state = thought.suffix[:, -1]
        surprises.append(-backbone.logits(state).log_softmax(dim=-1)[0, token].item())
    return sum(surprises) / len(surprises)


def _state_before_suffix(model: Model, batch: object, stage: Stage, nothing: Tensor) -> Tensor:
    """Return z(K), going on from the prompt by hand."""
    reasoner, backbone = model.reasoner, model.backbone
    hidden, cache = backbone.prefill(batch)
    z = hidden[:, -1]
    anchor = hidden[:, hidden.shape[1] - 1 - int(backbone.anchors(batch)[0])]
    for step in range(stage.effort):
        hidden, cache = backbone.extend(reasoner.adapter(z, step, anchor)[:, None], cache)
        z = hidden[:, 0]
    return z


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_the_cross_entropy_is_the_mean_over_each_suffix_and_over_the_rows_that_have_one(
    backbone: str,
) -> None:
    model = tiny_model(backbone, "rollout").eval()
    objective = plume(model)
    pairs = uneven_pairs()

    rows = objective.represent(model, training_batch(model, pairs), objective.stages[0])
    loss = objective.loss(rows, objective.stages[0])

    queries = [told_surprise(model, objective, one.query, one) for one in pairs]
    positives = [told_surprise(model, objective, one.positive, one) for one in pairs[:2]]
    assert rows["query.ce"].tolist() == pytest.approx(queries, abs=2e-4)
    assert rows["positive.ce"].tolist() == pytest.approx([*positives, 0.0], abs=2e-4)
    expected = sum(queries) / 3 + sum(positives) / 2
    assert loss.parts["ce"].item() == pytest.approx(expected, abs=5e-4)


@torch.no_grad()
def test_the_first_token_is_predicted_from_the_prompt_where_there_are_no_steps() -> None:
    model = tiny_model("default", "rollout").eval()
    objective = plume(model, ratios=(0.0, 1.0))
    assert objective.stages[0].effort == 0
    [pair] = word_pairs(1)

    rows = objective.represent(model, training_batch(model, [pair]), objective.stages[0])

    expected = told_surprise(model, objective, pair.query, pair)
    assert rows["query.ce"].item() == pytest.approx(expected, abs=2e-4)


@torch.no_grad()
def test_the_logits_are_float32_whatever_the_network_computes_in() -> None:
    """In bfloat16 the steps between logits near 20 are 0.125 wide."""
    model = tiny_model("qwen2_vl", "rollout").eval()
    objective = plume(model)
    seen: list[tuple[torch.dtype, torch.dtype]] = []
    logits = model.backbone.logits

    def watched(hidden: Tensor) -> Tensor:
        found = logits(hidden)
        seen.append((hidden.dtype, found.dtype))
        return found

    model.backbone.logits = watched
    with torch.autocast("cpu", dtype=torch.bfloat16):
        batch = training_batch(model, word_pairs(2))
        rows = objective.represent(model, batch, objective.stages[0])

    assert seen == [(torch.float32, torch.float32)] * 2
    assert rows["query.ce"].dtype is torch.float32


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_a_row_is_the_same_alone_and_beside_longer_suffixes(backbone: str) -> None:
    model = tiny_model(backbone, "rollout").eval()
    objective = plume(model)
    pairs = uneven_pairs()

    together = objective.represent(model, training_batch(model, pairs), objective.stages[0])

    for row, pair in enumerate(pairs):
        alone = objective.represent(model, training_batch(model, [pair]), objective.stages[0])
        for name, rows in together.items():
            torch.testing.assert_close(rows[row], alone[name][0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_at_the_end_it_embeds_as_the_reasoner_thinks(backbone: str) -> None:
    model = tiny_model(backbone, "rollout").eval()
    objective = plume(model)
    batch = training_batch(model, word_pairs(3))

    rows = objective.represent(model, batch, objective.stages[-1])

    base = model.backbone.readouts(batch.query.batch).get("base")
    thought = model.reasoner.think(model.backbone, batch.query.batch, effort=4)
    torch.testing.assert_close(rows["query.gen"], model.head(base, thought["gen"]))
    torch.testing.assert_close(rows["query.anchor"], model.head(base, thought["disc"]))


@pytest.mark.parametrize("stage", range(5))
def test_pairs_without_a_rationale_need_none_at_any_stage(stage: int) -> None:
    model = tiny_model("default", "rollout")
    objective = plume(model)
    batch = training_batch(model, word_pairs(4, rationale=False))

    rows = objective.represent(model, batch, objective.stages[stage])
    loss = objective.loss(rows, objective.stages[stage])
    torch.autograd.backward(loss.total)

    assert loss.parts["ce"].item() == 0.0
    assert loss.parts["gen"].item() > 0.0
    assert gradients(model.reasoner)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("part", ["gen", "ce"])
def test_the_gradient_goes_through_every_step_to_adapter_anchor_and_backbone(
    backbone: str, part: str
) -> None:
    model = tiny_model(backbone, "rollout")
    objective = plume(model)
    stage = objective.stages[3]  # all four steps, and the answer

    batch = training_batch(model, word_pairs(3))
    loss = objective.loss(objective.represent(model, batch, stage), stage)
    torch.autograd.backward(loss.parts[part])

    adapter = gradients(model.reasoner.adapter)
    for name in ("router.weight", "ln.weight", "shared_expert.fc1.weight", "step_embed.weight"):
        assert name in adapter
    used = adapter["step_embed.weight"].any(dim=-1).nonzero().flatten().tolist()
    assert used == [0, 1, 2, 3]
    first = {"default": "words_in.weight", "qwen2_vl": "language.embed_tokens.weight"}
    assert first[backbone] in gradients(model.backbone)


def test_the_anchor_is_contrasted_and_steers_with_its_gradient() -> None:
    model = tiny_model("qwen2_vl", "rollout")
    batch = training_batch(model, word_pairs(3))
    objective = plume(model, weights={"anchor": 0.0, "ce": 0.0, "balance": 0.0})
    hidden: list[Tensor] = []
    prefill = model.backbone.prefill

    def watched(*args: object, **kwargs: object) -> tuple[Tensor, object]:
        states, cache = prefill(*args, **kwargs)
        states.retain_grad()
        hidden.append(states)
        return states, cache

    model.backbone.prefill = watched
    rows = objective.represent(model, batch, objective.stages[-1])
    loss = objective.loss(rows, objective.stages[-1])
    torch.autograd.backward(loss.total)

    assert loss.parts.keys() == {"gen"}
    states, anchor = hidden[0], batch.query.batch.anchors
    assert states.grad is not None
    places = states.grad.any(dim=-1)[0].nonzero().flatten().tolist()
    last = states.shape[1] - 1
    assert places == [last - int(anchor[0]), last]


def test_the_balance_is_that_of_both_sides_together() -> None:
    model = tiny_model("default", "rollout")
    objective = plume(model)
    batch = training_batch(model, word_pairs(3))

    rows = objective.represent(model, batch, objective.stages[1])
    loss = objective.loss(rows, objective.stages[1])

    assert rows["query.routing"].shape == (3, 2, 4)
    torch.testing.assert_close(rows["query.routing"].sum(dim=-1), torch.ones(3, 2))
    both = torch.cat([rows["query.routing"], rows["positive.routing"]])
    torch.testing.assert_close(loss.parts["balance"], balance_loss(both))
    shares = both.mean(dim=(0, 1))
    expected = ((shares - 0.25) ** 2).sum() / 4
    torch.testing.assert_close(loss.parts["balance"], expected)


def test_the_total_weighs_the_parts_as_the_paper_does() -> None:
    model = tiny_model("default", "rollout")
    objective = plume(model)
    batch = training_batch(model, word_pairs(4))

    loss = objective.loss(
        objective.represent(model, batch, objective.stages[0]), objective.stages[0]
    )

    parts = {name: value.item() for name, value in loss.parts.items()}
    expected = parts["ce"] + parts["gen"] + parts["anchor"] + 0.1 * parts["balance"]
    assert parts.keys() == {"ce", "gen", "anchor", "balance"}
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)


def test_hard_negatives_are_thought_about_and_asked_nothing() -> None:
    model = tiny_model("default", "rollout")
    objective = plume(model)
    pairs = word_pairs(3)
    hard = [dataclasses.replace(pairs[0], negatives=(pairs[1].positive,)), *pairs[1:]]

    rows = objective.represent(model, training_batch(model, hard), objective.stages[0])

    assert rows["negative.gen"].shape == (1, 32)
    # Its rationale is written as that of any side, so it is what it is as a positive.
    torch.testing.assert_close(rows["negative.gen"][0], rows["positive.gen"][1])
    assert rows["negative_of"].tolist() == [0]
    assert not {"negative.ce", "negative.routing"} & rows.keys()


def test_a_long_rationale_costs_the_query_nothing() -> None:
    model = tiny_model("qwen2_vl", "rollout").eval()
    objective = plume(model, max_rationale_tokens=16)
    [pair] = word_pairs(1)
    long = Side(pair.query.parts, "And so on, it goes on. " * 200, "yes")
    lengths: list[int] = []
    prefill, extend = model.backbone.prefill, model.backbone.extend

    def watched_prefill(batch: Any, **kwargs: Any) -> Any:
        lengths.append(batch.ids.shape[1])
        return prefill(batch, **kwargs)

    def watched_extend(embeds: Tensor, cache: Any) -> Any:
        lengths.append(embeds.shape[1])
        return extend(embeds, cache)

    model.backbone.prefill, model.backbone.extend = watched_prefill, watched_extend

    for query in (pair.query, long):
        one = dataclasses.replace(pair, query=query)
        lengths.append(-1)
        objective.represent(model, training_batch(model, [one]), objective.stages[0])

    short_pass, long_pass = lengths[1:], lengths[lengths.index(-1, 1) + 1 :]
    assert short_pass[0] == long_pass[0]  # the prompt with the query in it
    assert max(long_pass[1:]) <= 16 + len("</think><answer>yes</answer>\n") + 4


def test_unit_vectors_come_out() -> None:
    model = tiny_model("qwen2_vl", "rollout")
    objective = plume(model)
    rows = objective.represent(model, training_batch(model, word_pairs(2)), objective.stages[0])

    for name in ("query.gen", "positive.anchor"):
        torch.testing.assert_close(rows[name], F.normalize(rows[name], dim=-1))
