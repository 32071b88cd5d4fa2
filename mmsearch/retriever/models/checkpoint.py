"""A model folder, written and read; the one place that knows every family by name.

    write_checkpoint  Model -> folder       matrices as int8 rows if asked, the rest as it is
    read_checkpoint   folder -> Model       after checking hashes, names, shapes and types

Weights are safetensors and nothing else: a pickle would run code. Whoever adds a
backbone or a reasoner adds its line to BACKBONES or REASONERS.
"""

import dataclasses
import hashlib
import typing
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmsearch.errors import BadCheckpoint
from mmsearch.retriever.models.bottleneck import Bottleneck, BottleneckConfig
from mmsearch.retriever.models.cot import Cot, CotConfig
from mmsearch.retriever.models.description import (
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Layout,
    ModelDescription,
    read_description,
)
from mmsearch.retriever.models.head import Head, PlainHead, ResidualHead
from mmsearch.retriever.models.none import NoneConfig, NoReasoner
from mmsearch.retriever.models.policy import Limits
from mmsearch.retriever.models.quantise import dequantise_rows, quantise_rows
from mmsearch.retriever.models.rollout import Rollout, RolloutConfig

Config = TypeVar("Config")

SCALE = ".scale"  # stands behind the name of a matrix that is kept as int8 rows
ROW_WORTH_QUANTISING = 64  # shorter rows would spend as many bytes on their scales


def _default() -> tuple[type[Any], Callable[..., Any]]:
    from mmsearch.retriever.models.backbones.default import DefaultBackbone, DefaultConfig

    return DefaultConfig, DefaultBackbone


def _qwen_vl() -> tuple[type[Any], Callable[..., Any]]:
    from mmsearch.retriever.models.backbones.qwen import QwenBackbone, QwenConfig

    return QwenConfig, QwenBackbone


# Asked for when one is built: the default does without transformers.
BACKBONES: Mapping[str, Callable[[], tuple[type[Any], Callable[..., Any]]]] = {
    "default": _default,
    "qwen_vl": _qwen_vl,
}
REASONERS: Mapping[str, tuple[type[Any], Callable[..., Any]]] = {
    "none": (NoneConfig, NoReasoner),
    "rollout": (RolloutConfig, Rollout),
    "bottleneck": (BottleneckConfig, Bottleneck),
    "cot": (CotConfig, Cot),
}


class Model(nn.Module):
    """A backbone, a way of thinking, and the head that makes one vector of both.

    ``backbone`` and ``reasoner`` are modules that keep the promises of `seams`; a module
    cannot be typed as a protocol.
    """

    def __init__(self, backbone: Any, reasoner: Any, head: Head) -> None:  # noqa: ANN401
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
    config_type, backbone_type = BACKBONES[description.backbone]()
    config = config_from(config_type, description.backbone_config)
    limits = Limits(description.max_pixels, description.max_frames)
    backbone = backbone_type(config, tokenizer, description.prompts, limits)
    config_type, reasoner_type = REASONERS[description.reasoner]
    reasoner = reasoner_type(config_from(config_type, description.reasoner_config), backbone)
    head: Head
    if description.head == "residual":
        head, dim = ResidualHead(reasoner.dim, backbone.dim), backbone.dim
    elif description.head == "plain":
        head, dim = PlainHead(), reasoner.dim
    else:
        raise ValueError(f"no head is named {description.head!r}")
    if description.dim != dim:
        raise ValueError(f"it says {description.dim} dimensions and is built for {dim}")
    return Model(backbone, reasoner, head)


def config_from(kind: type[Config], fields: Mapping[str, Any]) -> Config:
    """Return ``kind``, a dataclass of dataclasses, from JSON; lists become tuples.

    Raises TypeError for a field it does not have or lacks.
    """
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in fields.items():
        # A hint may be a union: `AdapterConfig | None`.
        hint = hints.get(name)
        parts = [one for one in typing.get_args(hint) or (hint,) if dataclasses.is_dataclass(one)]
        if parts and isinstance(parts[0], type) and value is not None:
            values[name] = config_from(parts[0], value)
        else:
            values[name] = _tuples(value)
    return kind(**values)


