"""LoRA begins as nothing, learns alone, and leaves no trace once it is merged."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from mmsearch.errors import BadSetting, MissingExtra
from mmsearch.retriever.embedding.embedder import LatentEmbedder
from mmsearch.retriever.models import tiny_qwen
from mmsearch.retriever.models.checkpoint import Model, build_model, write_checkpoint
from mmsearch.retriever.models.description import ModelDescription
from mmsearch.retriever.training.config import LoraSettings, ModelConfig
from mmsearch.retriever.training.lora import add_lora, has_lora, merge_lora
from mmsearch.retriever.training.starting import parts_of, start_model
from mmsearch.values import Image, Item, Role

STARTS = ("tiny-default", *(f"tiny-{family}" for family in tiny_qwen.FAMILIES))
SMALL = LoraSettings(rank=4, alpha=8.0)
ITEMS = [Item(["a red bus"]), Item([Image(np.full((40, 60, 3), 99, dtype=np.uint8)), "seen"])]

every_start = pytest.mark.parametrize("start", STARTS)


def started(start: str, reasoner: str = "rollout") -> tuple[ModelDescription, Model]:
    description, model = start_model(ModelConfig(start=start, reasoner=reasoner))
    torch.manual_seed(0)
    return description, model.eval()


def learnt(model: Model) -> None:
    """Give every B what it could have learnt."""
    draw = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.data = torch.randn(parameter.shape, generator=draw) * 0.1


def vectors(description: ModelDescription, model: Model) -> "np.ndarray[Any, np.dtype[np.float32]]":
    return LatentEmbedder(description, model).embed(ITEMS)


def loss_of(description: ModelDescription, model: Model) -> Tensor:
    batch = model.backbone.collate(ITEMS, role=Role.QUERY)
    thought = model.reasoner.think(model.backbone, batch, effort=description.effort)
    base = model.backbone.readouts(batch).get("base")
    return model.head(base, thought[description.readout])[:, 0].float().sum()


@every_start
def test_it_begins_as_nothing_and_counts_from_then_on(start: str) -> None:
    description, model = started(start)
    before = vectors(description, model)

    add_lora(model, SMALL)

    np.testing.assert_array_equal(vectors(description, model), before)
    learnt(model)
    assert np.abs(vectors(description, model) - before).max() > 1e-2


@every_start
@pytest.mark.parametrize("reasoner", ["rollout", "bottleneck"])
def test_merged_it_leaves_the_vectors_and_no_name(start: str, reasoner: str) -> None:
    description, model = started(start, reasoner)
    names = list(model.state_dict())
    add_lora(model, SMALL)
    learnt(model)
    expected = vectors(description, model)

    merge_lora(model)

    np.testing.assert_allclose(vectors(description, model), expected, atol=1e-5)
    assert list(model.state_dict()) == names
    assert not has_lora(model)


@every_start
def test_only_it_learns_and_what_started_at_random(start: str) -> None:
    description, model = started(start)
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    fresh = {name for name, _ in parts_of(model)["fresh"]}

    add_lora(model, SMALL)

    learning = {name for name, one in model.named_parameters() if one.requires_grad}
    small = {name for name in learning if ".lora_" in name}
    assert learning == small | fresh
    parts = parts_of(model)
    assert {name for name, _ in parts["lora"]} == small
    assert {name for name, _ in parts["fresh"]} == learning  # all of it is new
    torch.autograd.backward(loss_of(description, model))
    given = {n for n, one in model.named_parameters() if one.grad is not None and one.grad.any()}
    assert {name for name in small if ".lora_B." in name} <= given <= learning
    with torch.no_grad():
        for name in given:
            model.get_parameter(name).sub_(0.1 * model.get_parameter(name).grad)  # type: ignore[operator]
    after = {name.replace(".base_layer", ""): one for name, one in model.named_parameters()}
    assert all(torch.equal(after[name], one) for name, one in before.items() if name not in fresh)


@every_start
def test_every_layer_of_the_language_model_has_seven(start: str) -> None:
    _, model = started(start)
    add_lora(model, SMALL)

    named = {name.partition(".lora_")[0] for name, _ in parts_of(model)["lora"]}

    assert len(named) == 2 * 7
    assert all(".layers." in name and ".vision." not in name for name in named)


def test_tokens_that_a_model_was_given_learn_beside_a_table_that_does_not(tmp_path: Path) -> None:
    spelled = tiny_qwen.tiny_tokenizer().to_str()
    for token in ("<bot>", "<eot>", "<ct>"):  # UME-R1 has the other two
        spelled = spelled.replace(token, f"[{token[1]}]")
    description = tiny_qwen.tiny_description("qwen2_vl", max_tokens=1_024)
    before = build_model(description, Tokenizer.from_str(spelled))
    before.load_state_dict(tiny_qwen.random_qwen(description).state_dict())
    write_checkpoint(tmp_path, before, description)
    description, model = started(str(tmp_path))
    names, plain = list(model.state_dict()), vectors(description, model)
    backbone = model.backbone
    table = backbone._table
    add_lora(model, SMALL)

    np.testing.assert_array_equal(vectors(description, model), plain)
    assert not table.requires_grad
    hidden = torch.randn(3, backbone.width)
    torch.testing.assert_close(backbone.logits(hidden), hidden @ table.T)
    torch.autograd.backward(loss_of(description, model) + backbone.logits(hidden).sin().sum())
    (rows,) = (one for name, one in parts_of(model)["fresh"] if "new_rows" in name)
    assert rows.shape == (3, backbone.width)  # <bot>, <eot>, <ct>
    assert rows.grad is not None
    assert rows.grad.any(dim=1).all()
    with torch.no_grad():
        rows.add_(torch.randn(rows.shape))
    ids = [backbone.tokens(token)[0] for token in ("<bot>", "<eot>", "<ct>")]
    assert torch.equal(backbone.embed(torch.tensor([[5, *ids]]))[0], torch.stack([table[5], *rows]))
    expected, logits = vectors(description, model), backbone.logits(hidden)
    assert np.abs(expected - plain).max() > 1e-2
    merge_lora(model)
    np.testing.assert_allclose(vectors(description, model), expected, atol=1e-5)
    torch.testing.assert_close(backbone.logits(hidden), logits)
    assert list(model.state_dict()) == names


def test_weights_that_were_laid_side_by_side_are_not_read_past_it() -> None:
    description, model = started("tiny-qwen2_vl")
    model.backbone.pack()
    before = vectors(description, model)
    add_lora(model, SMALL)
    learnt(model)

    after = vectors(description, model)

    assert np.abs(after - before).max() > 1e-2
    merge_lora(model)
    np.testing.assert_allclose(vectors(description, model), after, atol=1e-5)


def test_layers_computed_again_have_its_gradients_and_its_dropout() -> None:
    description, model = started("tiny-qwen2_vl")
    add_lora(model, LoraSettings(rank=4, alpha=8.0, dropout=0.3))
    learnt(model)
    model.train()
    gradients = []
    for again in (False, True):
        model.backbone.checkpointing = again
        model.zero_grad()
        torch.manual_seed(1)
        torch.autograd.backward(loss_of(description, model))
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})

    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-6)


def test_autocast_gives_it_gradients_in_float32() -> None:
    description, model = started("tiny-qwen2_vl")
    add_lora(model, SMALL)
    learnt(model)
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = loss_of(description, model)
        torch.autograd.backward(loss)
        found = [one.grad for _, one in parts_of(model)["lora"] if one.grad is not None]
        gradients.append(torch.cat([one.flatten() for one in found]))

    assert gradients[1].dtype is torch.float32
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.99


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("self_attn.q_proj", "attn.qkv")])
def test_targets_are_named_by_their_ends(targets: tuple[str, ...]) -> None:
    _, model = started("tiny-qwen2_vl")

    add_lora(model, LoraSettings(rank=2, targets=targets))

    named = {name.partition(".lora_")[0] for name, _ in parts_of(model)["lora"]}
    assert len(named) == 4
    assert all(name.endswith(targets) for name in named)


@pytest.mark.parametrize("target", ["q_porj", "words_in", "proj_q"])
def test_a_target_that_is_not_there_is_named(target: str) -> None:
    _, model = started("tiny-default")

    with pytest.raises(BadSetting, match=target):
        add_lora(model, LoraSettings(targets=(target,)))


def test_without_peft_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = started("tiny-default")
    monkeypatch.setitem(sys.modules, "peft", None)

    with pytest.raises(MissingExtra) as caught:
        add_lora(model, SMALL)

    assert caught.value.hint == "pip install 'mmsearch[train]'"
