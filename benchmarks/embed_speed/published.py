"""Transformers' own network on the same tensors: how the papers ran it, and a second opinion.

It is driven as its documentation says, one item at a time, and writes with ``generate``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from embed_speed.shapes import BEGUN, Network
from mmsearch.retriever.models.backbones.patches import normalise
from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.models.description import ModelDescription


def published(backbone: nn.Module, hf: Mapping[str, Any], device: torch.device) -> Any:  # noqa: ANN401
    """Return transformers' model of that configuration, holding the backbone's tensors."""
    import transformers

    family: Any = {
        "qwen2_vl": transformers.Qwen2VLForConditionalGeneration,
        "qwen2_5_vl": transformers.Qwen2_5_VLForConditionalGeneration,
        "qwen3_vl": transformers.Qwen3VLForConditionalGeneration,
    }[hf["model_type"]]
    config = family.config_class(**{name: hf[name] for name in hf if name != "model_type"})
    with torch.device(device):  # its buffers are computed here, its weights are replaced
        model = family(config)
    tensors = {}
    for name, tensor in backbone.state_dict().items():
        half, rest = name.split(".", 1)
        own = {"language": f"model.language_model.{rest}", "vision": f"model.visual.{rest}"}
        tensors[own.get(half, name)] = tensor
    expected = model.state_dict()
    for name, tensor in tensors.items():
        tensors[name] = tensor.view(expected[name].shape)
    missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"missing {missing[:3]}, unexpected {unexpected[:3]}")
    return model.requires_grad_(False).eval()


def arguments(backbone: Any, batch: Any) -> dict[str, Tensor]:  # noqa: ANN401 - QwenBackbone's
    """Return a collated batch of one item as that model takes it."""
    real = batch.mask[0]
    ids = batch.ids[:, real]
    types = torch.zeros_like(ids)
    found = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if batch.grids:
        # An item of the benchmark has pictures or a film, not both.
        hf = backbone.config.hf
        kind, number = ("image", 1) if bool((ids == hf["image_token_id"]).any()) else ("video", 2)
        types[ids == hf[f"{kind}_token_id"]] = number
        name = "pixel_values" if kind == "image" else "pixel_values_videos"
        found[name] = normalise(batch.patches, backbone.geometry)
        found[f"{kind}_grid_thw"] = torch.tensor(batch.grids, device=ids.device)
    return {**found, "mm_token_type_ids": types}


@dataclass(frozen=True, slots=True)
class Generate:
    """Writes as the papers measured it; what counts as its model is our `Cot`'s."""

    description: ModelDescription
    model: Model
    theirs: Any
    tokens: int

    @classmethod
    def of(cls, network: Network, device: torch.device, *, tokens: int) -> "Generate":
        """Return it over the tensors of a network that writes."""
        hf = network.description.backbone_config["hf"]
        theirs = published(network.model.backbone, hf, device)
        return cls(network.description, network.model, theirs, tokens)

    @torch.inference_mode()
    def embed(self, batch: Any) -> Tensor:  # noqa: ANN401 - QwenBatch
        """Write, and return the ids; an embedding would take one pass more."""
        inputs = arguments(self.model.backbone, batch)
        return write(self.theirs, inputs, tokens=self.tokens)

    @torch.inference_mode()
    def warm_up(self, batch: Any) -> None:  # noqa: ANN401
        """Begin to write."""
        write(self.theirs, arguments(self.model.backbone, batch), tokens=BEGUN)


def write(model: Any, inputs: Mapping[str, Tensor], *, tokens: int) -> Tensor:  # noqa: ANN401
    """Return the ids of the prompt and of exactly ``tokens`` greedy tokens behind it.

    Without cuDNN's attention, torch's first choice on Hopper: it makes a plan for every
    length, some 0.4 s for each token, which would flatter whatever is compared with it.
    """
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        written: Tensor = model.generate(
            **inputs,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=0,
        )
    if written.shape[1] != inputs["input_ids"].shape[1] + tokens:
        raise ValueError(f"it wrote {written.shape[1] - inputs['input_ids'].shape[1]} tokens")
    return written
