"""Training starts from what was trained before, and draws only what is new."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_folders import UME_TOKENS, write_published
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from mmsearch.errors import BadSetting, ModelNotFound
from mmsearch.retriever.embedding.embedder import LatentEmbedder
from mmsearch.retriever.models import tiny, tiny_qwen
from mmsearch.retriever.models.checkpoint import (
    Model,
    build_model,
    read_checkpoint,
    write_checkpoint,
)
from mmsearch.retriever.models.head import TurnedHead
from mmsearch.retriever.models.hub_families import FAMILIES
from mmsearch.retriever.training.config import ModelConfig
from mmsearch.retriever.training.starting import add_tokens, parts_of, start_model
from mmsearch.values import Image, Item

STARTS = ("tiny-default", *(f"tiny-{family}" for family in tiny_qwen.FAMILIES))
REASONERS = ("none", "rollout", "bottleneck")
ITEMS = [Item(["a red bus"]), Item([Image(np.full((40, 60, 3), 99, dtype=np.uint8)), "seen"])]

every_start = pytest.mark.parametrize("start", STARTS)
every_reasoner = pytest.mark.parametrize("reasoner", REASONERS)


def vectors(description: Any, model: Model) -> "np.ndarray[Any, np.dtype[np.float32]]":
    return LatentEmbedder(description, model.eval()).embed(ITEMS)


def plain_qwen(family: str = "qwen2_vl") -> Model:
    """Return a tiny Qwen whose vocabulary has none of PLUME's tokens, and `<tool_call>`."""
    tokenizer = tiny_qwen.tiny_tokenizer().to_str()
    for token in tiny_qwen.READOUTS:
        tokenizer = tokenizer.replace(token, f"[other{len(token)}{token[1]}]")
    with_tools = Tokenizer.from_str(tokenizer)
    with_tools.add_tokens([AddedToken(one) for one in ("<tool_call>", "</tool_call>")])
    description = tiny_qwen.tiny_description(family)
    model = build_model(description, with_tools)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.requires_grad_(False).eval()


@every_start
def test_a_start_without_a_reasoner_is_the_model_as_it_is(start: str) -> None:
    description, model = start_model(ModelConfig(start=start))

    if start == "tiny-default":
        same = tiny.random_model()
    else:
        same = tiny_qwen.random_qwen(tiny_qwen.tiny_description(start.removeprefix("tiny-")))
    np.testing.assert_array_equal(vectors(description, model), vectors(description, same))
    assert not parts_of(model)["fresh"]


@every_start
@every_reasoner
def test_what_was_there_is_kept_and_the_rest_can_be_written(
    tmp_path: Path, start: str, reasoner: str
) -> None:
    before = start_model(ModelConfig(start=start))[1].state_dict()

    description, model = start_model(ModelConfig(start=start, reasoner=reasoner))

    after = model.state_dict()
    assert {name for name in before if name.startswith("backbone.")} <= after.keys()
    for name, tensor in before.items():
        # PLUME's table has a row for each token, and none to spare.
        assert torch.equal(after[name], tensor[: len(after[name])] if tensor.ndim else tensor), name
    fresh = {name for name, _ in parts_of(model)["fresh"]}
    assert fresh == after.keys() - before.keys()
    assert description.readout == {"none": "last", "rollout": "gen", "bottleneck": "mean"}[reasoner]
    assert description.effort == {"none": 0, "rollout": 8, "bottleneck": 8}[reasoner]
    write_checkpoint(tmp_path, model, description)
    described, read = read_checkpoint(tmp_path)
    np.testing.assert_array_equal(vectors(described, read), vectors(description, model))


@every_start
def test_everything_learns_that_is_not_frozen(start: str) -> None:
    config = ModelConfig(start=start, reasoner="rollout", frozen=("backbone.vision.*",))
    _, model = start_model(config)

    still = {name for name, one in model.named_parameters() if not one.requires_grad}

    assert still == {n for n, _ in model.named_parameters() if n.startswith("backbone.vision.")}
    assert model.training


