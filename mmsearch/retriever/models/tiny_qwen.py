"""Qwen-VL models of random weights and some 300 kB, in the format of the real ones.

They know nothing and take milliseconds: every family with every way of thinking is read,
written, batched and compared with them. Every weight counts: tokens differ, pixels matter,
positions matter.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import nn

from mmsearch.retriever.models.bottleneck import BottleneckConfig
from mmsearch.retriever.models.checkpoint import Model, build_model, write_checkpoint
from mmsearch.retriever.models.cot import CotConfig
from mmsearch.retriever.models.description import ModelDescription
from mmsearch.retriever.models.none import NoneConfig
from mmsearch.retriever.models.policy import VisualPolicy
from mmsearch.retriever.models.prompts import ChatFormat, Prompts
from mmsearch.retriever.models.rollout import RolloutConfig
from mmsearch.retriever.seams import Calibration
from mmsearch.values import View

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
WIDTH = 32
SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Added as PLUME adds them: not marked as special.
READOUTS = ("<gen_emb>", "<disc_emb>", "<bot>", "<eot>", "<ct>")
NUM_BYTES = 256
VOCABULARY = 288  # some rows that no token has, as in the published tables

USER = "<|im_start|>user\n"
ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"
ANCHORED = USER + "{visuals}{prompt}{text}\n<disc_emb>\nRead <gen_emb>." + ASSISTANT
CHATS = {
    "none": ChatFormat(template=USER + "{prompt}{parts}" + ASSISTANT),
    "bottleneck": ChatFormat(template=USER + "{prompt}{parts}" + ASSISTANT),
    "rollout": ChatFormat(template=ANCHORED + "<think><bot>", anchor="<disc_emb>"),
    "cot": ChatFormat(template=ANCHORED + "<think>", anchor="<disc_emb>"),
}
REASONERS: dict[str, tuple[Any, int, str]] = {  # config, effort, readout
    "none": (NoneConfig(), 0, "last"),
    "bottleneck": (BottleneckConfig(), BottleneckConfig().num_tokens, "mean"),
    "rollout": (RolloutConfig(), RolloutConfig().steps, "gen"),
    "cot": (CotConfig(max_new_tokens=6), 0, "gen"),
}


def tiny_tokenizer() -> Tokenizer:
    """Return a tokenizer of single bytes, and of the special tokens of Qwen and PLUME."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIALS]
    )
    tokenizer.add_tokens([AddedToken(token) for token in READOUTS])
    return tokenizer


def tiny_hf(family: str) -> dict[str, Any]:
    """Return a small ``config.json`` of that family, nested as transformers writes it."""
    if family not in FAMILIES:
        raise ValueError(f"a family is one of {', '.join(FAMILIES)}, not {family!r}")
    ids = {token: NUM_BYTES + i for i, token in enumerate(SPECIALS)}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10_000.0}
    rope["mrope_section"] = [2, 1, 1]
    text: dict[str, Any] = {
        "model_type": f"{family}_text",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1_024,
        "rms_norm_eps": 1e-6,
        "rope_parameters": rope,
        "tie_word_embeddings": True,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
    }
    vision: dict[str, Any] = {"model_type": f"{family}_vision", "depth": 2, "num_heads": 2}
    if family == "qwen2_vl":
        vision |= {"embed_dim": 16, "hidden_size": WIDTH, "mlp_ratio": 2}
    else:
        vision |= {"hidden_size": 16, "intermediate_size": 32, "out_hidden_size": WIDTH}
    if family == "qwen2_5_vl":
        # The last block sees everything, the first windows of two by two tokens.
        vision |= {"fullatt_block_indexes": [1], "window_size": 56, "tokens_per_second": 2}
    if family == "qwen3_vl":
        text["head_dim"] = 8
        rope["mrope_interleaved"] = True
        vision |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
    return {
        "model_type": family,
        "text_config": text,
        "vision_config": vision,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": True,
    }


def tiny_description(
    family: str,
    *,
    reasoner: str = "none",
    **overrides: Any,  # noqa: ANN401 - fields of several types
) -> ModelDescription:
    """Return the description of a tiny model.

    ``overrides`` are fields of the description (``readout="disc"``), or of the backbone's
    configuration (``position_mode="cache_length"``, ``chat=ChatFormat(...)``).
    """
    config, effort, readout = REASONERS[reasoner]
    backbone: dict[str, Any] = {
        "hf": tiny_hf(family),
        "chat": CHATS[reasoner],
        "policy": VisualPolicy(min_pixels=28 * 28),
        "position_mode": "contiguous",
        "max_tokens": 512,
    }
    backbone |= {name: overrides.pop(name) for name in backbone.keys() & overrides.keys()}
    backbone |= {name: dataclasses.asdict(backbone[name]) for name in ("chat", "policy")}
    sides = [(query, segment) for query in View for segment in View]
    description = ModelDescription(
        name=f"tiny-{family}-{reasoner}",
        about="random weights, for tests",
        backbone="qwen_vl",
        backbone_config=backbone,
        reasoner=reasoner,
        reasoner_config=dataclasses.asdict(config),
        effort=effort,
        head="plain",
        readout=readout,
        prompts=Prompts(query="Find: "),
        max_pixels=112 * 112,
        max_frames=4,
        dim=WIDTH,
        calibration=dict.fromkeys(sides, Calibration(midpoint=0.5, slope=10.0)),
        files={},
    )
    return dataclasses.replace(description, **overrides)


def random_qwen(description: ModelDescription, *, seed: int = 0) -> Model:
    """Return the described model, untrained; the same seed gives the same weights."""
    model = build_model(description, tiny_tokenizer())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(_random(name, parameter, generator))
    return model.requires_grad_(False).eval()


def _random(name: str, parameter: nn.Parameter, generator: torch.Generator) -> torch.Tensor:
    """Return values that keep a state's size from layer to layer, so that nothing fades."""
    noise = torch.randn(parameter.shape, generator=generator)
    if parameter.ndim >= 2:
        if "embed" in name and "patch_embed" not in name:
            return 0.3 * noise  # rows of a table; larger ones would drown what they attend to
        return noise / math.sqrt(parameter[0].numel())
    if name.endswith("bias"):
        return 0.2 * noise
    if "norm" in name or ".ln" in name or "reason" not in name:
        return 1.0 + 0.2 * noise
    return noise


def write_random_qwen(
    folder: Path, *, family: str = "qwen2_vl", reasoner: str = "none", seed: int = 0
) -> ModelDescription:
    """Write a tiny random model into ``folder`` and return its description."""
    description = tiny_description(family, reasoner=reasoner)
    return write_checkpoint(folder, random_qwen(description, seed=seed), description)
