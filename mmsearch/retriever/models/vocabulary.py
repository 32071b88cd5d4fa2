"""The tokens that a reasoner says itself, on the device that says them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmsearch.retriever.seams import Backbone, Batch, Cache

# PLUME's own tokens; a vocabulary that lacks one would read its letters instead, in silence.
SPELLED = ("<gen_emb>", "<disc_emb>", "<bot>", "<eot>", "<ct>")


def forced_tokens(backbone: Backbone[Batch, Cache], text: str) -> tuple[int, ...]:
    """Return the ids of a text that is put into a model's mouth.

    Raises ValueError where the text is empty, or names a token that the vocabulary lacks.
    """
    for token in SPELLED:
        if token in text:
            single_token(backbone, token)
    ids = tuple(backbone.tokens(text))
    if not ids:
        raise ValueError("a text that is read out needs a token")
    return ids


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