def test_parts_share_out_what_learns() -> None:
    frozen = ("backbone.vision.blocks.*", "backbone.vision.patch_embed.*")
    _, model = start_model(ModelConfig(start="tiny-qwen2_vl", reasoner="bottleneck", frozen=frozen))

    parts = {name: [one for one, _ in named] for name, named in parts_of(model).items()}

    whole = parts["backbone"] + parts["reasoner"] + parts["head"] + parts["extras"]
    assert sorted(whole) == sorted(n for n, p in model.named_parameters() if p.requires_grad)
    assert parts["reasoner"] == parts["fresh"] == ["reasoner.reason", "reasoner.embed"]
    assert parts["vision"] == parts["merger"]  # the rest of the tower is frozen
    assert all(name.startswith("backbone.vision.merger.") for name in parts["merger"])


def test_the_same_seed_draws_the_same_weights() -> None:
    config = ModelConfig(start="tiny-default", reasoner="rollout")

    one, same, other = (start_model(config, seed=seed)[1].state_dict() for seed in (1, 1, 2))

    differing = {name for name in one if not torch.equal(one[name], other[name])}
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert all(name.startswith("reasoner.") for name in differing)
    assert "reasoner.adapter.router.weight" in differing


def test_torchs_own_draws_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)

    start_model(ModelConfig(start="tiny-default", reasoner="rollout"))

    assert torch.equal(torch.rand(3), expected)


def test_plumes_adapter_begins_as_torch_draws_it() -> None:
    _, model = start_model(ModelConfig(start="tiny-qwen2_vl", reasoner="rollout"))
    adapter = model.reasoner.adapter

    assert 0.9 < adapter.step_embed.weight.std() < 1.1
    edge = 1 / (2 * model.backbone.width) ** 0.5  # of torch's Linear
    assert edge * 0.9 < adapter.router.weight.abs().max() <= edge
    assert adapter.ln.weight.eq(1).all()


def test_lames_tokens_begin_small() -> None:
    options = {"num_tokens": 64, "num_decoded": 2}
    _, model = start_model(
        ModelConfig(start="tiny-qwen2_vl", reasoner="bottleneck", options=options)
    )

    assert 0.018 < model.reasoner.reason.std() < 0.022


def test_a_projection_widens_the_vectors() -> None:
    options = {"projection": 48}
    description, model = start_model(
        ModelConfig(start="tiny-qwen2_vl", reasoner="bottleneck", options=options)
    )

    assert description.dim == 48
    assert vectors(description, model).shape == (2, 48)


def test_a_head_that_is_drawn_anew_turns_as_it_did(tmp_path: Path) -> None:
    model = tiny.random_model()
    model.head = TurnedHead(model.reasoner.dim, model.backbone.dim)
    model.head.turn.copy_(torch.linalg.qr(torch.randn(model.backbone.dim, model.backbone.dim))[0])
    described = dataclasses.replace(tiny.tiny_description(), head="turned")
    described = write_checkpoint(tmp_path, model, described)
    before = vectors(described, model)

    asked = ModelConfig(str(tmp_path), reasoner="bottleneck", options={"projection": 16})
    description, started = start_model(asked)

    # Its gate is closed: the leading dimensions say what they said.
    np.testing.assert_allclose(vectors(description, started), before, atol=1e-6)


def test_options_reach_into_tables_and_leave_the_rest() -> None:
    options = {"steps": 4, "adapter": {"dropout": 0.1}}
    description, model = start_model(
        ModelConfig(start="tiny-qwen2_vl", reasoner="rollout", options=options)
    )

    assert description.reasoner_config["adapter"] == {"num_experts": 4, "top_k": 2, "dropout": 0.1}
    assert (description.effort, model.reasoner.config.context) == (4, "disc")


# ---------------------------------------------------------------- PLUME's tokens


@pytest.mark.parametrize(
    ("model_type", "opens", "closes"),
    [
        ("qwen2_vl", "<|object_ref_start|>", "<|object_ref_end|>"),
        ("qwen2_5_vl", "<tool_call>", "</tool_call>"),
    ],
)
def test_new_tokens_copy_the_rows_of_their_family(model_type: str, opens: str, closes: str) -> None:
    backbone = plain_qwen().backbone
    state: dict[str, Tensor] = dict(backbone.state_dict())
    before = state["language.embed_tokens.weight"]
    tokenizer = Tokenizer.from_str(backbone.tokenizer.to_str())
    first = tokenizer.get_vocab_size(with_added_tokens=True)

    rows = add_tokens(tokenizer, state, model_type=model_type)

    table = state["language.embed_tokens.weight"]
    assert rows == len(table) == first + 5 < len(before)  # padding is left out
    assert torch.equal(table[:first], before[:first])
    added = [tokenizer.token_to_id(token) for token in tiny_qwen.READOUTS]
    assert added == list(range(first, first + 5))  # <gen_emb>, <disc_emb>, <bot>, <eot>, <ct>
    of = [closes, opens, opens, closes, closes]
    assert torch.equal(table[added], before[[tokenizer.token_to_id(one) for one in of]])
    assert tokenizer.encode("a<bot>b", add_special_tokens=False).ids[1] == first + 2


