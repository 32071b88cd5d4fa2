"""PLUME once more, from the paper's equations: the adapter in plain numbers, no cache.

Only the two experts that are chosen are evaluated, one row at a time, and every step
computes everything anew: an oracle that shares no line with the modules that are tested.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmsearch.retriever.models.rollout import Rollout
from mmsearch.retriever.seams import Backbone, Batch, Cache


def plain_adapter(
    weights: Mapping[str, Any], z: list[float], step: int, c: list[float]
) -> list[float]:
    """Return A(z, step, c) of one row; a matrix among the ``weights`` is a list of its rows."""

    def linear(name: str, x: list[float]) -> list[float]:
        matrix, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return [
            b + sum(w * v for w, v in zip(row, x, strict=True))
            for row, b in zip(matrix, bias, strict=True)
        ]

    def expert(name: str, x: list[float]) -> list[float]:
        inner = linear(f"{name}.fc1", x)
        return linear(f"{name}.fc2", [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in inner])

    mean = sum(z) / len(z)
    variance = sum((v - mean) ** 2 for v in z) / len(z)
    u = [
        (v - mean) / math.sqrt(variance + 1e-5) * scale + shift
        for v, scale, shift in zip(z, weights["ln.weight"], weights["ln.bias"], strict=True)
    ]
    position: list[float] = weights["step_embed.weight"][min(step, 31)]
    asked = [a + b for a, b in zip(z, c, strict=True)] + position
    powers = [math.exp(logit) for logit in linear("router", asked)]
    best = sorted(range(4), key=lambda m: (-powers[m], m))[:2]
    out = [a + b for a, b in zip(z, expert("shared_expert", u), strict=True)]
    for m in best:
        share = powers[m] / sum(powers)
        out = [a + share * b for a, b in zip(out, expert(f"experts.{m}", u), strict=True)]
    return out


def plain_rollout(
    backbone: Backbone[Batch, Cache], reasoner: Rollout, batch: Batch, effort: int
) -> Tensor:
    """Return the readout ``[D]`` of a batch of one item."""
    adapter, config = reasoner.adapter, reasoner.config
    weights = {name: one.tolist() for name, one in adapter.state_dict().items()} if adapter else {}

    def states(tail: list[Tensor]) -> Tensor:
        hidden, _ = backbone.prefill(batch, tail=torch.stack(tail) if tail else None)
        return hidden[0]

    prompt = states([])
    anchor = prompt[len(prompt) - 1 - int(backbone.anchors(batch)[0])]
    contexts = {"disc": anchor, "prefix_last": prompt[-1], "none": torch.zeros(len(anchor))}
    c = contexts[config.context].tolist()
    thoughts: list[Tensor] = []
    z = prompt[-1]
    for k in range(effort):
        latent = z if adapter is None else torch.tensor(plain_adapter(weights, z.tolist(), k, c))
        thoughts.append(latent)
        z = states(thoughts)[-1]
    suffix = backbone.embed(torch.tensor(backbone.tokens(config.suffix)))
    return states([*thoughts, *suffix])[-1]
