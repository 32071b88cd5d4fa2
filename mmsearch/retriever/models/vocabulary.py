"""The tokens that a reasoner says itself, on the device that says them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmsearch.retriever.seams import Backbone, Batch, Cache


def single_token(backbone: Backbone[Batch, Cache], text: str) -> int:
    """Return the id of a special token; ValueError where the vocabulary lacks it."""
    ids = backbone.tokens(text)
    if len(ids) != 1:
        raise ValueError(f"the vocabulary has no token {text!r}")
    return ids[0]


def ids_on(device: torch.device, ids: Sequence[int]) -> Tensor:
    """Return token ids ``[m]`` on ``device``, without waiting for the work that is under way.

    A buffer of the module would do as well, if it survived being built on "meta".
    """
    tensor = torch.tensor(ids, dtype=torch.long)
    if device.type == "cuda":  # a copy from pageable memory would wait for the device
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
