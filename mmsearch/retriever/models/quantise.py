"""Weights as int8 rows with a scale each: a quarter of the size, read back at load.

weight float [rows, ...] -> codes int8 [rows, ...], scale float32 [rows]
weight[r] ~ codes[r] * scale[r], off by at most scale[r] / 2
"""

import numpy as np
import torch
from torch import Tensor, nn


def quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``codes`` (int8, the shape of ``weight``) and ``scale`` (float32, one a row)."""
    flat = weight.detach().float().reshape(weight.shape[0], -1)
    scale = flat.abs().amax(dim=1) / 127.0
    # A row of zeros keeps the scale 1, so that nothing divides by zero.
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    codes = (flat / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
    return codes.reshape(weight.shape), scale


def dequantise_rows(codes: Tensor, scale: Tensor) -> Tensor:
    """Return float32 rows from ``codes [rows, ...]`` and ``scale [rows]``.

    By numpy, in one pass on one thread: torch would wake its threads for each of a hundred
    small matrices, and on a busy machine wait for them longer than the work takes.
    """
    column = scale.reshape(-1, *[1] * (codes.ndim - 1)).numpy()
    return torch.from_numpy(np.multiply(codes.numpy(), column, dtype=np.float32))


class RowTable(nn.Module):
    """An embedding table that stays int8; only the rows looked up become float.

    A vocabulary is a third of the default's weights and a query reads ten of its rows:
    unpacking the whole of it at every start would cost time and 47 MB.
    """

    codes: Tensor
    scale: Tensor

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(rows, width, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(rows))

    def set(self, weight: Tensor) -> None:
        """Hold ``weight [rows, width]``, rounded to int8."""
        self.codes, self.scale = quantise_rows(weight)

    def forward(self, ids: Tensor) -> Tensor:
        """Return ``[..., width]`` in the precision of the scales for integer ``ids [...]``."""
        return self.codes[ids].to(self.scale.dtype) * self.scale[ids].unsqueeze(-1)
