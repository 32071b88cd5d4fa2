"""Networks of published sizes with random weights: speed does not depend on their values.

    size -> ModelDescription of each reasoner -> Model, the backbone's tensors shared by all

The tokenizer is the one of bytes that the tests use, so that no file is needed: what a
token costs depends on the rows of the table and not on which row it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from embed_speed.stand_ins import Unending
from mmsearch.retriever.models.checkpoint import Model, build_model
from mmsearch.retriever.models.cot import Cot
from mmsearch.retriever.models.description import ModelDescription
from mmsearch.retriever.models.prompts import Prompts
from mmsearch.retriever.models.tiny_qwen import tiny_hf, tiny_tokenizer

STEPS = 8
BEGUN = 8  # tokens of a thought that is only begun
# A byte is a token here. So long are the published prompt and suffix of PLUME, about, in
# tokens of Qwen: a system line, an instruction of two sentences, the chat's own tokens.
PROMPT_TOKENS = 84
SUFFIX = "<eot>...<gen_emb>"
REASONERS: Mapping[str, tuple[str, int, str]] = {  # name -> (reasoner, effort, readout)
    "none": ("none", 0, "last"),
    "lame": ("bottleneck", STEPS, "mean"),
    "plume-0": ("rollout", 0, "gen"),
    "plume-4": ("rollout", 4, "gen"),
    "plume-8": ("rollout", STEPS, "gen"),
    "cot": ("cot", 0, "gen"),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A published network: its family, and the sizes in its ``config.json``.

    Without sizes it is the family's tiny test model.
    """

    family: str
    text: Mapping[str, Any] = field(default_factory=dict)
    rope: Mapping[str, Any] = field(default_factory=dict)
    vision: Mapping[str, Any] = field(default_factory=dict)


def _text(
    *, width: int, ffn: int, layers: int, heads: int, kv_heads: int, **further: int
) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": 151_936,
        **further,
    }


