"""Time, memory, and the two ceilings of a machine: matrix products and copies.

Work on a GPU is asynchronous, so the device is waited for before and after each reading of
the clock; what is timed is then what a caller waits for, launches among it.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")

MATMUL_SIDE = {"cuda": 8_192, "cpu": 1_024}
COPY_BYTES = {"cuda": 4 << 30, "cpu": 64 << 20}  # several times what any cache holds
CEILING_RUNS = 20
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(slots=True)
class Budget:
    """Seconds that may be spent; what no longer fits is left out and named."""

    seconds: float
    began: float = field(default_factory=time.perf_counter)
    left_out: list[str] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Seconds that remain; negative once it is spent."""
        return self.seconds - (time.perf_counter() - self.began)

    def allows(self, what: str, seconds: float = 0.0) -> bool:
        """Return whether ``seconds`` remain, and note ``what`` as left out where not."""
        if self.left > seconds:
            return True
        self.left_out.append(what)
        return False


def wait(device: torch.device) -> None:
    """Return when the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(slots=True)
class Spent:
    """What one call took: seconds of each time, and the most memory of the first."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0


def in_turn(
    calls: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    rounds: int,
    seconds: float,
    least: int = 3,
) -> dict[str, Spent]:
    """Return what each call took over ``rounds`` rounds, another one first each time.

    A drift of the machine then hits all alike. It ends early, after ``least`` rounds, once
    ``seconds`` are spent. The calls have been warmed up before.
    """
    names = list(calls)
    spent = {name: Spent() for name in names}
    began = time.perf_counter()
    for number in range(rounds):
        if number >= least and time.perf_counter() - began > seconds:
            break
        turn = number % max(len(names), 1)
        for name in names[turn:] + names[:turn]:
            if number == 0:
                took, spent[name].peak_bytes = peak_bytes(
                    partial(timed, calls[name], device), device
                )
            else:
                took = timed(calls[name], device)
            spent[name].seconds.append(took)
    return spent


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds from the call until the device had finished it."""
    wait(device)
    began = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - began


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of the values do not exceed: nearest rank."""
    ordered = sorted(values)
    return ordered[max(-(-int(share * 1000) * len(ordered) // 1000) - 1, 0)]


def peak_bytes(call: Callable[[], Result], device: torch.device) -> tuple[Result, int]:
    """Return what ``call`` returns, and the most memory that was in use meanwhile.

    On a GPU that is memory in tensors, weights among them; on a CPU the resident set of
    the process, its libraries among it, or 0 where the system does not tell.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        result = call()
        wait(device)
        return result, torch.cuda.max_memory_allocated(device)
    try:
        CLEAR_REFS.write_text("5")  # the peak starts anew from what is resident now
    except OSError:
        return call(), 0
    result = call()
    peak = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return result, int(peak.split()[1]) * 1024


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large matrix product of random numbers, the median of 20."""
    side = MATMUL_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    runs = in_turn({"matmul": lambda: a @ b}, device, rounds=CEILING_RUNS, seconds=2.0, least=8)
    return 2 * side**3 / statistics.median(runs["matmul"].seconds[3:])


def copy_ceiling(device: torch.device) -> float:
    """Return the bytes/s, read and written, of a large copy on the device, the median of 20."""
    source = torch.randint(0, 127, (COPY_BYTES[device.type],), dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    runs = in_turn(
        {"copy": lambda: target.copy_(source)}, device, rounds=CEILING_RUNS, seconds=2.0, least=8
    )
    return 2 * source.numel() / statistics.median(runs["copy"].seconds[3:])
