"""What is computed again on the way back gives the same gradients, and is not kept."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy_thinking import mixed_items

from mmsearch.retriever.models import tiny, tiny_qwen
from mmsearch.retriever.models.adapter import AdapterConfig
from mmsearch.retriever.models.backbones.checkpointing import use_checkpointing
from mmsearch.retriever.models.checkpoint import Model, build_model
from mmsearch.retriever.models.rollout import Rollout, RolloutConfig
from mmsearch.values import Item, Role

FAMILIES = ("default", *tiny_qwen.FAMILIES)
ITEMS = [*mixed_items()[:3], Item(["a longer text, " * 12])]

every_family = pytest.mark.parametrize("family", FAMILIES)


class Kept(TorchDispatchMode):
    """Counts the bytes that were made inside and are still held."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor):
                storage = one.untyped_storage()
                ref = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self.made[storage.data_ptr()] = ref, storage.nbytes()
        return result

    @property
    def num_bytes(self) -> int:
        held = [(ref.expired(), size) for ref, size in self.made.values()]  # type: ignore[no-untyped-call]
        return sum(size for is_gone, size in held if not is_gone)


@contextmanager
def dropping(model: Model) -> Iterator[None]:
    """Drop a tenth of what layers hand on, wherever a Linear does it."""

    def drop(module: torch.nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return torch.nn.functional.dropout(output, 0.1)

    hooks = [
        module.register_forward_hook(drop)
        for name, module in model.backbone.named_modules()
        if "layers." in name and isinstance(module, torch.nn.Linear)
    ]
    yield
    for hook in hooks:
        hook.remove()


def started(family: str) -> Model:
    if family == "default":
        model = tiny.random_model(reasoner="rollout")
    else:
        model = tiny_qwen.random_qwen(tiny_qwen.tiny_description(family, reasoner="rollout"))
    return model.requires_grad_(True)


def thought(model: Model, items: list[Item], *, effort: int = 3) -> Tensor:
    """Return a loss that every state of a thought has a part in."""
    torch.manual_seed(0)
    batch = model.backbone.collate(items, role=Role.QUERY)
    readouts = model.reasoner.think(model.backbone, batch, effort=effort)
    return readouts["gen"].square().sum(dim=-1).log().sum() + readouts["disc"][:, 0].sum()


def gradients(model: Model, *, checkpointing: bool) -> dict[str, Tensor]:
    model.zero_grad()
    use_checkpointing(model.backbone, checkpointing)
    torch.autograd.backward(thought(model, ITEMS))
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@every_family
@pytest.mark.parametrize("drops", [False, True])
def test_gradients_are_those_of_layers_that_were_kept(family: str, drops: bool) -> None:
    model = started(family)
    with dropping(model) if drops else contextmanager(lambda: iter([None]))():
        kept = gradients(model, checkpointing=False)
        again = gradients(model, checkpointing=True)

    assert kept.keys() == again.keys()
    assert any(name.startswith("backbone.vision") for name in again)
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient, atol=1e-6, rtol=1e-6, msg=name)


def deep_qwen() -> Model:
    """Return a Qwen of 8 layers, whose inputs are a small part of what they compute."""
    description = tiny_qwen.tiny_description("qwen2_vl", reasoner="rollout")
    hf = dict(description.backbone_config["hf"])
    hf["text_config"] = {**hf["text_config"], "num_hidden_layers": 8, "intermediate_size": 128}
    hf["vision_config"] = {**hf["vision_config"], "depth": 8}
    description = dataclasses.replace(
        description, backbone_config={**description.backbone_config, "hf": hf}
    )
    return build_model(description, tiny_qwen.tiny_tokenizer()).requires_grad_(True)


def kept_bytes(model: Model, items: list[Item], *, checkpointing: bool, effort: int) -> int:
    model.backbone.checkpointing = checkpointing
    with Kept() as kept:
        loss = thought(model, items, effort=effort)
    assert loss.requires_grad
    return kept.num_bytes


@pytest.mark.parametrize("items", [ITEMS[:3], [Item(["words " * 60])] * 2], ids=["all", "words"])
def test_little_is_kept_of_a_deep_model(items: list[Item]) -> None:
    model = deep_qwen()

    all_of_it = kept_bytes(model, items, checkpointing=False, effort=0)
    inputs = kept_bytes(model, items, checkpointing=True, effort=0)

    assert inputs < all_of_it / 3


def test_a_layer_keeps_its_input_and_the_keys_and_values_of_its_places() -> None:
    model = deep_qwen()
    long, longer = [Item(["words " * 40])], [Item(["words " * 60])]

    few, many = (kept_bytes(model, items, checkpointing=True, effort=0) for items in (long, longer))

    # 32 wide, and two heads of 8 for keys and for values, in float32; what is kept once for
    # all layers (embeddings, angles, the last norm) makes less than two layers' worth.
    a_place = (32 + 2 * 2 * 8) * 4
    assert 8 * a_place <= (many - few) / (6 * 20) < (8 + 4) * a_place


def test_a_step_of_a_thought_keeps_its_own_places_and_not_those_before() -> None:
    model = deep_qwen()
    long, short = [Item(["words " * 60])] * 2, [Item(["w"])] * 2
    config = RolloutConfig(steps=8, adapter=AdapterConfig())
    model.reasoner = Rollout(config, model.backbone)

    def step(items: list[Item]) -> float:
        few, many = (
            kept_bytes(model, items, checkpointing=True, effort=effort) for effort in (2, 8)
        )
        return (many - few) / 6

    # The mask alone grows with the prompt: a byte a place, and a bias of four.
    assert step(long) < step(short) + 2 * 60 * 6 * 16


@every_family
def test_without_gradients_nothing_changes(family: str) -> None:
    model = started(family)
    with torch.no_grad():
        expected = thought(model, ITEMS)
        model.backbone.checkpointing = True

        assert torch.equal(thought(model, ITEMS), expected)


def test_a_cache_with_gradients_is_gone_on_with_without_them() -> None:
    model = started("qwen2_vl")
    backbone = model.backbone
    backbone.checkpointing = True
    batch = backbone.collate(ITEMS, role=Role.QUERY)
    new = torch.randn(len(ITEMS), 2, backbone.width, generator=torch.Generator().manual_seed(0))

    _, cache = backbone.prefill(batch)
    _, cache = backbone.extend(new, cache)
    with torch.no_grad():
        hidden, cache = backbone.extend(new, cache)
        hidden, _ = backbone.extend(new, cache)

    with torch.no_grad():
        _, plain = backbone.prefill(batch)
        for _ in range(3):
            expected, plain = backbone.extend(new, plain)
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)
