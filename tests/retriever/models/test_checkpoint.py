"""A model folder is read back as it was written, or refused with the reason."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmsearch.errors import BadCheckpoint, BadSetting
from mmsearch.retriever.models.checkpoint import read_checkpoint
from mmsearch.retriever.models.configs import config_from
from mmsearch.retriever.models.description import ModelSettings, read_description
from mmsearch.retriever.models.prompts import Prompts
from mmsearch.retriever.models.quantise import quantise_rows
from mmsearch.retriever.models.tiny import CONFIG, random_model, write_random_checkpoint

NARROW = "backbone.visual_head.3.weight"  # 32 rows of 40: kept as floats
WIDE = "backbone.text.layers.0.down.weight"  # 32 rows of 64: kept as int8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_random_checkpoint(tmp_path / "model")
    return tmp_path / "model"


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors and describe the new file as if it were meant."""
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    redescribe(folder, lambda fields: fields["sha256"].update({"model.safetensors": digest}))


def redescribe(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    fields = json.loads((folder / "mmsearch.json").read_text())
    change(fields)
    (folder / "mmsearch.json").write_text(json.dumps(fields))


def test_every_tensor_comes_back_within_half_a_step(folder: Path) -> None:
    written = random_model(seed=0).state_dict()

    _, model = read_checkpoint(folder, device="cpu")

    for name, tensor in model.state_dict().items():
        before = written[name]
        assert tensor.dtype is before.dtype
        step = quantise_rows(before)[1].max() if name == WIDE else torch.tensor(0.0)
        if name in (WIDE, NARROW):
            torch.testing.assert_close(tensor, before, atol=step.item() / 2 + 1e-6, rtol=0)
        elif tensor.ndim < 2 or tensor.dtype is torch.int8:
            torch.testing.assert_close(tensor, before)


def test_the_loaded_model_is_ready_to_embed_and_not_to_train(folder: Path) -> None:
    _, model = read_checkpoint(folder, device="cpu")

    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


def test_the_description_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = write_random_checkpoint(tmp_path)

    assert dataclasses.replace(read_description(tmp_path), backbone_config={}) == (
        dataclasses.replace(written, backbone_config={})
    )
    config = read_description(tmp_path).backbone_config
    assert config_from(type(CONFIG), config) == CONFIG


def test_wide_matrices_are_kept_as_int8(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")

    assert tensors[WIDE].dtype is torch.int8
    assert tensors[WIDE + ".scale"].shape == (32,)
    assert tensors[NARROW].dtype is torch.float32


def test_a_missing_tensor_is_refused_by_name(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.pop(NARROW))

    with pytest.raises(BadCheckpoint, match=f"missing tensors.*{NARROW}"):
        read_checkpoint(folder, device="cpu")


def test_an_unexpected_tensor_is_refused_by_name(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update(stranger=torch.zeros(1)))

    with pytest.raises(BadCheckpoint, match=r"unexpected tensors.*stranger"):
        read_checkpoint(folder, device="cpu")


def test_a_wrong_shape_is_refused_with_both_shapes(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({NARROW: torch.zeros(32, 41)}))

    with pytest.raises(BadCheckpoint, match=r"\[32, 41\], not \[32, 40\]"):
        read_checkpoint(folder, device="cpu")


def test_int8_rows_without_their_scale_are_refused(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.pop(WIDE + ".scale"))

    with pytest.raises(BadCheckpoint, match="without the scale"):
        read_checkpoint(folder, device="cpu")


def test_a_scale_for_another_number_of_rows_is_refused(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({WIDE + ".scale": torch.ones(1)}))

    with pytest.raises(BadCheckpoint, match="without the scale"):
        read_checkpoint(folder, device="cpu")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_tampered_file_is_refused(folder: Path, name: str) -> None:
    with (folder / name).open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))

    with pytest.raises(BadCheckpoint, match=f"{name} is not the file that was described"):
        read_checkpoint(folder, device="cpu")


def test_pickled_weights_are_never_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    with pytest.raises(BadCheckpoint, match=r"it has no model\.safetensors"):
        read_checkpoint(folder, device="cpu")


