"""Rotary positions on three axes: time, height and width.

Algorithm: M-RoPE (Qwen2-VL, arXiv 2409.12191). A head's pairs are shared out between the
axes: in runs (Qwen2-VL, Qwen2.5-VL), or in turn (Qwen3-VL). A word stands at the same
position on all three, which is where ordinary rotary positions would turn it to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Rotary:
    """How fast, and by which axis, each pair of a head is turned.

    axes:        0, 1 or 2 for each pair, ``head_dim / 2``
    frequencies: ``[head_dim / 2]`` float32, on the CPU
    """

    axes: tuple[int, ...]
    frequencies: Tensor

    @staticmethod
    def of(*, head_dim: int, base: float, sections: Sequence[int], in_turn: bool) -> "Rotary":
        """Return it for ``sections`` pairs on each axis.

        ``in_turn`` deals them out one by one (time, height, width, time, ...) until an axis
        has as many as it should; what is left over is time's. Raises ValueError where the
        sections do not fill half a head.
        """
        half = head_dim // 2
        if len(sections) != 3 or sum(sections) != half:
            raise ValueError(f"mrope_section {sections} does not fill half a head of {head_dim}")
        if in_turn:
            axes = [i % 3 if i < 3 * sections[i % 3] else 0 for i in range(half)]
        else:
            axes = [axis for axis, length in enumerate(sections) for _ in range(length)]
        with torch.device("cpu"):  # the model may be under construction on "meta"
            exponents = torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim
        return Rotary(tuple(axes), 1.0 / base**exponents)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + head_dim / 2) of ``x [T, heads, head_dim]``.

    ``cos`` and ``sin`` are ``[T, 1, head_dim / 2]``.
    """
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