def test_rows_that_are_there_are_kept() -> None:
    backbone = plain_qwen().backbone
    state: dict[str, Tensor] = dict(backbone.state_dict())
    tokenizer = Tokenizer.from_str(backbone.tokenizer.to_str())
    tokenizer.add_tokens([AddedToken("<gen_emb>"), AddedToken("<disc_emb>")])  # as UME-R1 has
    before = state["language.embed_tokens.weight"]
    known = [tokenizer.token_to_id(token) for token in ("<gen_emb>", "<disc_emb>")]

    add_tokens(tokenizer, state, model_type="qwen2_vl")

    table = state["language.embed_tokens.weight"]
    assert torch.equal(table[known], before[known])
    start = tokenizer.token_to_id("<|object_ref_start|>")
    assert torch.equal(table[tokenizer.token_to_id("<bot>")], before[start])


def test_a_table_without_room_grows_and_an_untied_head_with_it() -> None:
    tokenizer = Tokenizer.from_str(plain_qwen().backbone.tokenizer.to_str())
    rows = tokenizer.get_vocab_size(with_added_tokens=True)
    table = torch.arange(rows * 2.0).view(rows, 2)
    state = {"language.embed_tokens.weight": table, "lm_head.weight": -table}

    assert add_tokens(tokenizer, state, model_type="qwen2_vl") == rows + 5

    assert torch.equal(state["lm_head.weight"], -state["language.embed_tokens.weight"])
    assert state["lm_head.weight"].shape == (rows + 5, 2)


def test_a_bare_qwen_becomes_a_plume(tmp_path: Path) -> None:
    plain = plain_qwen()
    write_checkpoint(tmp_path, plain, tiny_qwen.tiny_description("qwen2_vl", max_tokens=1_024))

    config = ModelConfig(start=str(tmp_path), reasoner="rollout", name="mine")
    description, model = start_model(config)

    backbone = model.backbone
    assert backbone.config.chat == FAMILIES["plume"].chat
    assert backbone.config.position_mode == "contiguous"
    assert (description.name, description.prompts.query) == ("mine", "")
    assert description.backbone_config["hf"]["text_config"]["vocab_size"] == len(backbone._table)
    batch = backbone.collate(ITEMS, role="query")
    assert batch.anchors.tolist()[0] > 100  # <disc_emb> stands before the prompt's own words
    assert batch.ids[0, -1] == backbone.tokens("<bot>")[0]
    assert model.reasoner.suffix[0] == backbone.tokens("<eot>")[0]
    assert model.reasoner.suffix[-1] == backbone.tokens("<gen_emb>")[0]
    assert np.isfinite(vectors(description, model)).all()


