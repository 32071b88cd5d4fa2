"""A model folder, written and read; the one place that knows every family by name.

    write_checkpoint  Model -> folder       matrices as int8 rows if asked, the rest as it is
    read_checkpoint   folder -> Model       after checking hashes, names, shapes and types

Weights are safetensors and nothing else: a pickle would run code. Names and shapes are
checked by the files' headers, and tensors are taken from their shards one by one, so that
no model is in memory twice. Whoever adds a backbone or a reasoner adds its line to
BACKBONES or REASONERS.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmsearch.errors import BadCheckpoint
from mmsearch.retriever.models.bottleneck import Bottleneck, BottleneckConfig
from mmsearch.retriever.models.configs import config_from
from mmsearch.retriever.models.cot import Cot, CotConfig
from mmsearch.retriever.models.description import (
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Layout,
    ModelDescription,
    read_description,
)
from mmsearch.retriever.models.head import HEADS, Head, PlainHead
from mmsearch.retriever.models.none import NoneConfig, NoReasoner
from mmsearch.retriever.models.policy import Limits
from mmsearch.retriever.models.quantise import dequantise_rows, quantise_rows
from mmsearch.retriever.models.rollout import Rollout, RolloutConfig
from mmsearch.retriever.models.tensors import (
    HEADER_DTYPES,
    opened_tensors,
    tensor_bytes,
    tensor_info,
)
from mmsearch.retriever.models.weight_files import (
    FLOATING,
    TensorInfo,
    TensorWriter,
    file_hash,
    read_headers,
)

SCALE = ".scale"  # stands behind the name of a matrix that is kept as int8 rows
COUNTED = ("num_hidden_layers", "num_layers", "depth", "num_experts")
DIVIDING = (
    *("num_attention_heads", "num_key_value_heads", "num_heads", "num_kv_heads"),
    *("hidden_size", "intermediate_size", "embed_dim", "vocab_size", "max_position_embeddings"),
    *("patch_size", "spatial_merge_size", "temporal_patch_size"),
)
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
READOUTS: Mapping[str, tuple[str, ...]] = {
    "none": ("last", "disc", "disc_next"),
    "rollout": ("gen", "last", "disc", "disc_next"),
    "bottleneck": ("gen", "disc", "mean"),
    "cot": ("gen", "last", "disc", "disc_next"),
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
    if description.readout not in READOUTS[description.reasoner]:
        known = ", ".join(READOUTS[description.reasoner])
        raise ValueError(f"{description.reasoner} has readouts {known}, not {description.readout}")
    backbone = backbone_type(config, tokenizer, description.prompts, limits)
    config_type, reasoner_type = REASONERS[description.reasoner]
    reasoner = reasoner_type(config_from(config_type, description.reasoner_config), backbone)
    head: Head
    if description.head in HEADS:
        head, dim = HEADS[description.head](reasoner.dim, backbone.dim), backbone.dim
    elif description.head == "plain":
        head, dim = PlainHead(), reasoner.dim
    else:
        raise ValueError(f"no head is named {description.head!r}")
    if description.dim != dim:
        raise ValueError(f"it says {description.dim} dimensions and is built for {dim}")
    return Model(backbone, reasoner, head)


def write_checkpoint(
    folder: Path, model: Model, description: ModelDescription, *, quantise: bool = False
) -> ModelDescription:
    """Write ``model`` into ``folder`` and return ``description`` with the files' hashes.

    ``quantise`` keeps matrices as int8 rows: a quarter of the bytes, and not quite the same
    weights. Without it every tensor keeps its type, and reading gives back every bit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packed: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if tensor.dtype is torch.int8 or name + SCALE in packed:
            packed[name] = tensor  # a RowTable packs itself
        elif quantise and tensor.ndim >= 2 and tensor[0].numel() >= ROW_WORTH_QUANTISING:
            packed[name], packed[name + SCALE] = quantise_rows(tensor)
        else:
            packed[name] = tensor
    # The model may have been read from this very file, and still lie in it.
    unfinished = folder / f"{WEIGHTS_FILE}.part"
    with TensorWriter(unfinished, {name: tensor_info(t) for name, t in packed.items()}) as writer:
        for name in writer.names:
            writer.write(name, tensor_bytes(packed[name]))
    os.replace(unfinished, folder / WEIGHTS_FILE)
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
    of a folder that has none. Floating-point weights become ``dtype``, whatever they were.
    Raises BadCheckpoint where a file is missing or is not the one described, and where a
    tensor is missing, unexpected, or of another shape.
    """
    description = description or read_description(folder)
    check_files(folder, description)
    shards = [folder / name for name in description.files if name.endswith(".safetensors")]
    model, hub_names = matched_model(folder, description, shards, folder / TOKENIZER_FILE)
    state: dict[str, Tensor] = {}
    with opened_tensors(shards) as read:
        for name, expected in model.state_dict().items():
            tensor = read(hub_names[name])
            if tensor.dtype is torch.int8 and expected.dtype is not torch.int8:
                tensor = dequantise_rows(tensor, read(hub_names[name + SCALE]))
            wanted = dtype if expected.is_floating_point() else tensor.dtype
            state[name] = tensor.to(device=device, dtype=wanted)
    model.load_state_dict(state, assign=True)
    return description, model.requires_grad_(False).eval().to(device)


def matched_model(
    folder: Path, description: ModelDescription, shards: list[Path], tokenizer: Path
) -> tuple[Model, dict[str, str]]:
    """Return the described model without weights, and where each of them is in the files.

    The second is ``{name in Model: name in the files}``. ``folder`` is what a BadCheckpoint
    names; it is raised unless every tensor is there, of its shape, and none is left over.
    """
    headers = read_headers(shards)
    try:
        _refuse_counts([description.backbone_config, description.reasoner_config], len(headers))
        words = Tokenizer.from_file(str(tokenizer))
        with torch.device("meta"):  # no time is spent on weights that are replaced at once
            model = build_model(description, words)
        hub_names = {own: hub for hub, own in _own_names(headers, description).items()}
    except Exception as error:  # tokenizers raises nothing narrower, torch a dozen types
        raise BadCheckpoint(folder, str(error) or type(error).__name__) from None
    _check_tensors(folder, {own: headers[hub] for own, hub in hub_names.items()}, model)
    return model, hub_names


def _refuse_counts(said: Any, num_tensors: int) -> None:  # noqa: ANN401 - any JSON
    """Raise ValueError for a count in a configuration that no such files make up.

    Every layer and every expert has a tensor: a million of them would be built for minutes
    before any is found missing.
    """
    for name, value in said.items() if isinstance(said, Mapping) else enumerate(said):
        if isinstance(value, Mapping | list | tuple):
            _refuse_counts(value, num_tensors)
        elif type(value) is int and name in COUNTED and value > num_tensors:
            raise ValueError(f"{name} is {value}, and its files hold {num_tensors} tensors")
        elif type(value) is int and name in DIVIDING and value < 1:
            raise ValueError(f"{name} is {value}, and counts from 1")


def _own_names(headers: Mapping[str, TensorInfo], description: ModelDescription) -> dict[str, str]:
    if description.layout is Layout.OWN:
        return {name: name for name in headers}
    from mmsearch.retriever.models.hub_layout import own_names

    return own_names(headers, description)


def _check_tensors(folder: Path, found: Mapping[str, TensorInfo], model: Model) -> None:
    """Raise BadCheckpoint unless ``found`` is what the model has, packed or not."""
    expected = model.state_dict()
    scales = {name + SCALE for name in expected} - expected.keys()
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys() - scales)
    if missing or unexpected:
        reason = f"missing tensors {missing[:3]}, unexpected tensors {unexpected[:3]}"
        raise BadCheckpoint(folder, reason)
    for name, wanted in expected.items():
        info, scale = found[name], found.get(name + SCALE)
        if info.shape != tuple(wanted.shape):
            reason = f"{name} is {list(info.shape)}, not {list(wanted.shape)}"
            raise BadCheckpoint(folder, reason)
        is_packed = info.dtype == "I8" and wanted.dtype is not torch.int8
        if is_packed or (scale is not None and wanted.dtype is not torch.int8):
            if not is_packed or scale is None or scale.shape != info.shape[:1]:
                reason = f"{name} is {info.dtype} of {list(info.shape)} without the scale it needs"
                raise BadCheckpoint(folder, reason)
        elif wanted.is_floating_point():
            if info.dtype not in FLOATING:
                known = ", ".join(sorted(FLOATING))
                raise BadCheckpoint(folder, f"{name} is {info.dtype}, not one of {known}")
        elif info.dtype != HEADER_DTYPES[wanted.dtype]:
            right = HEADER_DTYPES[wanted.dtype]
            raise BadCheckpoint(folder, f"{name} is {info.dtype}, not {right}")


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
