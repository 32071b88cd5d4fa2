"""Latent steps recorded once and replayed: a thousand launches become one.

    reserve(shape, n) -> Lease        buffers whose addresses stay, prompt written from place 0
    run_steps(steps, cache, *inputs)  first time: a call; second: recorded; then: replayed

A graph repeats what was done at the same addresses, so everything that differs between two
batches has to lie in the same buffers: an arena holds keys and values, mask and positions.
Rows and places are rounded up, so that few graphs serve all batches: prompts begin at place
0 and the steps at a rounded one, the places between are masked, and rows that fill a batch
up see only themselves. An arena goes back to its pool when the last cache that uses it is
dropped. Where nothing records, run_steps is a direct call.
"""

import contextlib
import logging
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from mmsearch.retriever.models.backbones.kv_cache import (
    BufferShape,
    KVCache,
    allocate,
    buffers,
)

logger = logging.getLogger(__name__)

MOST_GRAPHS = 16  # of one arena: lengths at which a prompt of its size may end, and efforts
STEP_PLACES = 64  # buffers grow by so many places
MOST_ERROR = 0.3  # of a recording's first replay, relative

# Recording and replaying: graphs of one stream share their memory, and a driver records
# one thing at a time.
ONE_AT_A_TIME = threading.RLock()


class Recording(Protocol):
    """A computation over fixed buffers that can be done again."""

    def replay(self) -> Tensor:
        """Compute again; the result is valid until the next replay of any recording."""
        ...


class Recorder(Protocol):
    """What records on one kind of device."""

    def serves(self, device: torch.device) -> bool:
        """Return whether it can record what happens there."""
        ...

    def stream(self, device: torch.device) -> Hashable:
        """Return the queue this thread's work goes to: what shares one happens in order."""
        ...

    def spare_bytes(self, device: torch.device) -> int:
        """Return how much memory buffers that wait for their next use may take."""
        ...

    def record(self, function: Callable[[], Tensor], device: torch.device) -> Recording:
        """Return ``function`` recorded; it may run any number of times meanwhile."""
        ...


class CudaGraph:
    """A recording of `CudaRecorder`."""

    def __init__(self, graph: torch.cuda.CUDAGraph, output: Tensor) -> None:
        self.graph, self.output = graph, output

    def replay(self) -> Tensor:
        self.graph.replay()
        return self.output


class CudaRecorder:
    """CUDA graphs. Those of one stream share their memory: they never run at once."""

    def __init__(self) -> None:
        self._sides: dict[Hashable, tuple[torch.cuda.Stream, Any]] = {}

    def serves(self, device: torch.device) -> bool:
        return device.type == "cuda"

    def stream(self, device: torch.device) -> Hashable:
        return torch.cuda.current_stream(device).cuda_stream

    def spare_bytes(self, device: torch.device) -> int:
        return torch.cuda.get_device_properties(device).total_memory // 16

    def record(self, function: Callable[[], Tensor], device: torch.device) -> CudaGraph:
        with torch.cuda.device(device):
            current = torch.cuda.current_stream()
            key = device, current.cuda_stream
            if key not in self._sides:
                side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                self._sides[key] = side, torch.cuda.graph_pool_handle()
            # Always the same stream: memory of a pool is shared on one stream only.
            side, pool = self._sides[key]
            side.wait_stream(current)
            with torch.cuda.stream(side):
                function()  # compiles and allocates what a recording must not
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on allocating: only this one's work is recorded.
            with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                output = function()
        return CudaGraph(graph, output)


