"""The text halves compute what transformers computes, in any batch and in any number of passes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    Qwen2VLTextConfig,
    Qwen2VLTextModel,
    Qwen3VLTextConfig,
    Qwen3VLTextModel,
)

from mmsearch.retriever.models.backbones.kv_cache import KVCache
from mmsearch.retriever.models.backbones.qwen_text import TextHalf, build_language

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
MODELS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "qwen2_vl": (Qwen2VLTextConfig, Qwen2VLTextModel),
    "qwen2_5_vl": (Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel),
    "qwen3_vl": (Qwen3VLTextConfig, Qwen3VLTextModel),
}
WIDTH = 64


def fields(family: str) -> dict[str, Any]:
    """Return a text configuration in the words of the published ones."""
    more: dict[str, Any] = {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    if family == "qwen3_vl":
        rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True}
        more = {"rope_scaling": rope, "head_dim": 16}
    return {
        **more,
        "hidden_size": WIDTH,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 300,
        "rms_norm_eps": 1e-6,
        "rope_theta": 20_000.0,
        "use_sliding_window": False,
        "sliding_window": 32_768,
        "max_window_layers": 2,
        "bos_token_id": 151_643,
        "eos_token_id": 151_645,
    }


def flat(family: str) -> dict[str, Any]:
    return {"model_type": family, "vision_config": {"depth": 2}, **fields(family)}


def nested(family: str) -> dict[str, Any]:
    text = {"model_type": f"{family}_text", **fields(family)}
    return {"model_type": family, "vision_config": {"depth": 2}, "text_config": text}


def theirs(family: str) -> nn.Module:
    """Return transformers' model, with weights that differ in every norm and bias too."""
    config, model = MODELS[family]
    rope = {"rope_theta": 20_000.0, "rope_type": "default", "mrope_section": [2, 3, 3]}
    left_out = ("rope_theta", "rope_scaling", "bos_token_id", "eos_token_id")
    own = {k: v for k, v in fields(family).items() if k not in left_out}
    language: nn.Module = model(config(**own, rope_parameters=rope, pad_token_id=None)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in language.named_parameters():
            scale = 0.3 if "norm" in name or "bias" in name else 0.15
            around = 1.0 if "norm" in name else 0.0
            weight.copy_(around + scale * torch.randn(weight.shape, generator=generator))
    return language.requires_grad_(False)


def half_of(family: str, hf: dict[str, Any] | None = None) -> TextHalf:
    hf = flat(family) if hf is None else hf
    language = build_language(hf)
    language.load_state_dict(theirs(family).state_dict())
    return TextHalf(language.requires_grad_(False), hf)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def half(family: str) -> TextHalf:
    return half_of(family)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LENGTHS = (11, 6, 1)  # of the rows of `batch`; the rest is padding on the left


def batch() -> dict[str, Any]:
    """Return a padded batch; its three axes differ, as where pictures stand."""
    rows, longest = len(LENGTHS), max(LENGTHS)
    mask = torch.arange(longest) >= longest - torch.tensor(LENGTHS)[:, None]
    positions = torch.randint(0, 40, (3, rows, longest), generator=torch.Generator().manual_seed(2))
    return {
        "embeds": noise(rows, longest, WIDTH),
        "positions": positions * mask,
        "mask": mask,
        "next_position": torch.tensor([41, 45, 60]),
    }


def row(whole: dict[str, Any], i: int) -> dict[str, Any]:
    """Return row ``i`` alone, without its padding."""
    start = max(LENGTHS) - LENGTHS[i]
    return {
        "embeds": whole["embeds"][i : i + 1, start:],
        "positions": whole["positions"][:, i : i + 1, start:],
        "mask": whole["mask"][i : i + 1, start:],
        "next_position": whole["next_position"][i : i + 1],
    }


def reference(language: nn.Module, whole: dict[str, Any], **more: Any) -> Tensor:
    return language(
        inputs_embeds=whole["embeds"],
        position_ids=whole["positions"],
        attention_mask=whole["mask"],
        use_cache=False,
        **more,
    ).last_hidden_state


def assert_near(ours: Tensor, other: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, other, atol=atol, rtol=0)


@pytest.mark.parametrize("config", [flat, nested])
@pytest.mark.parametrize("grad", [False, True])
def test_a_padded_batch_equals_transformers(
    family: str, config: Callable[[str], dict[str, Any]], grad: bool
) -> None:
    whole = batch()
    half = half_of(family, config(family))

    with torch.set_grad_enabled(grad):
        hidden, _ = half.prefill(**whole, room=0)

    real = whole["mask"]
    assert_near(hidden[real], reference(theirs(family), whole)[real])


def test_deepstack_features_are_added_at_the_pictures(family: str) -> None:
    if family != "qwen3_vl":
        pytest.skip("only Qwen3-VL has them")
    whole = batch()
    visual = whole["mask"] & (noise(*whole["mask"].shape, seed=3) > 0)
    deep = [noise(int(visual.sum()), WIDTH, seed=4 + i) for i in range(2)]

    hidden, _ = half_of(family).prefill(**whole, room=0, deep=deep, visual=visual)

    expected = reference(
        theirs(family), whole, visual_pos_masks=visual, deepstack_visual_embeds=deep
    )
    assert_near(hidden[whole["mask"]], expected[whole["mask"]])


def test_deep_features_without_their_places_are_refused() -> None:
    with pytest.raises(ValueError, match="places"):
        half_of("qwen3_vl").prefill(**batch(), room=0, deep=[noise(1, WIDTH)])


@pytest.mark.parametrize("steps", [(1,), (1, 1, 1), (5,), (1, 4, 2)])
@pytest.mark.parametrize("grad", [False, True])
def test_extending_equals_a_full_recompute(
    half: TextHalf, family: str, steps: tuple[int, ...], grad: bool
) -> None:
    whole, total = batch(), sum(steps)
    more = noise(len(LENGTHS), total, WIDTH, seed=5)
    ahead = whole["next_position"][:, None] + torch.arange(total)
    longer = {
        "embeds": torch.cat([whole["embeds"], more], dim=1),
        "positions": torch.cat([whole["positions"], ahead.expand(3, -1, -1)], dim=2),
        "mask": torch.cat([whole["mask"], torch.ones(len(LENGTHS), total) > 0], dim=1),
    }

    with torch.set_grad_enabled(grad):
        _, cache = half.prefill(**whole, room=total)
        grown = []
        for part in more.split(steps, dim=1):  # type: ignore[no-untyped-call]
            hidden, cache = half.extend(part, cache)
            grown.append(hidden)

    assert cache.length == max(LENGTHS) + total
    assert_near(torch.cat(grown, dim=1), reference(theirs(family), longer)[:, -total:])


def test_a_row_alone_equals_the_row_in_a_batch(half: TextHalf) -> None:
    whole, more = batch(), noise(len(LENGTHS), 3, WIDTH, seed=6)

    with torch.no_grad():
        together, cache = half.prefill(**whole, room=3)
        further, _ = half.extend(more, cache)
        for i, length in enumerate(LENGTHS):
            alone, own = half.prefill(**row(whole, i), room=3)
            assert_near(together[i, -length:], alone[0])
            assert_near(further[i], half.extend(more[i : i + 1], own)[0][0])


def test_what_stands_at_padding_changes_nothing(half: TextHalf) -> None:
    whole = batch()
    dirty = {**whole, "embeds": whole["embeds"].masked_fill(~whole["mask"][..., None], 1e3)}

    with torch.no_grad():
        clean, _ = half.prefill(**whole, room=0)
        hidden, cache = half.prefill(**dirty, room=1)
        further, _ = half.extend(noise(len(LENGTHS), 1, WIDTH), cache)

    assert hidden.isfinite().all()
    assert further.isfinite().all()
    assert_near(hidden[whole["mask"]], clean[whole["mask"]])


@pytest.mark.parametrize("room", [0, 1, 8])
def test_too_little_room_grows(half: TextHalf, room: int) -> None:
    whole, more = batch(), noise(len(LENGTHS), 6, WIDTH, seed=7)

    def steps(room: int) -> tuple[Tensor, KVCache]:
        _, cache = half.prefill(**whole, room=room)
        states = []
        for part in more.split(2, dim=1):  # type: ignore[no-untyped-call]
            hidden, cache = half.extend(part, cache)
            states.append(hidden)
        return torch.cat(states, dim=1), cache

    with torch.inference_mode():
        states, cache = steps(room)
        expected, _ = steps(6)

    assert cache.places >= max(LENGTHS) + 6
    torch.testing.assert_close(states, expected)


def test_a_cache_of_inference_mode_goes_on_outside_of_it(half: TextHalf) -> None:
    whole, more = batch(), noise(len(LENGTHS), 2, WIDTH)
    with torch.inference_mode():
        _, cache = half.prefill(**whole, room=4)

    with torch.no_grad():
        hidden, _ = half.extend(more, cache)
        _, again = half.prefill(**whole, room=4)
        torch.testing.assert_close(hidden, half.extend(more, again)[0])


def test_threads_at_once_compute_what_one_does(half: TextHalf) -> None:
    whole = batch()

    def thought(seed: int) -> Tensor:
        with torch.inference_mode():
            shifted = {**whole, "embeds": whole["embeds"] + seed}
            hidden, cache = half.prefill(**shifted, room=4)
            z = hidden[:, -1:]
            for _ in range(4):
                z, cache = half.extend(z, cache)
            return z

    expected = [thought(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for one, alone in zip(pool.map(thought, range(8)), expected, strict=True):
                torch.testing.assert_close(one, alone, atol=0, rtol=0)


def test_gradients_through_a_cache_are_those_without_one(half: TextHalf) -> None:
    half.language.requires_grad_(True)
    parameters = [p for n, p in half.language.named_parameters() if "embed_tokens" not in n]
    whole, target = batch(), noise(len(LENGTHS), 2, WIDTH, seed=8)
    start = whole["embeds"].requires_grad_(True)

    hidden, cache = half.prefill(**whole, room=2)
    for step in range(2):
        hidden, cache = half.extend(hidden[:, -1:] * 0.5 + step, cache)
    loss = (hidden * target[:, :1]).sum()
    cached = torch.autograd.grad(loss, [start, *parameters])

    inputs, positions, mask = whole["embeds"], whole["positions"], whole["mask"]
    for step in range(3):
        hidden, _ = half.prefill(inputs, positions, mask, whole["next_position"], room=0)
        inputs = torch.cat([inputs, hidden[:, -1:] * 0.5 + step], dim=1)
        ahead = (whole["next_position"] + step).expand(3, -1)[..., None]
        positions = torch.cat([positions, ahead], dim=2)
        mask = F.pad(mask, (0, 1), value=True)
    loss = (hidden[:, -1:] * target[:, :1]).sum()
    plain = torch.autograd.grad(loss, [start, *parameters])

    for one, other in zip(cached, plain, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_with_gradients_a_cache_can_be_extended_twice(half: TextHalf) -> None:
    _, cache = half.prefill(**batch(), room=0)
    a, b = noise(len(LENGTHS), 2, WIDTH, seed=9), noise(len(LENGTHS), 2, WIDTH, seed=10)

    first, _ = half.extend(a, cache)
    half.extend(b, cache)
    again, _ = half.extend(a, cache)

    torch.testing.assert_close(first, again, atol=0, rtol=0)


def test_bfloat16_stays_near_float32(family: str) -> None:
    whole, more = batch(), noise(len(LENGTHS), 2, WIDTH)
    half, low = half_of(family), half_of(family)
    low.language.to(torch.bfloat16)

    with torch.no_grad():
        hidden, cache = half.prefill(**whole, room=2)
        further, _ = half.extend(more, cache)
        rough = {**whole, "embeds": whole["embeds"].bfloat16()}
        hidden_low, cache_low = low.prefill(**rough, room=2)
        further_low, _ = low.extend(more.bfloat16(), cache_low)

    assert hidden_low.dtype is torch.bfloat16
    for one, other in ((hidden[whole["mask"]], hidden_low[whole["mask"]]), (further, further_low)):
        assert F.cosine_similarity(one, other.float(), dim=-1).min() > 0.999


def test_it_can_be_built_on_meta_and_filled(family: str) -> None:
    whole, hf = batch(), nested(family)
    with torch.device("meta"):
        language = build_language(hf)
        half = TextHalf(language, hf)

    language.load_state_dict(theirs(family).state_dict(), assign=True)
    language.to("cpu").requires_grad_(False)

    expected = reference(theirs(family), whole)
    assert_near(half.prefill(**whole, room=0)[0][whole["mask"]], expected[whole["mask"]])


def test_packed_projections_compute_the_same_and_keep_names_and_memory(family: str) -> None:
    whole, more = batch(), noise(len(LENGTHS), 3, WIDTH)
    half, plain = half_of(family), half_of(family)

    half.pack()

    before, after = plain.language.state_dict(), half.language.state_dict()
    assert list(before) == list(after)
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in after.values()
    }
    assert sum(storages.values()) == sum(t.untyped_storage().nbytes() for t in before.values())
    with torch.no_grad():
        hidden, cache = half.prefill(**whole, room=3)
        expected, own = plain.prefill(**whole, room=3)
        assert_near(hidden[whole["mask"]], expected[whole["mask"]])
        assert_near(half.extend(more, cache)[0], plain.extend(more, own)[0])


@pytest.mark.parametrize(("grad", "calls"), [(False, 0), (True, 3 * 5)])
def test_packed_projections_are_used_where_nothing_is_learnt(
    half: TextHalf, grad: bool, calls: int
) -> None:
    half.pack()
    called: list[nn.Module] = []
    for name, module in half.language.named_modules():
        if name.endswith(("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")):
            module.register_forward_hook(lambda module, args, output: called.append(module))

    with torch.set_grad_enabled(grad):
        half.prefill(**batch(), room=0)

    assert len(called) == calls


def test_a_packed_checkpoint_can_be_written(half: TextHalf, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in half.language.state_dict().items()}
    half.pack()

    save_file(half.language.state_dict(), tmp_path / "model.safetensors")

    after = load_file(tmp_path / "model.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_weights_moved_after_packing_are_the_ones_used(half: TextHalf) -> None:
    whole = batch()
    half.pack()
    half.language.to(torch.float64).to(torch.float32)  # new memory
    with torch.no_grad():
        for parameter in half.language.parameters():
            parameter.mul_(0.5)
        for packed in half._packed:
            packed.qkv.fill_(torch.nan)
            packed.gate_up.fill_(torch.nan)

        hidden, _ = half.prefill(**whole, room=0)

    assert hidden.isfinite().all()


def test_a_replaced_projection_is_called(half: TextHalf) -> None:
    half.pack()
    layers: Any = half.language.layers
    calls = []

    class Adapted(nn.Module):  # as LoRA wraps a projection
        def __init__(self, inside: nn.Linear) -> None:
            super().__init__()
            self.inside = inside

        def forward(self, x: Tensor) -> Tensor:
            calls.append(1)
            return self.inside(x)

    layers[1].self_attn.v_proj = Adapted(layers[1].self_attn.v_proj)

    with torch.no_grad():
        half.prefill(**batch(), room=0)

    assert calls == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_sliding_window": True}, "sliding"),
        ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, "sliding"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "linear"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 4]}}, "mrope_section"),
        ({"hidden_act": "gelu"}, "gelu"),
    ],
)
@pytest.mark.parametrize("config", [flat, nested])
def test_what_would_compute_something_else_is_refused(
    family: str,
    config: Callable[[str], dict[str, Any]],
    change: dict[str, Any],
    message: str,
) -> None:
    hf = config(family)
    (hf.get("text_config") or hf).update(change)

    with pytest.raises(ValueError, match=message), torch.device("meta"):
        TextHalf(build_language(hf), hf)


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match="llama"):
        build_language({**flat("qwen2_vl"), "model_type": "llama"})


def test_building_leaves_the_configuration_as_it_was(family: str) -> None:
    hf = nested(family)

    build = partial(TextHalf, build_language(hf), hf)
    build()

    assert hf == nested(family)
