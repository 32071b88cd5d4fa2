"""Pixels into the patches that Qwen's vision towers read: sizes, resizing, cutting.

    [T, h, w, 3] --resize--> [T, rows * p, columns * p, 3] --cut--> [P, 3 * 2 * p * p] uint8
                                                                        --normalise--> float32

A patch is ``p`` pixels wide and high and two frames long; a picture is shown twice and an
odd film's last frame again. Four patches in a square become one token, so they lie next to
one another. Cutting leaves bytes as they are: a quarter of them has to travel to the device,
and `normalise` runs there.

Formulas: Qwen2VLImageProcessor of transformers, Qwen3VLVideoProcessor for the budget of all
frames together, and qwen-vl-utils for the resize that comes first. Those refuse what is 200
times longer than wide; here any shape has a grid, and none ever costs more than its budget.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image as pil
from torch import Tensor

from mmsearch.retriever.models.policy import VisualPolicy

if TYPE_CHECKING:
    from mmsearch.values import Pixels

CHANNELS = 3
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class PatchGeometry:
    """How a family cuts pixels; as published for Qwen2-VL and Qwen2.5-VL.

    patch:     pixels on a side of a patch
    merge:     patches on a side of a token
    temporal:  frames in a patch
    mean, std: of the red, green and blue it was trained on, where white is 1
    """

    patch: int = 14
    merge: int = 2
    temporal: int = 2
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    @property
    def unit(self) -> int:
        """Pixels on a side of a token."""
        return self.patch * self.merge

    @property
    def channels(self) -> int:
        """Numbers in one patch."""
        return CHANNELS * self.temporal * self.patch**2


class Grid(NamedTuple):
    """How many patches a picture or a film is long, high and wide."""

    frames: int
    rows: int
    columns: int

    @property
    def num_patches(self) -> int:
        """Patches in all."""
        return self.frames * self.rows * self.columns

    def num_tokens(self, merge: int) -> int:
        """Return how many tokens the language model sees of it."""
        return self.num_patches // merge**2


def still_grid(
    height: int, width: int, geometry: PatchGeometry, policy: VisualPolicy, max_pixels: int
) -> Grid:
    """Return the grid of a picture of that size; touches no pixels.

    It covers ``max_pixels`` at most, or one token where that is less than a token.
    """
    shape = _first_shape(height, width, 1, geometry, policy)
    rows, columns = fit(*shape, geometry.unit, policy.min_pixels, max_pixels)
    return Grid(1, rows // geometry.patch, columns // geometry.patch)


def film_grid(
    num_frames: int,
    height: int,
    width: int,
    geometry: PatchGeometry,
    policy: VisualPolicy,
    max_pixels: int,
) -> Grid:
    """Return the grid of a film whose frames are of that size; touches no pixels.

    A frame covers ``max_pixels`` at most, or what the policy allows it where that is less.
    A budget of the whole film is shared by its frames, a repeated last one among them.
    """
    shape = _first_shape(height, width, num_frames, geometry, policy)
    length = -(-num_frames // geometry.temporal)
    frames = length * geometry.temporal
    least: float = policy.frame_min_pixels
    if not least and not policy.film_min_pixels:
        least = policy.min_pixels
    least = max(least, policy.film_min_pixels / frames)
    most: float = min(policy.frame_max_pixels or max_pixels, max_pixels)
    if policy.film_max_pixels:
        most = min(most, policy.film_max_pixels / frames)
    rows, columns = fit(*shape, geometry.unit, least, most)
    return Grid(length, rows // geometry.patch, columns // geometry.patch)


def fit(
    height: int, width: int, unit: int, least: float, most: float, *, fewest: int = 0
) -> tuple[int, int]:
    """Return both sides in whole units, the area within the bounds, the shape about kept.

    ``fewest`` units are what a side is rounded to at the least before the bounds are looked at.
    As transformers' ``smart_resize``, where that keeps to ``most``: it does not for strips
    that are thinner than a unit, and where the bounds lie close together. Here ``most`` wins
    over the shape and over ``least``, and one unit over all of them.
    """
    rows, columns = max(round(height / unit), fewest), max(round(width / unit), fewest)
    if rows * columns * unit**2 > most:
        shrink = math.sqrt(height * width / most) if most > 0 else math.inf
        rows, columns = int(height / shrink / unit), int(width / shrink / unit)
    elif rows * columns * unit**2 < least:
        grow = math.sqrt(least / (height * width))
        rows, columns = math.ceil(height * grow / unit), math.ceil(width * grow / unit)
    rows, columns = max(rows, 1), max(columns, 1)
    units = max(int(most / unit**2), 1)
    if rows * columns > units:
        # The longer side gives way: the shorter one has but few units to lose.
        if rows > columns:
            columns = min(columns, units)
            rows = units // columns
        else:
            rows = min(rows, units)
            columns = units // rows
    return rows * unit, columns * unit


def cut_patches(
    pixels: "Pixels",
    grid: Grid,
    geometry: PatchGeometry,
    policy: VisualPolicy,
    max_pixels: int,
) -> Tensor:
    """Return uint8 ``[grid.num_patches, geometry.channels]`` of frames ``[T, h, w, 3]``.

    ``grid`` is what `still_grid` or `film_grid` made of the same arguments. Patches of one
    token follow one another, tokens go row by row, frames in their order; the numbers of a
    patch are its channels, in each its frames, in each its rows.
    """
    p, merge, temporal = geometry.patch, geometry.merge, geometry.temporal
    num_frames, height, width, _ = pixels.shape
    shapes = [
        _first_shape(height, width, num_frames, geometry, policy),
        (grid.rows * p, grid.columns * p),
    ]
    high, wide = grid.rows // merge, grid.columns // merge
    patches = np.empty(
        (grid.frames, high, wide, merge, merge, CHANNELS, temporal, p, p), dtype=np.uint8
    )
    last = num_frames - 1
    for moment in range(grid.frames):
        for second in range(temporal):
            index = min(moment * temporal + second, last)
            slot = patches[moment, :, :, :, :, :, second]
            if second and index == min(moment * temporal + second - 1, last):
                slot[...] = patches[moment, :, :, :, :, :, second - 1]
                continue
            planes = _resized(pixels[index], shapes)  # (3, rows * p, columns * p)
            cells = planes.reshape(CHANNELS, high, merge, p, wide, merge, p)
            slot[...] = cells.transpose(1, 4, 2, 5, 0, 3, 6)
    return torch.from_numpy(patches.reshape(grid.num_patches, geometry.channels))


def normalise(patches: Tensor, geometry: PatchGeometry) -> Tensor:
    """Return ``(patches / 255 - mean) / std`` in float32, on the device of the patches.

    Bit for bit what numpy makes of it: every divisor is a tensor there, because CUDA divides
    by a Python number through its reciprocal.
    """
    device = patches.device

    def by_channel(numbers: tuple[float, float, float]) -> Tensor:
        # Filled on the device: a copy from the host would wait for all that is queued there.
        return torch.stack([torch.full((1,), one, device=device) for one in numbers])

    colours = patches.view(len(patches), CHANNELS, -1)  # (P, 3, 2 * p * p)
    white = torch.full((), 255.0, device=device)
    scaled = (colours / white - by_channel(geometry.mean)) / by_channel(geometry.std)
    return scaled.view(patches.shape)


def _first_shape(
    height: int, width: int, num_frames: int, geometry: PatchGeometry, policy: VisualPolicy
) -> tuple[int, int]:
    """Return the size after the resize that comes before the other, if there is one.

    Its bounds are for units of one token and grow with the unit. To it, a film of one frame
    is a picture.
    """
    if not policy.first_min_pixels:
        return height, width
    tokens = policy.frame_first_unit if num_frames > 1 else 1
    least, most = policy.first_min_pixels * tokens**2, policy.first_max_pixels * tokens**2
    return fit(height, width, geometry.unit * tokens, least, most, fewest=1)


def _resized(frame: "Pixels", shapes: list[tuple[int, int]]) -> "Pixels":
    """Return a frame ``[h, w, 3]`` after all the resizes, as planes ``[3, h', w']``."""
    picture = pil.fromarray(frame)
    for height, width in shapes:
        if picture.size != (width, height):
            picture = picture.resize((width, height), pil.Resampling.BICUBIC)
    return np.stack([np.asarray(plane) for plane in picture.split()])