def bucket(n: int, *, finest: int) -> int:
    """Return ``n`` rounded up by at most an eighth, or to a multiple of ``finest``."""
    step = max(finest, 1 << max(n.bit_length() - 4, 0))
    return -(-n // step) * step


def row_bucket(rows: int) -> int:
    """Return 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: rows rounded up by at most a half."""
    step = 1 << max((rows - 1).bit_length() - 2, 0)
    return -(-rows // step) * step


@dataclass(slots=True, eq=False)
class Recorded:
    """A recording and the buffers its inputs are copied into."""

    recording: Recording
    inputs: tuple[Tensor, ...]


class Arena:
    """Buffers whose addresses stay, and the graphs that were recorded over them.

    ``graphs`` has None for what ran once without being recorded.
    """

    def __init__(self, key: "ArenaKey") -> None:
        self.key = key
        self.joint = buffers(key.shape)
        self.whole = allocate(key.shape, self.joint)
        self.graphs: OrderedDict[Hashable, Recorded | None] = OrderedDict()

    def clear(self, num_rows: int, num_places: int, start: int) -> None:
        """Make ready for ``num_rows`` prompts of ``num_places``; steps begin at ``start``.

        Whatever no prompt will overwrite is zeroed: a masked place weighs nothing, but
        nothing times NaN is NaN, and the batch before may have computed one.
        """
        self.joint[:, :, :num_rows, :, num_places:] = 0
        self.joint[:, :, num_rows:] = 0
        self.whole.mask[:, :start] = False
        self.whole.mask[:, start:] = True

    def rows(self, num_rows: int) -> KVCache:
        """Return a cache over the first rows, nothing written yet."""
        whole = self.whole
        return KVCache(
            tuple(k[:num_rows] for k in whole.keys),
            tuple(v[:num_rows] for v in whole.values),
            whole.mask[:num_rows],
            whole.next_position[:num_rows],
            0,
        )


@dataclass(frozen=True, slots=True)
class ArenaKey:
    """What an arena is kept for; ``version`` changes where the weights were moved."""

    shape: BufferShape
    stream: Hashable
    version: Hashable


class Lease:
    """An arena in use. It goes back when nothing holds the lease any more.

    start: the place where the steps begin, behind the prompt and masked places
    """

    def __init__(self, graphs: "StepGraphs", arena: Arena, num_rows: int, start: int) -> None:
        self.graphs, self.arena, self.num_rows, self.start = graphs, arena, num_rows, start
        # Appending is all that may happen here: garbage is collected under any lock.
        weakref.finalize(self, graphs.returned.append, arena).atexit = False

    def cache(self) -> KVCache:
        """Return an empty cache for the rows that were asked for."""
        return replace(self.arena.rows(self.num_rows), lease=self)


class StepGraphs:
    """Arenas and the graphs over them, each the least recently used one out first.

    From the first failure to record on, everything is called directly (logged once).
    """

    def __init__(self, recorder: Recorder, *, most_graphs: int = MOST_GRAPHS) -> None:
        self.recorder, self.most_graphs = recorder, most_graphs
        self.returned: deque[Arena] = deque()
        self._idle: list[Arena] = []  # the one that was used last at the end
        self._lock = threading.RLock()
        self._broken = False

    def reserve(
        self, rows: BufferShape, num_tokens: int, *, version: Hashable = None
    ) -> Lease | None:
        """Return buffers for ``rows`` that begin with ``num_tokens``, or None: none are needed.

        ``rows.places`` are those the prompt and the steps will write. The lease's buffers
        have at least as many rows and places, and are cleared.
        """
        device = rows.device
        if self._broken or not self.recorder.serves(device):
            return None
        start = bucket(num_tokens, finest=STEP_PLACES)
        ahead = -(-(rows.places - num_tokens) // STEP_PLACES) * STEP_PLACES
        shape = replace(rows, rows=row_bucket(rows.rows), places=start + ahead)
        key = ArenaKey(shape, self.recorder.stream(device), version)
        lease = Lease(self, self._take(key), rows.rows, start)
        lease.arena.clear(rows.rows, num_tokens, start)
        return lease

    def run(
        self, lease: Lease, steps: Callable[..., Tensor], cache: KVCache, inputs: tuple[Tensor, ...]
    ) -> Tensor:
        """Return ``steps(cache, *inputs)``, replayed where that was recorded."""
        arena = lease.arena
        # An input of as many rows as the batch is taken row by row, others are shared. If
        # there are none of these it cannot be told which it is, and no row is added.
        batch = len(cache.mask)
        own = [len(x) == batch for x in inputs]
        rows = batch if all(own) else arena.key.shape.rows
        shapes = tuple(
            (rows if mine else len(x), *x.shape[1:], x.dtype)
            for x, mine in zip(inputs, own, strict=True)
        )
        key = (steps, rows, cache.length, shapes)
        if self._broken or key not in arena.graphs:
            remember(arena.graphs, key, None, most=self.most_graphs)
            return steps(cache, *inputs)
        arena.whole.next_position[:batch].copy_(cache.next_position)
        with ONE_AT_A_TIME:
            recorded = arena.graphs[key]
            if recorded is None:
                plain = steps(cache, *inputs)
                try:
                    recorded = self._record(arena, steps, rows, cache.length, inputs, own)
                    check(recorded.recording.replay()[:batch], plain)
                except torch.OutOfMemoryError:
                    raise
                except Exception as error:  # whatever a driver may object to
                    self._broken = True
                    self._idle.clear()
                    logger.warning("latent steps run unrecorded: %s", str(error).split("\n")[0])
                    return plain
            remember(arena.graphs, key, recorded, most=self.most_graphs)
            for buffer, x in zip(recorded.inputs, inputs, strict=True):
                buffer[: len(x)].copy_(x)
            return recorded.recording.replay()[:batch].clone()

    def _record(
        self,
        arena: Arena,
        steps: Callable[..., Tensor],
        rows: int,
        length: int,
        inputs: tuple[Tensor, ...],
        own: list[bool],
    ) -> Recorded:
        with torch.inference_mode(False), torch.no_grad():
            static = tuple(
                x.new_zeros(rows if mine else len(x), *x.shape[1:])
                for x, mine in zip(inputs, own, strict=True)
            )
        for buffer, x in zip(static, inputs, strict=True):
            buffer[: len(x)].copy_(x)
        cache = replace(arena.rows(rows), length=length)
        device = arena.key.shape.device
        return Recorded(self.recorder.record(lambda: steps(cache, *static), device), static)

    def _take(self, key: ArenaKey) -> Arena:
        """Return an arena that nobody uses."""
        with self._lock:
            self._collect()
            for i in reversed(range(len(self._idle))):
                if self._idle[i].key == key:
                    return self._idle.pop(i)
            try:
                return Arena(key)
            except torch.OutOfMemoryError:
                if not self._idle:
                    raise
            self._idle.clear()
            return Arena(key)

    def _collect(self) -> None:
        """Take back what was returned, and let go of what is too much."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.append(self.returned.popleft())
        spare: dict[torch.device, int] = {}
        kept: list[Arena] = []
        for arena in reversed(self._idle):
            device = arena.key.shape.device
            left = spare.get(device, self.recorder.spare_bytes(device))
            spare[device] = left - arena.key.shape.num_bytes
            if spare[device] >= 0:
                kept.append(arena)
        self._idle = kept[::-1]


def check(replayed: Tensor, plain: Tensor) -> None:
    """Raise RuntimeError where a recording does something else than what it recorded.

    Other kernels may serve a filled-up batch, and a state of bfloat16 may then choose other
    experts: only what no rounding explains is refused.
    """
    error = (replayed.float() - plain.float()).norm() / plain.float().norm()
    # NaN is neither: wrong where the call has none, and nothing to compare where it has.
    if not bool(error <= MOST_ERROR) and bool(plain.isfinite().all()):
        raise RuntimeError(f"a recording is {error:.2f} away from what it recorded")


def remember(
    graphs: OrderedDict[Hashable, Recorded | None],
    key: Hashable,
    recorded: Recorded | None,
    *,
    most: int,
) -> None:
    """Put ``key`` last, and drop what was used longest ago."""
    graphs[key] = recorded
    graphs.move_to_end(key)
    while len(graphs) > most:
        graphs.popitem(last=False)


def run_steps(steps: Callable[..., Tensor], cache: KVCache, *inputs: Tensor) -> Tensor:
    """Return ``steps(cache, *inputs)``, replayed from a graph where the cache allows it.

    ``steps`` is hashable, and equal only where it does the same; it extends the cache and
    does operations of fixed shape. Its result has one row for each row of the batch. An
    input has one row for each row of the batch, or is shared between them.
    """
    lease = cache.lease
    if torch.is_grad_enabled() or not isinstance(lease, Lease):
        return steps(cache, *inputs)
    return lease.graphs.run(lease, steps, cache, inputs)


def cuda_graphs() -> StepGraphs:
    """Return what records on CUDA, and leaves other devices alone."""
    return StepGraphs(CudaRecorder())
