"""Folders of the large families: kept to the bit, and refused where anything disagrees."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published_folders import edit_json, edit_tensors
from safetensors.torch import load_file
from torch import Tensor

from mmsearch.errors import BadCheckpoint
from mmsearch.retriever.models.checkpoint import read_checkpoint, write_checkpoint
from mmsearch.retriever.models.description import read_description
from mmsearch.retriever.models.tiny_qwen import random_qwen, tiny_description, write_random_qwen

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_random_qwen(tmp_path / "model", reasoner="rollout")
    return tmp_path / "model"


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors and describe the new file as if it were meant."""
    edit_tensors(folder / WEIGHTS, change)
    rehash(folder, WEIGHTS)


def rehash(folder: Path, name: str) -> None:
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    edit_json(folder / "mmsearch.json", lambda fields: fields["sha256"].update({name: digest}))


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if one[name].dtype is not other[name].dtype] == []
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reasoner", ["none", "rollout", "bottleneck", "cot"])
def test_a_round_trip_gives_back_every_bit(
    tmp_path: Path, reasoner: str, dtype: torch.dtype
) -> None:
    description = tiny_description("qwen2_vl", reasoner=reasoner)
    model = random_qwen(description).to(dtype)
    written = write_checkpoint(tmp_path, model, description)

    read, back = read_checkpoint(tmp_path, dtype=dtype)

    assert read.space == written.space
    assert_equal(back.state_dict(), model.state_dict())
    assert_equal(load_file(tmp_path / WEIGHTS), model.state_dict())


def test_weights_are_read_as_the_precision_that_is_asked_for(tmp_path: Path) -> None:
    description = tiny_description("qwen2_vl")
    model = random_qwen(description).to(torch.bfloat16)
    write_checkpoint(tmp_path, model, description)

    _, wide = read_checkpoint(tmp_path, dtype=torch.float32)
    _, narrow = read_checkpoint(tmp_path, dtype=torch.bfloat16)

    assert {tensor.dtype for tensor in wide.state_dict().values()} == {torch.float32}
    assert_equal(narrow.state_dict(), model.state_dict())
    widened = {name: tensor.float() for name, tensor in model.state_dict().items()}
    assert_equal(wide.state_dict(), widened)


def test_a_model_can_be_written_over_the_file_it_was_read_from(folder: Path) -> None:
    description, model = read_checkpoint(folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    write_checkpoint(folder, model, description)

    assert_equal(model.state_dict(), before)
    assert_equal(read_checkpoint(folder)[1].state_dict(), before)
    assert sorted(file.name for file in folder.iterdir()) == [
        "mmsearch.json",
        WEIGHTS,
        "tokenizer.json",
    ]


def test_weights_in_several_files_are_one_model(folder: Path) -> None:
    _, whole = read_checkpoint(folder)
    split(folder)

    assert_equal(read_checkpoint(folder)[1].state_dict(), whole.state_dict())


def split(folder: Path) -> None:
    """Put the tensors of a folder into two files."""
    from safetensors.torch import save_file

    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    edit_json(folder / "mmsearch.json", lambda fields: fields["sha256"].pop(WEIGHTS))
    for i, file in enumerate(("a.safetensors", "b.safetensors")):
        save_file({name: tensors[name] for name in sorted(tensors)[i::2]}, folder / file)
        rehash(folder, file)


def test_a_tensor_that_stands_in_two_files_is_refused(folder: Path) -> None:
    (folder / "again.safetensors").write_bytes((folder / WEIGHTS).read_bytes())
    rehash(folder, "again.safetensors")

    with pytest.raises(BadCheckpoint, match="a second time"):
        read_checkpoint(folder)


def test_a_file_that_was_cut_short_is_refused_however_it_is_described(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-4])
    with pytest.raises(BadCheckpoint, match=r"model\.safetensors is not the file that was desc"):
        read_checkpoint(folder)

    rehash(folder, WEIGHTS)

    with pytest.raises(BadCheckpoint, match=f"has {len(whole) - 4} bytes and should have"):
        read_checkpoint(folder)


