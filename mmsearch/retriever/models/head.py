"""From readouts to the vector.

    PlainHead      normalize(readout)
    ResidualHead   normalize(base + alpha * out(readout))
    TurnedHead     the same, turned so that the leading dimensions say the most

The base keeps an untrained or overtrained decoder from doing harm: at ``alpha`` 0 the
vector is what the towers say, and the gate opens only as far as held-out data allows.
"""

from collections.abc import Mapping

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
        return self._turned(F.normalize(base.float(), dim=-1))

    def _turned(self, vectors: Tensor) -> Tensor:
        return vectors


class TurnedHead(ResidualHead):
    """Turns what a residual head makes by a fixed rotation, which changes no cosine.

    Vectors that were not learnt to be cut, such as a text encoder's, say as little in one
    dimension as in any other. Along the eigenvectors of their second moment, largest first,
    the leading dimensions keep as much of every product as a linear map can (PCA).
    """

    turn: Tensor

    def __init__(self, width: int, dim: int) -> None:
        super().__init__(width, dim)
        # Not torch.eye: on "meta", where models are built, it would load torch's compiler.
        self.register_buffer("turn", torch.zeros(dim, dim))
        self.turn.view(-1)[:: dim + 1].fill_(1.0)

    def turn_towards(self, vectors: Tensor) -> None:
        """Order the dimensions by what ``vectors [n, d]``, as this head makes them, vary in."""
        moment = vectors.double().T @ vectors.double()
        axes = torch.linalg.eigh(moment).eigenvectors.flip(-1)  # largest first
        self.turn = (self.turn.double() @ axes.to(self.turn.device)).to(self.turn.dtype)

    def _turned(self, vectors: Tensor) -> Tensor:
        # The rotation may be kept in int8 rows: off by a hair, so the length is set again.
        return F.normalize(vectors @ self.turn.float(), dim=-1)


Head = PlainHead | ResidualHead
HEADS: Mapping[str, type[ResidualHead]] = {"residual": ResidualHead, "turned": TurnedHead}
