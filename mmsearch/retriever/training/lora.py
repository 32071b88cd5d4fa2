"""LoRA: small matrices that learn beside large ones that do not.

    add_lora(model, settings)   in place: W x becomes W x + B A x * alpha / rank, B at 0
    merge_lora(model)           in place: W + B A * alpha / rank, under the names before

Tokens that the model was given for this training have rows that learn as well, beside the
table, which does not.

Algorithm: LoRA (arXiv 2106.09685), by peft, which the ``train`` extra brings. The layers are
replaced where they stand, so our own drivers run them as they run any other.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mmsearch.errors import BadSetting, MissingExtra
from mmsearch.retriever.models.backbones.qwen import NewRows
from mmsearch.retriever.training.starting import fresh_names, new_tokens

if TYPE_CHECKING:
    from mmsearch.retriever.models.checkpoint import Model
    from mmsearch.retriever.training.config import LoraSettings

# What a target has to end in where nobody names any, and where it has to lie: the layers of
# the language model, or of the default's decoder.
USUAL_TARGETS = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    *("q", "k", "v", "out", "gate", "up", "down"),
)
USUAL_PLACES = ("backbone.language.layers.", "backbone.decoder.layers.")
# Their weights are read past their forward, where a LoRA would not be seen.
READ_DIRECTLY = ("backbone.words_in",)


def add_lora(model: "Model", settings: "LoraSettings") -> None:
    """Put LoRA beside the targets of a started model.

    The model computes what it did before: B is 0, and A is drawn by torch's generator. From
    here on only LoRA learns, and what started at random. Raises MissingExtra without peft,
    BadSetting for a target that no linear layer is named by.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingExtra("peft", "train") from None
    targets = _targets(model, settings.targets)
    fresh = fresh_names(model)
    learning = [n for n, p in model.named_parameters() if p.requires_grad and n in fresh]
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=settings.dropout,
        target_modules=targets,
        bias="none",
    )
    is_training = model.training
    inject_adapter_in_model(config, model)  # which freezes all else
    for name in learning:
        model.get_parameter(name).requires_grad_(True)
    if ids := new_tokens(model):
        backbone = model.backbone
        backbone.new_rows = NewRows(ids, backbone.language.get_parameter("embed_tokens.weight"))
    model.train(is_training)


def merge_lora(model: "Model") -> None:
    """Add every LoRA to the matrix it stands beside; the model is as if there never was one."""
    for parent, name, layer in list(_layers(model)):
        layer.merge()
        setattr(parent, name, layer.get_base_layer())
    if (new := getattr(model.backbone, "new_rows", None)) is not None:
        with torch.no_grad():
            model.backbone.language.get_parameter("embed_tokens.weight")[new.ids] = new.rows
        model.backbone.new_rows = None
    if hasattr(model, "peft_config"):
        del model.peft_config


def has_lora(model: nn.Module) -> bool:
    """Return whether a LoRA stands beside any layer."""
    return next(_layers(model), None) is not None


def _layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """Yield ``(parent, name in it, layer)`` of every layer with a LoRA."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if hasattr(child, "lora_A") and hasattr(child, "get_base_layer"):
                yield parent, name, child


def _targets(model: nn.Module, asked: tuple[str, ...]) -> list[str]:
    """Return the full names of the linear layers that are meant."""
    linear = {name for name, module in model.named_modules() if type(module) is nn.Linear}
    linear -= set(READ_DIRECTLY)
    found: set[str] = set()
    for target in asked or USUAL_TARGETS:
        ended = {name for name in linear if f".{name}".endswith(f".{target}")}
        if not asked:
            ended = {name for name in ended if name.startswith(USUAL_PLACES)}
        elif not ended:
            some = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise BadSetting(
                f"lora.targets {target!r}",
                "no linear layer's name ends in it",
                hint=f"there are {some}",
            )
        found |= ended
    return sorted(found)
