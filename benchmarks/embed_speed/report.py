"""What was found, for people and for machines.

table      every cell, then every figure that a target or a claim is about
document   the same as JSON, with what it was measured on and how
"""

import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from embed_speed.cells import Cell, Step
from embed_speed.targets import Target

LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.999}  # what an embedder promises
PACKAGES = ("torch", "transformers", "numpy", "pillow", "safetensors", "tokenizers")


@dataclass(slots=True)
class Findings:
    """Everything that one run found; filled as it goes, so that it can be shown at any time.

    matmul_flops: FLOP/s of a large matrix product, the highest of those measured
    copy_bytes:   bytes/s of a large copy, read and written
    step_bytes:   what a latent step has to read
    tokens:       of each input: the prompt's, and the visual ones among them
    collate_ms:   what preparing one item on the host takes at best, by input
    sanity:       name -> figure, such as the least cosine of an item alone and in a batch
    judged:       whether the targets are meant for this size and device
    """

    size: str
    command: str
    settings: dict[str, Any]
    judged: bool
    matmul_flops: float = 0.0
    matmul_runs: list[float] = field(default_factory=list)
    copy_bytes: float = 0.0
    step_bytes: int = 0
    tokens: dict[str, dict[str, int]] = field(default_factory=dict)
    collate_ms: dict[str, float] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    end_to_end: dict[str, dict[str, float]] = field(default_factory=dict)
    sanity: dict[str, float] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def machine(device: torch.device) -> dict[str, Any]:
    """Return what the figures are measured on; call it before the load is our own."""
    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device.type,
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": gpu.name,
            "gpu_memory_gb": round(gpu.total_memory / 1e9, 1),
            "multiprocessors": gpu.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    return found


def document(found: Findings, here: dict[str, Any]) -> dict[str, Any]:
    """Return the findings as JSON; seconds, bytes and operations unless a name says otherwise."""
    fields = asdict(found)
    for cell, written in zip(found.cells, fields["cells"], strict=True):
        written["samples_per_s"] = cell.samples_per_s
        written["tokens_per_s"] = cell.tokens_per_s
        written["mfu"] = cell.flops_per_s / found.matmul_flops
    for target, written in zip(found.targets, fields["targets"], strict=True):
        written["met"] = target.met if found.judged else None
    return {"machine": here, **rounded(fields)}


def rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return the same with five significant digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def table(found: Findings, here: dict[str, Any]) -> str:
    """Return what is printed at the end."""
    return "\n".join([*_head(found, here), *_cells(found), *_figures(found), *_tail(found)])


def _head(found: Findings, here: dict[str, Any]) -> Iterator[str]:
    where = here.get("gpu", f"{here['cores']} cores, {here['threads']} threads")
    yield f"{found.size} on {where}, torch {here['torch']}, transformers {here['transformers']}"
    yield (
        f"ceilings: {found.matmul_flops / 1e12:.2f} TFLOP/s matmul, "
        f"{found.copy_bytes / 1e9:.0f} GB/s copy"
    )
    for name, tokens in found.tokens.items():
        yield (
            f"{name}: {tokens['prompt']} tokens, {tokens['visual']} of them visual; "
            f"{found.collate_ms[name]:.2f} ms on the host each"
        )


def _cells(found: Findings) -> Iterator[str]:
    yield ""
    names = ("p50 ms", "p99 ms", "samples/s", "tokens/s")
    columns = " ".join(f"{name:>10}" for name in names)
    yield f"{'input':<6} {'reasoner':<9} {'batch':>5} {columns} {'MFU %':>6} {'GB':>6} {'runs':>4}"
    for cell in sorted(_shown(found.cells), key=lambda cell: (cell.input, cell.best)):
        p99 = f"{cell.p99_s * 1e3:.2f}" if cell.batch == 1 else ""
        batch = f"*{cell.batch}" if cell.best else str(cell.batch)
        yield (
            f"{cell.input:<6} {cell.reasoner:<9} {batch:>5} {cell.p50_s * 1e3:>10.2f} "
            f"{p99:>10} {cell.samples_per_s:>10.2f} {cell.tokens_per_s:>10.0f} "
            f"{100 * cell.flops_per_s / found.matmul_flops:>6.1f} {cell.peak_bytes / 1e9:>6.2f} "
            f"{cell.runs:>4}"
        )
    yield "* the batch it is fastest with; the others of the search are in the JSON"


def _shown(cells: Sequence[Cell]) -> list[Cell]:
    """Return latencies and best batches; the rest of the search is in the JSON."""
    settled = {(cell.input, cell.reasoner) for cell in cells if cell.best}
    return [
        cell
        for cell in cells
        if cell.batch == 1 or cell.best or (cell.input, cell.reasoner) not in settled
    ]


def _figures(found: Findings) -> Iterator[str]:
    yield ""
    for target in found.targets:
        limit = ""
        if target.limit is not None:
            limit = f"{'<=' if target.at_most else '>='} {target.limit:g}"
        verdict = ""
        if target.met is not None:
            verdict = ("met" if target.met else "MISSED") if found.judged else "not judged"
        by_arithmetic = ""
        if target.arithmetic is not None:
            by_arithmetic = f"({target.arithmetic:.3f} by arithmetic)"
        yield (
            f"{target.what:<52} {target.found:>9.3f} {target.unit:<2} {limit:<8} {verdict:<10} "
            f"{by_arithmetic}"
        ).rstrip()
    if found.copy_bytes:
        floor = found.step_bytes / found.copy_bytes * 1e3
        yield f"{'latent step, weights once at the copy ceiling':<52} {floor:>9.3f} ms"
    for name, figures in found.end_to_end.items():
        shown = ", ".join(f"{what} {figure:.4g}" for what, figure in figures.items())
        yield f"end to end, {name}: {shown}"


def _tail(found: Findings) -> Iterator[str]:
    yield ""
    least = LEAST_COSINE[found.settings["dtype"]]
    for name, figure in found.sanity.items():
        verdict = ""
        if name.endswith("cosine"):
            verdict = f">= {least:<8} {'met' if figure >= least else 'MISSED'}"
        yield f"{name:<64} {figure:.7f} {verdict}".rstrip()
    for what in found.left_out:
        yield f"left out: {what}"


def progress(what: str) -> None:
    """Tell who waits how it goes."""
    print(what, file=sys.stderr, flush=True)
