"""Caches hold what the towers say, go on where they were stopped, and know their weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as pil

from mmsearch.retriever.models.backbones.default import DefaultBackbone
from mmsearch.retriever.models.prompts import Prompts
from mmsearch.retriever.models.tiny import random_model
from mmsearch.retriever.training.default import caches
from mmsearch.retriever.training.default.caches import (
    CachedCollate,
    PictureCache,
    TextCache,
    pictures_of,
    texts_of,
    training_pairs,
)
from mmsearch.retriever.training.default.clips import Clip, MovingShape, MovingShapes
from mmsearch.retriever.training.default.mix import Printed
from mmsearch.retriever.training.default.pictures import Drawn, Photo, Viewed
from mmsearch.retriever.training.examples import Example, Side
from mmsearch.retriever.training.loading import MediaCollate


@pytest.fixture
def backbone() -> DefaultBackbone:
    backbone = random_model().backbone
    assert isinstance(backbone, DefaultBackbone)
    return backbone


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    draw = np.random.default_rng(0)
    photos = []
    for i in range(3):
        cells = draw.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        pil.fromarray(cells).resize((64, 48)).save(tmp_path / f"{i}.png")
        photos.append(Photo(tmp_path, f"{i}.png", True))
    shape = MovingShape("circle", "red", "from left to right", 0.5)
    moves = MovingShapes(("white", (255, 255, 255)), (shape,), "0")
    sides = [
        (("a bus",), (photos[0],)),
        ((photos[1], "in gray"), (photos[2],)),
        (("a chart",), (Drawn("chart", 1, 0), Printed("sales by month"))),
        (("a clip",), (Clip((photos[0], photos[1]), ("left", "in")),)),
        (("a red circle moves",), (moves,)),
        (("a bus",), ("a bus is a car",)),
    ]
    return [
        Example(Side(query), Side(positive), (Side((photos[0],)),) if i == 1 else (), "x", str(i))
        for i, (query, positive) in enumerate(sides)
    ]


def collate(
    folder: Path, examples: list[Example], backbone: DefaultBackbone, *, views: int = 1,
    drop: float = 0.0,
) -> CachedCollate:  # fmt: skip
    pictures = PictureCache(folder / "p", pictures_of(examples, views=views), backbone)
    texts = TextCache(folder / "t", texts_of(examples), backbone, max_tokens=16)
    pictures.fill(backbone)
    texts.fill()
    return CachedCollate(backbone, pictures, texts, views=views, drop=drop)


def test_each_picture_and_text_is_computed_once(examples: list[Example]) -> None:
    names = [one.key for one in pictures_of(examples, views=2)]

    assert len(names) == len(set(names)) == 3 * 2 + 1 + 2
    assert texts_of(examples) == [
        "a bus", "in gray", "a chart", "sales by month", "a clip", "a red circle moves",
        "a bus is a car",
    ]  # fmt: skip


def test_a_batch_of_the_cache_says_what_the_towers_say(
    tmp_path: Path, examples: list[Example], backbone: DefaultBackbone
) -> None:
    kept = collate(tmp_path, examples, backbone)(examples, seed=0)
    real = MediaCollate(backbone)(examples, seed=0)

    with torch.inference_mode():
        for side in ("query", "positive", "negatives"):
            mine, theirs = getattr(kept, side).batch, getattr(real, side).batch
            bases = [backbone.readouts(batch)["base"] for batch in (mine, theirs)]
            hidden = [backbone.prefill(batch)[0][:, -1] for batch in (mine, theirs)]
            for one, other in (bases, hidden):
                assert torch.cosine_similarity(one, other).min() > 0.98
    assert kept.negative_of.tolist() == [1]
    assert kept.query.key[0] == kept.query.key[5]  # the same words
    looks = kept.positive.look @ kept.positive.look.T
    assert looks[0, 0] == pytest.approx(1)
    assert looks[5].abs().max() == 0  # words alone look like nothing


def test_a_fill_that_is_stopped_goes_on_where_it_was(
    tmp_path: Path, examples: list[Example], backbone: DefaultBackbone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(caches, "AT_ONCE", 2)
    monkeypatch.setattr(caches, "TEXTS_AT_ONCE", 2)
    listed, words = pictures_of(examples, views=2), texts_of(examples)
    whole = PictureCache(tmp_path / "whole", listed, backbone)
    whole.fill(backbone)

    first = PictureCache(tmp_path / "part", listed, backbone)
    first.fill(backbone, most=4)
    before = first.pooled.copy()
    again = PictureCache(tmp_path / "part", listed, backbone)

    assert (len(again), again.missing) == (9, 5)
    assert sum(again.holds(one.key) for one in listed) == 4
    np.testing.assert_array_equal(again.pooled, before)
    again.fill(backbone)
    np.testing.assert_array_equal(again.pooled, whole.pooled)
    np.testing.assert_array_equal(again.frame_grids, whole.frame_grids)

    texts = TextCache(tmp_path / "texts", words, backbone, max_tokens=16)
    texts.fill(most=2)
    texts = TextCache(tmp_path / "texts", words, backbone, max_tokens=16)
    assert (texts.missing, texts.holds("a bus"), texts.holds("a clip")) == (5, True, False)


def test_a_cache_that_is_half_full_says_which_rows_it_can_serve(
    tmp_path: Path, examples: list[Example], backbone: DefaultBackbone
) -> None:
    pictures = PictureCache(tmp_path / "p", pictures_of(examples, views=1), backbone)
    texts = TextCache(tmp_path / "t", texts_of(examples), backbone, max_tokens=16)
    texts.fill()
    partial = CachedCollate(backbone, pictures, texts, views=1)

    assert [partial.ready(one) for one in examples] == [False] * 5 + [True]
    pictures.fill(backbone)
    assert all(partial.ready(one) for one in examples)


def test_other_weights_compute_the_pictures_anew_and_keep_the_texts(
    tmp_path: Path, examples: list[Example], backbone: DefaultBackbone
) -> None:
    collate(tmp_path, examples, backbone)
    with torch.no_grad():
        next(backbone.vision.parameters()).mul_(1.5)

    pictures = PictureCache(tmp_path / "p", pictures_of(examples, views=1), backbone)
    texts = TextCache(tmp_path / "t", texts_of(examples), backbone, max_tokens=16)

    assert pictures.missing == len(pictures)
    assert texts.missing == 0


def test_a_picture_of_another_cache_is_not_computed_again(
    tmp_path: Path, examples: list[Example], backbone: DefaultBackbone
) -> None:
    photos = [one for one in pictures_of(examples, views=1) if isinstance(one, Photo)]
    first = PictureCache(tmp_path / "a", photos, backbone)
    first.fill(backbone)
    both = PictureCache(tmp_path / "b", pictures_of(examples, views=2), backbone, beside=first)

    assert len(both) == 3 + 1 + 2
    np.testing.assert_array_equal(both.features(photos[0].key)[0][0], first.pooled[0])
    assert both.holds(photos[0].key)
    assert not both.holds(Viewed(photos[0], 1).key)


def test_views_are_drawn_by_the_seed_and_printed_words_dropped(
    tmp_path: Path, examples: list[Example], backbone: DefaultBackbone
) -> None:
    made = collate(tmp_path, examples, backbone, views=2, drop=0.5)
    batches = [made(examples, seed=seed) for seed in range(12)]
    again = made(examples, seed=3)

    bases = [backbone.readouts(one.positive.batch)["base"] for one in batches]
    assert torch.equal(bases[3], backbone.readouts(again.positive.batch)["base"])
    assert len({tuple(base[0].tolist()) for base in bases}) == 2  # both views
    assert {len(one.positive.sides[2].parts) for one in batches} == {1, 2}


def test_a_model_with_prompts_is_refused(tmp_path: Path, backbone: DefaultBackbone) -> None:
    backbone.prompts = Prompts(query="find: ")

    with pytest.raises(ValueError, match="without prompts"):
        TextCache(tmp_path, ["a"], backbone)


def test_what_is_trained_on_is_judged_once(tmp_path: Path, backbone: DefaultBackbone) -> None:
    draw = np.random.default_rng(0)
    rows = []
    for i, book in enumerate(("physics", "physics", "astronomy")):
        cells = draw.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        if i == 2:  # looks like the second
            cells = np.asarray(pil.open(tmp_path / "data/figures/1.png").resize((4, 3)))
        path = tmp_path / f"data/figures/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pil.fromarray(cells).resize((64, 48), pil.Resampling.NEAREST).save(path)
        rows.append({"img": f"{i}.png", "alt": "A bus.", "caption": "", "title": "",
                     "module": "m", "book": book})  # fmt: skip
    lines = {"figures": rows, "vega": [], "emoji": []}
    for name, some in lines.items():
        (tmp_path / "data" / name).mkdir(exist_ok=True)
        (tmp_path / "data" / name / "pairs.jsonl").write_text("\n".join(map(json.dumps, some)))

    pairs, _, train, held_out = training_pairs(backbone, tmp_path / "data", tmp_path / "cache")
    with torch.no_grad():
        for parameter in backbone.vision.parameters():
            parameter.normal_()
    _, refreshed, again, _ = training_pairs(backbone, tmp_path / "data", tmp_path / "cache")

    assert [pairs[i].path.name for i in train] == ["0.png"]
    assert [pairs[i].book for i in held_out] == ["astronomy"]
    assert again == train
    assert refreshed.missing == 0
