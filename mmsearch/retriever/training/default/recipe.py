"""Make the default model: ``python -m mmsearch.retriever.training.default.recipe --data DIR``.

    base      original towers -> every layer of MobileNetV2 a little further -> heads -> turn
    caches    the mix of training rows through the towers, once
    kinds     none, LaME, PLUME (from LaME's decoder): the decoder behind a gate
    choose    on VALIDATION books: the best of base and kinds, the cheapest of those level
    refit     where the base won: its heads on the validation books too
    ship      int8 folder, calibrated and measured on HELD_OUT books as it was written

Needs the ``train`` extra and the folder of development data. Everything is kept in --work,
and a command that was stopped goes on where it was; ``results.json`` there is what the model
card's tables are written from.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmsearch.retriever.models.backbones.default import DefaultBackbone
from mmsearch.retriever.models.checkpoint import (
    ROW_WORTH_QUANTISING,
    Model,
    read_checkpoint,
    write_checkpoint,
)
from mmsearch.retriever.models.description import ModelDescription
from mmsearch.retriever.models.head import TurnedHead
from mmsearch.retriever.models.none import NoneConfig, NoReasoner
from mmsearch.retriever.models.quantise import dequantise_rows, quantise_rows
from mmsearch.retriever.training.default.caches import (
    CachedCollate,
    PictureCache,
    TextCache,
    pictures_of,
    texts_of,
    training_pairs,
)
from mmsearch.retriever.training.default.compare import Asked
from mmsearch.retriever.training.default.features import words_of
from mmsearch.retriever.training.default.heads import HeadsRecipe, train_heads
from mmsearch.retriever.training.default.heldout import measure_folder
from mmsearch.retriever.training.default.mix import MixSizes, photo_of, read_mix
from mmsearch.retriever.training.default.pairs import HELD_OUT, VALIDATION, Pair, read_pairs
from mmsearch.retriever.training.default.pictures import Viewed
from mmsearch.retriever.training.default.reasoners import Thinned, kind_config, train_reasoner
from mmsearch.retriever.training.default.start import describe, starting_model
from mmsearch.retriever.training.default.tasks import Probed
from mmsearch.retriever.training.default.trunk import TrunkRecipe, train_trunk
from mmsearch.retriever.training.examples import Collate, Example, Picture
from mmsearch.retriever.training.export import trained_model
from mmsearch.retriever.training.loop import TrainingProgress
from mmsearch.retriever.training.snapshots import find_snapshot

SIZES = MixSizes(
    drawn={"chart": 2_500, "graph": 700, "diagram": 1_000, "table": 400, "slide": 400,
           "shapes": 600, "scene": 400},
    pages=900, photos=500, changes=3, composed_charts=250, composed_figures=400, clips=400,
    moving=200, definitions=2_000, titles=1_500, cloze=3_500, captions=3_000,
)  # fmt: skip
HEAD_WIDTH, WORDS_WIDTH = 1_280, 0
TEXT_TOKENS = 64
# What a core of a laptop does in some ten minutes each; ``--set`` says otherwise.
STEPS = ("run.device=cpu", "run.batch=128", "run.probe_every=0", "optimiser.learning_rate=8e-4")
OF_KIND = {
    "none": ("run.steps=300",),
    "lame": ("run.steps=300", "objective.max_rationale_tokens=12"),
    "plume": ("run.steps=200",),
}
EFFORTS = {"none": (0,), "lame": (8,), "plume": (0, 2, 4, 8)}
LEVEL = 0.01  # means of recall that differ by less are level


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """Where everything is kept; ``held_out`` is what no training row comes from."""

    data: Path
    folder: Path
    seed: int = 0
    sizes: MixSizes = SIZES
    held_out: tuple[str, ...] = (*HELD_OUT, *VALIDATION)

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def final(self) -> Path:
        return self.folder / "final"

    def run(self, kind: str) -> Path:
        return self.folder / "runs" / kind


# ---------------------------------------------------------------- base


def make_base(
    work: Work, *, vision: Path | None = None, trunk: TrunkRecipe, heads: HeadsRecipe
) -> None:
    """Write the base into ``work.base``: towers, heads and the turn, without a reasoner.

    vision: a model folder whose vision tower is taken instead of training one further
    """
    if (work.base / "mmsearch.json").exists():
        return
    model = starting_model(
        work.data, seed=work.seed, head_width=HEAD_WIDTH, words_width=WORDS_WIDTH
    )
    backbone: DefaultBackbone = model.backbone
    pairs, kept, train, _ = training_pairs(
        backbone, work.data, work.folder / "start", books=work.held_out
    )
    words = [one[train] for one in words_of(backbone, pairs, work.folder / "start")]
    if vision is None:
        plain = _pooled(kept, [photo_of(work.data, pairs[i]).key for i in train])
        train_heads(backbone, [plain], words, dataclasses.replace(heads, members=1, epochs=10))
        train_trunk(backbone, [pairs[i].path for i in train], [plain], words, trunk)
    else:
        backbone.vision = read_checkpoint(vision)[1].backbone.vision
    round_weights(backbone.vision)  # so that features are those of the file that is written
    examples, _, _ = open_mix(work, backbone, [pairs[i] for i in train])
    fit_heads(work, model, [pairs[i] for i in train], words, heads)
    head = model.head
    made = Model(backbone, NoReasoner(NoneConfig(), backbone), head).eval()
    described = dataclasses.replace(describe(backbone), head="turned")
    write_checkpoint(work.base, made, described)
    print(f"base: {len(examples)} rows in the mix, {len(train)} pairs", flush=True)


def fit_heads(
    work: Work, model: Model, train: Sequence[Pair], words: Sequence[Tensor], heads: HeadsRecipe
) -> None:
    """Train the heads of ``model`` on three views of each picture, and turn what they make."""
    backbone = model.backbone
    photos = [photo_of(work.data, pair) for pair in train]
    kinds: list[Sequence[Picture]] = [
        photos,
        [Viewed(one, 1) for one in photos],
        [Probed(one, 1) for one in photos],
    ]
    every = [picture for kind in kinds for picture in kind]
    cache = PictureCache(work.folder / f"cache/views-{len(photos)}", every, backbone)
    cache.fill(backbone, say=True)
    views = [_pooled(cache, [one.key for one in kind]) for kind in kinds]
    train_heads(backbone, views, words, heads)
    with torch.no_grad():
        seen = torch.cat([backbone.pictures_base(rows) for rows in torch.split(views[0], 1_024)])
        told = torch.cat([backbone.words_base(one[one.any(dim=1)]) for one in words])
        few = torch.randperm(len(told), generator=torch.Generator().manual_seed(work.seed))
        model.head = TurnedHead(backbone.width, backbone.dim)
        model.head.turn_towards(torch.cat([seen, told[few[: len(seen)]]]))


def refit(work: Work, heads: HeadsRecipe) -> None:
    """Write the base with heads that have seen the validation books too, once all is chosen."""
    if (work.final / "mmsearch.json").exists():
        return
    described, model = read_checkpoint(work.base)
    start = work.folder / "final-start"
    pairs, _, train, _ = training_pairs(model.backbone, work.data, start, books=HELD_OUT)
    words = [one[train] for one in words_of(model.backbone, pairs, work.folder / "start")]
    fit_heads(work, model, [pairs[i] for i in train], words, heads)
    write_checkpoint(work.final, model.eval(), described)


def open_mix(
    work: Work, backbone: DefaultBackbone, train: Sequence[Pair]
) -> tuple[list[Example], PictureCache, TextCache]:
    """Return the rows of the mix and what the towers make of them, computed where missing."""
    examples = read_mix(work.data, train, seed=work.seed, sizes=work.sizes, held_out=work.held_out)
    cache = work.folder / "cache"
    photos = [photo_of(work.data, pair) for pair in read_pairs(work.data)]
    originals = PictureCache(cache / "originals", photos, backbone)
    pictures = PictureCache(cache / "pictures", pictures_of(examples), backbone, beside=originals)
    texts = TextCache(cache / "texts", texts_of(examples), backbone, max_tokens=TEXT_TOKENS)
    originals.fill(backbone, say=True)
    pictures.fill(backbone, say=True)
    texts.fill(say=True)
    return examples, pictures, texts


def round_weights(module: nn.Module) -> None:
    """Round every matrix as an int8 file does, which rounding it again does not change."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim >= 2 and parameter[0].numel() >= ROW_WORTH_QUANTISING:
                parameter.copy_(dequantise_rows(*quantise_rows(parameter)))


