"""From readouts to the vector.

    PlainHead      normalize(readout)
    ResidualHead   normalize(base + alpha * out(readout))

The base keeps an untrained or overtrained decoder from doing harm: at ``alpha`` 0 the
vector is what the towers say, and the gate opens only as far as held-out data allows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainHead(nn.Module):
    """The readout itself, as the papers have it; a base that the backbone has is left out."""

    def is_closed(self) -> bool:
        """Return whether no readout can change the vector, so that none need be computed."""
        return False

    def forward(self, base: Tensor | None, readout: Tensor | None) -> Tensor:
        """Return unit vectors ``[B, d]`` from ``readout [B, d]``."""
        if readout is None:
            raise ValueError("a plain head takes a readout")
        return F.normalize(readout.float(), dim=-1)


class ResidualHead(nn.Module):
    """Adds a reasoner's readout to the backbone's base."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, dim)
        self.alpha = nn.Parameter(torch.zeros(()))

    def is_closed(self) -> bool:
        """Return whether no readout can change the vector, so that none need be computed."""
        return bool(self.alpha == 0)

    def forward(self, base: Tensor | None, readout: Tensor | None) -> Tensor:
        """Return unit vectors ``[B, d]`` from ``base [B, d]`` and ``readout [B, D]``."""
        if base is None:
            raise ValueError("a residual head takes a base")
        if readout is not None:
            base = base + self.alpha * self.out(readout)
        return F.normalize(base.float(), dim=-1)


Head = PlainHead | ResidualHead
