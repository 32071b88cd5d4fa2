"""Graphs of CUDA, played on the CPU: what was recorded is done again on the same tensors."""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx


class Again:
    """Operations on fixed tensors, done again; the result is overwritten each time."""

    def __init__(self, operations: Callable[[], Tensor]) -> None:
        self.operations = operations
        self.output: Tensor = operations().clone()
        self.replays = 0

    def replay(self) -> Tensor:
        self.replays += 1
        return self.output.copy_(self.operations())


class CpuRecorder:
    """Records on the CPU: calls the function again, on the tensors it was recorded with."""

    def __init__(self, spare_bytes: int = 1 << 30) -> None:
        self.spare, self.recordings = spare_bytes, list[Again]()

    def serves(self, device: torch.device) -> bool:
        return device.type == "cpu"

    def stream(self, device: torch.device) -> Hashable:
        return 0

    def spare_bytes(self, device: torch.device) -> int:
        return self.spare

    def record(self, function: Callable[[], Tensor], device: torch.device) -> Again:
        self.recordings.append(Again(function))
        return self.recordings[-1]


class TracingRecorder(CpuRecorder):
    """Records a list of operations, as a CUDA graph is one: no Python runs at a replay."""

    def record(self, function: Callable[[], Tensor], device: torch.device) -> Again:
        function()
        return super().record(make_fx(function)(), device)
