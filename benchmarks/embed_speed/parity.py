"""Whether what is timed is also right: an item alone and in a batch, graphs and direct calls."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from embed_speed.inputs import INPUTS, items
from embed_speed.shapes import Network
from embed_speed.stand_ins import Direct
from mmsearch.values import Item, Role

CALLS_UNTIL_REPLAYED = 3  # a plain one, one that records, one that replays


def parity(name: str, network: Network, device: torch.device, *, seed: int) -> dict[str, float]:
    """Return the figures of one reasoner, by what they say."""
    mixed = [item for kind in INPUTS for item in items(kind, 2, token_side=28, seed=seed)]
    figures = {f"{name}: alone and in a mixed batch, least cosine": alone_in_batch(network, mixed)}
    if name.startswith("plume") and device.type == "cuda":
        figures[f"{name}: recorded and direct steps, greatest difference"] = graph_error(
            network, mixed
        )
    return figures


def vectors(network: Network, batch_of: list[Item]) -> Tensor:
    """Return float32 vectors ``[n, d]`` of one batch, on the CPU."""
    batch = network.backbone.collate(batch_of, role=Role.DOCUMENT)
    return network.embed(batch).float().cpu()


def alone_in_batch(network: Network, mixed: list[Item]) -> float:
    """Return the least cosine between items embedded alone and all in one batch."""
    together = vectors(network, mixed)
    alone = torch.cat([vectors(network, [item]) for item in mixed])
    return float(F.cosine_similarity(together, alone).min())


def graph_error(network: Network, mixed: list[Item]) -> float:
    """Return the greatest difference in any dimension between replayed and direct steps.

    The graph is recorded with other items than it is compared on, so that one which merely
    repeats what it saw is found out.
    """
    direct = dataclasses.replace(network, backbone=Direct(network.backbone))
    worst = 0.0
    for size in (1, len(mixed) // 2):
        first, other = mixed[:size], mixed[size : 2 * size]
        for _ in range(CALLS_UNTIL_REPLAYED):
            vectors(network, first)
        difference = vectors(network, other) - vectors(direct, other)
        worst = max(worst, float(difference.abs().max()))
    return worst
