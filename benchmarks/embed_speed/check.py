"""Parity on this machine, before anything is timed: what to run first where there is a GPU.

Small random networks of every family with every way of thinking, in float32 and bfloat16:

    theirs     transformers' own forward on the same tensors gives the same states
    cpu        a GPU gives the vectors that the CPU gives
    alone      an item gives the same vector alone, in a batch, and beside another thread
    precision  bfloat16 gives about the vectors of float32
    graphs     on a GPU, replayed steps give what direct ones do, and no step is called by hand

Everything that is logged as a warning, a fallback to something slower, is a failure too.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from embed_speed.parity import CALLS_UNTIL_REPLAYED, alone_in_batch, graph_error, vectors
from embed_speed.published import arguments, published
from embed_speed.shapes import Network
from embed_speed.stand_ins import Counted
from mmsearch.retriever.models.tiny_qwen import FAMILIES, random_qwen, tiny_description
from mmsearch.values import Frames, Image, Item, Role, Text

REASONERS = ("none", "bottleneck", "rollout", "cot")
LEAST_COSINE = {torch.float32: 0.999999, torch.bfloat16: 0.999}
LEAST_ACROSS = 0.995  # of bfloat16 and float32
LEAST_CPU = 0.99999
MOST_ERROR = 1e-3  # their patches go through a convolution, which may be in TF32


@dataclass(frozen=True, slots=True)
class Check:
    """One figure and the limit it has to keep; ``at_most`` says from which side."""

    name: str
    found: float
    limit: float
    at_most: bool = False

    @property
    def passed(self) -> bool:
        """Whether it does; NaN does not."""
        return self.found <= self.limit if self.at_most else self.found >= self.limit


class Complaints(logging.Handler):
    """Keeps what the package logs as warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def check(device: torch.device, *, seed: int) -> int:
    """Print a line for every check; return 1 if one failed, else 0."""
    complaints = Complaints()
    logging.getLogger("mmsearch").addHandler(complaints)
    failed = 0
    for one in checks(device, seed):
        verdict = "ok" if one.passed else "FAILED"
        sign = "<=" if one.at_most else ">="
        print(f"{verdict:<6} {one.name:<64} {one.found:.7f} {sign} {one.limit:g}", flush=True)
        failed += not one.passed
    for said in complaints.said:
        print(f"FAILED {said}")
    failed += len(complaints.said)
    print(f"{failed} failed on {device}, torch {torch.__version__}")
    return 1 if failed else 0


def checks(device: torch.device, seed: int) -> Iterator[Check]:
    """Yield every check, as it was found."""
    made = some_items(seed)
    for family in FAMILIES:
        yield from _theirs(family, device, made, seed)
        exact: dict[str, Tensor] = {}
        for dtype in (torch.float32, torch.bfloat16):
            if device.type == "cuda":
                torch.compiler.reset()  # torch keeps few variants of each compiled piece
            for reasoner in REASONERS:
                if reasoner == "cot" and dtype is torch.bfloat16:
                    continue  # a rounding may choose another word, and the thought goes elsewhere
                label = f"{family} {reasoner} {str(dtype).split('.')[-1]}"
                one = network(family, reasoner, device, dtype, seed)
                found = vectors(one, made)
                if dtype is torch.bfloat16:
                    least = _least(found, exact[reasoner])
                    yield Check(f"precision: {label}", least, LEAST_ACROSS)
                exact.setdefault(reasoner, found)
                yield from _alone(label, one, made)
                if device.type == "cuda" and dtype is torch.float32:
                    on_cpu = network(family, reasoner, torch.device("cpu"), dtype, seed)
                    yield Check(f"cpu: {label}", _least(found, vectors(on_cpu, made)), LEAST_CPU)
                    if reasoner == "rollout":
                        yield from _graphs(label, one, made)


def network(
    family: str, reasoner: str, device: torch.device, dtype: torch.dtype, seed: int
) -> Network:
    """Return a small random network."""
    description = tiny_description(family, reasoner=reasoner)
    model = random_qwen(description, seed=seed).to(dtype).to(device)
    model.backbone.pack()  # as a loaded model is
    return Network(description, model, model.backbone)


def some_items(seed: int) -> list[Item]:
    """Return items of every kind, of unequal length."""
    rng = np.random.default_rng(seed)

    def picture(height: int, width: int) -> Image:
        return Image(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    film = Frames(rng.integers(0, 256, (4, 56, 84, 3), dtype=np.uint8))
    return [
        Item([Text("a word")]),
        Item([Text("several words, so that the rows of a batch are of unequal length")]),
        Item([picture(112, 84)]),
        Item([picture(56, 56), Text("between"), picture(28, 84)]),
        Item([film]),
        Item([Text("before"), film]),
    ]


def _least(a: Tensor, b: Tensor) -> float:
    return float(F.cosine_similarity(a, b).min())


@torch.inference_mode()
def _theirs(family: str, device: torch.device, made: Sequence[Item], seed: int) -> Iterator[Check]:
    ours = network(family, "none", device, torch.float32, seed)
    backbone: Any = ours.backbone
    theirs = published(backbone, ours.description.backbone_config["hf"], device).model
    for number, item in enumerate(made):
        batch = backbone.collate([item], role=Role.DOCUMENT)
        expected = theirs(**arguments(backbone, batch)).last_hidden_state[:, -1]
        hidden, _ = backbone.prefill(batch)
        error = (hidden[:, -1] - expected).norm() / expected.norm()
        yield Check(f"theirs: {family} item {number}", float(error), MOST_ERROR, at_most=True)


def _alone(label: str, one: Network, made: list[Item]) -> Iterator[Check]:
    limit = LEAST_COSINE[next(one.model.parameters()).dtype]
    yield Check(f"alone: {label} in a batch", alone_in_batch(one, made), limit)
    expected = torch.cat([vectors(one, [item]) for item in made])
    with ThreadPoolExecutor(4) as pool:
        found = torch.cat(list(pool.map(lambda item: vectors(one, [item]), made)))
    yield Check(f"alone: {label} beside other threads", _least(found, expected), limit)


def _graphs(label: str, one: Network, made: list[Item]) -> Iterator[Check]:
    yield Check(f"graphs: {label} and direct steps", graph_error(one, made), 1e-4, at_most=True)
    counted = Counted(one.backbone)
    watched = replace(one, backbone=counted)
    for _ in range(CALLS_UNTIL_REPLAYED):
        vectors(watched, made)
    counted.calls = 0
    vectors(watched, made)
    yield Check(f"graphs: {label}, steps called by hand", counted.calls, 0, at_most=True)
