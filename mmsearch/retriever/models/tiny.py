"""A model of random weights and 170 kB, in the format of the real ones.

It knows nothing and takes milliseconds: what reads, writes, loads and batches models is
tested with it, and so is an index that meets a second space. Every part of the default
is there and its gate is open, so that the decoder counts.
"""

import dataclasses
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import nn

from mmsearch.retriever.models.backbones.decoder import DecoderConfig
from mmsearch.retriever.models.backbones.default import DefaultBackbone, DefaultConfig
from mmsearch.retriever.models.backbones.minilm import MiniLMConfig
from mmsearch.retriever.models.backbones.mobilenet import MobileNetConfig, SameConv
from mmsearch.retriever.models.bottleneck import BottleneckConfig
from mmsearch.retriever.models.checkpoint import REASONERS, Model, write_checkpoint
from mmsearch.retriever.models.cot import CotConfig
from mmsearch.retriever.models.description import ModelDescription
from mmsearch.retriever.models.head import ResidualHead
from mmsearch.retriever.models.none import NoneConfig
from mmsearch.retriever.models.policy import Limits
from mmsearch.retriever.models.prompts import Prompts
from mmsearch.retriever.models.rollout import RolloutConfig
from mmsearch.retriever.seams import Calibration
from mmsearch.values import View

LETTERS = string.ascii_lowercase + string.digits + string.punctuation
CONFIG = DefaultConfig(
    vision=MobileNetConfig(
        stem_width=8,
        blocks=((1, 8, 1, 1), (2, 8, 2, 2), (2, 16, 1, 2), (2, 16, 1, 2), (2, 16, 1, 2)),
        head_width=80,
        num_classes=12,
    ),
    text=MiniLMConfig(
        vocabulary=4 + 2 * len(LETTERS),
        width=32,
        num_layers=2,
        num_heads=4,
        ffn_width=64,
        max_positions=32,
    ),
    decoder=DecoderConfig(width=24, num_layers=2, num_heads=4, num_kv_heads=2, ffn_width=48),
    head_width=40,
    image_area=64 * 64,
    window_tokens=16,
    max_windows=3,
    top_classes=3,
    image_grid=2,
    frame_grid=1,
)

LIMITS = Limits(max_pixels=64 * 64, max_frames=4)


# For each way of thinking: its sizes, its effort, and the readout that makes the vector.
# Letters stand for the special tokens that this vocabulary lacks.
THOUGHTS: Mapping[str, tuple[Any, int, str]] = {
    "none": (NoneConfig(), 0, "last"),
    "rollout": (RolloutConfig(steps=4, suffix="(~)"), 4, "gen"),
    "bottleneck": (BottleneckConfig(num_tokens=4, num_decoded=2), 4, "mean"),
    "cot": (CotConfig(max_new_tokens=6, gen="~", ends=("!",)), 0, "gen"),
}


def letter_tokenizer() -> Tokenizer:
    """Return word pieces of single characters."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{one}" for one in LETTERS)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def random_model(*, seed: int = 0, config: DefaultConfig = CONFIG, reasoner: str = "none") -> Model:
    """Return an untrained model; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = DefaultBackbone(config, letter_tokenizer(), Prompts(), LIMITS)
        backbone.text.words.set(torch.randn(config.text.vocabulary, config.text.width))
        for parameter in (
            backbone.text.positions,
            backbone.text.segment,
            backbone.class_names,
            backbone.end,
        ):
            nn.init.normal_(parameter)
        for module in backbone.vision.modules():
            if isinstance(module, SameConv):  # else a picture fades out on its way up
                nn.init.kaiming_normal_(module.conv.weight)
        thinking = REASONERS[reasoner][1](THOUGHTS[reasoner][0], backbone)
        head = ResidualHead(backbone.width, backbone.dim)
        nn.init.constant_(head.alpha, 0.5)
        return Model(backbone, thinking, head).requires_grad_(False).eval()


def tiny_description(*, reasoner: str = "none", name: str = "random") -> ModelDescription:
    """Return the description of `random_model`, without the hashes of its files."""
    thought, effort, readout = THOUGHTS[reasoner]
    sides = [(query, segment) for query in View for segment in View]
    return ModelDescription(
        name=name,
        about="random weights, for tests",
        backbone="default",
        backbone_config=dataclasses.asdict(CONFIG),
        reasoner=reasoner,
        reasoner_config=dataclasses.asdict(thought),
        effort=effort,
        head="residual",
        readout=readout,
        prompts=Prompts(),
        max_pixels=LIMITS.max_pixels,
        max_frames=LIMITS.max_frames,
        dim=CONFIG.text.width,
        calibration=dict.fromkeys(sides, Calibration(midpoint=0.5, slope=10.0)),
        files={},
    )


def write_random_checkpoint(
    folder: Path, *, seed: int = 0, reasoner: str = "none"
) -> ModelDescription:
    """Write a random model into ``folder`` and return its description."""
    model = random_model(seed=seed, reasoner=reasoner)
    description = tiny_description(reasoner=reasoner, name=f"random-{seed}")
    return write_checkpoint(folder, model, description, quantise=True)
