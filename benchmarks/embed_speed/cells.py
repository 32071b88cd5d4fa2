"""The measurements: one cell is one input, one reasoner, one batch size.

prepare   items -> collated batch, once, so that a cell is the network's time alone
measure   warm up, look at the memory, then time all reasoners in turn
search    double the batch until nothing gets faster, then time the best ones again
step      one latent step at batch 1, by difference and by itself
"""

import dataclasses
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from embed_speed.clock import Budget, in_turn, quantile, timed
from embed_speed.flops import Costs, Seen, work
from embed_speed.inputs import VARIANTS, items, role
from embed_speed.shapes import STEPS, Embeds, Network
from embed_speed.stand_ins import Watched
from mmsearch.retriever.embedding.embedder import LatentEmbedder
from mmsearch.retriever.embedding.schedule import LookAhead
from mmsearch.values import Item

RISE = 1.02  # a larger batch that is not this much faster is not faster
PATIENCE = 2  # doublings without a rise
MOST_ROUNDS = 100
SEARCH_ROUNDS = 3
MOST_ITEMS = 1_024
WARM_UPS = {"cuda": 3, "cpu": 1}  # a graph is recorded at the second call


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement.

    positions: tokens that the language model computes for one item
    flops:     operations of one item, see flops.py
    p50_s, p99_s: seconds from the call until the vectors of the batch are there
    best:      whether this is the batch with which the reasoner was fastest
    """

    input: str
    reasoner: str
    batch: int
    positions: int
    flops: int
    runs: int
    p50_s: float
    p99_s: float
    peak_bytes: int
    best: bool = False

    @property
    def samples_per_s(self) -> float:
        """Items in a second."""
        return self.batch / self.p50_s

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the language model in a second, of prompts and thoughts alike."""
        return self.positions * self.samples_per_s

    @property
    def flops_per_s(self) -> float:
        """Operations of the model in a second."""
        return self.flops * self.samples_per_s


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of one latent step at batch 1, adapter and network.

    by_difference: (K = 8 less K = 0) / 8, each from item to vector
    alone:         the same difference of the steps and the suffix, without the prompt
    """

    input: str
    by_difference_s: float
    alone_s: float
    runs: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A collated batch, and what one item of it is to the network."""

    batch: Any
    seen: Seen


