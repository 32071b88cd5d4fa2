"""What a default model is measured by, on books that nothing was trained on.

    pairs of some books, data folder -> tasks_of -> list[Task]
    tasks, embed (sides -> vectors)  -> measure  -> list[Figure], at full and at fewer dimensions

A task is queries, a pool, and which of the pool are right. Items are the sides that training
has, so a model can be asked through caches of features while it is compared, and through
its own folder in the end.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.retriever.training.default.clips import MOVES, Clip
from mmsearch.retriever.training.default.composed import held_out_composed
from mmsearch.retriever.training.default.mix import photo_of
from mmsearch.retriever.training.default.pairs import (
    Pair,
    first_sentence,
    open_picture,
    read_paragraphs,
)
from mmsearch.retriever.training.default.pictures import Photo
from mmsearch.retriever.training.default.probe import Figure, own, recall
from mmsearch.retriever.training.examples import Picture, Side
from mmsearch.values import Image

PROBE_VIEW = 9  # a changed view that training never saw
PARAGRAPHS = 2_000
CLIPS = 60
LIKENESSES = 500  # texts whose similarities are compared with MiniLM's
Embed = Callable[[Sequence[Side]], Tensor]


@dataclass(frozen=True, slots=True)
class Probed:
    """A picture cropped, perhaps mirrored, of other brightness, through JPEG at quality 40."""

    photo: Photo
    view: int = PROBE_VIEW

    @property
    def name(self) -> str:
        return f"{self.photo.name}, changed"

    @property
    def key(self) -> str:
        which = "" if self.view == PROBE_VIEW else f" {self.view}"
        return f"{self.photo.key} probed{which}"

    def open(self) -> Image:
        return open_picture(self.photo.root / self.photo.path, view=self.view)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Queries and a pool; ``relevant [q, p]`` is True at right answers."""

    name: str
    queries: Sequence[Side]
    pool: Sequence[Side]
    relevant: Tensor


def tasks_of(data: Path, pairs: Sequence[Pair], books: Sequence[str], *, seed: int) -> list[Task]:
    """Return the tasks over the pairs and paragraphs of ``books``, which are left out of training.

    pairs: all of them: a module belongs to the book whose figures name it
    """
    mine = [pair for pair in pairs if pair.book in books]
    photos = [photo_of(data, pair) for pair in mine]
    seen = [_side(photo) for photo in photos]
    alts = [_side(pair.alt) for pair in mine]
    shorts = [_side(first_sentence(pair.alt)) for pair in mine]
    captioned = [i for i, pair in enumerate(mine) if pair.caption]
    captions = [_side(mine[i].caption) for i in captioned]
    own_caption = torch.tensor(captioned)[:, None] == torch.arange(len(mine))[None]
    is_photo = torch.tensor([pair.is_photo for pair in mine])
    shown = is_photo.nonzero()[:, 0].tolist()
    told = [n for n, i in enumerate(captioned) if mine[i].is_photo]
    found = [
        Task("description -> photo", _at(alts, shown), _at(seen, shown), own(len(shown))),
        Task(
            "its first sentence -> photo", _at(shorts, shown), _at(seen, shown), own(len(shown))
        ),
        Task(
            "caption -> photo", _at(captions, told), _at(seen, shown), own_caption[told][:, shown]
        ),
        Task("description -> figure, pixels only", alts, seen, own(len(mine))),
        Task("caption -> figure, pixels only", captions, seen, own_caption),
        Task("changed picture -> the picture", [_side(Probed(p)) for p in photos], seen,
             own(len(mine))),
        *_clip_tasks(mine, photos, seed),
        *_composed_tasks([photos[i] for i in shown] or photos, seed),
        *_word_tasks(data, pairs, books, mine, captions, captioned, alts, seed),
    ]  # fmt: skip
    return [task for task in found if len(task.queries)]


