"""Ask models of one family through one cache of features, so that they differ in nothing else.

    tasks of some books, caches -> Asked;  model folder or run, effort -> Asked.figures -> dict

The towers are computed once; what is asked anew for every model is what it adds to them.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.retriever.models.backbones.default import DefaultBackbone
from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.models.description import ModelDescription
from mmsearch.retriever.training.default.caches import (
    CachedCollate,
    PictureCache,
    TextCache,
    pictures_of,
    texts_of,
)
from mmsearch.retriever.training.default.mix import photo_of
from mmsearch.retriever.training.default.pairs import Pair
from mmsearch.retriever.training.default.tasks import (
    LIKENESSES,
    Task,
    likeness,
    measure,
    sides_of_tasks,
    tasks_of,
    vectors_of,
)
from mmsearch.retriever.training.examples import Example, Side
from mmsearch.retriever.training.probes import embed_side
from mmsearch.values import Role

DIMS = (384, 192, 96)
WINDOW = 256  # tokens of a text that are read; a paragraph is rarely longer
AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Asked:
    """Tasks and the features of all that is in them."""

    name: str
    tasks: Sequence[Task]
    pictures: PictureCache
    texts: TextCache

    @classmethod
    def of(
        cls,
        name: str,
        books: Sequence[str],
        *,
        data: Path,
        cache: Path,
        pairs: Sequence[Pair],
        backbone: DefaultBackbone,
        seed: int = 0,
    ) -> "Asked":
        """Return the tasks of some books, their features computed or read from ``cache``."""
        tasks = tasks_of(data, pairs, books, seed=seed)
        both = [Example(side, side) for side in sides_of_tasks(tasks)]
        photos = [photo_of(data, pair) for pair in pairs]
        originals = PictureCache(cache / "originals", photos, backbone)
        pictures = PictureCache(
            cache / f"pictures-{name}", pictures_of(both, views=1), backbone, beside=originals
        )
        texts = TextCache(cache / f"texts-{name}", texts_of(both), backbone, max_tokens=WINDOW)
        originals.fill(backbone)
        texts.fill()
        pictures.fill(backbone)
        return cls(name, tasks, pictures, texts)

    def figures(
        self, model: Model, description: ModelDescription, *, effort: int
    ) -> dict[str, Any]:
        """Return the model's figures at each of DIMS, and how like MiniLM's its words are.

        likeness: Spearman's correlation of the similarities among LIKENESSES texts
        """
        model.eval()
        vectors = vectors_of(
            self.tasks, lambda sides: self.embed(model, description, sides, effort=effort)
        )
        words = [
            side
            for side in sides_of_tasks(self.tasks)
            if all(isinstance(part, str) for part in side.parts)
        ][:LIKENESSES]
        minilm = torch.stack(
            [
                F.normalize(self.texts.states(self.texts.row[side.text]).mean(dim=0), dim=0)
                for side in words
            ]
        )
        mine = self.embed(model, description, words, effort=effort)
        return {
            "set": self.name,
            "effort": effort,
            "gate": round(float(getattr(model.head, "alpha", torch.zeros(()))), 4),
            "likeness": likeness(mine, minilm),
            "figures": {
                str(dim): [dataclasses.asdict(one) for one in measure(self.tasks, vectors, dim=dim)]
                for dim in DIMS
            },
        }

    def embed(
        self, model: Model, description: ModelDescription, sides: Sequence[Side], *, effort: int
    ) -> Tensor:
        """Return the vectors ``[n, 384]`` of sides whose features are kept."""
        collate = CachedCollate(model.backbone, self.pictures, self.texts, views=1, drop=0.0)
        order = sorted(range(len(sides)), key=lambda i: len(sides[i].text))
        rows = torch.zeros(len(sides), description.dim)
        for start in range(0, len(order), AT_ONCE):
            at = order[start : start + AT_ONCE]
            batch = collate.side_batch([sides[i] for i in at], role=Role.DOCUMENT)
            rows[at] = embed_side(
                model, description, batch, effort=effort, autocast=torch.bfloat16
            ).cpu()
        return rows