def test_a_missing_file_is_refused_by_name(folder: Path) -> None:
    split(folder)
    (folder / "b.safetensors").unlink()

    with pytest.raises(BadCheckpoint, match=r"it has no b\.safetensors"):
        read_checkpoint(folder)


def drop(fragment: str) -> Callable[[dict[str, Tensor]], object]:
    def change(tensors: dict[str, Tensor]) -> None:
        for name in [one for one in tensors if fragment in one]:
            del tensors[name]

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (drop("reasoner.adapter"), r"missing tensors \['reasoner.adapter.experts.0.fc1"),
        (drop("experts.3"), r"missing tensors \['reasoner.adapter.experts.3"),
        (drop("layers.1.mlp"), r"missing tensors \['backbone.language.layers.1.mlp"),
        (
            lambda held: held.update({"backbone.lm_head.weight": torch.zeros(1)}),
            r"unexpected tensors \['backbone.lm_head.weight'\]",
        ),
        (
            lambda held: held.update({"reasoner.adapter.router.bias": torch.zeros(6)}),
            r"router.bias is \[6\], not \[4\]",
        ),
        (
            lambda held: held.update(
                {"reasoner.adapter.router.bias": torch.zeros(4, dtype=torch.int64)}
            ),
            "router.bias is I64, not one of BF16, F16, F32, F64",
        ),
    ],
)
def test_tensors_that_are_not_the_models_are_refused_by_name(
    folder: Path, change: Callable[[dict[str, Tensor]], object], reason: str
) -> None:
    rewrite(folder, change)

    with pytest.raises(BadCheckpoint, match=reason):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda fields: fields["reasoner"]["config"]["adapter"].update(num_experts=6),
            r"missing tensors \['reasoner.adapter.experts.4",
        ),
        (
            lambda fields: fields["reasoner"]["config"].update(adapter=None),
            r"unexpected tensors \['reasoner.adapter.experts.0",
        ),
        (
            lambda fields: fields["reasoner"]["config"]["adapter"].update(top_k=5),
            "cannot choose 5 of 4 experts",
        ),
        (lambda fields: fields["reasoner"]["config"].update(context="mean"), "not 'mean'"),
        (lambda fields: fields["reasoner"].update(effort=9), "effort 9, and has efforts 0 to 8"),
        (lambda fields: fields.update(dim=16), "it says 16 dimensions and is built for 32"),
        (
            lambda fields: fields["backbone"]["config"].update(position_mode="absolute"),
            "position_mode is one of contiguous, cache_length, not 'absolute'",
        ),
        (
            lambda fields: fields["backbone"]["config"]["chat"].update(template="{prompt}"),
            r"a template holds \{parts\}",
        ),
        (
            lambda fields: fields["backbone"]["config"]["chat"].update(anchor="<nowhere>"),
            "no token '<nowhere>'",
        ),
        (lambda fields: fields["backbone"]["config"].update(max_tokens=-1), "cannot be negative"),
        (
            lambda fields: fields["backbone"]["config"]["policy"].update(min_pixels="few"),
            "min_pixels is 'few', not int",
        ),
        (
            lambda fields: fields["backbone"]["config"]["hf"]["text_config"].update(
                num_hidden_layers=3
            ),
            r"missing tensors \['backbone.language.layers.2",
        ),
        (
            lambda fields: fields["backbone"]["config"]["hf"].update(model_type="gpt2"),
            "gpt2",
        ),
        (lambda fields: fields["head"].update(readout="mean"), "rollout has readouts gen, last"),
    ],
)
def test_settings_that_are_not_the_weights_are_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    edit_json(folder / "mmsearch.json", change)

    with pytest.raises(BadCheckpoint, match=reason):
        read_checkpoint(folder)


def test_a_description_of_other_settings_stands_for_that_of_the_folder(folder: Path) -> None:
    described = dataclasses.replace(read_description(folder), readout="disc", effort=2)

    description, _ = read_checkpoint(folder, description=described)

    assert (description.readout, description.effort) == ("disc", 2)
