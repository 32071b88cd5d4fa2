"""Backbones that differ from another one in a single thing."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from embed_speed.clock import wait


class StandIn:
    """The same as the backbone it stands for; hashed as itself, so it has its own graphs."""

    def __init__(self, backbone: Any) -> None:  # noqa: ANN401 - any backbone
        self.backbone = backbone

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the backbone has
        return getattr(self.backbone, name)


class Unending(StandIn):
    """Never says the token that would end a thought, so that all thoughts are equally long."""

    def __init__(self, backbone: Any, token: int) -> None:  # noqa: ANN401
        super().__init__(backbone)
        self.token = token

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the backbone's, without a chance for that token."""
        logits: Tensor = self.backbone.logits(hidden)
        logits[:, self.token] = -torch.inf
        return logits


class Direct(StandIn):
    """Calls the steps themselves, recording none."""

    def run_steps(self, steps: Callable[..., Tensor], cache: Any, *inputs: Tensor) -> Tensor:  # noqa: ANN401
        """Return ``steps(cache, *inputs)``."""
        return steps(cache, *inputs)


class Counted(StandIn):
    """Counts how often it is gone on from, which a replayed graph does not do."""

    calls = 0

    def extend(self, embeds: Tensor, cache: Any) -> Any:  # noqa: ANN401
        """Return what the backbone does."""
        self.calls += 1
        return self.backbone.extend(embeds, cache)


class Watched(StandIn):
    """Keeps the seconds that the steps took, without the prompt before them."""

    def __init__(self, backbone: Any, device: torch.device) -> None:  # noqa: ANN401
        super().__init__(backbone)
        self.device = device
        self.seconds: list[float] = []

    def run_steps(self, steps: Callable[..., Tensor], cache: Any, *inputs: Tensor) -> Tensor:  # noqa: ANN401
        """Return what the backbone does, and note how long that took."""
        wait(self.device)
        began = time.perf_counter()
        result: Tensor = self.backbone.run_steps(steps, cache, *inputs)
        wait(self.device)
        self.seconds.append(time.perf_counter() - began)
        return result
