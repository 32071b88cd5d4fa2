"""How much work a batch may hold, and what is learnt where it was too much.

    plan_tokens   device, a token's share -> tokens of the first batches
    TokenBudget   that number, halved for good where a batch did not fit

Memory is planned and not probed: a batch that is a little too small costs nothing, one
that does not fit costs itself.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

# Measured with the default model: 2,048 is no faster on a CPU and takes 300 MB more. A
# network of billions is bound by arithmetic, and not by its weights, from fewer on.
CPU_TOKENS = 512
# A GPU's arithmetic is busy from some thousands on. More would only share the few latent
# steps among more rows, and leave nothing to prepare while the device computes.
MOST_TOKENS = 16_384
SHARE_OF_FREE = 0.7  # allocators lose some to fragments, and a token's share is an estimate


def plan_tokens(device: torch.device, token_bytes: int) -> int:
    """Return how many tokens of work a batch may hold, at least 1.

    ``token_bytes`` is what one token takes while it is embedded.
    """
    if device.type != "cuda":
        return CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return affordable_tokens(free + kept, token_bytes)


def affordable_tokens(free_bytes: int, token_bytes: int) -> int:
    """Return how many tokens fit into the free memory of a GPU with a margin, at least 1."""
    return min(max(int(free_bytes * SHARE_OF_FREE) // token_bytes, 1), MOST_TOKENS)


class TokenBudget:
    """The tokens a batch may hold; safe to ask and to lower from several threads."""

    def __init__(self, tokens: int) -> None:
        if tokens < 1:
            raise ValueError(f"a batch holds at least one token, got {tokens}")
        self._tokens = tokens
        self._lock = threading.Lock()

    @property
    def tokens(self) -> int:
        """How many now."""
        return self._tokens

    def did_not_fit(self, tokens: int) -> None:
        """Halve a batch of ``tokens`` from now on.

        Batches of one size that fail side by side lower it once and not each.
        """
        with self._lock:
            self._tokens = max(min(self._tokens, tokens // 2), 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a GPU or beside it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in said
        for words in (
            "out of memory",  # pinned memory, and what CUDA itself refuses
            "can't allocate memory",  # torch's allocator on Linux
            "not enough memory",  # and elsewhere
            "status_alloc_failed",  # cuBLAS and cuDNN
        )
    )


def queue_of_caller(device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Return what makes contexts in which work goes where that of this thread goes now.

    Threads have streams of their own: what one prepares and another computes with is in
    order only on one stream. ``device`` is the one that streams and graphs belong to.
    """
    if device.type != "cuda":
        return nullcontext
    stream = torch.cuda.current_stream(device)
    return lambda: torch.cuda.stream(stream)


def free_memory(device: torch.device) -> None:
    """Hand back what torch keeps for its next tensors, so that one of another size fits."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
