"""Everything a run needs before its first step; what ``--dry-run`` tells is seen here.

TrainingConfig -> model, recipe, rows that may be trained on, plan of the batches -> Prepared
"""

import os
import random
from dataclasses import dataclass

import torch

from mmsearch.errors import BadSetting, BadTrainingFile
from mmsearch.retriever.embedding.devices import pick_device
from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.models.description import ModelDescription
from mmsearch.retriever.training.config import TrainingConfig
from mmsearch.retriever.training.gathering import World
from mmsearch.retriever.training.guard import Guard
from mmsearch.retriever.training.loading import MediaCollate, Opener, open_still
from mmsearch.retriever.training.objective import Objective
from mmsearch.retriever.training.objectives import build_objective
from mmsearch.retriever.training.optimiser import Optimiser, count
from mmsearch.retriever.training.records import BadRow, Rows, listed_rows, open_rows
from mmsearch.retriever.training.sampling import BatchPlan
from mmsearch.retriever.training.starting import parts_of, start_model

FLOAT_BYTES = 4
# Of what embedding takes, what training keeps of it: 4 GB of 1,500 tokens of Qwen2-VL-2B in
# bfloat16, where embedding them in float32 takes 0.9.
KEPT = {"float32": 8, "bfloat16": 4}
EXTRAS = "extras."  # what the names begin with of what is never exported


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """What is trained on, and what is kept back.

    bad:   rows that make no pair, ``num_bad`` counts all of them
    leaks: rows that are left out because they would give held-out ones away, or themselves;
           the latter are not probed with either
    """

    train: Rows
    held_out: Rows
    bad: tuple[BadRow, ...]
    num_bad: int
    leaks: tuple[BadRow, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that can begin."""

    config: TrainingConfig
    device: torch.device
    description: ModelDescription
    model: Model
    objective: Objective
    rows: TrainingRows
    plan: BatchPlan
    num_steps: int
    optimiser: Optimiser
    collate: MediaCollate

    @property
    def autocast(self) -> torch.dtype | None:
        """What the network computes in, where that is not float32."""
        return torch.bfloat16 if self.config.run.dtype == "bfloat16" else None


def pick_run_device(asked: str) -> torch.device:
    """Return the device of this process: under torchrun on GPUs the one of its rank."""
    device = pick_device(asked)
    if device.type == "cuda" and asked in ("auto", "cuda") and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


def read_rows(config: TrainingConfig, opener: Opener = open_still) -> TrainingRows:
    """Return the rows of a run, the held-out ones apart and kept out of training.

    Raises BadTrainingFile where nothing is left to be trained on.
    """
    data = config.data
    if data.toy:
        from mmsearch.retriever.training.toy import toy_examples

        drawn = toy_examples(data.toy + data.held_out_toy, seed=config.run.seed)
        train = listed_rows(drawn[: data.toy])
        held_out = listed_rows(drawn[data.toy :])
        return TrainingRows(train, held_out, (), 0, ())
    train = open_rows(data.train)
    bad, num_bad = list(train.bad), train.num_bad
    if data.held_out:
        held_out = open_rows(data.held_out)
        bad, num_bad = bad + list(held_out.bad), num_bad + held_out.num_bad
    else:
        held_out, train = kept_back(train, data.held_out_share, seed=config.run.seed)
    guard = Guard(opener, above=config.objective.near_duplicate, looks=data.compare_looks)
    probed, gifts = guard.clean(held_out)  # which give themselves away: nothing is held out yet
    guard.hold_out(held_out)
    clean, leaks = guard.clean(train)
    if len(clean) < 2:
        reasons = "; ".join(f"{one.row}: {one.reason}" for one in (*bad, *leaks)[:2])
        reason = f"{len(clean)} of {len(train) + num_bad} rows can be trained on"
        reason += " and contrast needs two" + (f" ({reasons})" if reasons else "")
        raise BadTrainingFile(data.train[0].path, reason)
    return TrainingRows(clean, probed, tuple(bad), num_bad, (*leaks, *gifts))


def kept_back(rows: Rows, share: float, *, seed: int) -> tuple[Rows, Rows]:
    """Return a share of the rows, drawn by the seed, and the others; both in their order."""
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    kept = round(len(rows) * share)
    return rows.select(sorted(order[:kept])), rows.select(sorted(order[kept:]))


def prepare(config: TrainingConfig, *, opener: Opener = open_still, world: World) -> Prepared:
    """Return a run that can begin, from its configuration; equal for equal seeds."""
    run = config.run
    if run.batch < world.size:
        raise BadSetting(
            f"run.batch {run.batch}", f"{world.size} processes train, one pair each at least"
        )
    device = pick_run_device(run.device)
    rows = read_rows(config, opener)
    description, model = start_model(config.model, device=device, seed=run.seed)
    if run.checkpointing:
        _checkpoint(model)
    if config.lora is not None:
        from mmsearch.retriever.training.lora import add_lora

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            add_lora(model, config.lora)
    objective = seeded_objective(config, model, description)
    collate = MediaCollate(model.backbone, opener, max_text=config.data.max_text)
    prepared = assembled(config, model, description, objective, rows, collate)
    if all(name.startswith(EXTRAS) for name in prepared.optimiser.parameters):
        raise BadSetting("model.frozen", "nothing of the model is left that could learn")
    return prepared


def seeded_objective(
    config: TrainingConfig, model: Model, description: ModelDescription
) -> Objective:
    """Return the recipe of a run on the model's device; equal seeds draw equal extras."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed + 1)
        objective = build_objective(config.objective, model, readout=description.readout)
    objective.extras.to(next(model.parameters()).device)
    return objective


def assembled(
    config: TrainingConfig,
    model: Model,
    description: ModelDescription,
    objective: Objective,
    rows: TrainingRows,
    collate: MediaCollate,
) -> Prepared:
    """Return a run of these parts, with its plan, its number of steps and its optimiser."""
    run = config.run
    plan = BatchPlan(rows.train, batch=run.batch, seed=run.seed)
    num_steps = run.steps or max(round(run.epochs * plan.steps_per_epoch), 1)
    parts = parts_of(model, objective)
    optimiser = Optimiser(
        parts,
        config.optimiser,
        stages=objective.stages,
        num_steps=num_steps,
        new=frozenset(name for name, _ in parts.get("fresh", ())),
    )
    device = next(model.parameters()).device
    return Prepared(
        config, device, description, model, objective, rows, plan, num_steps, optimiser, collate
    )


def estimated_bytes(prepared: Prepared, world: World) -> dict[str, int]:
    """Return about what a process of the run holds: weights, optimiser, one chunk's work.

    The first two are counted. The work of a chunk is that of embedding its items, KEPT times
    over for what the way back needs: it tells 4 GB from 40, and not from 5.
    """
    config, model = prepared.config, prepared.model
    learning = count(prepared.optimiser.parameters.values())
    weights = sum(one.numel() * one.element_size() for one in model.state_dict().values())
    per_weight = 3 + bool(config.optimiser.ema)  # gradient and two moments
    chunk = config.run.chunk or -(-config.run.batch // world.size)
    sizes = [_tokens(prepared, number) for number in range(min(len(prepared.rows.train), 8))]
    kept = 1 if config.run.checkpointing else KEPT[config.run.dtype]
    work = chunk * max(sizes, default=0) * model.backbone.token_bytes * kept
    return {
        "weights": weights,
        "optimiser": learning * FLOAT_BYTES * per_weight,
        "chunk": work,
    }


def _tokens(prepared: Prepared, number: int) -> int:
    """Return about how many tokens both sides of a row are; 0 where it cannot be opened."""
    from mmsearch.errors import MMSearchError

    example = prepared.rows.train[number]
    try:
        items = [prepared.collate.item(side) for side in (example.query, example.positive)]
    except MMSearchError:
        return 0
    return sum(prepared.model.backbone.num_tokens(item) for item in items)


def _checkpoint(model: Model) -> None:
    from mmsearch.retriever.models.backbones.checkpointing import use_checkpointing

    use_checkpointing(model.backbone, True)
