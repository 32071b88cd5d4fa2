"""What is no model of a kind that is known here is refused, in words that name the fault."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from published_folders import (
    PLUME_TOKENS,
    edit_json,
    edit_tensors,
    write_published,
    write_tokenizer,
)
from torch import Tensor

from mmsearch.errors import BadCheckpoint
from mmsearch.retriever.models.hub_layout import describe

PLUME: dict[str, Any] = {"tokens": PLUME_TOKENS, "num_experts": 4}


def drop_adapter(folder: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        for name in [one for one in tensors if "latent_moe" in one]:
            del tensors[name]

    edit_tensors(folder / "model.safetensors", change)


def drop_expert(folder: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        for name in [one for one in tensors if "experts.1." in one]:
            del tensors[name]

    edit_tensors(folder / "model.safetensors", change)


def halve(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def config_says(**said: Any) -> Any:
    return lambda folder: edit_json(
        folder / "config.json", lambda fields: fields["text_config"].update(said)
    )


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (drop_adapter, r"PLUME without its adapter \(latent_moe_transition"),
        (drop_expert, r"its adapter has experts \[0, 2, 3\]"),
        (halve, "it was cut short"),
        (config_says(num_hidden_layers=3), "says 3 language layers, and its weights have 2"),
        (config_says(hidden_size=64), "says width 64, and its weights have 32"),
        (
            lambda folder: write_tokenizer(folder, ("<gen_emb>", "<bot>", "<eot>")),
            "no <disc_emb>, which PLUME needs",
        ),
        (
            lambda folder: (folder / "tokenizer.json").write_text("[]"),
            "tokenizer.json is not an object",
        ),
        (
            lambda folder: (folder / "tokenizer.json").write_text("{}"),
            "tokenizer.json is no tokenizer",
        ),
        (
            lambda folder: edit_tensors(
                folder / "model.safetensors",
                lambda tensors: tensors.update(
                    {"model.embed_tokens.weight": tensors["model.embed_tokens.weight"][:260]}
                ),
            ),
            "of 260 embeddings",
        ),
        (
            lambda folder: edit_tensors(
                folder / "model.safetensors", lambda tensors: tensors.update(z=torch.zeros(1))
            ),
            "tensors that no known model has: 'z'",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x04K\x01."),
            "is no safetensors file",
        ),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "its weights are pickled",
        ),
        (
            lambda folder: edit_json(
                folder / "config.json", lambda fields: fields.update(model_type="phi3_v")
            ),
            "model_type 'phi3_v' is not one of qwen2_vl, qwen2_5_vl, qwen3_vl",
        ),
    ],
)
def test_a_folder_that_lacks_a_part_is_refused_with_the_reason(
    tmp_path: Path, spoil: Any, reason: str
) -> None:
    write_published(tmp_path / "plume", **PLUME)
    spoil(tmp_path / "plume")

    with pytest.raises(BadCheckpoint, match=reason):
        describe(tmp_path / "plume")


def test_a_shard_that_the_index_names_and_is_not_there_is_refused(tmp_path: Path) -> None:
    write_published(tmp_path / "x", num_shards=2)
    (tmp_path / "x" / "model-00002-of-00002.safetensors").unlink()

    with pytest.raises(BadCheckpoint, match="names model-00002-of-00002"):
        describe(tmp_path / "x")


def test_a_lora_adapter_is_no_model_and_says_whose_it_is(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/Qwen2-VL"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")

    with pytest.raises(BadCheckpoint, match="only a LoRA adapter for Qwen/Qwen2-VL"):
        describe(tmp_path)


def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    write_published(tmp_path / "x")
    (tmp_path / "x" / "model.safetensors").rename(tmp_path / "model.safetensors")
    (tmp_path / "x" / "model.safetensors.index.json").write_text(
        '{"weight_map": {"model.norm.weight": "../model.safetensors"}}'
    )

    with pytest.raises(BadCheckpoint, match=r"\.\./model\.safetensors, which is not there"):
        describe(tmp_path / "x")


JUNK: tuple[Any, ...] = (None, -1, 0, 2**40, 1.5, "", "x", [], [1], {}, {"a": 1}, True)


def spoilt(value: Any, rng: random.Random) -> Any:
    """Return JSON like ``value`` with junk in one place."""
    inside = list(value) if isinstance(value, dict) else range(len(value)) if value else []
    if not isinstance(value, dict | list) or not inside or rng.random() < 0.15:
        return rng.choice(JUNK)
    at = rng.choice(inside)
    changed = value.copy()
    changed[at] = spoilt(value[at], rng) if isinstance(value[at], dict | list) else rng.choice(JUNK)
    return changed


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "trainer_state.json"])
def test_json_with_junk_in_it_is_described_or_refused_and_nothing_else(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "plume"
    write_published(folder, **PLUME)
    state = {"log_history": [{"curriculum_latent_tokens": 2}, {"curriculum_latent_tokens": 4}]}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    whole = json.loads((folder / name).read_text())
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        (folder / name).write_text(json.dumps(spoilt(whole, rng)))
        try:
            describe(folder)
        except BadCheckpoint:
            refused += 1
    assert refused > 10
