"""A run's snapshot into a model folder that everything else of mmsearch reads.

    config.json, snapshot --start again, take the weights--> Model --merge LoRA--> folder
                          --held-out pairs--> how a cosine reads --> mmsearch.json

What never learnt is made again from where the run started; what only training needs (LaME's
decoder, LoRA's small matrices, AdamW's moments) stays behind. Weights are float32, or int8
rows where that is asked for. A folder is written under another name and gets its own when it
is whole.
"""

import dataclasses
import itertools
import logging
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from mmsearch.errors import BadInput, BadTrainingFile, UnreadableFile
from mmsearch.retriever.embedding.load import load_described
from mmsearch.retriever.models.checkpoint import Model, write_checkpoint
from mmsearch.retriever.models.description import ModelDescription
from mmsearch.retriever.seams import Calibration, Embedder
from mmsearch.retriever.training.calibrate import calibrate
from mmsearch.retriever.training.config import TrainingConfig
from mmsearch.retriever.training.examples import Example
from mmsearch.retriever.training.guard import Guard
from mmsearch.retriever.training.loading import MediaCollate, Opener, open_still
from mmsearch.retriever.training.looks import content_key
from mmsearch.retriever.training.lora import add_lora, merge_lora
from mmsearch.retriever.training.optimiser import count
from mmsearch.retriever.training.preparing import kept_back, read_rows
from mmsearch.retriever.training.records import open_rows
from mmsearch.retriever.training.snapshots import (
    Snapshot,
    final_weights,
    find_snapshot,
    read_run_config,
    refuse_other_start,
)
from mmsearch.retriever.training.starting import start_hash, start_model
from mmsearch.values import Item, Role, Text, View

logger = logging.getLogger(__name__)

EXTRAS = "extras."  # before the names of what is trained and not exported
MOST_PAIRS = 1_000  # held-out pairs that a calibration is measured on
MOST_FLOP = 1e14  # or as many as take a core some ten minutes: eight photographs of a 2B model
AT_ONCE = 16  # pairs that are open at a time: a photograph is 7 MB
FEWEST_PAIRS = 20  # fewer of one kind say nothing
SLOPES = (1.0, 100.0)  # where few pairs are told apart perfectly, the slope has no end


def export_run(
    run: Path,
    out: Path,
    *,
    step: int | None = None,
    quantise: bool = False,
    opener: Opener = open_still,
) -> ModelDescription:
    """Write the model of a run's newest snapshot, or of that of ``step``, into ``out``.

    Its vectors are, in float32, those the trained model has, to the bit; with LoRA, those it
    has once that is merged; with ``quantise``, near them. Where the run kept averages of its
    weights they are the model's. Raises BadInput where ``out`` holds something, where the run
    is none or lacks the snapshot, or where the model it started from is another one now.
    """
    _refuse_full(out)
    config = read_run_config(run)
    snapshot = find_snapshot(run, step)
    description, model = trained_model(run, snapshot)
    about = f"{description.about}; trained for {snapshot.step} steps"
    description = dataclasses.replace(
        description, name=config.model.name or out.absolute().name, about=about
    )
    try:
        kept_back = held_out_pairs(config)
    except BadTrainingFile as error:  # a model can be used where its data are not
        logger.warning("%s: how its cosines read is not measured anew", error)
        kept_back = []
    return export_model(
        model, description, out, quantise=quantise, held_out=kept_back, opener=opener
    )


def held_out_pairs(config: TrainingConfig) -> list[Example]:
    """Return the pairs that a run kept back, at most MOST_PAIRS, spread over all of them.

    They are those of `preparing.read_rows`, without looking at what was trained on.
    """
    data = config.data
    if data.toy:
        held_out = read_rows(config).held_out
    elif data.held_out:
        held_out = open_rows(data.held_out)
    elif data.held_out_share:
        rows = open_rows(data.train)
        held_out, _ = kept_back(rows, data.held_out_share, seed=config.run.seed)
    else:
        return []
    held_out, _ = Guard(looks=False).clean(held_out)  # without those that give themselves away
    stride = max(len(held_out) / MOST_PAIRS, 1.0)
    return [held_out[int(i * stride)] for i in range(min(len(held_out), MOST_PAIRS))]


def trained_model(run: Path, snapshot: Snapshot) -> tuple[ModelDescription, Model]:
    """Return the model of a snapshot, LoRA merged, as it is to be used.

    Raises BadInput where the snapshot's weights are not those of such a model, and where the
    run's start is not what it was.
    """
    config = read_run_config(run)
    description, model = start_model(config.model, seed=config.run.seed)
    refuse_other_start(run, start_hash(model))
    if config.lora is not None:
        with torch.random.fork_rng(devices=[]):  # what it draws is overwritten at once
            add_lora(model, config.lora)
    known = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in final_weights(snapshot).items():
            if name.startswith(EXTRAS):
                continue
            if name not in known or known[name].shape != weight.shape:
                error = BadInput(f"{snapshot.folder} has {name}, which its model has not so")
                error.hint = f"the run started from {config.model.start}: is that another one now?"
                raise error
            known[name].copy_(weight)
    merge_lora(model)
    return description, model.requires_grad_(False).eval()


