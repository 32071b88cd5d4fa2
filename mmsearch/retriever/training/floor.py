"""Make the default model: ``python -m mmsearch.retriever.training.floor --data DIR --out DIR``.

    original towers -> cached features -> head -> trunk -> int8 checkpoint
                    -> held-out figures and calibration of what was written

Needs the ``train`` extra and a folder of figures laid out as `pairs.read_pairs` reads it.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch
from torch import Tensor

from mmsearch.retriever.models.backbones.default import DefaultBackbone
from mmsearch.retriever.models.checkpoint import write_checkpoint
from mmsearch.retriever.training.contrastive import HeadRecipe, train_head
from mmsearch.retriever.training.features import picture_features, text_features
from mmsearch.retriever.training.heldout import measure_folder
from mmsearch.retriever.training.pairs import (
    Pair,
    first_sentence,
    read_pairs,
    split,
)
from mmsearch.retriever.training.start import describe, starting_model
from mmsearch.retriever.training.trunk import TrunkRecipe, train_trunk

VIEWS = (0, 1)


def main() -> None:
    """Train, write, read back, measure."""
    asked = _arguments()
    torch.set_num_threads(asked.threads)
    started = time.process_time()
    model = starting_model(asked.data, seed=asked.seed)
    backbone = model.backbone
    pairs = read_pairs(asked.data)
    views = [
        picture_features(
            backbone,
            [pair.path for pair in pairs],
            asked.cache / f"pictures-{backbone.config.image_area}-{view}.safetensors",
            view=view,
        )["pooled"]
        for view in VIEWS
    ]
    words = words_of(backbone, pairs, asked.cache)
    train, held_out = split(pairs, views[0])
    print(f"{len(train)} training pairs, {len(held_out)} held out")

    train_views, train_words = [view[train] for view in views], [kind[train] for kind in words]
    head = HeadRecipe(epochs=asked.epochs, dropout=asked.dropout, seed=asked.seed)
    train_head(backbone, train_views, train_words, head)
    paths = [pairs[i].path for i in train]
    trunk = TrunkRecipe(steps=asked.trunk_steps, dropout=asked.dropout, seed=asked.seed)
    train_trunk(backbone, paths, train_views, train_words, trunk)
    print(f"trained after {time.process_time() - started:.0f} CPU s")

    write_checkpoint(asked.out, model, describe(backbone), quantise=True)
    figures = measure_folder(asked.data, asked.out)
    report = {
        "head": dataclasses.asdict(head),
        "trunk": dataclasses.asdict(trunk),
        "figures": [dataclasses.asdict(figure) for figure in figures],
    }
    (asked.cache / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def words_of(backbone: DefaultBackbone, pairs: list[Pair], cache: Path) -> list[Tensor]:
    """Return MiniLM's vectors of alt texts, their first sentences, and captions.

    A pair without a caption has a row of zeros there.
    """
    captions = [pair.caption for pair in pairs]
    said = text_features(backbone, captions, cache / "caption.safetensors")
    said = said * torch.tensor([bool(caption) for caption in captions])[:, None]
    return [
        text_features(backbone, [pair.alt for pair in pairs], cache / "alt.safetensors"),
        text_features(
            backbone, [first_sentence(pair.alt) for pair in pairs], cache / "short.safetensors"
        ),
        said,
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="figures/, text/, weights/, ...")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument(
        "--cache", type=Path, required=True, help="features are kept here between runs"
    )
    parser.add_argument("--epochs", type=int, default=HeadRecipe.epochs)
    parser.add_argument("--dropout", type=float, default=HeadRecipe.dropout)
    parser.add_argument("--trunk-steps", type=int, default=TrunkRecipe.steps)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