SIZES: Mapping[str, Shape] = {
    "tiny": Shape("qwen2_vl"),
    "2b": Shape(
        "qwen2_vl",
        _text(width=1_536, ffn=8_960, layers=28, heads=12, kv_heads=2),
        {"rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        {"depth": 32, "embed_dim": 1_280, "hidden_size": 1_536, "num_heads": 16, "mlp_ratio": 4},
    ),
    "qwen2_5_vl-3b": Shape(
        "qwen2_5_vl",
        _text(width=2_048, ffn=11_008, layers=36, heads=16, kv_heads=2),
        {"rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        {
            "depth": 32,
            "hidden_size": 1_280,
            "intermediate_size": 3_420,
            "out_hidden_size": 2_048,
            "num_heads": 16,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
    ),
    "qwen3_vl-2b": Shape(
        "qwen3_vl",
        _text(width=2_048, ffn=6_144, layers=28, heads=16, kv_heads=8, head_dim=128),
        {"rope_theta": 5e6, "mrope_section": [24, 20, 20]},
        {
            "depth": 24,
            "hidden_size": 1_024,
            "intermediate_size": 4_096,
            "out_hidden_size": 2_048,
            "num_heads": 16,
            "num_position_embeddings": 2_304,
            "deepstack_visual_indexes": [5, 11, 17],
        },
    ),
}


class Embeds(Protocol):
    """What can be timed: a description, the model whose operations count, and a way to embed."""

    @property
    def description(self) -> ModelDescription: ...

    @property
    def model(self) -> Model: ...

    def embed(self, batch: Any) -> Tensor:  # noqa: ANN401 - the backbone's own type
        """Do what is timed to a collated batch."""
        ...

    def warm_up(self, batch: Any) -> None:  # noqa: ANN401
        """Choose the kernels and record the graphs of a batch, which is not timed."""
        ...


@dataclass(frozen=True, slots=True)
class Network:
    """One reasoner on the shared backbone, as a user's checkpoint would hold it.

    backbone: what the reasoner is given: the model's own, or a stand-in for it
    """

    description: ModelDescription
    model: Model
    backbone: Any

    @torch.inference_mode()
    def embed(self, batch: Any) -> Tensor:  # noqa: ANN401 - the backbone's own type
        """Return unit vectors ``[B, d]`` of a collated batch, as `LatentEmbedder` does."""
        backbone, described = self.backbone, self.description
        base = backbone.readouts(batch).get("base")
        thought = self.model.reasoner.think(backbone, batch, effort=described.effort)
        vectors: Tensor = self.model.head(base, thought[described.readout])
        return vectors

    def warm_up(self, batch: Any) -> None:  # noqa: ANN401
        """Embed it once; a thought that is written is only begun, its kernels stay the same."""
        short = self
        if isinstance(self.model.reasoner, Cot):
            config = replace(self.model.reasoner.config, max_new_tokens=BEGUN)
            model = Model(self.model.backbone, Cot(config, self.model.backbone), self.model.head)
            short = replace(self, model=model)
        short.embed(batch)


def networks(
    size: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    cot_tokens: int,
    prompt_tokens: int = PROMPT_TOKENS,
) -> dict[str, Network]:
    """Return every reasoner of REASONERS on one backbone of random weights, by name.

    All have the same prompt of ``prompt_tokens``. ``cot_tokens`` are written for each item,
    the readout token last. Weights are made on
    the device itself.
    """
    tokenizer = tiny_tokenizer()
    generator = torch.Generator(device).manual_seed(seed)
    made: dict[str, Network] = {}
    models: dict[str, Model] = {}
    for name, (reasoner, effort, readout) in REASONERS.items():
        described = describe(
            size,
            reasoner,
            effort,
            readout,
            cot_tokens=cot_tokens,
            prompt_tokens=prompt_tokens,
        )
        if reasoner not in models:
            with torch.device("meta"):
                model = build_model(described, tokenizer)
            if models:
                model.backbone = models["none"].backbone
            state = {
                key: _random(key, tensor, device, dtype, generator) if tensor.is_meta else tensor
                for key, tensor in model.state_dict().items()
            }
            model.load_state_dict(state, assign=True)
            models[reasoner] = model.requires_grad_(False).eval().to(device)
        model = models[reasoner]
        backbone: Any = model.backbone
        if isinstance(model.reasoner, Cot):
            backbone = Unending(backbone, model.reasoner.gen)
        made[name] = Network(described, model, backbone)
    models["none"].backbone.pack()  # as a loaded model is
    return made


def describe(
    size: str,
    reasoner: str,
    effort: int,
    readout: str,
    *,
    cot_tokens: int,
    prompt_tokens: int,
) -> ModelDescription:
    """Return a description of a size and a reasoner, with the prompt all of them share."""
    config = hf_config(size)
    if prompt_tokens < 3:
        raise ValueError(f"a prompt has its first, its anchor and its last token: {prompt_tokens}")
    instruction = "." * (prompt_tokens - 3)
    chat = {
        "template": f"<|im_start|>{{prompt}}{{parts}}<disc_emb>{instruction}<bot>",
        "anchor": "<disc_emb>",
    }
    settings: dict[str, Mapping[str, Any]] = {
        "none": {},
        "rollout": {"steps": STEPS, "suffix": SUFFIX},
        "bottleneck": {"num_tokens": STEPS},
        "cot": {"max_new_tokens": cot_tokens - 1, "ends": []},
    }
    return ModelDescription(
        name=f"{size}-{reasoner}",
        about="random weights of the right shape",
        backbone="qwen_vl",
        backbone_config={"hf": config, "chat": chat},
        reasoner=reasoner,
        reasoner_config=settings[reasoner],
        effort=effort,
        head="plain",
        readout=readout,
        prompts=Prompts(),
        max_pixels=2_359_296,  # the published limit; no input comes near it
        max_frames=8,
        dim=config["text_config"]["hidden_size"],
        calibration={},
        files={},
    )


def hf_config(size: str) -> dict[str, Any]:
    """Return the ``config.json`` of a size, its special tokens those of our tokenizer."""
    shape = SIZES[size]
    tiny = tiny_hf(shape.family)
    rope = {**tiny["text_config"]["rope_parameters"], **shape.rope}
    return {
        **tiny,
        "text_config": {
            **tiny["text_config"],
            **shape.text,
            "max_position_embeddings": 32_768,
            "rope_parameters": rope,
        },
        "vision_config": {**tiny["vision_config"], **shape.vision},
    }


def _random(
    name: str, like: Tensor, device: torch.device, dtype: torch.dtype, generator: torch.Generator
) -> Tensor:
    """Return weights that carry a signal: matrices keep its size, norms and biases are neutral."""
    if not like.is_floating_point():
        raise ValueError(f"{name} is {like.dtype}")
    if like.ndim < 2 and name.endswith(("weight", "bias")):
        fill = 1.0 if name.endswith("weight") else 0.0
        return torch.full(like.shape, fill, device=device, dtype=dtype)
    tensor = torch.empty(like.shape, device=device, dtype=dtype)
    is_table = ("embed" in name and "patch_embed" not in name) or like.ndim < 2
    std = 1.0 if is_table else like[0].numel() ** -0.5
    return tensor.normal_(std=std, generator=generator)
