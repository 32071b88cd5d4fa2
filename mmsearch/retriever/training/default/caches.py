"""What both towers make of every picture and text of a mix, computed once and kept on disk.

    examples -> pictures, texts -> PictureCache, TextCache -> CachedCollate -> TrainingBatch

    pooled [n, 1280], grids [n, 16, 1280]   float16: a picture, or one changed view of it
    frames [m, 8, 1280], [m, 8, 4, 1280]    float16: a clip
    states [tokens, 384]                    int8 with one scale a token: a text

A cache is filled in order and remembers how far it came: a run that is killed goes on where
it was. It names the weights it was computed with; with others it is computed anew, so that a
vision tower that was trained further refreshes the pictures and leaves the texts.

``python -m mmsearch.retriever.training.default.caches --data DIR --cache DIR`` fills both.
"""

import argparse
import hashlib
import json
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mmsearch.errors import UnreadableFile
from mmsearch.retriever.models.backbones.default import (
    DefaultBackbone,
    DefaultBatch,
    Span,
    Towers,
)
from mmsearch.retriever.models.prompts import Prompts
from mmsearch.retriever.training.default.clips import NUM_FRAMES, Clip, MovingShapes
from mmsearch.retriever.training.default.mix import MixSizes, photo_of, read_mix, thinned
from mmsearch.retriever.training.default.pairs import HELD_OUT, Pair, read_pairs, split
from mmsearch.retriever.training.default.pictures import Photo, Viewed
from mmsearch.retriever.training.examples import (
    Example,
    Media,
    Picture,
    Side,
    SideBatch,
    TrainingBatch,
)
from mmsearch.retriever.training.records import side_key
from mmsearch.values import Item, Role

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float16]

AT_ONCE = 96  # pictures that are opened and computed together
TEXTS_AT_ONCE = 1_024
WORD_DIMS = 64


def pictures_of(examples: Iterable[Example], *, views: int = 2) -> list[Picture]:
    """Return every picture of the sides once, in order; a photo is followed by its views."""
    found: dict[str, Picture] = {}
    for example in examples:
        for side in (example.query, example.positive, *example.negatives):
            for part in side.parts:
                if isinstance(part, str | Media):
                    continue
                found.setdefault(part.key, part)
                photo = part.photo if isinstance(part, Viewed) else part
                if isinstance(photo, Photo):
                    found.setdefault(photo.key, photo)
                    for view in range(1, views):
                        one = Viewed(photo, view)
                        found.setdefault(one.key, one)
    return list(found.values())


def texts_of(examples: Iterable[Example]) -> list[str]:
    """Return every text of the sides once, in order."""
    found: dict[str, None] = {}
    for example in examples:
        for side in (example.query, example.positive, *example.negatives):
            found.update((str(part), None) for part in side.parts if isinstance(part, str))
    return list(found)


