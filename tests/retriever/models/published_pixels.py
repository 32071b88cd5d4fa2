"""What published evaluations do to pixels, and tiny weights under which everything counts.

Written from the formulas of qwen-vl-utils, and with transformers' own image processor.
"""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image as pil
from torch import Tensor

Pixels = np.ndarray
CLIP: dict[str, Any] = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def strengthen(tensors: dict[str, Tensor]) -> None:
    """Let tokens differ and look far, so that what is wrong anywhere shows in the vector.

    As `write_published` draws them, attention is so even that all items have nearly one.
    """
    for name, tensor in tensors.items():
        if "norm" in name and name.endswith("weight"):
            tensor.add_(1.0)
        elif tensor.ndim > 1 and "embed_tokens" not in name:
            gain = 2.0 if ".q_proj." in name or ".k_proj." in name else 1.0
            tensor.mul_(gain / (0.3 * math.sqrt(tensor[0].numel())))


def first_resize(picture: pil.Image) -> pil.Image:
    """Resize as qwen-vl-utils 0.0.11: to multiples of 28, between 4 and 16,384 squares."""
    width, height = picture.size
    high, wide = (max(28, round(side / 28) * 28) for side in (height, width))
    if high * wide > 16_384 * 784:
        beta = math.sqrt(height * width / (16_384 * 784))
        high, wide = (math.floor(side / beta / 28) * 28 for side in (height, width))
    elif high * wide < 4 * 784:
        beta = math.sqrt(4 * 784 / (height * width))
        high, wide = (math.ceil(side * beta / 28) * 28 for side in (height, width))
    return picture.resize((wide, high), pil.Resampling.BICUBIC)


class PublishedPixels:
    """transformers' image processor, after the first resize where a model had that.

    least, most: pixels that a picture is held between
    """

    def __init__(self, least: int, most: int, *, twice: bool, patch: int = 14) -> None:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil,
        )

        half: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        self.twice, self.patch = twice, patch
        self.processor: Any = Qwen2VLImageProcessorPil(
            size={"shortest_edge": least, "longest_edge": most},
            patch_size=patch,
            **(CLIP if patch == 14 else half),
        )

    def picture(self, pixels: Pixels) -> tuple[Tensor, Tensor]:
        """Return patches ``[P, C]`` of ``[h, w, 3]`` and their grid ``[1, 3]``."""
        shown = pil.fromarray(pixels)
        if self.twice:
            shown = first_resize(shown)
        made = self.processor(images=[shown], return_tensors="pt")
        return made["pixel_values"], made["image_grid_thw"]

    def film(self, frames: Pixels) -> tuple[Tensor, Tensor]:
        """Return the same of ``[T, h, w, 3]``, two pictures interleaved in each moment.

        A picture's own patches show it twice, as a film of two equal frames.
        """
        shown = [*frames, frames[-1]] if len(frames) % 2 else [*frames]
        made = [self.picture(frame) for frame in shown]
        shape = (3, 2, self.patch, self.patch)
        once = [patches.view(len(patches), *shape)[:, :, 0] for patches, _ in made]
        moments = [
            torch.stack([first, second], dim=2).flatten(1)
            for first, second in zip(once[::2], once[1::2], strict=True)
        ]
        _, rows, columns = made[0][1][0].tolist()
        return torch.cat(moments), torch.tensor([[len(moments), rows, columns]])
