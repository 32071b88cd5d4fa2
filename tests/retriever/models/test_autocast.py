"""Weights in float32, products in bfloat16: gradients point where those of float32 do."""

import warnings

import pytest
import torch
from torch import Tensor
from toy_thinking import mixed_items

from mmsearch.retriever.models import tiny, tiny_qwen
from mmsearch.retriever.models.checkpoint import Model
from mmsearch.values import Item, Role

FAMILIES = ("default", *tiny_qwen.FAMILIES)
ITEMS = [*mixed_items()[:3], Item(["a longer text, " * 4])]
READOUT = {"none": "last", "rollout": "gen", "bottleneck": "mean"}
EFFORT = {"none": 0, "rollout": 3}

every_pair = pytest.mark.parametrize(
    ("family", "reasoner"), [(family, reasoner) for family in FAMILIES for reasoner in READOUT]
)


def made(family: str, reasoner: str) -> Model:
    if family == "default":
        model = tiny.random_model(reasoner=reasoner)
    else:
        model = tiny_qwen.random_qwen(tiny_qwen.tiny_description(family, reasoner=reasoner))
    return model.requires_grad_(True)


def vectors(model: Model, reasoner: str, *, lower: bool) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=lower):
        batch = model.backbone.collate(ITEMS, role=Role.QUERY)
        tokens = getattr(model.reasoner, "config", None)
        effort = EFFORT.get(reasoner, getattr(tokens, "num_tokens", 0))
        thought = model.reasoner.think(model.backbone, batch, effort=effort)
        base = model.backbone.readouts(batch).get("base")
        found: Tensor = model.head(base, thought[READOUT[reasoner]])
    return found


def gradients(model: Model, reasoner: str, *, lower: bool) -> tuple[Tensor, Tensor]:
    """Return unit vectors, and all gradients of them in one row."""
    model.zero_grad()
    found = vectors(model, reasoner, lower=lower)
    drawn = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    torch.autograd.backward((found * drawn).sum())
    parts = [one.grad for one in model.parameters() if one.grad is not None]
    assert all(one.dtype is torch.float32 and bool(one.isfinite().all()) for one in parts)
    return found.detach(), torch.cat([one.flatten() for one in parts])


@every_pair
def test_vectors_and_gradients_are_near_those_of_float32(family: str, reasoner: str) -> None:
    model = made(family, reasoner)

    whole, straight = gradients(model, reasoner, lower=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as that no kernel takes mixed precisions
        rounded, bent = gradients(model, reasoner, lower=True)

    assert rounded.dtype is torch.float32
    assert not torch.equal(whole, rounded)
    assert torch.cosine_similarity(whole, rounded).min() > 0.999
    assert len(straight) == len(bent)
    assert torch.cosine_similarity(straight, bent, dim=0) > 0.99
    assert 0.95 < bent.norm() / straight.norm() < 1.05


@every_pair
def test_what_is_computed_without_gradients_is_what_is_computed_with_them(
    family: str, reasoner: str
) -> None:
    model = made(family, reasoner)

    learning = vectors(model, reasoner, lower=True).detach()
    with torch.no_grad():
        looking = vectors(model, reasoner, lower=True)

    # GradCache looks first, and learns by what it saw.
    assert torch.cosine_similarity(learning, looking).min() > 0.9999


@pytest.mark.parametrize("family", tiny_qwen.FAMILIES)
def test_attention_gets_the_precision_that_its_kernels_take(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmsearch.retriever.models.backbones import qwen_text, qwen_vision

    asked = []
    for module, name in ((qwen_text, "attend_causally"), (qwen_vision, "attend_wholly")):
        real = getattr(module, name)

        def watched(*tensors: Tensor, real: "object" = real) -> Tensor:
            asked.append({one.dtype for one in tensors})
            return real(*tensors)  # type: ignore[operator]

        monkeypatch.setattr(module, name, watched)

    vectors(made(family, "none"), "none", lower=True)

    assert len(asked) > 2
    assert all(dtypes == {torch.bfloat16} for dtypes in asked)


@pytest.mark.parametrize("is_learning", [True, False])
@pytest.mark.parametrize("family", tiny_qwen.FAMILIES)
def test_a_latent_step_reads_keys_of_the_precision_of_its_queries(
    family: str, is_learning: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A product of two precisions is refused on CUDA, where torch.bmm is told what to return.
    from mmsearch.retriever.models.backbones import qwen_text
    from mmsearch.retriever.models.backbones.attention import attend_grouped as real

    asked = []

    def watched(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        asked.append({one.dtype for one in (q, k, v)})
        return real(q, k, v, bias)

    monkeypatch.setattr(qwen_text, "attend_grouped", watched)
    with torch.set_grad_enabled(is_learning):
        vectors(made(family, "rollout"), "rollout", lower=True)

    assert len(asked) > EFFORT["rollout"]
    assert all(dtypes == {torch.bfloat16} for dtypes in asked)
