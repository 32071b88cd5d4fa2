"""Our way of driving the vision towers computes what transformers' own does."""

import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.retriever.models.backbones import qwen_vision
from mmsearch.retriever.models.backbones.patches import Grid, PatchGeometry, normalise
from mmsearch.retriever.models.backbones.qwen_vision import (
    VisionTower,
    build_vision,
    geometry_of,
    see,
)

FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"depth": 2, "embed_dim": 32, "hidden_size": 24, "num_heads": 2, "mlp_ratio": 2},
    "qwen2_5_vl": {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_heads": 2,
        "out_hidden_size": 24,
        "window_size": 56,
        "fullatt_block_indexes": [2],
    },
    "qwen3_vl": {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_heads": 2,
        "out_hidden_size": 24,
        "num_position_embeddings": 36,
        "deepstack_visual_indexes": [1, 2],
    },
}
STILL, TALL, PAGE = Grid(1, 4, 6), Grid(1, 6, 4), Grid(1, 18, 14)
FILM, LONG_FILM = Grid(2, 2, 2), Grid(3, 10, 8)
MIXTURES = {
    "one picture": [PAGE],
    "pictures of several sizes": [STILL, PAGE, TALL, STILL],
    "one film": [LONG_FILM],
    "a mixture": [STILL, LONG_FILM, TALL, PAGE, FILM, LONG_FILM],
}


def config(family: str) -> dict[str, Any]:
    # As the published files have it: the whole model's type inside, and names nobody reads.
    return {
        "model_type": family,
        "vision_config": {**FAMILIES[family], "model_type": family, "in_chans": 3},
    }


def transformers_tower(family: str, seed: int = 0) -> nn.Module:
    """Return transformers' own module with weights that make every part count."""
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
    from transformers.models.qwen2_vl import modeling_qwen2_vl
    from transformers.models.qwen3_vl import modeling_qwen3_vl

    tower: Any = {
        "qwen2_vl": modeling_qwen2_vl.Qwen2VisionTransformerPretrainedModel,
        "qwen2_5_vl": modeling_qwen2_5_vl.Qwen2_5_VisionTransformerPretrainedModel,
        "qwen3_vl": modeling_qwen3_vl.Qwen3VLVisionModel,
    }[family]
    made: nn.Module = tower(tower.config_class(**FAMILIES[family])).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return made


def our_tower(reference: nn.Module, family: str) -> VisionTower:
    with torch.device("meta"):
        tower = build_vision(config(family))
    tower.load_state_dict(reference.state_dict(), assign=True)
    return tower.to("cpu", torch.float32).eval()


