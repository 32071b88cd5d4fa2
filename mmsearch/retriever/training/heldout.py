"""Measure and calibrate a model on the two books that nothing was trained on.

    embedder, pairs, paragraphs -> figures for the model card, Calibration for each side

``python -m mmsearch.retriever.training.heldout --data DIR --model DIR`` does it to a model
folder: prints the figures and writes the calibration into its ``mmsearch.json``.
"""

import argparse
import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmsearch.retriever.embedding.load import load_embedder
from mmsearch.retriever.models.description import read_description
from mmsearch.retriever.seams import Calibration, Embedder
from mmsearch.retriever.training.calibrate import calibrate
from mmsearch.retriever.training.pairs import (
    HELD_OUT,
    Pair,
    Paragraph,
    first_sentence,
    open_picture,
    read_pairs,
    read_paragraphs,
)
from mmsearch.retriever.training.probe import TABLE_HEAD, Figure, own, recall
from mmsearch.values import Item, View

PROBE_VIEW = 9  # a changed view that training never saw
PARAGRAPHS = 2_000


def measure_folder(data: Path, model: Path) -> list[Figure]:
    """Measure the model in that folder, print it, and write its calibration there."""
    pairs = read_pairs(data)
    figures, calibration = measure(
        load_embedder(model, device="cpu"),
        [pair for pair in pairs if pair.book in HELD_OUT],
        read_paragraphs(data, pairs),
    )
    dataclasses.replace(read_description(model), calibration=calibration).write(model)
    print(TABLE_HEAD, *figures, sep="\n")
    for (query, segment), fitted in calibration.items():
        print(f"{query} -> {segment}: 0.5 at {fitted.midpoint}, slope {fitted.slope}")
    return figures


def measure(
    embedder: Embedder, pairs: Sequence[Pair], paragraphs: Sequence[Paragraph]
) -> tuple[list[Figure], Mapping[tuple[View, View], Calibration]]:
    """Return the held-out figures and the calibration of the four sides.

    ``pairs`` and ``paragraphs`` are of the held-out books alone.
    """
    pictures = _embed(embedder, [Item([open_picture(pair.path)]) for pair in pairs])
    changed = _embed(embedder, [Item([open_picture(pair.path, view=PROBE_VIEW)]) for pair in pairs])
    alts = _embed(embedder, [Item([pair.alt]) for pair in pairs])
    shorts = _embed(embedder, [Item([first_sentence(pair.alt)]) for pair in pairs])
    captioned = [i for i, pair in enumerate(pairs) if pair.caption]
    captions = _embed(embedder, [Item([pairs[i].caption]) for i in captioned])

    drawn = random.Random(0).sample(list(paragraphs), min(PARAGRAPHS, len(paragraphs)))
    passages = _embed(embedder, [Item([one.text]) for one in drawn])
    by_caption = _same_module([pairs[i] for i in captioned], drawn)
    by_alt = _same_module(pairs, drawn)

    photos = [i for i, pair in enumerate(pairs) if pair.is_photo]
    told = [n for n, i in enumerate(captioned) if pairs[i].is_photo]
    told_photos = torch.tensor([captioned[n] for n in told])
    is_right = told_photos[:, None] == torch.tensor(photos)[None]
    count = len(pairs)
    own_caption = torch.tensor(captioned)[:, None] == torch.arange(count)[None]
    asked, described = by_caption.any(dim=1), by_alt.any(dim=1)
    figures = [
        recall("alt text -> photo", alts[photos], pictures[photos], own(len(photos))),
        recall("its first sentence -> photo", shorts[photos], pictures[photos], own(len(photos))),
        recall("caption -> photo", captions[told], pictures[photos], is_right),
        recall("alt text -> any figure", alts, pictures, own(count)),
        recall("caption -> any figure", captions, pictures, own_caption),
        recall("changed picture -> the picture", changed, pictures, own(count)),
        recall("caption -> paragraph", captions[asked], passages, by_caption[asked]),
        recall("alt text -> paragraph", alts[described], passages, by_alt[described]),
    ]
    text, visual = View.TEXT, View.VISUAL
    words = torch.cat([shorts, captions])
    right = torch.cat([own(count), own_caption])
    calibration = {
        (text, text): calibrate(captions[asked], passages, by_caption[asked], seed=0),
        (text, visual): calibrate(words, pictures, right, seed=0),
        (visual, visual): calibrate(changed, pictures, own(count), seed=0),
        (visual, text): calibrate(pictures, words, right.T, seed=0),
    }
    return figures, calibration


def _same_module(pairs: Sequence[Pair], paragraphs: Sequence[Paragraph]) -> Tensor:
    homes = [(one.book, one.module) for one in paragraphs]
    return torch.tensor([[(pair.book, pair.module) == home for home in homes] for pair in pairs])


def _embed(embedder: Embedder, items: list[Item]) -> Tensor:
    return torch.from_numpy(embedder.embed(items))


def main() -> None:
    """Measure the model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="a model folder")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    measure_folder(asked.data, asked.model)


if __name__ == "__main__":
    main()
