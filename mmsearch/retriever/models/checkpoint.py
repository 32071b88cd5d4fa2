"""A model folder, written and read; the one place that knows every family by name.

    write_checkpoint  Model -> folder       matrices as int8 rows, the rest as it is
    read_checkpoint   folder -> Model       after checking hashes, names, shapes and types

Weights are safetensors and nothing else: a pickle would run code. Whoever adds a
backbone or a reasoner adds its line to BACKBONES or REASONERS.
"""

import dataclasses
import hashlib
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmsearch.errors import BadCheckpoint
from mmsearch.retriever.models.backbones.default import DefaultBackbone, DefaultConfig
from mmsearch.retriever.models.description import (
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    ModelDescription,
    read_description,
)
from mmsearch.retriever.models.head import ResidualHead
from mmsearch.retriever.models.none import NoReasoner
from mmsearch.retriever.models.quantise import dequantise_rows, quantise_rows

Config = TypeVar("Config")

SCALE = ".scale"  # stands behind the name of a matrix that is kept as int8 rows
ROW_WORTH_QUANTISING = 64  # shorter rows would spend as many bytes on their scales

BACKBONES: Mapping[str, tuple[type[DefaultConfig], Callable[..., DefaultBackbone]]] = {
    "default": (DefaultConfig, DefaultBackbone),
}
REASONERS: Mapping[str, Callable[[], NoReasoner]] = {"none": NoReasoner}


class Model(nn.Module):
    """A backbone, a way of thinking, and the head that makes one vector of both."""

    def __init__(self, backbone: DefaultBackbone, reasoner: NoReasoner, head: ResidualHead) -> None:
        super().__init__()
        self.backbone, self.reasoner, self.head = backbone, reasoner, head


def build_model(description: ModelDescription, tokenizer: Tokenizer) -> Model:
    """Return the described model with whatever weights its constructors give it.

    Raises ValueError or TypeError for names and sizes that make no model.
    """
    if description.backbone not in BACKBONES:
        raise ValueError(f"no backbone is named {description.backbone!r}")
    if description.reasoner not in REASONERS:
        raise ValueError(f"no reasoner is named {description.reasoner!r}")
    config_type, backbone_type = BACKBONES[description.backbone]
    config = config_from(config_type, description.backbone_config)
    backbone = backbone_type(config, tokenizer, description.prompts)
    if backbone.dim != description.dim:
        raise ValueError(f"it says {description.dim} dimensions and is built for {backbone.dim}")
    head = ResidualHead(backbone.width, backbone.dim)
    return Model(backbone, REASONERS[description.reasoner](), head)


def config_from(kind: type[Config], fields: Mapping[str, Any]) -> Config:
    """Return ``kind``, a dataclass of dataclasses, from JSON; lists become tuples.

    Raises TypeError for a field it does not have or lacks.
    """
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in fields.items():
        hint = hints.get(name)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            values[name] = config_from(hint, value)
        else:
            values[name] = _tuples(value)
    return kind(**values)


def _tuples(value: Any) -> Any:  # noqa: ANN401 - any JSON
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


def write_checkpoint(folder: Path, model: Model, description: ModelDescription) -> ModelDescription:
    """Write ``model`` into ``folder`` and return ``description`` with the files' hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    packed: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if tensor.dtype is torch.int8 or name + SCALE in packed:
            packed[name] = tensor  # a RowTable packs itself
        elif tensor.ndim >= 2 and tensor[0].numel() >= ROW_WORTH_QUANTISING:
            packed[name], packed[name + SCALE] = quantise_rows(tensor)
        else:
            packed[name] = tensor.detach().clone()
    packed = {name: tensor.contiguous() for name, tensor in packed.items()}
    save_file(packed, folder / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors writes for the owner alone
    model.backbone.tokenizer.save(str(folder / TOKENIZER_FILE), pretty=False)
    hashes = {name: _sha256(folder / name) for name in (WEIGHTS_FILE, TOKENIZER_FILE)}
    described = dataclasses.replace(description, files=hashes)
    described.write(folder)
    return described


def read_checkpoint(folder: Path, *, device: str) -> tuple[ModelDescription, Model]:
    """Return the model of ``folder``, ready to embed, and its description.

    Raises BadCheckpoint where a file is missing or is not the one described, and where a
    tensor is missing, unexpected, or of another shape.
    """
    description = read_description(folder)
    for name in (WEIGHTS_FILE, TOKENIZER_FILE):
        if not (folder / name).is_file():
            raise BadCheckpoint(folder, f"it has no {name}")
        if description.files.get(name) != _sha256(folder / name):
            raise BadCheckpoint(folder, f"{name} is not the file that was described")
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        with torch.device("meta"):  # no time is spent on weights that are replaced at once
            model = build_model(description, tokenizer)
        packed = load_file(folder / WEIGHTS_FILE)
    except Exception as error:  # tokenizers raises nothing narrower, torch a dozen types
        raise BadCheckpoint(folder, str(error) or type(error).__name__) from None
    state = _unpack(folder, packed, model.state_dict())
    model.load_state_dict(state, assign=True)
    return description, model.requires_grad_(False).eval().to(device)


def _unpack(
    folder: Path, packed: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the expected tensors, as floats unless they are expected as int8."""
    scales = {name + SCALE for name in expected} - expected.keys()
    missing = sorted(expected.keys() - packed.keys())
    unexpected = sorted(packed.keys() - expected.keys() - scales)
    if missing or unexpected:
        reason = f"missing tensors {missing[:3]}, unexpected tensors {unexpected[:3]}"
        raise BadCheckpoint(folder, reason)
    state: dict[str, Tensor] = {}
    for name, model_tensor in expected.items():
        tensor, scale = packed[name], packed.get(name + SCALE)
        if tensor.shape != model_tensor.shape:
            reason = f"{name} is {list(tensor.shape)}, not {list(model_tensor.shape)}"
            raise BadCheckpoint(folder, reason)
        if model_tensor.dtype is torch.int8:
            right = tensor.dtype is torch.int8
        elif tensor.dtype is torch.int8:
            right = scale is not None and scale.shape == tensor.shape[:1]
        else:
            right = scale is None and tensor.is_floating_point()
        if not right:
            raise BadCheckpoint(folder, f"{name} is {tensor.dtype} without the scale it needs")
        if scale is not None and model_tensor.dtype is not torch.int8:
            tensor = dequantise_rows(tensor, scale)
        state[name] = tensor.to(model_tensor.dtype)
    return state


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
