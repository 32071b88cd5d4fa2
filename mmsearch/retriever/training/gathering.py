"""Several processes that train one model: what each has, all of them get.

    torchrun's environment -> World
    gather_rows    rows of this process -> rows of all, in the order of their ranks
    sum_gradients  .grad of this process -> the sum of all, the same everywhere

A world of one needs no process group, and everything here then returns what it was given.
There is no wrapper around the model: a wrapper that is bypassed averages nothing, and says
nothing of it.
"""

import os
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmsearch.errors import BadSetting

T = TypeVar("T")

BUCKET_BYTES = 32 * 2**20  # gradients sent together: long enough that latency is nothing
MOST_SENDING = 2  # buckets under way, each of which is a copy


class World(NamedTuple):
    """Which process this is, counted from 0, and how many train together."""

    rank: int = 0
    size: int = 1


def start_world(device: torch.device | str) -> World:
    """Join the processes that torchrun started; alone, where it started no other.

    On CUDA each process gets the device of its local rank, which "cuda" means from then on.
    Raises BadSetting where there are fewer devices than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if torch.device(device).type == "cuda" and "LOCAL_RANK" in os.environ:
        local = int(os.environ["LOCAL_RANK"])
        num_devices = torch.cuda.device_count()
        if local >= num_devices:
            reason = f"process {local} of this machine has none, there are {num_devices}"
            raise BadSetting("device cuda", reason, hint=f"torchrun --nproc-per-node {num_devices}")
        torch.cuda.set_device(local)
    if size == 1:
        return World()
    if not dist.is_initialized():
        # Sizes and names go over the CPU, so that nobody waits for a device to learn them.
        on_cuda = torch.device(device).type == "cuda"
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo")
    return World(dist.get_rank(), dist.get_world_size())


def end_world(world: World) -> None:
    """Leave the process group that `start_world` joined."""
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def gather_values(value: T, world: World) -> list[T]:
    """Return the value of every process in the order of their ranks: small, plain values."""
    if world.size == 1:
        return [value]
    values: list[T | None] = [None] * world.size
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]  # every place has been written


def same_everywhere(value: T, world: World) -> T:
    """Return what the first process was given, in all of them."""
    return gather_values(value, world)[0]


def gather_rows(tensor: Tensor, world: World, *, counts: Sequence[int] | None = None) -> Tensor:
    """Return the rows ``[b, ...]`` of every process as ``[sum of b, ...]``, without gradient.

    b may differ from process to process, and may be 0; the rest of the shape and the type
    are the same. ``counts`` is b of each of them, where that is known already.
    """
    tensor = tensor.detach()
    if world.size == 1:
        return tensor
    if counts is None:
        counts = gather_values(len(tensor), world)
    longest = max(counts)
    if longest == 0:
        return tensor
    padded = tensor.new_zeros(longest, *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    rows = [torch.empty_like(padded) for _ in range(world.size)]
    dist.all_gather(rows, padded)
    return torch.cat([part[:count] for part, count in zip(rows, counts, strict=True)])


def sum_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Add up ``.grad`` over all processes, in place; each has the same sum, to the bit.

    The parameters are the same everywhere, in the same order. One that has no gradient in
    some processes counts as zeros there; one that has none anywhere keeps none, as it does
    in a single process, so that no optimiser moves it.
    """
    if world.size == 1:
        return
    parameters = list(parameters)
    held = gather_values([parameter.grad is not None for parameter in parameters], world)
    if len({len(flags) for flags in held}) > 1:
        raise ValueError("the processes train different parameters")
    gradients = []
    for parameter, flags in zip(parameters, zip(*held, strict=True), strict=True):
        if any(flags):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    sending: deque[tuple[list[Tensor], Tensor, Any]] = deque()
    for bucket in _buckets(gradients):
        if len(sending) == MOST_SENDING:
            _receive(*sending.popleft())
        is_whole = len(bucket) == 1 and bucket[0].is_contiguous()
        flat = bucket[0].view(-1) if is_whole else torch.cat([x.reshape(-1) for x in bucket])
        sending.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
    while sending:
        _receive(*sending.popleft())


def _receive(bucket: list[Tensor], flat: Tensor, work: Any) -> None:  # noqa: ANN401 - torch's own
    work.wait()
    if flat.data_ptr() == bucket[0].data_ptr():
        return  # it was summed where it lies
    for gradient, piece in zip(bucket, torch.split(flat, [x.numel() for x in bucket]), strict=True):
        gradient.copy_(piece.view_as(gradient))


def _buckets(gradients: list[Tensor]) -> Iterable[list[Tensor]]:
    """Yield runs of one type on one device: up to ``BUCKET_BYTES``, or one that is longer."""
    bucket: list[Tensor] = []
    num_bytes, of_bucket = 0, None
    for gradient in gradients:
        size = gradient.numel() * gradient.element_size()
        kind = (gradient.dtype, gradient.device)
        if bucket and (kind != of_bucket or num_bytes + size > BUCKET_BYTES):
            yield bucket
            bucket, num_bytes = [], 0
        bucket.append(gradient)
        of_bucket = kind
        num_bytes += size
    if bucket:
        yield bucket