@dataclass(slots=True)
class Bench:
    """The networks, where they run, and how long everything may take.

    cell_s:    seconds that the timed rounds of one cell may take, about
    max_batch: the largest batch that is tried
    """

    networks: Mapping[str, Embeds]
    costs: Mapping[str, Costs]
    device: torch.device
    budget: Budget
    cell_s: float
    max_batch: int
    seed: int
    cells: list[Cell] = field(default_factory=list)
    seen: dict[str, Seen] = field(default_factory=dict)
    collate_s: dict[str, float] = field(default_factory=dict)

    def prepare(self, name: str, batch: int) -> Prepared:
        """Return ``batch`` items of an input, collated."""
        backbone = self.networks["none"].model.backbone
        made = self.items(name, batch)
        began = time.perf_counter()
        collated = backbone.collate(made, role=role(name))
        seconds = (time.perf_counter() - began) / batch
        self.collate_s[name] = min(seconds, self.collate_s.get(name, seconds))  # the first is cold
        if name not in self.seen:
            num_tokens = int(collated.mask[0].sum())
            grids = collated.grids[: len(collated.grids) // batch]
            self.seen[name] = Seen(
                num_tokens=num_tokens,
                visual_tokens=sum(grid.num_tokens(backbone.geometry.merge) for grid in grids),
                runs=tuple(grid.rows * grid.columns for grid in grids for _ in range(grid.frames)),
            )
        return Prepared(collated, self.seen[name])

    def items(self, name: str, count: int) -> list[Item]:
        """Return items of an input, as users have them."""
        backbone = self.networks["none"].model.backbone
        return items(name, count, token_side=backbone.geometry.unit, seed=self.seed)

    def measure(
        self,
        name: str,
        batches: Mapping[str, int],
        *,
        rounds: int,
        least: int = 3,
        best: bool = False,
    ) -> list[Cell]:
        """Return one cell for each reasoner of ``batches``, at the batch given there.

        Raises OutOfMemoryError where a batch does not fit.
        """
        prepared = {size: self.prepare(name, size) for size in sorted(set(batches.values()))}
        calls = {
            reasoner: partial(self.networks[reasoner].embed, prepared[size].batch)
            for reasoner, size in batches.items()
        }
        for reasoner, size in batches.items():
            for _ in range(WARM_UPS[self.device.type]):
                self.networks[reasoner].warm_up(prepared[size].batch)
        spent = in_turn(
            calls,
            self.device,
            rounds=rounds,
            seconds=self.cell_s * len(calls),
            least=least,
        )
        cells = []
        for reasoner, size in batches.items():
            network, seen = self.networks[reasoner], prepared[size].seen
            effort = network.description.effort
            flops, positions = work(network.model, self.costs[reasoner], seen, effort=effort)
            cells.append(
                Cell(
                    input=name,
                    reasoner=reasoner,
                    batch=size,
                    positions=positions,
                    flops=flops,
                    runs=len(spent[reasoner].seconds),
                    p50_s=statistics.median(spent[reasoner].seconds),
                    p99_s=quantile(spent[reasoner].seconds, 0.99),
                    peak_bytes=spent[reasoner].peak_bytes,
                    best=best,
                )
            )
            say(cells[-1])
        self.cells += cells
        return cells

    def latency(
        self,
        name: str,
        reasoners: Iterable[str],
        *,
        rounds: int = MOST_ROUNDS,
    ) -> None:
        """Time one item by itself, as often as the time for a cell allows."""
        batches = dict.fromkeys(reasoners, 1)
        if batches and self.budget.allows(f"{name}, batch 1: {', '.join(batches)}"):
            self.measure(name, batches, rounds=rounds, least=min(rounds, 3))

    def search(
        self,
        name: str,
        reasoners: Iterable[str],
        *,
        sizes: Sequence[int] = (),
        first: int = 2,
        rounds: int = SEARCH_ROUNDS,
        most_s: float | None = None,
    ) -> None:
        """Double the batch until throughput no longer rises; or measure ``sizes``, if any.

        ``first`` is the smallest batch that is tried; `latency` has had 1. It ends where a
        batch does not fit, and for a reasoner that takes ``most_s`` or longer for a batch,
        by default the share of a cell's time that leaves room for all rounds of the next.
        """
        most_s = most_s or self.cell_s / (2 * rounds)
        flat = dict.fromkeys(reasoners, 0)  # doublings without a rise
        took = 0.0
        for size in sizes or doublings(first, self.max_batch):
            if not flat:
                break
            if not self.budget.allows(f"{name}, batch {size}: {', '.join(flat)}", 2 * took):
                break
            before = {reasoner: fastest(self.cells, name, reasoner) for reasoner in flat}
            left = self.budget.left
            try:
                cells = self.measure(name, dict.fromkeys(flat, size), rounds=rounds, least=rounds)
            except torch.OutOfMemoryError:
                self.budget.left_out.append(f"{name}, batch {size}: out of memory")
                break
            finally:
                self._tidy()
            took = left - self.budget.left
            if not sizes:
                for cell in cells:
                    past = before[cell.reasoner]
                    rose = past is None or cell.samples_per_s > RISE * past.samples_per_s
                    flat[cell.reasoner] = 0 if rose else flat[cell.reasoner] + 1
                flat = {
                    cell.reasoner: flat[cell.reasoner]
                    for cell in cells
                    if flat[cell.reasoner] < PATIENCE and cell.p50_s < most_s
                }

    def settle(self, name: str, reasoners: Iterable[str], *, rounds: int = 15) -> None:
        """Time each reasoner at its best batch, all in turn, for the ratios between them."""
        found = {reasoner: fastest(self.cells, name, reasoner) for reasoner in reasoners}
        batches = {reasoner: cell.batch for reasoner, cell in found.items() if cell is not None}
        if not batches or not self.budget.allows(f"{name}, best batches"):
            return
        try:
            self.measure(name, batches, rounds=rounds, best=True)
        except torch.OutOfMemoryError:  # all batches at once are more than one
            self.budget.left_out.append(f"{name}, best batches side by side: out of memory")
        finally:
            self._tidy()

    def step(self, name: str, networks: Mapping[str, Network]) -> Step | None:
        """Return what one latent step takes at batch 1."""
        if not self.budget.allows(f"{name}, latent step"):
            return None
        batch = self.prepare(name, 1).batch
        watched: dict[str, Watched] = {}
        calls: dict[str, Callable[[], object]] = {}
        for reasoner in ("plume-0", "plume-8"):
            network = networks[reasoner]
            watched[reasoner] = Watched(network.backbone, self.device)
            calls[reasoner] = partial(
                dataclasses.replace(network, backbone=watched[reasoner]).embed, batch
            )
            for _ in range(WARM_UPS[self.device.type]):
                calls[reasoner]()
            watched[reasoner].seconds.clear()
        spent = in_turn(calls, self.device, rounds=MOST_ROUNDS, seconds=2 * self.cell_s)
        return Step(
            input=name,
            by_difference_s=_per_step(spent["plume-8"].seconds, spent["plume-0"].seconds),
            alone_s=_per_step(watched["plume-8"].seconds, watched["plume-0"].seconds),
            runs=len(watched["plume-8"].seconds),
        )

    def end_to_end(self, name: str, reasoner: str, network: Network) -> dict[str, float]:
        """Return how fast the embedder is that users have, from pixels to numpy vectors.

        Pixels are resized and cut, batches planned and copied, all of it counted. Empty
        where there is no time left.
        """
        best = fastest(self.cells, name, reasoner)
        if best is None or not self.budget.allows(f"end to end: {name}, {reasoner}", self.cell_s):
            return {}
        schedule = LookAhead() if self.device.type == "cuda" else None
        embedder = LatentEmbedder(network.description, network.model, schedule=schedule)
        count = min(max(int(best.samples_per_s * self.cell_s), VARIANTS), MOST_ITEMS)
        made = self.items(name, count)
        embedder.embed(made, role=role(name))
        seconds = timed(lambda: embedder.embed(made, role=role(name)), self.device)
        calls = {"one": lambda: embedder.embed(made[:1], role=role(name))}
        for _ in range(WARM_UPS[self.device.type]):
            calls["one"]()
        one = in_turn(calls, self.device, rounds=MOST_ROUNDS, seconds=self.cell_s)["one"].seconds
        return {
            "items": count,
            "samples_per_s": count / seconds,
            "of_network": count / seconds / best.samples_per_s,
            "one_p50_ms": statistics.median(one) * 1e3,
            "one_p99_ms": quantile(one, 0.99) * 1e3,
        }

    def _tidy(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def fastest(cells: Iterable[Cell], name: str, reasoner: str) -> Cell | None:
    """Return the cell with the most samples a second, a settled one before others."""
    found = [cell for cell in cells if (cell.input, cell.reasoner) == (name, reasoner)]
    return max(found, key=lambda cell: (cell.best, cell.samples_per_s), default=None)


def alone(cells: Iterable[Cell], name: str, reasoner: str) -> Cell | None:
    """Return the cell of one item by itself."""
    found = (cell for cell in cells if (cell.input, cell.reasoner) == (name, reasoner))
    return next((cell for cell in found if cell.batch == 1), None)


def doublings(first: int, most: int) -> Iterator[int]:
    """Yield ``first``, twice that, and so on, ``most`` at the most."""
    while first <= most:
        yield first
        first *= 2


def _per_step(eight: Sequence[float], none: Sequence[float]) -> float:
    return (statistics.median(eight) - statistics.median(none)) / STEPS


def say(cell: Cell) -> None:
    """Tell who waits how it goes."""
    print(
        f"{cell.input:<6} {cell.reasoner:<8} batch {cell.batch:>4}  {cell.p50_s * 1e3:>9.2f} ms  "
        f"{cell.samples_per_s:>9.2f}/s  ({cell.runs} runs)",
        file=sys.stderr,
        flush=True,
    )
