"""Pointwise pieces between the matrix products, as one kernel each where that is possible.

A latent step of batch 1 is a thousand small operations; launched one by one they take
longer than the weights take to stream.
"""

import functools
import importlib.util
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function`` as torch compiles it, for sizes that change from call to call."""
    return torch.compile(function, dynamic=True, fullgraph=True)


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
