"""Train the decoder of the default: the control, LaME's tokens, PLUME's steps.

    base folder, caches of the mix, configs/default.toml -> Run -> model folder of each kind

The loop, the recipes and the optimiser are those that any model is trained with; only the
batches come from caches. The towers and their heads stay as they are: all kinds begin at
the same vectors, those of the base, and the gate is opened over an `out` of zeros.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.models.description import ModelDescription
from mmsearch.retriever.models.head import ResidualHead
from mmsearch.retriever.training.config import TrainingConfig, read_config
from mmsearch.retriever.training.examples import Collate, Example, Side, TrainingBatch
from mmsearch.retriever.training.gathering import World
from mmsearch.retriever.training.loop import Run, TrainingProgress, TrainingReport, refuse_folder
from mmsearch.retriever.training.preparing import (
    Prepared,
    TrainingRows,
    assembled,
    seeded_objective,
)
from mmsearch.retriever.training.records import listed_rows
from mmsearch.retriever.training.snapshots import (
    final_weights,
    find_snapshot,
    list_snapshots,
    write_run_config,
)
from mmsearch.retriever.training.starting import start_model

CONFIG = Path(__file__).parents[1] / "configs/default.toml"
# What a kind says otherwise than configs/default.toml, which is PLUME's.
KINDS: Mapping[str, tuple[str, ...]] = {
    "none": (
        "model.reasoner=none",
        "model.readout=last",
        "model.options={}",
        "objective.name=plain",
    ),
    "lame": (
        "model.reasoner=bottleneck",
        "model.readout=mean",
        "model.options={num_tokens=8, num_decoded=4}",
        "objective.name=lame",
    ),
    "plume": (),
}
# How often an epoch draws a row of each kind; 1 where it does not say. Words among words are
# held where they are anyway.
WEIGHTS: Mapping[str, float] = {
    "title": 0.2, "definition": 0.2, "cloze": 0.1, "caption paragraph": 0.3, "same picture": 0.3,
    "alt and caption": 0.3, "moving": 0.5, "icon": 0.5, "composed": 2.0,
}  # fmt: skip
GATE = 0.25  # how far the gate is open over an `out` of zeros
CARRIED = "backbone."  # what PLUME takes over from LaME: their heads read other states


def kind_config(kind: str, base: Path, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Return the configuration of a kind, beginning at the model of ``base``."""
    own = ("data.train=[]", "data.held_out=[]", "data.toy=2", f"model.start={base}")
    return read_config(CONFIG, (*own, *KINDS[kind], *overrides))


def train_reasoner(
    config: TrainingConfig,
    out: Path,
    collate_for: Callable[[Any], Collate],
    train: Sequence[Example],
    held_out: Sequence[Example],
    *,
    carry: Path | None = None,
    on_progress: Callable[[TrainingProgress], object] | None = None,
) -> TrainingReport:
    """Train one kind into the folder ``out``, or go on where it was left.

    collate_for: makes batches for a backbone, from caches
    carry:       a run whose decoder it takes over
    """
    resume = bool(list_snapshots(out))
    refuse_folder(out, config, resume=resume)
    description, model = start_model(config.model, device=config.run.device, seed=config.run.seed)
    if carry is not None:
        take_over(model, carry)
    collate = collate_for(model.backbone)
    prepared = prepare_cached(config, model, description, collate, train, held_out)
    out.mkdir(parents=True, exist_ok=True)
    write_run_config(out, config)
    return Run(prepared, out, World(), on_progress).go(resume=resume)


def take_over(model: Model, run: Path) -> None:
    """Give ``model`` the decoder that another run has trained."""
    known = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in final_weights(find_snapshot(run)).items():
            if name.startswith(CARRIED):
                known[name].copy_(weight)


def prepare_cached(
    config: TrainingConfig,
    model: Model,
    description: ModelDescription,
    collate: Collate,
    train: Sequence[Example],
    held_out: Sequence[Example],
) -> Prepared:
    """Return a run over examples whose features are cached.

    The objective is made while the gate is closed: what it holds texts to is then the base,
    which costs no pass of the decoder. Behind an open gate `out` begins at zeros, so the
    first vectors are those of the base, and its gradient is not nothing.
    """
    head = model.head
    if isinstance(head, ResidualHead):
        with torch.no_grad():
            head.alpha.zero_()
            nn.init.zeros_(head.out.weight)
            nn.init.zeros_(head.out.bias)
    objective = seeded_objective(config, model, description)
    if isinstance(head, ResidualHead):
        with torch.no_grad():
            head.alpha.fill_(GATE)
    told = listed_rows(train, WEIGHTS)
    rows = TrainingRows(told, listed_rows(held_out), bad=(), num_bad=0, leaks=())
    return assembled(config, model, description, objective, rows, cast(Any, collate))


class Thinned:
    """Leaves a rationale to some rows alone, and there to one of the two sides.

    What a rationale costs is its words' logits; and where both sides have the same one, the
    pair is found by it and not by what is seen.
    """

    def __init__(self, collate: Collate, share: float = 0.25) -> None:
        self._collate, self._share = collate, share

    def __call__(self, examples: Sequence[Example], *, seed: int) -> TrainingBatch:
        batch = self._collate(examples, seed=seed)
        chance = random.Random(seed)
        queries, positives = [], []
        for one in examples:
            told = chance.random() < self._share
            is_query = chance.random() < 0.5
            queries.append(one.query if told and is_query else _silent(one.query))
            positives.append(one.positive if told and not is_query else _silent(one.positive))
        return replace(
            batch,
            query=replace(batch.query, sides=tuple(queries)),
            positive=replace(batch.positive, sides=tuple(positives)),
        )


def _silent(side: Side) -> Side:
    return replace(side, rationale="")