def _pooled(cache: PictureCache, keys: Sequence[str]) -> Tensor:
    return torch.from_numpy(np.stack([cache.features(key)[0][0] for key in keys])).float()


# ---------------------------------------------------------------- kinds


def train_kind(work: Work, kind: str, overrides: Sequence[str] = ()) -> None:
    """Train one kind of reasoner on the base, or go on with it."""
    config = kind_config(kind, work.base, (*STEPS, *OF_KIND[kind], *overrides))
    backbone = read_checkpoint(work.base)[1].backbone
    _, _, train, _ = training_pairs(backbone, work.data, work.folder / "start", books=work.held_out)
    pairs = read_pairs(work.data)
    examples, pictures, texts = open_mix(work, backbone, [pairs[i] for i in train])

    def collate_for(other: DefaultBackbone) -> Collate:
        collate = CachedCollate(other, pictures, texts)
        return Thinned(collate) if kind == "plume" else collate

    carry = work.run("lame") if kind == "plume" and work.run("lame").exists() else None
    began = time.process_time()
    report = train_reasoner(
        config, work.run(kind), collate_for, examples, [], carry=carry, on_progress=_say
    )
    spent = time.process_time() - began
    print(f"{kind}: {report.steps} steps, {spent:.0f} CPU s", flush=True)


