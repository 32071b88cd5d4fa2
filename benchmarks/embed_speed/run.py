"""The order of a whole run: what matters most first, for time may run out.

ceilings -> latencies -> latent step -> best batches -> parity -> written reasoning, one
item at a time -> end to end -> written reasoning in batches -> ceilings again
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from embed_speed.cells import Bench
from embed_speed.clock import Budget, copy_ceiling, matmul_ceiling
from embed_speed.flops import Costs
from embed_speed.parity import parity
from embed_speed.published import Generate
from embed_speed.report import Findings, progress
from embed_speed.shapes import Embeds, hf_config, networks
from embed_speed.targets import targets

LATENT = ("none", "lame", "plume-0", "plume-4", "plume-8")
WRITTEN = ("generate", "cot")
BY_WEIGHT = ("page", "text", "image", "video")  # the targets name the first two
FIRST_WRITTEN_BATCH = {"cuda": 64, "cpu": 2}
WRITTEN_CELLS = 4  # a batch of thoughts may take as long as so many other cells


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, on what, and for how long.

    batches: measured instead of a search for the best one, where there are any
    cell_s:  seconds of timed rounds for one cell, about
    total_s: for the whole run
    """

    size: str
    device: torch.device
    dtype: torch.dtype
    inputs: tuple[str, ...]
    reasoners: tuple[str, ...]
    batches: tuple[int, ...]
    cot_tokens: int
    prompt_tokens: int
    max_batch: int
    cell_s: float
    total_s: float
    seed: int

    def settings(self) -> dict[str, Any]:
        """Return it as JSON."""
        fields = dataclasses.asdict(self)
        return fields | {"device": str(self.device), "dtype": str(self.dtype).split(".")[-1]}


def measure_all(plan: Plan, found: Findings, save: Callable[[], None]) -> None:
    """Measure what the plan asks for into ``found``; ``save`` is called after every part."""
    device, dtype = plan.device, plan.dtype
    inputs = [name for name in BY_WEIGHT if name in plan.inputs]
    latent = [name for name in LATENT if name in plan.reasoners]
    written = [name for name in WRITTEN if name in plan.reasoners]
    sizes = [size for size in plan.batches if size > 1]
    alone = not plan.batches or 1 in plan.batches
    searches = bool(sizes) or not plan.batches
    budget = Budget(plan.total_s, left_out=found.left_out)

    progress("ceilings ...")
    found.matmul_runs.append(matmul_ceiling(device, dtype))
    found.matmul_flops = max(found.matmul_runs)
    found.copy_bytes = copy_ceiling(device)
    progress(f"networks of {plan.size} ...")
    ours = networks(
        plan.size,
        device=device,
        dtype=dtype,
        seed=plan.seed,
        cot_tokens=plan.cot_tokens,
        prompt_tokens=plan.prompt_tokens,
    )
    made: dict[str, Embeds] = {**ours}
    hf = hf_config(plan.size)
    costs = {name: Costs.of(network.model, hf) for name, network in ours.items()}
    found.step_bytes = costs["plume-8"].step_bytes(dtype.itemsize)
    bench = Bench(
        networks=made,
        costs=costs,
        device=device,
        budget=budget,
        cell_s=plan.cell_s,
        max_batch=plan.max_batch,
        seed=plan.seed,
        cells=found.cells,
    )

    def keep() -> None:
        found.tokens = {
            name: {"prompt": seen.num_tokens, "visual": seen.visual_tokens}
            for name, seen in bench.seen.items()
        }
        found.collate_ms = {name: seconds * 1e3 for name, seconds in bench.collate_s.items()}
        found.targets = targets(bench.cells, found.steps, found.matmul_flops)
        save()

    if alone:
        for name in inputs:
            bench.latency(name, latent)
    if {"plume-0", "plume-8"} <= set(latent):
        for name in inputs[:2]:
            step = bench.step(name, ours)
            found.steps += [step] if step else []
    keep()
    for name in inputs:
        if searches:
            bench.search(name, latent, sizes=sizes)
        bench.settle(name, latent)
        keep()
    for name in latent:
        if budget.allows(f"parity of {name}"):
            found.sanity |= parity(name, ours[name], device, seed=plan.seed)
    keep()
    if alone and "generate" in written and budget.allows("generate"):
        made["generate"] = Generate.of(ours["cot"], device, tokens=plan.cot_tokens)
        costs["generate"] = costs["cot"]
    for name in inputs if alone else []:
        for reasoner in [one for one in written if one in made]:
            bench.latency(name, [reasoner], rounds=2 if name in inputs[:2] else 1)
        keep()
    for name in inputs[:2]:
        for reasoner in [one for one in ("none", "plume-8") if one in latent]:
            figures = bench.end_to_end(name, reasoner, ours[reasoner])
            if figures:
                found.end_to_end[f"{name}, {reasoner}"] = figures
    keep()
    if "cot" in written and searches:
        for name in inputs:
            first = FIRST_WRITTEN_BATCH[device.type]
            most_s = WRITTEN_CELLS * plan.cell_s
            bench.search(name, ["cot"], sizes=sizes, first=first, rounds=1, most_s=most_s)
            keep()
    found.matmul_runs.append(matmul_ceiling(device, dtype))
    found.matmul_flops = max(found.matmul_runs)
    keep()
