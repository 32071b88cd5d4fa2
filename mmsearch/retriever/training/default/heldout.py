"""Measure and calibrate a model folder on the books that nothing was trained on.

    folder, data -> figures for the model card, Calibration for each side

``python -m mmsearch.retriever.training.default.heldout --data DIR --model DIR [--out JSON]``
asks the model as a user's searches do, from files on: prints the figures and writes the
calibration into its ``mmsearch.json``.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmsearch.retriever.embedding.load import load_embedder
from mmsearch.retriever.models.description import read_description
from mmsearch.retriever.seams import Calibration, Embedder
from mmsearch.retriever.training.calibrate import calibrate
from mmsearch.retriever.training.default.pairs import HELD_OUT, first_sentence, read_pairs
from mmsearch.retriever.training.default.probe import TABLE_HEAD, own
from mmsearch.retriever.training.default.tasks import Task, key_of, measure, tasks_of, vectors_of
from mmsearch.retriever.training.examples import Side
from mmsearch.values import Item, View

AT_ONCE = 64


def measure_folder(data: Path, model: Path) -> dict[str, Any]:
    """Measure the model in that folder, print it, and write its calibration there."""
    pairs = read_pairs(data)
    tasks = tasks_of(data, pairs, HELD_OUT, seed=0)
    embedder = load_embedder(model, device="cpu")
    vectors = vectors_of(tasks, lambda sides: embed(embedder, sides))
    figures = measure(tasks, vectors)
    shorts = [Side((first_sentence(one.alt),)) for one in pairs if one.book in HELD_OUT]
    calibration = calibrated(tasks, vectors, embed(embedder, shorts))
    dataclasses.replace(read_description(model), calibration=calibration).write(model)
    print(TABLE_HEAD, *figures, sep="\n")
    for (query, segment), fitted in calibration.items():
        print(f"{query} -> {segment}: 0.5 at {fitted.midpoint}, slope {fitted.slope}")
    return {"figures": [dataclasses.asdict(figure) for figure in figures]}


def calibrated(
    tasks: Sequence[Task], vectors: Mapping[tuple[str, ...], Tensor], shorts: Tensor
) -> Mapping[tuple[View, View], Calibration]:
    """Return the calibration of the four sides.

    shorts: the first sentences of all pictures' descriptions, in the order of the pictures
    """
    by_name = {task.name: task for task in tasks}

    def rows(sides: Sequence[Side]) -> Tensor:
        return torch.stack([vectors[key_of(side)] for side in sides])

    shown = by_name["caption -> figure, pixels only"]
    changed = by_name["changed picture -> the picture"]
    told = by_name["caption -> paragraph"]
    pictures = rows(shown.pool)
    words = torch.cat([shorts, rows(shown.queries)])
    right = torch.cat([own(len(pictures)), shown.relevant])
    text, visual = View.TEXT, View.VISUAL
    return {
        (text, text): calibrate(rows(told.queries), rows(told.pool), told.relevant, seed=0),
        (text, visual): calibrate(words, pictures, right, seed=0),
        (visual, visual): calibrate(rows(changed.queries), pictures, changed.relevant, seed=0),
        (visual, text): calibrate(pictures, words, right.T, seed=0),
    }


def embed(embedder: Embedder, sides: Sequence[Side]) -> Tensor:
    """Return the vectors ``[n, d]`` of sides, their pictures opened a few at a time."""
    found = []
    for start in range(0, len(sides), AT_ONCE):
        items = [
            Item([part if isinstance(part, str) else part.open() for part in side.parts])  # type: ignore[union-attr]
            for side in sides[start : start + AT_ONCE]
        ]
        found.append(torch.from_numpy(embedder.embed(items)))
    return torch.cat(found)


def main() -> None:
    """Measure the model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="a model folder")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    figures = measure_folder(asked.data, asked.model)
    if asked.out:
        asked.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
