"""PLUME's adapter once more, from the paper's equations and in plain numbers.

Only the two experts that are chosen are evaluated, one row at a time: an oracle that
shares no line with the module that is tested.
"""

import math
from collections.abc import Mapping
from typing import Any


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
