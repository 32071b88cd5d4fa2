"""Pointwise pieces between the matrix products, as one kernel each where that is possible.

A latent step of batch 1 is a thousand small operations; launched one by one they take
longer than the weights take to stream.
"""

import functools
import importlib.util
import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from mmsearch.retriever.models.backbones.graphs import ONE_AT_A_TIME

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# Of one piece in a process, over all its models and precisions; torch stops at 8 by itself.
# Its settings belong to a context, so every context is told once.
MOST_VARIANTS = 64
_told = ContextVar("_told", default=False)


def compiled(function: Callable[P, R], *, axes: tuple[int, ...] = (0,)) -> Callable[P, R]:
    """Return ``function`` as torch compiles it, for ``axes`` whose sizes change between calls.

    The sizes of other axes, and of vectors, are compiled for: an index that is divided by
    a number known beforehand costs nothing, and neighbours are read together.
    """
    fast = torch.compile(function, dynamic=False, fullgraph=True)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not _told.get():
            _told.set(True)
            torch._dynamo.config.recompile_limit = MOST_VARIANTS
        for x in args:
            if isinstance(x, Tensor) and x.ndim > 1:
                for axis in axes:
                    torch._dynamo.maybe_mark_dynamic(x, axis % x.ndim)
        return fast(*args, **kwargs)

    return call


def fused(
    function: Callable[P, R],
    *,
    compiler: Callable[[Callable[P, R]], Callable[P, R]] = compiled,
    device_types: tuple[str, ...] = ("cuda",),
) -> Callable[P, R]:
    """Return ``function`` compiled for CUDA without gradients, and as it is elsewhere.

    The first positional argument is a tensor and says where it runs. Where triton is
    missing, and from the first failure to compile on (logged once), it runs as it is; to be
    out of memory is no failure to compile and is raised.
    """
    fast: Callable[P, R] | None = None  # made where it is needed: the compiler takes 2 s to load
    failed = False

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal fast, failed
        first = args[0]
        assert isinstance(first, Tensor)
        if failed or torch.is_grad_enabled() or first.device.type not in device_types:
            return function(*args, **kwargs)
        if first.device.type == "cuda" and not has_triton():
            return function(*args, **kwargs)
        try:
            # A compiler times its kernels, and waiting for a device breaks a recording.
            with ONE_AT_A_TIME:
                fast = fast or compiler(function)
                return fast(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler may raise: the plain function is right
            failed = True
            name = getattr(function, "__name__", repr(function))
            logger.warning("%s runs uncompiled: %s", name, str(error).split("\n")[0])
            return function(*args, **kwargs)

    return call


@functools.cache
def has_triton() -> bool:
    """Return whether kernels can be generated."""
    return importlib.util.find_spec("triton") is not None