def test_a_file_that_is_no_safetensors_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x80\x04K\x01.")
    digest = hashlib.sha256(b"\x80\x04K\x01.").hexdigest()
    redescribe(folder, lambda fields: fields["sha256"].update({"model.safetensors": digest}))

    with pytest.raises(BadCheckpoint):
        read_checkpoint(folder, device="cpu")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda fields: fields.update(format=99), "its format is 99"),
        (lambda fields: fields.pop("dim"), "incomplete.*dim"),
        (lambda fields: fields["backbone"].update(name="giant"), "no backbone is named 'giant'"),
        (lambda fields: fields["reasoner"].update(name="oracle"), "no reasoner is named 'oracle'"),
        (lambda fields: fields["backbone"]["config"].update(colour=1), "colour"),
        (lambda fields: fields.update(dim=7), "it says 7 dimensions and is built for 32"),
        (lambda fields: fields["calibration"].append({"query": "smell"}), "incomplete"),
        (lambda fields: fields.update(prompts={"query": 3, "document": ""}), "prompts query 3"),
        (lambda fields: fields.update(prompts={"title": ""}), "incomplete.*title"),
        (lambda fields: fields.update(prompts=None), "incomplete"),
        (lambda fields: fields.update(max_pixels=-1), "max_pixels -1, which is no whole number"),
        (lambda fields: fields.update(max_pixels="many"), "max_pixels 'many'"),
        (lambda fields: fields.update(max_frames=0), "max_frames 0"),
        (lambda fields: fields.update(max_frames=10**9), "max_frames 1000000000, which is more"),
        (lambda fields: fields.update(max_pixels=10**15), "max_pixels 10+, which is more than"),
        (lambda fields: fields.update(dim=True), "dim True"),
        (lambda fields: fields.update(dims=33), "dims 33 of 32"),
        (lambda fields: fields.update(name=None), "name None, which is no text"),
        (lambda fields: fields.update(layout="theirs"), "incomplete.*theirs"),
        (lambda fields: fields.update(sha256=[]), "files \\[\\], which is no object"),
        (lambda fields: fields["sha256"].update({"x.safetensors": 5}), "sha256 5"),
        (lambda fields: fields["reasoner"].update(effort=1), "effort 1, and has effort 0 only"),
        (lambda fields: fields["reasoner"].update(config=[]), "reasoner_config \\[\\]"),
        (
            lambda fields: fields["reasoner"].update(name="rollout", config={"steps": "8"}),
            "steps '8'",
        ),
        (
            lambda fields: fields["reasoner"].update(name="rollout", effort=9, config={"steps": 8}),
            "effort 9, and has efforts 0 to 8",
        ),
        (
            lambda fields: fields["reasoner"].update(name="rollout", config={"steps": 10**9}),
            "steps 1000000000, which is more than 1024",
        ),
        (
            lambda fields: fields["backbone"]["config"]["decoder"].update(num_layers=10**7),
            "num_layers is 10000000, and its files hold",
        ),
        (
            lambda fields: fields["backbone"]["config"]["decoder"].update(num_heads=0),
            "num_heads is 0, and counts from 1",
        ),
        (lambda fields: fields["head"].update(readout="gen"), "none has readouts last, disc"),
        (lambda fields: fields["calibration"][0].update(slope=0), "calibration"),
        (lambda fields: fields["calibration"][0].update(midpoint=float("nan")), "calibration"),
        (
            lambda fields: fields["backbone"]["config"].update(image_area=0),
            "image_area is at least 1024, not 0",
        ),
        (
            lambda fields: fields["backbone"]["config"].update(max_windows=0),
            "words need a window that holds one of them",
        ),
        (
            lambda fields: fields["backbone"]["config"].update(window_tokens=-16),
            "window_tokens is -16, and cannot be negative",
        ),
        (
            lambda fields: fields["backbone"]["config"].update(image_grid=2**40),
            "image_grid is 1099511627776, and cannot be more than 2147483647",
        ),
        (
            lambda fields: fields["backbone"]["config"].update(window_tokens=16.0),
            "window_tokens is 16.0, not int",
        ),
        (
            lambda fields: fields["backbone"]["config"]["decoder"].update(num_layers=True),
            "num_layers is True, not int",
        ),
        (
            lambda fields: fields["backbone"]["config"].update(decoder=[]),
            "decoder is \\(\\), not DecoderConfig",
        ),
        (
            lambda fields: fields["backbone"]["config"]["vision"].update(blocks=[[1, 8, 1]]),
            "blocks is",
        ),
    ],
)
def test_a_description_that_makes_no_model_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    redescribe(folder, change)

    with pytest.raises(BadCheckpoint, match=reason):
        read_checkpoint(folder, device="cpu")


@pytest.mark.parametrize("junk", ["{", "[" * 100_000, '{"a":' * 100_000, "\0"], ids=len)
def test_a_description_that_is_not_json_is_refused(folder: Path, junk: str) -> None:
    (folder / "mmsearch.json").write_text(junk)

    with pytest.raises(BadCheckpoint, match=r"mmsearch\.json cannot be read"):
        read_description(folder)


def test_a_pipe_in_the_place_of_a_description_is_not_waited_for(folder: Path) -> None:
    (folder / "mmsearch.json").unlink()
    os.mkfifo(folder / "mmsearch.json")

    with pytest.raises(BadCheckpoint, match=r"mmsearch\.json is not a file"):
        read_description(folder)


@pytest.mark.parametrize("setting", [{"effort": True}, {"dims": 2.0}, {"max_pixels": 1e4}], ids=str)
def test_a_setting_that_is_no_whole_number_makes_no_space(folder: Path, setting: Any) -> None:
    with pytest.raises(BadSetting, match="it is a whole number"):
        read_description(folder).with_settings(ModelSettings(**setting))


def test_the_space_changes_with_the_weights_and_with_everything_else_that_moves_a_vector(
    tmp_path: Path,
) -> None:
    model = write_random_checkpoint(tmp_path / "a", seed=0)
    other_weights = write_random_checkpoint(tmp_path / "b", seed=1)
    again = write_random_checkpoint(tmp_path / "c", seed=0)
    smaller = dict(model.backbone_config) | {"image_area": 32 * 32}
    changed = [
        other_weights,
        dataclasses.replace(model, prompts=Prompts(query="q: ")),
        dataclasses.replace(model, backbone_config=smaller),
        dataclasses.replace(model, max_frames=2),
        dataclasses.replace(model, reasoner="rollout", effort=4),
    ]

    ids = [model.space.id, *(one.space.id for one in changed)]

    assert len(set(ids)) == len(ids)
    assert again.space.id == model.space.id
    assert dataclasses.replace(model, name="other", about="words").space.id == model.space.id
