"""What issue 3 asks for, beside what was found.

The targets are for the shape of Qwen2-VL-2B on an H200; on anything else they are shown
without a verdict. A ratio of throughputs takes each reasoner at its own best batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from embed_speed.cells import Cell, Step, alone, fastest

MFU_INPUT = "page"


@dataclass(frozen=True, slots=True)
class Target:
    """One figure: what it is, what was found, what it should be at least (or at most).

    limit:      None for a figure that has no target
    arithmetic: the same ratio in operations of the model, which no program can beat where
                the arithmetic is what takes the time; None where it says nothing
    """

    what: str
    found: float
    limit: float | None = None
    at_most: bool = False
    unit: str = "x"
    arithmetic: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether it is; None without a target."""
        if self.limit is None:
            return None
        return self.found <= self.limit if self.at_most else self.found >= self.limit


def targets(cells: Sequence[Cell], steps: Sequence[Step], matmul_flops: float) -> list[Target]:
    """Return every figure that the cells can answer, in the order of the issue."""
    inputs = list(dict.fromkeys(cell.input for cell in cells))

    def throughput(name: str, fast: str, slow: str, limit: float | None = None) -> Iterator[Target]:
        a, b = fastest(cells, name, fast), fastest(cells, name, slow)
        if a and b:
            label = f"{fast} / {slow}, samples/s at best batch, {name}"
            ratio = a.samples_per_s / b.samples_per_s
            yield Target(label, ratio, limit, arithmetic=b.flops / a.flops)

    def latency(name: str, slow: str, fast: str, limit: float | None) -> Iterator[Target]:
        a, b = alone(cells, name, slow), alone(cells, name, fast)
        if a and b:
            yield Target(f"{slow} / {fast}, latency at batch 1, {name}", a.p50_s / b.p50_s, limit)

    def batching(name: str) -> Iterator[Target]:
        a, b = fastest(cells, name, "plume-8"), alone(cells, name, "plume-8")
        if a and b:
            label = f"plume-8 batched / batch 1, samples/s, {name}"
            yield Target(label, a.samples_per_s / b.samples_per_s, 10.0)

    def each(rows: Callable[[str], Iterator[Target]]) -> Iterator[Target]:
        for name in inputs:
            yield from rows(name)

    plume = {"page": 0.95, "text": 0.85}
    found = [
        *each(lambda name: throughput(name, "lame", "none", 0.98)),
        *each(lambda name: throughput(name, "plume-8", "none", plume.get(name))),
        *each(batching),
    ]
    for step in steps:
        label = f"latent step at batch 1, {step.input}"
        found.append(Target(f"{label}, by itself", step.alone_s * 1e3, 2.0, True, "ms"))
        difference = step.by_difference_s * 1e3
        found.append(Target(f"{label}, (K=8 - K=0) / 8", difference, 2.0, True, "ms"))
    for reasoner in ("none", "lame", "plume-8"):
        cell = fastest(cells, MFU_INPUT, reasoner)
        if cell:
            share = 100 * cell.flops_per_s / matmul_flops
            label = f"share of the matmul ceiling, {MFU_INPUT}, {reasoner}"
            found.append(Target(label, share, 50.0, unit="%"))
    return [
        *found,
        *each(lambda name: latency(name, "generate", "lame", 60.0)),
        *each(lambda name: latency(name, "generate", "plume-8", 30.0)),
        *each(lambda name: throughput(name, "lame", "cot")),
        *each(lambda name: throughput(name, "plume-8", "cot")),
        *each(lambda name: latency(name, "cot", "lame", None)),
        *each(lambda name: latency(name, "cot", "plume-8", None)),
    ]
