"""Measure and calibrate an embedder on the two books that nothing was trained on.

    embedder, pairs, paragraphs -> figures for the model card, Calibration for each side

It sees what ships: the checkpoint is read back before it is measured.
"""

import random
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmsearch.retriever.seams import Calibration, Embedder
from mmsearch.retriever.training.calibrate import best_wrong, fit
from mmsearch.retriever.training.pairs import Pair, Paragraph, first_sentence, open_picture
from mmsearch.retriever.training.probe import Figure, own, recall
from mmsearch.values import Item, View

PROBE_VIEW = 9  # a changed view that training never saw
PARAGRAPHS = 2_000


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
        (text, text): _calibrate(captions[asked], passages, by_caption[asked]),
        (text, visual): _calibrate(words, pictures, right),
        (visual, visual): _calibrate(changed, pictures, own(count)),
        (visual, text): _calibrate(pictures, words, right.T),
    }
    return figures, calibration


def _calibrate(queries: Tensor, pool: Tensor, relevant: Tensor) -> Calibration:
    right = (queries @ pool.T).masked_fill(~relevant, -2.0).amax(dim=1)
    return fit(right, best_wrong(queries, pool, relevant, seed=0))


def _same_module(pairs: Sequence[Pair], paragraphs: Sequence[Paragraph]) -> Tensor:
    homes = [(one.book, one.module) for one in paragraphs]
    return torch.tensor([[(pair.book, pair.module) == home for home in homes] for pair in pairs])


def _embed(embedder: Embedder, items: list[Item]) -> Tensor:
    return torch.from_numpy(embedder.embed(items))
