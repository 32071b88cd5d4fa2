"""The model before any training of ours: the original towers, a head that adds nothing."""

import dataclasses
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn

from mmsearch.retriever.models.backbones.default import DefaultBackbone, DefaultConfig
from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.models.description import ModelDescription
from mmsearch.retriever.models.head import ResidualHead
from mmsearch.retriever.models.none import NoneConfig, NoReasoner
from mmsearch.retriever.models.policy import Limits
from mmsearch.retriever.models.prompts import Prompts
from mmsearch.retriever.training.default.originals import (
    class_names,
    imagenet_mobilenet,
    minilm_encoder,
    minilm_folder,
)
from mmsearch.values import Item, Role

ABOUT = "MobileNetV2 and MiniLM with a small decoder; CPU, offline, best where there are words"

LIMITS = Limits(max_pixels=448 * 448, max_frames=8)


def starting_model(data: Path, *, seed: int, head_width: int = 768, words_width: int = 0) -> Model:
    """Return the default model: ConSE for pixels, MiniLM for words, the rest at random.

    The heads, which are as wide as is asked for, add nothing.
    """
    torch.manual_seed(seed)
    tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config = DefaultConfig(head_width=head_width, words_width=words_width)
    backbone = DefaultBackbone(config, tokenizer, Prompts(), LIMITS)
    backbone.vision = imagenet_mobilenet(data)
    backbone.text = minilm_encoder()
    for module in backbone.decoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
    nn.init.normal_(backbone.end, std=0.02)
    for head in (backbone.visual_head, backbone.words_head):
        if head is not None:
            for parameter in head[-1].parameters():
                nn.init.zeros_(parameter)
    model = Model(
        backbone,
        NoReasoner(NoneConfig(), backbone),
        ResidualHead(backbone.width, backbone.dim),
    ).eval()
    name_items = [Item([name.split(",")[0]]) for name in class_names(data)]
    with torch.inference_mode():
        names = words_base(backbone, name_items)
    backbone.class_names.data = names.clone()
    return model


def words_base(backbone: DefaultBackbone, items: list[Item]) -> torch.Tensor:
    """Return MiniLM's unit vectors ``[n, 384]`` of items made of words."""
    rows = [
        backbone.readouts(backbone.collate(items[i : i + 16], role=Role.DOCUMENT))["base"]
        for i in range(0, len(items), 16)
    ]
    return F.normalize(torch.cat(rows), dim=-1)


def describe(backbone: DefaultBackbone) -> ModelDescription:
    """Return the default's description, without calibration and hashes."""
    return ModelDescription(
        name="default",
        about=ABOUT,
        backbone="default",
        backbone_config=dataclasses.asdict(backbone.config),
        reasoner="none",
        effort=0,
        head="residual",
        readout="last",
        prompts=backbone.prompts,
        max_pixels=backbone.limits.max_pixels,
        max_frames=backbone.limits.max_frames,
        dim=backbone.dim,
        calibration={},
        files={},
    )
