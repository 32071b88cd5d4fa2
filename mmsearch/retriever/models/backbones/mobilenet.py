"""MobileNetV2: how the default model sees.

    pixels uint8 [B, 3, h, w] -> map [B, 1280, h/32, w/32]
    pooled [B, 1280]          -> class probabilities [B, 1001]

TensorFlow's conventions, because the weights it starts from were trained with them:
input ``x / 127.5 - 1``, SAME padding whose odd pixel goes right and below, ReLU6 after
every convolution but the linear bottlenecks. Batch norm is folded into the convolutions.
2.2 M parameters and 300 MFLOP (of multiply-adds) at 224 px, and 1.3 M in the classifier.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.retriever.models.backbones.checkpointing import run


@dataclass(frozen=True, slots=True)
class MobileNetConfig:
    """The 1.0 network; ``blocks`` rows are (expansion, channels, repeats, first stride)."""

    stem_width: int = 32
    blocks: tuple[tuple[int, int, int, int], ...] = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    head_width: int = 1280
    num_classes: int = 1001  # class 0 is "background"


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad ``[B, C, h, w]`` so that a convolution gives ``ceil(h / stride)`` rows, and so on.

    An odd pixel goes right and below; a symmetric pad would look half a pixel elsewhere
    at every stride, and the weights would see shifted features.
    """
    height, width = x.shape[-2:]
    pad_h = max((-(-height // stride) - 1) * stride + kernel - height, 0)
    pad_w = max((-(-width // stride) - 1) * stride + kernel - width, 0)
    return F.pad(x, (pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2))


class SameConv(nn.Module):
    """A convolution with TensorFlow's SAME padding, then ReLU6 unless ``linear``."""

    def __init__(
        self, width_in: int, width_out: int, kernel: int, stride: int, *,
        groups: int = 1, linear: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel, self.stride, self.linear = kernel, stride, linear
        # At stride 1 an odd kernel pads alike on all sides, which the convolution does itself.
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(
            width_in, width_out, kernel, stride=stride, padding=padding, groups=groups
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = pad_same(x, self.kernel, self.stride)
        x = self.conv(x)
        return x if self.linear else F.relu6(x)


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; add the input where the shapes agree."""

    def __init__(self, width_in: int, width_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width_in * expansion
        self.expand = SameConv(width_in, inner, 1, 1) if expansion > 1 else nn.Identity()
        self.depthwise = SameConv(inner, inner, 3, stride, groups=inner)
        self.project = SameConv(inner, width_out, 1, 1, linear=True)
        self.residual = stride == 1 and width_in == width_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class MobileNet(nn.Module):
    """The trunk and its ImageNet classifier.

    ``checkpointing`` keeps the blocks' inputs for their gradients and nothing else.
    """

    checkpointing = False

    def __init__(self, config: MobileNetConfig) -> None:
        super().__init__()
        self.stem = SameConv(3, config.stem_width, 3, 2)
        blocks: list[nn.Module] = []
        width = config.stem_width
        for expansion, channels, repeats, first_stride in config.blocks:
            for i in range(repeats):
                stride = first_stride if i == 0 else 1
                blocks.append(InvertedResidual(width, channels, stride, expansion))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = SameConv(width, config.head_width, 1, 1)
        self.classifier = nn.Linear(config.head_width, config.num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the stride-32 map ``[B, 1280, h', w']`` of uint8 RGB ``[B, 3, h, w]``."""
        x = pixels.to(self.stem.conv.weight.dtype) / 127.5 - 1.0
        # Channels last is what the CPU convolutions are fast at; it changes no value.
        x = x.contiguous(memory_format=torch.channels_last)
        for block in (self.stem, *self.blocks, self.head):
            x = run(block, x, again=self.checkpointing)
        return x

    def class_probabilities(self, pooled: Tensor) -> Tensor:
        """Return ``[B, 1001]`` from pooled features ``[B, 1280]``."""
        return self.classifier(pooled).softmax(dim=-1)