def export_model(
    model: Model,
    description: ModelDescription,
    out: Path,
    *,
    quantise: bool = False,
    held_out: Sequence[Example] = (),
    opener: Opener = open_still,
) -> ModelDescription:
    """Write a model into the new folder ``out``, and return its description.

    How its cosines read is measured on ``held_out``, by the model as it was written; without
    such pairs the description's own calibration stays.
    """
    with _written_whole(out) as work:
        described = write_checkpoint(work, model, description, quantise=quantise)
        if held_out:
            embedder = load_described(work, described, device="cpu", dtype="float32", num_threads=1)
            sides = calibration_of(
                embedder,
                MediaCollate(model.backbone, opener),
                held_out,
                flop_of=_flop_of(model),
            )
            if not sides:
                logger.warning("%s: how its cosines read is not measured anew", out)
            described = dataclasses.replace(
                described, calibration={**described.calibration, **sides}
            )
            described.write(work)
    return described


def calibration_of(
    embedder: Embedder,
    collate: MediaCollate,
    held_out: Sequence[Example],
    *,
    flop_of: Callable[[Item], float] | None = None,
) -> Mapping[tuple[View, View], Calibration]:
    """Return how a cosine reads for each kind of query and of segment, by pairs kept back.

    A pair also speaks for the way back. Kinds that are too few get what all pairs together
    say; nothing is returned where even those are too few. Pairs that cannot be opened are
    left out, and those beyond MOST_FLOP, where ``flop_of`` says what an item costs.
    """
    opened = _opened(collate, held_out)
    if flop_of is not None:
        opened = _affordable(opened, flop_of)
    vectors: tuple[list[Tensor], list[Tensor]] = [], []
    keys: list[tuple[int, int]] = []
    kinds: dict[tuple[View, View], list[int]] = {}
    while pairs := list(itertools.islice(opened, AT_ONCE)):
        for query, answer in pairs:
            kinds.setdefault((view_of(query), view_of(answer)), []).append(len(keys))
            keys.append((content_key(query), content_key(answer)))
        for side, role in enumerate((Role.QUERY, Role.DOCUMENT)):
            found = embedder.embed([pair[side] for pair in pairs], role=role)
            vectors[side].append(torch.from_numpy(found))
    if len(keys) < FEWEST_PAIRS:
        return {}
    queries, answers = (torch.cat(side) for side in vectors)
    everything = _fitted(queries, answers, keys)
    measured: dict[tuple[View, View], Calibration | None] = {}
    for kind, rows in kinds.items():
        if len(rows) >= FEWEST_PAIRS:
            own = [keys[i] for i in rows]
            back = [(answer, query) for query, answer in own]
            measured[kind] = _fitted(queries[rows], answers[rows], own)
            if (kind[1], kind[0]) not in kinds:
                measured[kind[1], kind[0]] = _fitted(answers[rows], queries[rows], back)
    sides = {
        (one, other): measured.get((one, other)) or everything for one in View for other in View
    }
    return {kind: one for kind, one in sides.items() if one}


def view_of(item: Item) -> View:
    """Return which side an item is: of words alone, or of something to look at."""
    has_words_only = all(isinstance(part, Text) for part in item.parts)
    return View.TEXT if has_words_only else View.VISUAL


def _opened(collate: MediaCollate, examples: Sequence[Example]) -> Iterator[tuple[Item, Item]]:
    for example in examples:
        try:
            yield collate.item(example.query), collate.item(example.positive)
        except UnreadableFile:
            continue


def _affordable(
    pairs: Iterator[tuple[Item, Item]], flop_of: Callable[[Item], float]
) -> Iterator[tuple[Item, Item]]:
    """Yield the first pairs, as many as MOST_FLOP embeds."""
    spent = 0.0
    for query, answer in pairs:
        spent += flop_of(query) + flop_of(answer)
        if spent > MOST_FLOP:
            return
        yield query, answer


def _flop_of(model: Model) -> Callable[[Item], float]:
    """Return what tells about how many operations it takes to embed an item."""
    a_token = 2.0 * count(model.parameters())
    return lambda item: a_token * model.backbone.num_tokens(item)


def _fitted(queries: Tensor, pool: Tensor, keys: Sequence[tuple[int, int]]) -> Calibration | None:
    """Return the calibration of rows that belong together, or None where none can be fitted.

    ``keys`` are the contents of both sides: a query's own answers are those that any query of
    the same content has, and entries of the same content as one of them.
    """
    answers: dict[int, set[int]] = {}
    for query, answer in keys:
        answers.setdefault(query, set()).add(answer)
    relevant = torch.tensor([[other in answers[query] for _, other in keys] for query, _ in keys])
    if bool(relevant.all(dim=1).any()):  # nothing is wrong for one of them
        return None
    midpoint, slope = calibrate(queries, pool, relevant, seed=0)
    if not (math.isfinite(midpoint) and math.isfinite(slope)) or slope <= 0:
        return None
    return Calibration(midpoint, min(max(slope, SLOPES[0]), SLOPES[1]))


@contextmanager
def _written_whole(out: Path) -> Iterator[Path]:
    """Give a new folder that becomes ``out`` in the end; raises BadInput where it cannot."""
    _refuse_full(out)
    work = out.absolute().with_name(f".{out.absolute().name}.{secrets.token_hex(4)}.part")
    try:
        work.mkdir(parents=True)
        yield work
        os.replace(work, out)
    except OSError as error:
        raise BadInput(
            f"{out} cannot be written: {(error.strerror or str(error)).lower()}"
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _refuse_full(out: Path) -> None:
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        error = BadInput(f"{out} is there already")
        error.hint = "name a folder that does not exist yet"
        raise error
