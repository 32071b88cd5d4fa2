"""Two processes that really train together, over gloo on the loopback.

They are started once, work through everything that the tests ask about, and leave what
they found in files: importing torch takes longer than all of it.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is documented
from torch.multiprocessing.spawn import spawn
from toy_objective import MARKED, STAGE, gradients, toy_chunk, toy_training

from mmsearch.retriever.training import gathering
from mmsearch.retriever.training.examples import TrainingBatch
from mmsearch.retriever.training.gathering import (
    World,
    end_world,
    gather_rows,
    gather_values,
    same_everywhere,
    start_world,
    sum_gradients,
)
from mmsearch.retriever.training.grad_cache import backward

NUM_PROCESSES = 2
LIMIT_S = 120.0

Part = tuple[list[TrainingBatch], list[int]]  # chunks and their seeds

# What each of the two has of one batch.
BATCHES: dict[str, tuple[Part, Part]] = {
    "a chunk each": (
        ([toy_chunk(4, seed=1)], [11]),
        ([toy_chunk(4, seed=2)], [12]),
    ),
    "uneven, with hard negatives": (
        ([toy_chunk(3, 2, seed=1), toy_chunk(2, seed=2), toy_chunk(4, 1, seed=3)], [11, 12, 13]),
        ([toy_chunk(1, 3, seed=4)], [14]),
    ),
    "hard negatives in one process only": (
        ([toy_chunk(3, seed=1), toy_chunk(2, seed=2)], [11, 12]),
        ([toy_chunk(2, 2, seed=3)], [13]),
    ),
    "a weight that one process does not use": (
        ([toy_chunk(3, seed=1)], [11]),
        ([toy_chunk(3, seed=2, mark=MARKED)], [12]),
    ),
    "nothing for the second process": (
        ([toy_chunk(3, 1, seed=1), toy_chunk(2, seed=2)], [11, 12]),
        ([], []),
    ),
    "a pair in all": (([toy_chunk(1, seed=1)], [11]), ([], [])),
}
LOSSES = ("contrast", "balance", "ce")


def settings() -> list[tuple[str, tuple[str, ...], float, torch.dtype | None]]:
    """Which batch, which losses, how much dropout, in what precision."""
    everything = [(name, LOSSES, 0.3, None) for name in BATCHES]
    uneven = "uneven, with hard negatives"
    alone = [(uneven, (name,), 0.0, None) for name in LOSSES[:2]]
    return [*everything, *alone, (uneven, LOSSES, 0.3, torch.bfloat16)]


def trained(
    losses: tuple[str, ...],
    dropout: float,
    autocast: torch.dtype | None,
    chunks: Sequence[TrainingBatch],
    seeds: Sequence[int],
    world: World,
) -> dict[str, Tensor | None]:
    """Gradients and losses of one batch, by name. Rows are those of their own chunk alone."""
    model, objective = toy_training(dropout=dropout)
    for module in model.modules():  # only dropout: buffers are each process's own
        module.train(isinstance(module, nn.Dropout))
    objective.parts = losses
    for share in (0.25, 0.75):  # the second is added to the first
        loss = backward(
            model,
            objective,
            chunks,
            STAGE,
            world=world,
            seeds=seeds,
            autocast=autocast,
            scale=share,
        )
    told = {f"loss.{name}": part for name, part in loss.parts.items()}
    return gradients(model, objective) | told | {"loss": loss.total}


def run_processes(folder: Path) -> list[dict[str, Any]]:
    """Return what each process found."""
    run_together(work, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(NUM_PROCESSES)]


def run_together(work: Callable[[int, int, str], None], folder: Path) -> None:
    """Run ``work(rank, port, folder)`` in each process; raises what one of them raised."""
    # Held from here on, as torchrun holds its own: a port that is only looked up and given
    # back may be another's by the time that a process has imported torch.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context: Any = spawn(  # type: ignore[no-untyped-call]
        work, args=(store.port, str(folder)), nprocs=NUM_PROCESSES, join=False
    )
    deadline = time.monotonic() + LIMIT_S
    try:
        while not context.join(timeout=1.0):  # raises what a process raised
            if time.monotonic() > deadline:
                raise TimeoutError(f"two processes took more than {LIMIT_S:.0f} s")
    finally:
        for process in context.processes:
            process.kill()


def join_world(rank: int, port: int) -> World:
    """Join the other process at the port that `run_together` holds."""
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the parent's
        "GLOO_SOCKET_IFNAME": "lo",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(NUM_PROCESSES),
    }
    return start_world("cpu")


def work(rank: int, port: int, folder: str) -> None:
    """What one process does."""
    world = join_world(rank, port)
    found = {
        "world": tuple(world),
        "again": tuple(start_world("cpu")),
        "trained": [
            trained(losses, dropout, autocast, *BATCHES[name][rank], world)
            for name, losses, dropout, autocast in settings()
        ],
        "gathered": [gather_rows(rows, world) for rows in rows_of(rank)],
        "first": same_everywhere({"seed": 5 + rank}, world),
        "ranks": gather_values(rank, world),
        "refused": refusals(rank, world),
        **summed(rank, world),
    }
    torch.save(found, Path(folder) / f"{rank}.pt")
    end_world(world)


def rows_of(rank: int) -> list[Tensor]:
    """Rows of several types, uneven, and none at all in one process or in both."""
    start = 10 * rank
    return [
        torch.arange(start, start + 6, dtype=torch.float32).view(3, 2)[: 3 - rank].t().t(),
        torch.arange(start, start + 2 + rank),
        torch.tensor([True, False])[: 2 - rank],
        torch.full((1, 2, 2), 1.5 + rank, dtype=torch.bfloat16),
        torch.full((2 * rank, 3), 7.0),
        torch.zeros(0, 4),
    ]


def parameters_of(rank: int) -> list[nn.Parameter]:
    """Gradients of two types and several sizes; two in one process only, one in none."""
    draw = torch.Generator().manual_seed(rank)
    single, double = torch.float32, torch.float64
    sizes = [((3, 4), single), ((5,), single), ((40, 10), single), ((2, 2), double)]
    sizes += [((3,), double), ((7,), single), ((6,), single), ((2, 4), single)]
    parameters = [nn.Parameter(torch.zeros(size, dtype=dtype)) for size, dtype in sizes]
    missing = {6, 5 if rank == 0 else 1}
    for i, parameter in enumerate(parameters):
        if i not in missing:
            parameter.grad = torch.randn(parameter.shape, dtype=parameter.dtype, generator=draw)
    for i, size in ((0, (4, 3)), (2, (10, 40))):
        parameters[i].grad = torch.randn(size, generator=draw).t()  # not contiguous
    return parameters


def summed(rank: int, world: World) -> dict[str, list[list[Tensor | None]]]:
    """The sums with buckets of many gradients, and with buckets so small that each is one."""
    found = []
    usual = gathering.BUCKET_BYTES
    for num_bytes in (usual, 100):
        gathering.BUCKET_BYTES = num_bytes
        parameters = parameters_of(rank)
        sum_gradients(parameters, world)
        found.append([parameter.grad for parameter in parameters])
    gathering.BUCKET_BYTES = usual
    return {"summed": found}


def refusals(rank: int, world: World) -> list[str]:
    """What is said where the processes do not agree, and none may be left waiting."""
    said = []

    def attempt(width: int, is_frozen: bool, num_pairs: int) -> None:
        model, objective = toy_training()
        if is_frozen:
            model.get_parameter("inside.bias").requires_grad_(False)
        chunk = toy_chunk(2, seed=1)
        chunks = [chunk] if num_pairs else []
        objects: Any = objective
        plain = objects.represent
        objects.represent = lambda *asked: {**plain(*asked), "positive.look": torch.zeros(2, width)}
        try:
            backward(
                model, objective, chunks, STAGE, world=world, seeds=[0] * len(chunks), autocast=None
            )
        except ValueError as error:
            said.append(str(error))

    attempt(3 + rank, False, 2)
    attempt(3, rank == 1, 2)
    attempt(3, False, 0)
    try:
        sum_gradients(parameters_of(rank)[: 6 - rank], world)
    except ValueError as error:
        said.append(str(error))
    return said