def weights_key(module: nn.Module) -> str:
    """Return a name of a module's weights: equal for equal weights."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _list_key(keys: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(keys).encode("utf-8", "replace"), digest_size=8).hexdigest()


class _Folder:
    """Arrays on disk that are filled from the front, and a note of how far."""

    def __init__(self, folder: Path, identity: dict[str, Any], shapes: dict[str, Any]) -> None:
        self._note = folder / "filled.json"
        folder.mkdir(parents=True, exist_ok=True)
        known = json.loads(self._note.read_text()) if self._note.exists() else {}
        same = known.get("identity") == identity
        self.done: int = known["done"] if same else 0
        self._identity = identity
        self.arrays: dict[str, Any] = {}
        for name, (shape, dtype) in shapes.items():
            path = folder / f"{name}.npy"
            self.arrays[name] = np.lib.format.open_memmap(
                path, "r+" if same and path.exists() else "w+", dtype, shape
            )
        if not same:
            self.keep(0)

    def keep(self, done: int) -> None:
        """Write what is filled to disk, then that it is."""
        for array in self.arrays.values():
            array.flush()
        note = self._note.with_suffix(".new")
        note.write_text(json.dumps({"identity": self._identity, "done": done}))
        note.replace(self._note)
        self.done = done


def _is_clip(picture: Picture) -> bool:
    return isinstance(picture, Clip | MovingShapes)


class PictureCache:
    """Features of pictures and of clips by their keys.

    ``pooled``, ``grids``: of stills; ``frame_pooled``, ``frame_grids``: of clips
    beside: another cache, whose stills are not computed again
    """

    def __init__(
        self, folder: Path, pictures: Sequence[Picture], backbone: DefaultBackbone, *,
        beside: "PictureCache | None" = None,
    ) -> None:  # fmt: skip
        self._beside = beside
        self.row: dict[str, int] = {}
        if beside is not None:
            pictures = [one for one in pictures if one.key not in beside.row]
        stills = [one for one in pictures if not _is_clip(one)]
        clips = [one for one in pictures if _is_clip(one)]
        self._pictures = [*stills, *clips]
        self._num_stills = len(stills)
        # Of every kind a part first, so that a cache that is half full is half of everything.
        self._order = list(range(len(self._pictures)))
        random.Random(0).shuffle(self._order)
        self._turn = {self._pictures[row].key: turn for turn, row in enumerate(self._order)}
        width = backbone.config.vision.head_width
        cells, frame_cells = backbone.config.image_grid**2, backbone.config.frame_grid**2
        num_frames = len(backbone.limits.kept_frames(NUM_FRAMES))
        half = np.float16
        identity = {
            "pictures": _list_key(one.key for one in self._pictures),
            "vision": weights_key(backbone.vision),
            "area": backbone.config.image_area,
        }
        self._folder = _Folder(
            folder, identity,
            {
                "pooled": ((len(stills), width), half),
                "grids": ((len(stills), cells, width), half),
                "frame_pooled": ((len(clips), num_frames, width), half),
                "frame_grids": ((len(clips), num_frames, frame_cells, width), half),
            },
        )  # fmt: skip
        self.row = {one.key: i for i, one in enumerate(stills)}
        self.clip_row = {one.key: i for i, one in enumerate(clips)}
        self.pooled: Floats = self._folder.arrays["pooled"]
        self.grids: Floats = self._folder.arrays["grids"]
        self.frame_pooled: Floats = self._folder.arrays["frame_pooled"]
        self.frame_grids: Floats = self._folder.arrays["frame_grids"]

    def __len__(self) -> int:
        return len(self._pictures)

    def holds(self, key: str) -> bool:
        """Return whether a picture is computed already."""
        if self._beside is not None and key in self._beside.row:
            return self._beside.holds(key)
        return self._turn.get(key, len(self)) < self._folder.done

    def features(self, key: str) -> tuple["Floats", "Floats"]:
        """Return ``[p, 1280]`` and ``[p, cells, 1280]`` of a still (p = 1) or a clip (p = 8).

        KeyError where it is of another mix.
        """
        if (at := self.clip_row.get(key)) is not None:
            return self.frame_pooled[at], self.frame_grids[at]
        if self._beside is not None and key in self._beside.row:
            return self._beside.features(key)
        row = self.row[key]
        return self.pooled[row : row + 1], self.grids[row : row + 1]

    @property
    def missing(self) -> int:
        """Pictures that are not computed yet."""
        return len(self) - self._folder.done

    def fill(self, backbone: DefaultBackbone, *, most: int = 0, say: bool = False) -> None:
        """Compute what is missing, or at most so many; a picture that cannot be opened is zeros."""
        began, first = time.process_time(), self._folder.done
        opening = 0.0
        last = min(first + most, len(self)) if most else len(self)
        for start in range(first, last, AT_ONCE):
            chosen = self._order[start : min(start + AT_ONCE, last)]
            before = time.process_time()
            items, rows = [], []
            for row in chosen:
                try:
                    items.append(Item([self._pictures[row].open()]))
                    rows.append(row)
                except UnreadableFile as error:
                    print(f"left at zero: {error}", flush=True)
            batch = backbone.collate(items, role=Role.DOCUMENT)
            opening += time.process_time() - before
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                towers = backbone.towers(batch)
            self._put(rows, batch, towers)
            at_end = start + AT_ONCE >= last
            if at_end or (start - first) // AT_ONCE % 20 == 19:
                self._folder.keep(min(start + AT_ONCE, last))
                if say:
                    spent = time.process_time() - began
                    rate = (self._folder.done - first) / max(spent, 1e-9)
                    print(
                        f"pictures: {self._folder.done} of {len(self)}, {rate:.0f} a CPU s, "
                        f"{opening / max(spent, 1e-9):.0%} of it opening", flush=True,
                    )  # fmt: skip

    def _put(self, rows: Sequence[int], batch: DefaultBatch, towers: Towers) -> None:
        for row, spans in zip(rows, batch.items, strict=True):
            span = spans[0]
            pooled = towers.pooled[span.start : span.end].half().numpy()
            grids = [grid.half().numpy() for grid in towers.grids[span.start : span.end]]
            if row < self._num_stills:
                self.pooled[row], self.grids[row] = pooled[0], grids[0]
            else:
                at = row - self._num_stills
                self.frame_pooled[at], self.frame_grids[at] = pooled, np.stack(grids)


class TextCache:
    """MiniLM's states of texts by the text, cut to so many tokens, int8."""

    def __init__(
        self, folder: Path, texts: Sequence[str], backbone: DefaultBackbone, *, max_tokens: int = 96
    ) -> None:
        if backbone.prompts != Prompts():
            raise ValueError("texts are kept without prompts, and this model has some")
        self._backbone, self._texts, self.max_tokens = backbone, list(texts), max_tokens
        encoded = backbone.tokenizer.encode_batch(
            [text[: max_tokens * 16] for text in self._texts], add_special_tokens=False
        )
        first, last = backbone.first, backbone.last
        self.ids = [[first, *one.ids[: max_tokens - 2], last] for one in encoded]
        self.offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in self.ids])])
        self.row = {text: i for i, text in enumerate(self._texts)}
        total = int(self.offsets[-1])
        identity = {
            "texts": _list_key(self._texts), "text": weights_key(backbone.text),
            "max_tokens": max_tokens,
        }  # fmt: skip
        self._folder = _Folder(
            folder, identity,
            {"states": ((total, backbone.dim), np.int8), "scales": ((total,), np.float16)},
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def missing(self) -> int:
        """Texts that are not computed yet."""
        return len(self) - self._folder.done

    def fill(self, *, most: int = 0, say: bool = False) -> None:
        """Compute what is missing, or at most so many."""
        began, first = time.process_time(), self._folder.done
        last = min(first + most, len(self)) if most else len(self)
        for start in range(first, last, TEXTS_AT_ONCE):
            end = min(start + TEXTS_AT_ONCE, last)
            order = sorted(range(start, end), key=lambda i: len(self.ids[i]))
            for at in range(0, len(order), 64):
                self._compute(order[at : at + 64])
            self._folder.keep(end)
            if say and (end == last or end % (TEXTS_AT_ONCE * 8) == 0):
                rate = (end - first) / max(time.process_time() - began, 1e-9)
                print(f"texts: {end} of {len(self)}, {rate:.0f} a CPU s", flush=True)

    def _compute(self, rows: Sequence[int]) -> None:
        length = max(len(self.ids[i]) for i in rows)
        ids = torch.full((len(rows), length), self._backbone.pad)
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for place, i in enumerate(rows):
            ids[place, : len(self.ids[i])] = torch.tensor(self.ids[i])
            mask[place, : len(self.ids[i])] = True
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            states = self._backbone.text(ids, mask).float()
        scales = states.abs().amax(dim=-1).clamp_min(1e-6) / 127  # (rows, length)
        scales = scales.half().float()
        whole = (states / scales[..., None]).round().clamp(-127, 127).to(torch.int8).numpy()
        arrays = self._folder.arrays
        for place, i in enumerate(rows):
            where = slice(self.offsets[i], self.offsets[i + 1])
            count = len(self.ids[i])
            arrays["states"][where] = whole[place, :count]
            arrays["scales"][where] = scales[place, :count].numpy()

    def holds(self, text: str) -> bool:
        """Return whether a text is computed already."""
        return self.row.get(text, len(self)) < self._folder.done

    def states(self, row: int) -> Tensor:
        """Return the states ``[tokens, 384]`` of a text."""
        where = slice(self.offsets[row], self.offsets[row + 1])
        whole = torch.from_numpy(self._folder.arrays["states"][where].astype(np.float32))
        return whole * torch.from_numpy(
            self._folder.arrays["scales"][where].astype(np.float32)
        ).unsqueeze(-1)


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Parts of one side's items, as they are put into a batch."""

    spans: list[tuple[Span, ...]]
    texts: list[Tensor]
    pooled: list[Tensor]
    grids: list[Tensor]
    looks: list[Tensor]


class CachedCollate:
    """Makes batches from caches; see `mmsearch.retriever.training.examples.Collate`.

    views: of a photo's views one is drawn for each batch; 1 takes it as it is
    drop:  how often the words printed in a picture are left out

    A text that is misread on the way is not in the cache: words are left out, or kept.
    """

    def __init__(
        self, backbone: DefaultBackbone, pictures: PictureCache, texts: TextCache, *,
        views: int = 2, drop: float = 0.3,
    ) -> None:  # fmt: skip
        self._backbone, self._pictures, self._texts = backbone, pictures, texts
        self._views, self._drop = views, drop

    def __call__(self, examples: Sequence[Example], *, seed: int) -> TrainingBatch:
        chance = random.Random(seed)
        seen = [thinned(one, chance, drop=self._drop, misread=0.0) for one in examples]
        wrong = [(i, side) for i, one in enumerate(seen) for side in one.negatives]
        return TrainingBatch(
            query=self._batch([one.query for one in seen], chance, Role.QUERY),
            positive=self._batch([one.positive for one in seen], chance, Role.DOCUMENT),
            negatives=self._batch([side for _, side in wrong], chance, Role.DOCUMENT)
            if wrong
            else None,
            negative_of=torch.tensor([i for i, _ in wrong], dtype=torch.int64),
            examples=tuple(examples),
        )

    def side_batch(self, sides: Sequence[Side], *, role: Role, seed: int = 0) -> SideBatch:
        """Return sides as a batch, nothing left out of them."""
        return self._batch(sides, random.Random(seed), role)

    def ready(self, example: Example) -> bool:
        """Return whether all it needs is in the caches, which need not be full for it."""
        for side in (example.query, example.positive, *example.negatives):
            for part in side.parts:
                if isinstance(part, str):
                    if not self._texts.holds(str(part)):
                        return False
                elif isinstance(part, Media) or not all(
                    self._pictures.holds(key) for key in self._keys(part)
                ):
                    return False
        return True

    def _keys(self, picture: Picture) -> list[str]:
        if not isinstance(picture, Photo):
            return [picture.key]
        views = [Viewed(picture, view).key for view in range(1, self._views)]
        return [picture.key, *views]

    def _batch(self, sides: Sequence[Side], chance: Any, role: Role) -> SideBatch:  # noqa: ANN401
        into = _Gathered([], [], [], [], [])
        for side in sides:
            self._gather(side, chance, into)
        length = max((len(text) for text in into.texts), default=0)
        dim, width = self._backbone.dim, self._backbone.config.vision.head_width
        states = torch.zeros(len(into.texts), length, dim)
        mask = torch.zeros(len(into.texts), length, dtype=torch.bool)
        for row, text in enumerate(into.texts):
            states[row, : len(text)] = text
            mask[row, : len(text)] = True
        pooled = torch.cat(into.pooled) if into.pooled else torch.zeros(0, width)
        device = self._backbone.end.device
        towers = Towers(
            states.to(device), pooled.to(device), tuple(grid.to(device) for grid in into.grids)
        )
        ids = torch.full(mask.shape, self._backbone.pad, device=device)
        batch = DefaultBatch(tuple(into.spans), ids, mask.to(device), (), towers)
        keys = torch.tensor([side_key(side) for side in sides], dtype=torch.int64)
        return SideBatch(batch, tuple(sides), role, keys, torch.stack(into.looks))

    def _gather(self, side: Side, chance: Any, into: _Gathered) -> None:  # noqa: ANN401
        spans = []
        start = sum(len(one) for one in into.pooled)
        seen = torch.zeros(self._backbone.config.vision.head_width)
        for part in side.parts:
            if isinstance(part, str):
                spans.append(Span("words", len(into.texts), len(into.texts) + 1))
                into.texts.append(self._texts.states(self._texts.row[str(part)]))
                continue
            if isinstance(part, Media):
                raise TypeError(f"{part.path} is not of the mix: its features are not kept")
            pooled, grids = self._features(part, chance)
            of = "frames" if len(pooled) > 1 else "image"
            spans.append(Span(of, start, start + len(pooled)))
            start += len(pooled)
            into.pooled.append(pooled)
            into.grids.extend(grids)
            seen = seen + nn.functional.normalize(pooled.mean(dim=0), dim=0)
        into.spans.append(tuple(spans))
        into.looks.append(_look(seen, side.text))

    def _features(self, picture: Picture, chance: Any) -> tuple[Tensor, list[Tensor]]:  # noqa: ANN401
        pooled, grids = self._pictures.features(chance.choice(self._keys(picture)))
        return (
            torch.from_numpy(pooled.astype(np.float32)),
            [torch.from_numpy(grid.astype(np.float32)) for grid in grids],
        )


def _look(seen: Tensor, words: str) -> Tensor:
    """Return the look of an item ``[1344]``: what is seen, and beside it the very words."""
    look = torch.zeros(len(seen) + WORD_DIMS)
    if not seen.any():
        return look
    look[: len(seen)] = nn.functional.normalize(seen, dim=0)
    if words:
        digest = hashlib.blake2b(words.encode("utf-8", "replace"), digest_size=8).digest()
        drawn = np.random.default_rng(int.from_bytes(digest, "little")).standard_normal(WORD_DIMS)
        look[len(seen) :] = nn.functional.normalize(torch.from_numpy(drawn).float(), dim=0)
        look /= 2**0.5
    return look


# ---------------------------------------------------------------- the command


def training_pairs(
    backbone: DefaultBackbone, data: Path, cache: Path, *, books: Sequence[str] = HELD_OUT
) -> tuple[list[Pair], PictureCache, list[int], list[int]]:
    """Return all pairs, their pictures' features, the numbers to train on, those of ``books``.

    What looks like a held-out picture is judged once, by the weights that training starts
    from, and written down: a vision tower trained further would draw another line.
    """
    pairs = read_pairs(data)
    photos = [photo_of(data, pair) for pair in pairs]
    kept = PictureCache(cache / "originals", photos, backbone)
    kept.fill(backbone, say=True)
    known = cache / "training.json"
    if not known.exists():
        pooled = torch.from_numpy(np.stack([kept.features(one.key)[0][0] for one in photos]))
        known.write_text(json.dumps([photos[i].key for i in split(pairs, pooled, books=books)[0]]))
    chosen = set(json.loads(known.read_text()))
    train = [i for i, photo in enumerate(photos) if photo.key in chosen]
    return pairs, kept, train, [i for i, pair in enumerate(pairs) if pair.book in books]


def main() -> None:
    """Fill the caches of the mix."""
    from mmsearch.retriever.training.default.start import starting_model

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    backbone = starting_model(asked.data, seed=asked.seed).backbone
    pairs, originals, train, _ = training_pairs(backbone, asked.data, asked.cache)
    examples = read_mix(asked.data, [pairs[i] for i in train], seed=asked.seed, sizes=MixSizes())
    print(f"{len(examples)} rows in the mix", flush=True)
    texts = TextCache(
        asked.cache / "texts", texts_of(examples), backbone, max_tokens=asked.max_tokens
    )
    texts.fill(say=True)
    pictures = PictureCache(
        asked.cache / "pictures", pictures_of(examples, views=asked.views), backbone,
        beside=originals,
    )  # fmt: skip
    pictures.fill(backbone, say=True)


if __name__ == "__main__":
    main()
