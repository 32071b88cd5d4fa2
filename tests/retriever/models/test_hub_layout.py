"""Published folders are taken for what they are, and their tensors for what they were."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from published_folders import (
    PLUME_TOKENS,
    UME_TOKENS,
    edit_tensors,
    flat_config,
    nested_names,
    random_adapter,
    write_published,
    write_tokenizer,
)
from torch import Tensor

from mmsearch.errors import BadCheckpoint, BadSetting
from mmsearch.retriever.embedding import library
from mmsearch.retriever.models.checkpoint import read_checkpoint
from mmsearch.retriever.models.configs import config_from
from mmsearch.retriever.models.description import Layout, ModelSettings, read_description
from mmsearch.retriever.models.hub_families import FAMILIES, published_name
from mmsearch.retriever.models.hub_layout import describe, own_names
from mmsearch.retriever.models.prompts import ChatFormat
from mmsearch.retriever.models.rollout import RolloutConfig

PLUME: dict[str, Any] = {"tokens": PLUME_TOKENS, "num_experts": 4}


def named(name: str) -> Any:
    """Return a change of config.json that writes down where the weights came from."""
    return lambda fields: fields.update(_name_or_path=f"someone/{name}")


# ---------------------------------------------------------------- which family


@pytest.mark.parametrize(
    ("name", "how", "family", "by"),
    [
        ("x", PLUME, "plume", "its adapter"),
        ("x", PLUME | {"model_type": "qwen2_5_vl"}, "plume", "its adapter"),
        ("x", {"tokens": UME_TOKENS}, "ume-r1", "its tokens"),
        ("VLM2Vec-V2.0", {}, "vlm2vec-v2", "its name"),
        ("x", {"config": named("VLM2Vec-Qwen2VL")}, "vlm2vec-v2", "in its config.json"),
        ("gme-Qwen2-VL-2B-Instruct", {}, "gme", "its name"),
        (
            "x",
            {"config": lambda fields: fields.update(architectures=["GmeQwen2VL"])},
            "gme",
            "the names of its code",
        ),
        ("Qwen3-VL-Embedding-2B", {"model_type": "qwen3_vl"}, "qwen3-vl-embedding", "its name"),
        ("magmec", {}, "qwen2-vl", "nothing says otherwise"),
        ("Qwen3-VL-2B", {"model_type": "qwen3_vl"}, "qwen3-vl", "nothing says otherwise"),
        ("x", {"model_type": "qwen2_5_vl"}, "qwen2.5-vl", "nothing says otherwise"),
    ],
)
def test_a_folder_is_taken_for_what_it_is_and_says_why(
    tmp_path: Path, name: str, how: dict[str, Any], family: str, by: str
) -> None:
    write_published(tmp_path / name, **how)

    description = describe(tmp_path / name)

    known = FAMILIES[family]
    assert description.about.startswith(known.title + " on ")
    assert by in description.about
    assert description.layout is Layout.HUB
    assert (description.reasoner, description.readout) == (known.reasoner, known.readout)
    assert description.backbone_config["chat"]["template"] == known.chat.template
    assert description.backbone_config["position_mode"] == known.position_mode


def test_the_files_of_sentence_transformers_tell_the_embedder_from_the_bare_model(
    tmp_path: Path,
) -> None:
    write_published(tmp_path / "x", model_type="qwen3_vl")
    (tmp_path / "x" / "modules.json").write_text("[]")

    assert "files of sentence-transformers" in describe(tmp_path / "x").about


def test_whoever_knows_better_names_the_family(tmp_path: Path) -> None:
    write_published(tmp_path / "run-7")

    assert describe(tmp_path / "run-7", family="gme").about.startswith("GME on qwen2_vl, as it was")
    with pytest.raises(BadCheckpoint, match="no family is named 'clip'") as refused:
        describe(tmp_path / "run-7", family="clip")
    assert "plume" in refused.value.hint
    with pytest.raises(BadCheckpoint, match="Qwen3-VL-Embedding does not stand on qwen2_vl"):
        describe(tmp_path / "run-7", family="qwen3-vl-embedding")


def test_a_model_is_named_for_its_repository_and_not_for_its_commit(tmp_path: Path) -> None:
    commit = "0123456789" * 4

    assert published_name(tmp_path / "gme") == "gme"
    assert published_name(tmp_path / "owner--name" / commit) == "owner/name"
    assert published_name(tmp_path / "owner--name" / f".{commit}.part") == "owner/name"
    assert published_name(tmp_path / "models--owner--name" / "snapshots" / commit) == "owner/name"


def test_written_thought_needs_a_head(tmp_path: Path) -> None:
    write_published(tmp_path / "ume", tokens=UME_TOKENS, tied=False)
    describe(tmp_path / "ume")
    edit_tensors(tmp_path / "ume" / "model.safetensors", lambda held: held.pop("lm_head.weight"))

    with pytest.raises(BadCheckpoint, match="no lm_head, without which UME-R1 writes no thought"):
        describe(tmp_path / "ume")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_is_known_of_every_family_makes_its_configurations(family: str) -> None:
    known = FAMILIES[family]

    assert known.policy.min_pixels <= known.max_pixels
    assert all(token in known.tokens for token in (known.chat.anchor,) if token)
    if known.reasoner == "rollout":
        assert config_from(RolloutConfig, known.reasoner_config) == RolloutConfig()


def test_plume_is_shown_what_its_evaluation_showed_it(tmp_path: Path) -> None:
    write_published(tmp_path / "plume", **PLUME)

    description = describe(tmp_path / "plume")

    config = description.backbone_config
    chat = ChatFormat(**config["chat"])
    assert description.max_pixels == 2_359_296
    assert description.max_frames == 8
    assert description.effort == 8
    assert config["position_mode"] == "cache_length"
    assert config["policy"]["first_min_pixels"] == 3_136
    assert config["policy"]["min_pixels"] == 784
    assert config["policy"]["blank_image"]
    assert chat.template == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n{visuals}{prompt}{text}\n<disc_emb>\n"
        "Represent the above input text, images, videos, or any combination of the three as "
        "embeddings. First output the thinking process in <think> </think> tags and then "
        "summarize the entire input in a word or sentence. Finally, use the <gen_emb> tag to "
        "represent the entire input.<|im_end|>\n<|im_start|>assistant\n<think><bot>"
    )
    assert chat.anchor == "<disc_emb>"


# ---------------------------------------------------------------- what its parts say


def test_experts_and_steps_are_those_that_were_trained(tmp_path: Path) -> None:
    folder = tmp_path / "plume"
    write_published(folder, tokens=PLUME_TOKENS, num_experts=6)
    state = '{"log_history": [{"curriculum_latent_tokens": 2}, {"curriculum_latent_tokens": 4}]}'
    (folder / "trainer_state.json").write_text(state)

    description = describe(folder)

    assert description.reasoner_config["adapter"]["num_experts"] == 6
    assert description.effort == 4
    with pytest.raises(BadSetting, match="has efforts 0 to 4"):
        description.with_settings(ModelSettings(effort=5))
    _, model = read_checkpoint(folder, description=description)
    torch.testing.assert_close(
        model.reasoner.adapter.state_dict(), dict(random_adapter(6).state_dict())
    )


def test_a_vocabulary_that_was_resized_is_as_the_weights_have_it(tmp_path: Path) -> None:
    folder = tmp_path / "plume"
    write_published(folder, **PLUME)
    rows = 272

    def shrink(tensors: dict[str, Tensor]) -> None:
        name = "model.embed_tokens.weight"
        tensors[name] = tensors[name][:rows].clone()

    edit_tensors(folder / "model.safetensors", shrink)

    description, model = read_checkpoint(folder, description=describe(folder))

    assert description.backbone_config["hf"]["text_config"]["vocab_size"] == rows
    assert len(model.backbone.language.embed_tokens.weight) == rows


def test_a_closing_token_of_the_tokenizer_closes_the_template(tmp_path: Path) -> None:
    folder = tmp_path / "Qwen3-VL-Embedding-2B"
    write_published(folder, model_type="qwen3_vl")
    before = describe(folder).backbone_config["chat"]["template"]
    write_tokenizer(folder, closing="<|endoftext|>")

    assert describe(folder).backbone_config["chat"]["template"] == before + "<|endoftext|>"


def test_how_a_config_was_written_does_not_change_the_space(tmp_path: Path) -> None:
    write_published(tmp_path / "a")
    write_published(
        tmp_path / "b",
        config=lambda fields: fields.update(transformers_version="4.52.3", torch_dtype="bfloat16"),
    )

    assert describe(tmp_path / "a").space.id == describe(tmp_path / "b").space.id


def test_the_space_changes_with_the_weights(tmp_path: Path) -> None:
    write_published(tmp_path / "a", seed=0)
    write_published(tmp_path / "b", seed=1)

    assert describe(tmp_path / "a").space.id != describe(tmp_path / "b").space.id


def test_the_files_are_hashed(tmp_path: Path) -> None:
    write_published(tmp_path / "a", num_shards=2)

    files = describe(tmp_path / "a").files

    assert sorted(files) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "tokenizer.json",
    ]
    for name, digest in files.items():
        assert digest == hashlib.sha256((tmp_path / "a" / name).read_bytes()).hexdigest()


def test_a_description_beside_the_files_is_read_back_and_stands_for_them(tmp_path: Path) -> None:
    write_published(tmp_path / "plume", **PLUME)
    described = describe(tmp_path / "plume")
    assert library.described(tmp_path / "plume") == described

    described.write(tmp_path / "plume")

    assert read_description(tmp_path / "plume") == described
    assert library.described(tmp_path / "plume").space.id == described.space.id
    read_checkpoint(tmp_path / "plume")


def test_describing_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    write_published(tmp_path / "plume", **PLUME)
    code = (
        "import sys; from pathlib import Path; "
        "from mmsearch.retriever.models.hub_layout import describe; "
        "print(describe(Path(sys.argv[1])).reasoner); "
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "plume")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("rollout\n", "")


# ---------------------------------------------------------------- names of tensors


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"config": flat_config},
        {"renamed": nested_names},
        {"renamed": lambda name: "encoder." + name, "config": flat_config},
        {"renamed": lambda name: "module.encoder." + nested_names(name)},
        {"renamed": lambda name: nested_names(name).removeprefix("model.")},
        {"adapter_prefix": "model.", "num_shards": 3},
        {"tied": False},
    ],
    ids=["plain", "flat", "nested", "wrapped", "twice", "headless", "shards", "untied"],
)
def test_every_way_of_naming_the_same_weights_is_the_same_model(
    tmp_path: Path, how: dict[str, Any]
) -> None:
    write_published(tmp_path / "plain", **PLUME)
    write_published(tmp_path / "other", **PLUME | how)
    _, plain = read_checkpoint(tmp_path / "plain", description=describe(tmp_path / "plain"))

    _, other = read_checkpoint(tmp_path / "other", description=describe(tmp_path / "other"))

    found = other.state_dict()
    head = found.pop("backbone.lm_head.weight", None)
    assert (head is not None) == (how.get("tied") is False)
    wanted = plain.state_dict()
    assert found.keys() == wanted.keys()
    for name in wanted if how.get("tied") is not False else ():
        assert torch.equal(found[name], wanted[name])


def test_a_head_that_is_tied_and_angles_that_are_computed_are_left_out(tmp_path: Path) -> None:
    write_published(tmp_path / "x")
    description = describe(tmp_path / "x")
    names = [
        "model.embed_tokens.weight",
        "model.norm.weight",
        "visual.blocks.0.norm1.weight",
        "lm_head.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
    ]

    assert own_names(names, description) == {
        "model.embed_tokens.weight": "backbone.language.embed_tokens.weight",
        "model.norm.weight": "backbone.language.norm.weight",
        "visual.blocks.0.norm1.weight": "backbone.vision.blocks.0.norm1.weight",
    }


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["model.norm.weight", "custom_head.weight"], "'custom_head.weight'"),
        (["latent_moe_transition.ln.weight"], "'latent_moe_transition.ln.weight'"),
        (["model.norm.weight", "decoder.model.norm.weight"], "several networks"),
        (["model.norm.weight", "model.language_model.norm.weight"], "twice"),
    ],
)
def test_tensors_that_are_not_known_are_refused_by_name(
    tmp_path: Path, names: list[str], reason: str
) -> None:
    write_published(tmp_path / "x")

    with pytest.raises(ValueError, match=reason):
        own_names(names, describe(tmp_path / "x"))
