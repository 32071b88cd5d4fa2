"""Patches are the reference's to the bit, and no shape of picture costs more than its budget."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as pil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
    smart_resize,
)

from mmsearch.retriever.models.backbones.patches import (
    Grid,
    PatchGeometry,
    cut_patches,
    film_grid,
    fit,
    normalise,
    still_grid,
)
from mmsearch.retriever.models.policy import VisualPolicy

Pixels = npt.NDArray[np.uint8]
QWEN2 = PatchGeometry()
QWEN3 = PatchGeometry(patch=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
SINGLE = VisualPolicy(min_pixels=784)
PLUME = VisualPolicy(min_pixels=784, first_min_pixels=3_136, blank_image=True)
PLUME_PIXELS = 2_359_296


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def cut(pixels: Pixels, geometry: PatchGeometry, policy: VisualPolicy, max_pixels: int) -> Grid:
    """Return the grid of a picture after making sure that its patches fill it."""
    grid = still_grid(pixels.shape[0], pixels.shape[1], geometry, policy, max_pixels)
    patches = cut_patches(pixels[None], grid, geometry, policy, max_pixels)
    assert patches.shape == (grid.num_patches, geometry.channels)
    assert patches.dtype == torch.uint8
    return grid


@pytest.mark.parametrize("geometry", [QWEN2, QWEN3], ids=["qwen2", "qwen3"])
@pytest.mark.parametrize(
    ("height", "width"),
    [(224, 448), (448, 448), (28, 28), (100, 133), (333, 90), (61, 700), (13, 400), (5, 5)],
)
def test_a_picture_is_cut_as_the_reference_does_to_the_bit(
    height: int, width: int, geometry: PatchGeometry
) -> None:
    max_pixels = 160_000
    reference = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 3_136, "longest_edge": max_pixels},
        patch_size=geometry.patch,
        image_mean=list(geometry.mean),
        image_std=list(geometry.std),
    )
    pixels = noise(height, width, 3)
    expected = reference(images=[pixels], return_tensors="pt")
    policy = VisualPolicy(min_pixels=3_136)

    grid = still_grid(height, width, geometry, policy, max_pixels)
    patches = cut_patches(pixels[None], grid, geometry, policy, max_pixels)

    assert list(grid) == expected["image_grid_thw"][0].tolist()
    assert torch.equal(normalise(patches, geometry), expected["pixel_values"])


def test_the_first_resize_changes_the_pixels_as_two_resizes_do() -> None:
    pixels = noise(100, 150, 3)
    shape = fit(100, 150, 28, 3_136, 12_845_056, fewest=1)
    once = np.asarray(pil.fromarray(pixels).resize(shape[::-1], pil.Resampling.BICUBIC))
    reference = Qwen2VLImageProcessorPil(size={"shortest_edge": 784, "longest_edge": 9_000})
    expected = reference(images=[once], return_tensors="pt")

    grid = still_grid(100, 150, QWEN2, PLUME, 9_000)
    patches = cut_patches(pixels[None], grid, QWEN2, PLUME, 9_000)

    assert list(grid) == expected["image_grid_thw"][0].tolist()
    assert torch.equal(normalise(patches, QWEN2), expected["pixel_values"])


@settings(max_examples=200)
@given(st.integers(1, 4_000), st.integers(1, 4_000), st.sampled_from([28, 32]))
def test_sizes_are_the_reference_formula_wherever_that_keeps_its_budget(
    height: int, width: int, unit: int
) -> None:
    if max(height, width) > 200 * min(height, width):
        height = width
    expected = smart_resize(height, width, unit, 3_136, 1_003_520)

    if expected[0] * expected[1] <= 1_003_520:
        assert fit(height, width, unit, 3_136, 1_003_520) == expected


def test_the_first_resize_never_rounds_a_strip_to_nothing() -> None:
    assert still_grid(10, 1_000, QWEN2, PLUME, PLUME_PIXELS) == Grid(1, 2, 72)
    assert still_grid(10, 1_000, QWEN2, VisualPolicy(min_pixels=3_136), 10**6) == Grid(1, 2, 40)


def test_the_blank_picture_of_plume_is_four_tokens() -> None:
    assert cut(noise(28, 28, 3), QWEN2, PLUME, PLUME_PIXELS).num_tokens(2) == 4
    assert cut(noise(28, 28, 3), QWEN2, SINGLE, PLUME_PIXELS).num_tokens(2) == 1


def test_two_resizes_can_end_on_another_grid_than_one() -> None:
    assert still_grid(1500, 1800, QWEN2, PLUME, PLUME_PIXELS) == Grid(1, 100, 118)
    assert still_grid(1500, 1800, QWEN2, SINGLE, PLUME_PIXELS) == Grid(1, 100, 120)


def test_the_frame_policy_is_that_of_either_version_of_qwen_vl_utils() -> None:
    later = VisualPolicy(
        min_pixels=784,
        first_min_pixels=3_136,
        frame_min_pixels=128 * 28 * 28,
        frame_max_pixels=768 * 28 * 28,
        frame_first_unit=2,
    )
    assert film_grid(8, 70, 100, QWEN2, PLUME, PLUME_PIXELS) == Grid(4, 4, 8)
    assert film_grid(8, 70, 100, QWEN2, later, PLUME_PIXELS) == Grid(4, 20, 28)


def test_a_budget_of_the_whole_film_is_shared_by_its_frames() -> None:
    policy = VisualPolicy(film_min_pixels=4_096, film_max_pixels=8 * 64 * 64)
    long = film_grid(8, 640, 640, QWEN3, policy, 1_000_000)
    short = film_grid(2, 640, 640, QWEN3, policy, 1_000_000)
    tiny = film_grid(2, 8, 8, QWEN3, policy, 1_000_000)

    assert long == Grid(4, 4, 4)
    assert short == Grid(1, 8, 8)
    assert tiny == Grid(1, 4, 4)  # two frames share 4,096 px: 45 x 45 each


def test_the_frame_that_is_shown_twice_takes_its_share_of_the_budget() -> None:
    policy = VisualPolicy(film_max_pixels=9 * 32 * 32)

    assert film_grid(1, 640, 640, QWEN3, policy, 1_000_000) == Grid(1, 4, 4)


def test_a_film_is_laid_out_frame_by_frame_in_pairs() -> None:
    frames = noise(4, 56, 84, 3)
    grid = film_grid(4, 56, 84, QWEN2, SINGLE, PLUME_PIXELS)
    patches = cut_patches(frames, grid, QWEN2, SINGLE, PLUME_PIXELS)

    assert grid == Grid(2, 4, 6)
    cells = patches.view(2, 2, 3, 2, 2, 3, 2, 14, 14)  # t, high, wide, merge x 2, rgb, pair, p x p
    back = cells.permute(0, 6, 1, 3, 7, 2, 4, 8, 5).reshape(4, 56, 84, 3)
    assert np.array_equal(back.numpy(), frames)


def test_frames_of_a_film_are_resized_as_a_picture_is() -> None:
    frame = noise(45, 77, 3)
    policy, budget = VisualPolicy(min_pixels=784), 3_000
    still = still_grid(45, 77, QWEN2, policy, budget)
    film = film_grid(2, 45, 77, QWEN2, policy, budget)

    assert torch.equal(
        cut_patches(frame[None], still, QWEN2, policy, budget),
        cut_patches(np.stack([frame, frame]), film, QWEN2, policy, budget),
    )


@pytest.mark.parametrize("num_frames", [1, 3, 5])
def test_the_last_frame_of_an_odd_film_is_shown_twice(num_frames: int) -> None:
    frames = noise(num_frames, 50, 60, 3)
    even = np.concatenate([frames, frames[-1:]])
    grid = film_grid(num_frames, 50, 60, QWEN2, SINGLE, PLUME_PIXELS)

    assert grid == film_grid(num_frames + 1, 50, 60, QWEN2, SINGLE, PLUME_PIXELS)
    assert torch.equal(
        cut_patches(frames, grid, QWEN2, SINGLE, PLUME_PIXELS),
        cut_patches(even, grid, QWEN2, SINGLE, PLUME_PIXELS),
    )


@pytest.mark.parametrize("policy", [SINGLE, PLUME, VisualPolicy()], ids=["single", "plume", "own"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 20_000), (20_000, 1), (3, 3_000)])
def test_extreme_shapes_have_patches_within_the_budget(
    height: int, width: int, policy: VisualPolicy
) -> None:
    grid = cut(noise(height, width, 3), QWEN2, policy, 448 * 448)

    assert min(grid.rows, grid.columns) >= 2
    assert grid.num_patches * 14 * 14 <= 448 * 448
    assert (grid.rows > grid.columns) == (height > width)


@settings(max_examples=300)
@given(
    st.integers(1, 60_000),
    st.integers(1, 60_000),
    st.integers(1, 3_000_000),
    st.sampled_from([0, 784, 3_136, 100_352]),
    st.integers(1, 9),
)
def test_no_grid_is_empty_or_above_its_budget(
    height: int, width: int, max_pixels: int, least: int, num_frames: int
) -> None:
    policy = VisualPolicy(min_pixels=least, first_min_pixels=least, frame_first_unit=2)
    area = max(max_pixels, QWEN2.unit**2)
    for grid in (
        still_grid(height, width, QWEN2, policy, max_pixels),
        film_grid(num_frames, height, width, QWEN2, policy, max_pixels),
    ):
        assert grid.rows % 2 == grid.columns % 2 == 0
        assert min(grid.rows, grid.columns) >= 2
        assert grid.rows * grid.columns * 14 * 14 <= area


@pytest.mark.parametrize("max_pixels", [1, 783, 784])
def test_less_than_a_token_of_budget_is_one_token(max_pixels: int) -> None:
    assert cut(noise(300, 200, 3), QWEN2, VisualPolicy(), max_pixels).num_tokens(2) == 1