@pytest.mark.parametrize("model_type", tiny_qwen.FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("tokens", [(), UME_TOKENS], ids=["bare", "ume-r1"])
def test_published_folders_are_resized_as_transformers_does(
    tmp_path: Path, model_type: str, tied: bool, tokens: tuple[str, ...]
) -> None:
    if tokens and model_type == "qwen3_vl":
        pytest.skip("UME-R1 stands on Qwen2-VL and Qwen2.5-VL")
    published: Any = write_published(tmp_path, model_type=model_type, tokens=tokens, tied=tied)

    description, model = start_model(ModelConfig(start=str(tmp_path), reasoner="rollout"))

    backbone = model.backbone
    known = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab_size()
    published.resize_token_embeddings(known + 5 - len(tokens), mean_resizing=False)
    table, head = (
        one.weight.detach().clone()
        for one in (published.get_input_embeddings(), published.get_output_embeddings())
    )
    for token in tiny_qwen.READOUTS[len(tokens) :]:
        which = "start" if token in ("<disc_emb>", "<bot>") else "end"
        row = backbone.tokens(f"<|object_ref_{which}|>")[0]
        for matrix in (table, head):
            matrix[backbone.tokens(token)[0]] = matrix[row]
    assert torch.equal(backbone.embed(torch.arange(len(table))), table)
    hidden = torch.randn(2, backbone.width)
    torch.testing.assert_close(backbone.logits(hidden), hidden @ head.T)
    assert np.isfinite(vectors(description, model)).all()


def test_without_rows_to_copy_nothing_is_started() -> None:
    tokenizer = Tokenizer.from_str(
        plain_qwen().backbone.tokenizer.to_str().replace("object_ref", "x").replace("tool_", "y")
    )

    with pytest.raises(BadSetting, match="object_ref_end"):
        add_tokens(tokenizer, {}, model_type="qwen2_vl")


def test_lame_on_a_plume_is_no_longer_asked_for_a_thought(tmp_path: Path) -> None:
    tiny_qwen.write_random_qwen(tmp_path, reasoner="rollout")

    _, model = start_model(ModelConfig(start=str(tmp_path), reasoner="bottleneck"))

    assert "<gen_emb>" not in model.backbone.config.chat.template
    assert model.backbone.config.chat.anchor == ""


def test_the_default_reads_out_at_pieces_that_no_text_is_cut_into() -> None:
    _, model = start_model(ModelConfig(start="default", reasoner="rollout"))
    backbone = model.backbone

    assert len(set(model.reasoner.suffix)) == len(model.reasoner.suffix) == 2
    words = set(backbone.tokens("an unused [unused] piece, unused1 [ unused1 ]"))
    assert words.isdisjoint(model.reasoner.suffix)
    pieces = [backbone.tokenizer.id_to_token(one) for one in model.reasoner.suffix]
    assert pieces == ["[unused3]", "[unused0]"]


# ---------------------------------------------------------------- going on


def test_a_plume_is_gone_on_with_as_it_is(tmp_path: Path) -> None:
    description = tiny_qwen.tiny_description(
        "qwen2_vl", reasoner="rollout", position_mode="cache_length"
    )
    before = tiny_qwen.random_qwen(description)
    write_checkpoint(tmp_path, before, description)

    as_it_is, model = start_model(ModelConfig(start=str(tmp_path)))
    asked, again = start_model(
        ModelConfig(start=str(tmp_path), reasoner="rollout", options={"steps": 6})
    )

    np.testing.assert_array_equal(vectors(as_it_is, model), vectors(description, before))
    assert model.backbone.config.position_mode == "cache_length"
    assert again.backbone.config.position_mode == "contiguous"  # as we train
    assert asked.effort == 6
    trained = before.reasoner.state_dict()
    for started in (model, again):
        assert all(torch.equal(started.reasoner.state_dict()[n], t) for n, t in trained.items())
        assert not parts_of(started)["fresh"]


def test_no_graphs_are_recorded_of_weights_that_move() -> None:
    _, model = start_model(ModelConfig(start="tiny-qwen2_vl", reasoner="rollout"))

    assert not model.backbone.text_half.graphs.recorder.serves(torch.device("cuda"))


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"frozen": ("backbone.visoin.*",)}, "backbone.visoin"),
        ({"reasoner": "rollout", "readout": "mean"}, "gen, last"),
        ({"reasoner": "rollout", "options": {"step": 8}}, "step"),
        ({"reasoner": "rollout", "options": {"steps": "8"}}, "steps"),
        ({"reasoner": "bottleneck", "options": {"num_tokens": 4, "num_decoded": 5}}, "5 of 4"),
    ],
)
@pytest.mark.parametrize("start", ["tiny-default", "tiny-qwen2_vl"])
def test_what_cannot_be_is_said(start: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSetting) as caught:
        start_model(dataclasses.replace(ModelConfig(start=start), **fields))

    assert said in f"{caught.value} {caught.value.hint}"


def test_a_written_thought_is_not_trained(tmp_path: Path) -> None:
    tiny_qwen.write_random_qwen(tmp_path, reasoner="cot")

    with pytest.raises(BadSetting, match="cot"):
        start_model(ModelConfig(start=str(tmp_path)))
    _, model = start_model(ModelConfig(start=str(tmp_path), reasoner="rollout"))
    assert model.reasoner.name == "rollout"


def test_a_start_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="nowhere"):
        start_model(ModelConfig(start=str(tmp_path / "nowhere")))