def _tuples(value: Any) -> Any:  # noqa: ANN401 - any JSON
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


def write_checkpoint(
    folder: Path, model: Model, description: ModelDescription, *, quantise: bool = False
) -> ModelDescription:
    """Write ``model`` into ``folder`` and return ``description`` with the files' hashes.

    ``quantise`` keeps matrices as int8 rows: a quarter of the bytes, and not quite the same
    weights. Without it, reading gives back every bit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packed: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if tensor.dtype is torch.int8 or name + SCALE in packed:
            packed[name] = tensor  # a RowTable packs itself
        elif quantise and tensor.ndim >= 2 and tensor[0].numel() >= ROW_WORTH_QUANTISING:
            packed[name], packed[name + SCALE] = quantise_rows(tensor)
        else:
            packed[name] = tensor.detach().clone()
    packed = {name: tensor.contiguous() for name, tensor in packed.items()}
    save_file(packed, folder / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors writes for the owner alone
    model.backbone.tokenizer.save(str(folder / TOKENIZER_FILE), pretty=False)
    hashes = {name: file_hash(folder / name) for name in (WEIGHTS_FILE, TOKENIZER_FILE)}
    described = dataclasses.replace(description, files=hashes, layout=Layout.OWN)
    described.write(folder)
    return described


def read_checkpoint(
    folder: Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    description: ModelDescription | None = None,
) -> tuple[ModelDescription, Model]:
    """Return the model of ``folder``, ready to embed, and its description.

    ``description`` stands for the one in the folder: the same with other settings, or that
    of a folder that has none. Raises BadCheckpoint where a file is missing or is not the
    one described, and where a tensor is missing, unexpected, or of another shape.
    """
    description = description or read_description(folder)
    check_files(folder, description)
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        with torch.device("meta"):  # no time is spent on weights that are replaced at once
            model = build_model(description, tokenizer)
        packed = _read_tensors(folder, description)
    except Exception as error:  # tokenizers raises nothing narrower, torch a dozen types
        raise BadCheckpoint(folder, str(error) or type(error).__name__) from None
    state = _unpack(folder, packed, model.state_dict(), dtype)
    model.load_state_dict(state, assign=True)
    return description, model.requires_grad_(False).eval().to(device)


def check_files(folder: Path, description: ModelDescription) -> None:
    """Raise BadCheckpoint unless every file is there and is the one described."""
    for name in description.files:
        if Path(name).name != name or not (folder / name).is_file():
            raise BadCheckpoint(folder, f"it has no {name}")
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        found = pool.map(lambda name: file_hash(folder / name), description.files)
        for (name, described), actual in zip(description.files.items(), found, strict=True):
            if described != actual:
                raise BadCheckpoint(folder, f"{name} is not the file that was described")
    if TOKENIZER_FILE not in description.files:
        raise BadCheckpoint(folder, f"it describes no {TOKENIZER_FILE}")


def _read_tensors(folder: Path, description: ModelDescription) -> dict[str, Tensor]:
    """Return the tensors of every shard, by the names that `Model` gives them."""
    tensors: dict[str, Tensor] = {}
    for name in description.files:
        if name.endswith(".safetensors"):
            tensors |= load_file(folder / name)
    if description.layout is Layout.OWN:
        return tensors
    from mmsearch.retriever.models.hub_layout import own_names

    return {own: tensors[hub] for hub, own in own_names(tensors, description).items()}


def _unpack(
    folder: Path, packed: Mapping[str, Tensor], expected: Mapping[str, Tensor], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return the expected tensors, as ``dtype`` unless they are expected as int8."""
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
        state[name] = tensor.to(dtype if model_tensor.is_floating_point() else tensor.dtype)
    return state


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