def _say(progress: TrainingProgress) -> None:
    if progress.step % 10 == 0:
        line = progress.line
        told = {name: round(part, 3) for name, part in line["parts"].items()}
        left = f"{progress.eta_s:.0f} s left"
        print(f"{progress.step} {line['stage']} {line['loss']:.3f} {told} {left}", flush=True)


# ---------------------------------------------------------------- choose and ship


def compare(work: Work, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Return the figures of the base and of each kind at its efforts, on both sets of books."""
    backbone = read_checkpoint(work.base)[1].backbone
    pairs = read_pairs(work.data)
    rows = []
    for name, books in (("validation", VALIDATION), ("held out", HELD_OUT)):
        asked = Asked.of(
            name, books, data=work.data, cache=work.folder / "cache", pairs=pairs,
            backbone=backbone, seed=work.seed,
        )  # fmt: skip
        for kind in ("base", *kinds):
            description, model = _made(work, kind)
            for effort in EFFORTS.get(kind, (0,)):
                row = asked.figures(model, description, effort=effort)
                rows.append({"model": kind, **row})
                print(f"{name}: {kind} at effort {effort}, {score(row):.3f}", flush=True)
    return rows


def _made(work: Work, kind: str) -> tuple[ModelDescription, Model]:
    if kind in ("base", "final"):
        return read_checkpoint(work.folder / kind)
    return trained_model(work.run(kind), find_snapshot(work.run(kind)))


def score(row: dict[str, Any]) -> float:
    """Return what is chosen by: the mean R@10 of all tasks at the full dimension."""
    figures = row["figures"]["384"]
    return float(sum(one["recall_at_10"] for one in figures) / len(figures))


def chosen(rows: Sequence[dict[str, Any]]) -> tuple[str, int]:
    """Return the kind and effort that win on the validation books; level ones go to the cheaper.

    ``rows`` come in the order of their cost at the same effort.
    """
    here = sorted((row for row in rows if row["set"] == "validation"), key=lambda r: r["effort"])
    best = max(score(row) for row in here)
    winner = next(row for row in here if score(row) >= best - LEVEL)
    return str(winner["model"]), int(winner["effort"])


def ship(work: Work, kind: str, effort: int, out: Path) -> None:
    """Write the model int8 into ``out``, and measure and calibrate what was written."""
    description, model = _made(work, kind)
    described = dataclasses.replace(
        description, name="default", effort=effort, about=describe(model.backbone).about, files={}
    )
    write_checkpoint(out, model, described, quantise=True)
    measure_folder(work.data, out)


def main() -> None:
    """Do everything that is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="figures/, text/, weights/, ...")
    parser.add_argument("--work", type=Path, default=Path("runs/default"), help="kept in between")
    parser.add_argument("--out", type=Path, help="the model folder; WORK/model if not named")
    parser.add_argument("--vision", type=Path, help="a model folder to take the vision tower of")
    parser.add_argument("--stage", choices=("base", "none", "lame", "plume", "ship"),
                        help="do this stage alone, as two processes can at a time")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], help="a key of configs/default.toml")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    work = Work(asked.data, asked.work, asked.seed)
    stages: dict[str, Callable[[], object]] = {
        "base": lambda: make_base(
            work, vision=asked.vision, trunk=TrunkRecipe(seed=asked.seed),
            heads=HeadsRecipe(seed=asked.seed),
        ),
        **{kind: partial(train_kind, work, kind, asked.set) for kind in OF_KIND},
        "ship": lambda: _compare_and_ship(
            work, asked.out or work.folder / "model", HeadsRecipe(seed=asked.seed)
        ),
    }  # fmt: skip
    for name, stage in stages.items():
        if asked.stage in (None, name):
            stage()


def _compare_and_ship(work: Work, out: Path, heads: HeadsRecipe) -> None:
    rows = compare(work, [kind for kind in OF_KIND if work.run(kind).exists()])
    kind, effort = chosen(rows)
    results = {"seed": work.seed, "chosen": {"model": kind, "effort": effort}, "rows": rows}
    (work.folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"chosen: {kind} at effort {effort}", flush=True)
    if kind == "base":  # a decoder stands on the heads that it was trained on
        refit(work, heads)
        kind = "final"
    ship(work, kind, effort, out)


if __name__ == "__main__":
    main()