def patches_of(grids: list[Grid], geometry: PatchGeometry, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (sum(grid.num_patches for grid in grids), geometry.channels)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def reference(family: str) -> nn.Module:
    return transformers_tower(family)


@pytest.fixture
def tower(reference: nn.Module, family: str) -> VisionTower:
    return our_tower(reference, family)


@pytest.mark.parametrize("mixture", MIXTURES)
@torch.no_grad()
def test_features_are_those_of_transformers(
    mixture: str, reference: nn.Module, tower: VisionTower
) -> None:
    grids = MIXTURES[mixture]
    patches = patches_of(grids, tower.geometry)
    pixels = normalise(patches, tower.geometry)
    expected = reference(pixels, torch.tensor(grids), return_dict=True)

    features, deep = see(tower, patches, grids)

    torch.testing.assert_close(features, expected.pooler_output, rtol=0, atol=1e-5)
    expected_deep = getattr(expected, "deepstack_features", [])
    assert len(deep) == len(expected_deep)
    for ours, theirs in zip(deep, expected_deep, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert features.std() > 0.1  # the weights are not so small that all would agree


@torch.no_grad()
def test_a_picture_alone_is_the_same_as_in_a_pack(tower: VisionTower) -> None:
    grids = MIXTURES["a mixture"]
    patches = patches_of(grids, tower.geometry)
    together, together_deep = see(tower, patches, grids)

    cuts = [grid.num_patches for grid in grids]
    alone = [
        see(tower, one, [grid]) for one, grid in zip(torch.split(patches, cuts), grids, strict=True)
    ]

    torch.testing.assert_close(torch.cat([one for one, _ in alone]), together, rtol=0, atol=1e-5)
    for number, expected in enumerate(together_deep):
        rows = torch.cat([deep[number] for _, deep in alone])
        torch.testing.assert_close(rows, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_batch_that_is_seen_in_pieces_has_the_same_features(
    tower: VisionTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    grids = MIXTURES["a mixture"]
    patches = patches_of(grids, tower.geometry)
    whole, whole_deep = see(tower, patches, grids)
    seen: list[int] = []
    tower.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    monkeypatch.setattr(qwen_vision, "PATCHES_AT_ONCE", 260)

    features, deep = see(tower, patches, grids)

    assert len(seen) > 2
    assert max(seen) <= 260
    torch.testing.assert_close(features, whole, rtol=0, atol=1e-5)
    for ours, expected in zip(deep, whole_deep, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_bfloat16_stays_close_to_float32(tower: VisionTower) -> None:
    grids = MIXTURES["a mixture"]
    patches = patches_of(grids, tower.geometry)
    exact, exact_deep = see(tower, patches, grids)

    rounded, rounded_deep = see(tower.to(torch.bfloat16), patches, grids)

    assert rounded.dtype == torch.bfloat16
    pairs = [(rounded, exact), *zip(rounded_deep, exact_deep, strict=True)]
    for ours, expected in pairs:
        assert F.cosine_similarity(ours.float(), expected, dim=-1).min() >= 0.999


def test_several_threads_may_see_at_once(tower: VisionTower) -> None:
    batches = [[STILL], [PAGE, TALL], [LONG_FILM], [TALL, FILM, STILL]]
    given = [patches_of(grids, tower.geometry, seed) for seed, grids in enumerate(batches)]
    with torch.no_grad():
        expected = [see(tower, one, grids)[0] for one, grids in zip(given, batches, strict=True)]
    results: dict[int, Tensor] = {}

    def look(number: int) -> None:
        with torch.no_grad():
            for _ in range(5):
                results[number] = see(tower, given[number], batches[number])[0]

    threads = [threading.Thread(target=look, args=(number,)) for number in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for number, one in enumerate(expected):
        torch.testing.assert_close(results[number], one, rtol=0, atol=1e-6)


def test_gradients_are_those_of_transformers(reference: nn.Module, tower: VisionTower) -> None:
    grids = [STILL, LONG_FILM]
    patches = patches_of(grids, tower.geometry)
    output = reference(normalise(patches, tower.geometry), torch.tensor(grids), return_dict=True)
    deep_features = getattr(output, "deepstack_features", [])
    torch.autograd.backward(_loss(output.pooler_output, *deep_features))

    features, deep = see(tower, patches, grids)
    torch.autograd.backward(_loss(features, *deep))

    theirs = dict(reference.named_parameters())
    for name, ours in tower.named_parameters():
        expected = theirs[name].grad
        assert ours.grad is not None, name
        assert expected is not None
        scale = float(expected.abs().max())
        torch.testing.assert_close(ours.grad, expected, rtol=0, atol=1e-4 * max(scale, 1e-3))


def test_parts_are_named_and_shaped_as_published(reference: nn.Module, family: str) -> None:
    with torch.device("meta"):
        tower = build_vision(config(family))

    ours = {name: tuple(one.shape) for name, one in tower.state_dict().items()}
    assert ours == {name: tuple(one.shape) for name, one in reference.state_dict().items()}
    assert not list(tower.buffers())  # a buffer would be lost where it is made without memory
    geometry = geometry_of(config(family))
    wide = geometry.patch
    assert ours["patch_embed.proj.weight"] == (32, 3, 2, wide, wide)
    assert wide == (16 if family == "qwen3_vl" else 14)


def test_nothing_to_see_is_no_feature(tower: VisionTower) -> None:
    features, deep = see(tower, torch.zeros(0, tower.geometry.channels, dtype=torch.uint8), [])

    assert features.shape == (0, 24)
    assert all(one.shape == (0, 24) for one in deep)
    assert len(deep) == len(tower.deep_blocks)


def test_grids_that_do_not_fit_the_patches_are_refused(tower: VisionTower) -> None:
    with pytest.raises(ValueError, match="24 patches, and there are 20"):
        see(tower, torch.zeros(20, tower.geometry.channels, dtype=torch.uint8), [STILL])


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match="no vision tower of the family 'clip'"):
        build_vision({"model_type": "clip", "vision_config": {}})


def test_every_length_is_attended_in_one_call(
    tower: VisionTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    attend = F.scaled_dot_product_attention

    def counting(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        calls.append(query.shape[0])
        return attend(query, key, value)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counting)
    grids = [STILL, TALL, FILM, STILL, LONG_FILM]  # frames of 24, 4 and 80 patches
    with torch.no_grad():
        see(tower, patches_of(grids, tower.geometry), grids)

    assert len(calls) == 3 * len(tower.blocks)
    # Sequences of 4, 24 and 80 patches, a frame each; or windows of 1, 2 and 4 tokens.
    assert calls[:3] == ([2, 9, 15] if tower.window else [2, 3, 3])


def _loss(*features: Tensor) -> Tensor:
    return torch.stack([one.square().mean() for one in features]).sum()