def _clip_tasks(mine: Sequence[Pair], photos: Sequence[Photo], seed: int) -> Iterator[Task]:
    chance = random.Random(f"{seed} held-out clips")
    shown = [i for i, pair in enumerate(mine) if pair.is_photo]
    chosen = chance.sample(shown, min(CLIPS, len(shown)))
    clips, words, names = [], [], []
    for i in chosen:
        clips.append(_side(Clip((photos[i],), (chance.choice(list(MOVES)),))))
        words.append(_side(mine[i].alt))
        names.append(_side(f"a video of {first_sentence(mine[i].caption or mine[i].alt)}"))
    yield Task("description -> clip", words, clips, own(len(clips)))
    yield Task("name -> clip", names, clips, own(len(clips)))


def _composed_tasks(photos: Sequence[Photo], seed: int) -> Iterator[Task]:
    probe = held_out_composed(photos, seed=seed)
    pool = [_side(picture) for picture in probe.pool]
    right = torch.tensor(probe.answers)[:, None] == torch.arange(len(pool))[None]
    for name, wanted in (("a known change", True), ("a new change", False)):
        rows = [i for i, known in enumerate(probe.seen) if known is wanted]
        queries = [Side(probe.queries[i].parts) for i in rows]
        yield Task(f"picture and words -> changed picture, {name}", queries, pool, right[rows])


def _word_tasks(
    data: Path, pairs: Sequence[Pair], books: Sequence[str], mine: Sequence[Pair],
    captions: Sequence[Side], captioned: Sequence[int], alts: Sequence[Side], seed: int,
) -> Iterator[Task]:  # fmt: skip
    told = read_paragraphs(data, list(pairs), books=books)
    drawn = random.Random(seed).sample(told, min(PARAGRAPHS, len(told)))
    pool = [_side(one.text) for one in drawn]
    homes = [(one.book, one.module) for one in drawn]
    right = torch.tensor([[(pair.book, pair.module) == home for home in homes] for pair in mine])
    by_caption = right[list(captioned)]
    asked = by_caption.any(dim=1).nonzero()[:, 0].tolist()
    described = right.any(dim=1).nonzero()[:, 0].tolist()
    yield Task("caption -> paragraph", _at(captions, asked), pool, by_caption[asked])
    yield Task("description -> paragraph", _at(alts, described), pool, right[described])


def sides_of_tasks(tasks: Sequence[Task]) -> list[Side]:
    """Return every side of the tasks once."""
    found: dict[tuple[str, ...], Side] = {}
    for task in tasks:
        for side in (*task.queries, *task.pool):
            found.setdefault(key_of(side), side)
    return list(found.values())


def vectors_of(tasks: Sequence[Task], embed: Embed) -> dict[tuple[str, ...], Tensor]:
    """Return the vector of every side of the tasks, each embedded once."""
    sides = sides_of_tasks(tasks)
    return dict(zip(map(key_of, sides), embed(sides), strict=True))


def measure(
    tasks: Sequence[Task], vectors: dict[tuple[str, ...], Tensor], *, dim: int = 0
) -> list[Figure]:
    """Return the figures of the tasks, by the leading ``dim`` dimensions if any are named."""

    def rows(sides: Sequence[Side]) -> Tensor:
        whole = torch.stack([vectors[key_of(side)] for side in sides])
        return F.normalize(whole[:, : dim or None], dim=-1)

    return [recall(task.name, rows(task.queries), rows(task.pool), task.relevant) for task in tasks]


def likeness(vectors: Tensor, before: Tensor) -> float:
    """Return Spearman's correlation of the similarities inside two sets of rows."""
    above = torch.triu_indices(len(vectors), len(vectors), 1)

    def ranks(rows: Tensor) -> Tensor:
        products = (rows @ rows.T)[above[0], above[1]]
        return products.argsort().argsort().double()

    return torch.corrcoef(torch.stack([ranks(vectors), ranks(before)]))[0, 1].item()


def _side(part: str | Picture) -> Side:
    return Side((part,))


def key_of(side: Side) -> tuple[str, ...]:
    """Return what tells sides apart: equal for the same words and the same pictures."""
    return tuple(
        f"words {part}" if isinstance(part, str) else f"seen {getattr(part, 'key', part)}"
        for part in side.parts
    )


def _at(sides: Sequence[Side], rows: Sequence[int]) -> list[Side]:
    return [sides[i] for i in rows]
