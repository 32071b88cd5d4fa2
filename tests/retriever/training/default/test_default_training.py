"""Training's own arithmetic, worked out on paper or on toys."""

import dataclasses
import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image as pil
from torch import nn

from mmsearch.retriever.models.backbones.default import DefaultBackbone
from mmsearch.retriever.models.tiny import CONFIG, random_model
from mmsearch.retriever.training.calibrate import calibrate, odds_slope
from mmsearch.retriever.training.default.heads import (
    HeadsRecipe,
    Member,
    joined,
    soft_nce,
    train_heads,
)
from mmsearch.retriever.training.default.pairs import (
    Pair,
    first_sentence,
    open_picture,
    read_pairs,
    split,
)
from mmsearch.retriever.training.default.probe import own, recall
from mmsearch.retriever.training.default.trunk import TrunkRecipe, train_trunk


def pair(book: str, alt: str = "a thing", path: str = "x.png") -> Pair:
    return Pair(Path(path), alt, "", book)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    draw = np.random.default_rng(0)
    paths = []
    for i in range(8):
        cells = draw.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        path = tmp_path / f"{i}.png"
        pil.fromarray(cells).resize((60, 60), pil.Resampling.NEAREST).save(path)
        paths.append(path)
    return paths


# ------------------------------------------------------------------------------ the split


def test_held_out_books_and_pictures_like_theirs_are_never_trained_on() -> None:
    pairs = [pair("physics"), pair("physics"), pair("astronomy"), pair("us-history")]
    pooled = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.3], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])

    train, held_out = split(pairs, pooled)

    assert held_out == [2, 3]
    assert train == [0]  # the second looks like the third: cosine 0.989


def test_a_changed_view_is_the_same_at_every_run_and_differs_from_the_plain_one(
    pictures: list[Path],
) -> None:
    plain, one = open_picture(pictures[0]), open_picture(pictures[0], view=1)

    np.testing.assert_array_equal(one.pixels, open_picture(pictures[0], view=1).pixels)
    assert plain.pixels.shape == (60, 60, 3)
    assert 0.45 < one.pixels.shape[0] * one.pixels.shape[1] / 3600 < 0.95
    assert not np.array_equal(one.pixels, open_picture(pictures[0], view=2).pixels)


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    pil.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")

    assert (open_picture(tmp_path / "clear.png").pixels == 255).all()


@pytest.mark.parametrize(
    ("alt", "first"),
    [
        ("A red bus stops. It rains.", "A red bus stops."),
        ("Photo A. It shows a brain. Photo B shows a cell.", "Photo A. It shows a brain."),
        ("no stop at all", "no stop at all"),
    ],
)
def test_the_first_sentence_has_at_least_four_words(alt: str, first: str) -> None:
    assert first_sentence(alt) == first


@pytest.mark.parametrize(
    ("alt", "is_photo"),
    [
        ("A photo of a bus.", True),
        ("This photograph shows a bus.", True),
        ("A painting of a king", True),
        ("The graph plots speed; a photo is inset.", False),
    ],
)
def test_a_photo_is_told_by_how_its_words_open(alt: str, is_photo: bool) -> None:
    assert pair("x", alt).is_photo is is_photo


def test_pairs_are_read_from_all_three_sets_and_those_without_words_left_out(
    tmp_path: Path,
) -> None:
    rows = {
        "figures": [
            {"img": "a", "alt": "A bus.", "caption": "", "title": "", "module": "m", "book": "b"},
            {"img": "b", "alt": "", "caption": "c", "title": "", "module": "m", "book": "b"},
        ],
        "vega": [{"img": "v", "name": "bar", "description": "A bar chart."}],
        "emoji": [{"img": "e", "name": "grinning face"}],
    }
    for name, lines in rows.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))

    pairs = read_pairs(tmp_path)

    assert [(one.alt, one.book) for one in pairs] == [
        ("A bus.", "b"),
        ("chart: A bar chart.", "vega"),
        ("icon: grinning face", "emoji"),
    ]


# ------------------------------------------------------------------------------- the heads


def with_words_head() -> DefaultBackbone:
    tiny = random_model(seed=0).backbone
    config = dataclasses.replace(CONFIG, head_width=16, words_width=8)
    torch.manual_seed(0)
    backbone = DefaultBackbone(config, tiny.tokenizer, tiny.prompts, tiny.limits)
    backbone.class_names.data = torch.randn(backbone.class_names.shape)
    return backbone.requires_grad_(False)


def test_a_soft_target_that_is_certain_is_the_cross_entropy_of_both_directions() -> None:
    rows, columns = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    by_rows = -np.log(np.exp(1) / (np.exp(1) + np.exp(0.6))) - np.log(
        np.exp(0.8) / (np.exp(0) + np.exp(0.8))
    )
    by_columns = -np.log(np.exp(1) / (np.exp(1) + np.exp(0))) - np.log(
        np.exp(0.8) / (np.exp(0.6) + np.exp(0.8))
    )

    loss = soft_nce(rows, columns, torch.eye(2), temperature=1.0)

    assert loss.item() == pytest.approx((by_rows + by_columns) / 4, abs=1e-6)


def test_joined_heads_add_the_mean_of_what_each_of_them_adds() -> None:
    torch.manual_seed(0)
    members = [Member(6, 4, 5, 3) for _ in range(3)]
    for member in members:
        for parameter in member.parameters():
            torch.nn.init.normal_(parameter)
    pooled, means = torch.randn(7, 6), torch.randn(7, 4)

    visual = joined([member.visual for member in members])
    words = joined([member.words for member in members if member.words], scale=members[0].scale)

    each = torch.stack([member.visual(pooled) for member in members])
    torch.testing.assert_close(visual(pooled), each.mean(dim=0))
    read = torch.stack([m.words(means * m.scale) for m in members if m.words is not None])
    torch.testing.assert_close(words(means), read.mean(dim=0))


def test_the_heads_learn_what_words_belong_to_a_picture_and_hold_the_words() -> None:
    backbone = with_words_head()
    draw = torch.Generator().manual_seed(0)
    pooled = torch.rand(64, CONFIG.vision.head_width, generator=draw)
    words = F.normalize(torch.randn(64, CONFIG.text.width, generator=draw), dim=-1)
    recipe = HeadsRecipe(
        epochs=40, batch=32, dropout=0.0, words_dropout=0.0, noise=0.0, learning_rate=1e-2
    )

    train_heads(backbone, [pooled, pooled], [words], recipe)

    with torch.no_grad():
        read = backbone.words_base(words)
        after = recall("", read, backbone.pictures_base(pooled), own(64)).recall_at_1
    assert after > 0.8
    assert 0.9 < (read * words).sum(dim=-1).min() < 1.0 - 1e-6


def test_the_heads_are_trained_alike_at_every_run() -> None:
    draw = torch.Generator().manual_seed(0)
    views = [torch.rand(16, CONFIG.vision.head_width, generator=draw) for _ in range(2)]
    words = F.normalize(torch.randn(16, CONFIG.text.width, generator=draw), dim=-1)
    words[3] = 0.0  # has none
    trained = []
    for _ in range(2):
        backbone = with_words_head()
        train_heads(backbone, views, [words], HeadsRecipe(epochs=2, batch=8))
        trained.append(cast(nn.Linear, backbone.visual_head[3]).weight)
        assert trained[-1].isfinite().all()

    torch.testing.assert_close(trained[0], trained[1], atol=0, rtol=0)


def test_widths_that_members_cannot_share_are_refused() -> None:
    with pytest.raises(ValueError, match="evenly"):
        train_heads(with_words_head(), [torch.rand(4, 80)], [], HeadsRecipe(members=3))


def test_the_trunk_moves_every_layer_that_sees_and_none_that_reads(pictures: list[Path]) -> None:
    model = random_model(seed=0)
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    words = F.normalize(
        torch.randn(8, CONFIG.text.width, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    views = [torch.rand(8, CONFIG.vision.head_width)]

    train_trunk(model.backbone, pictures, views, [words], TrunkRecipe(steps=2, batch=4))

    for name, tensor in model.backbone.state_dict().items():
        moved = not torch.equal(tensor, before[name])
        assert moved == name.startswith(("vision.", "visual_head.")), name
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())


# ---------------------------------------------------------------------------- the figures


def test_recall_counts_the_wrong_answers_before_the_first_right_one() -> None:
    pool = torch.eye(3)
    queries = torch.tensor([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0]])
    relevant = torch.tensor([[True, False, False], [False, True, True]])

    figure = recall("toy", queries, pool, relevant)

    assert (figure.recall_at_1, figure.recall_at_10) == (0.5, 1.0)
    assert str(figure) == "| toy | 2 of 3 | 50.0 | 100.0 | 100.0 |"


def test_equal_scores_count_against_us() -> None:
    same = torch.ones(4, 1)

    assert recall("ties", same, same, own(4)).recall_at_1 == 0.0


def test_the_slope_is_that_of_the_odds() -> None:
    draw = torch.Generator().manual_seed(0)
    right = 0.6 + 0.1 * torch.randn(4_000, generator=draw)
    wrong = 0.4 + 0.1 * torch.randn(4_000, generator=draw)

    # Two equal bells: the log odds are linear, (0.6 - 0.4) / 0.1 ** 2 a unit.
    assert odds_slope(right, wrong) == pytest.approx(20.0, rel=0.1)


def test_more_wrong_than_right_examples_do_not_move_the_slope() -> None:
    draw = torch.Generator().manual_seed(0)
    right = 0.6 + 0.1 * torch.randn(2_000, generator=draw)
    wrong = 0.4 + 0.1 * torch.randn(40_000, generator=draw)

    assert odds_slope(right, wrong) == pytest.approx(20.0, rel=0.1)


def test_the_midpoint_is_what_the_best_wrong_entry_usually_reaches() -> None:
    angles = torch.tensor([0.0, 0.5, 1.0, 1.5])
    pool = torch.stack([angles.cos(), angles.sin()], dim=1)

    # Of three queries that point at the pool's first three, the best wrong one is 0.5 away.
    midpoint, slope = calibrate(pool[:3], pool, own(4)[:3], seed=0)

    assert midpoint == pytest.approx(np.cos(0.5), abs=1e-3)
    assert slope > 0


def test_a_side_where_wrong_entries_often_win_still_has_a_rising_curve() -> None:
    draw = torch.Generator().manual_seed(0)
    pool = F.normalize(torch.randn(400, 16, generator=draw), dim=-1)
    queries = F.normalize(pool + 0.5 * torch.randn(400, 16, generator=draw), dim=-1)

    midpoint, slope = calibrate(queries, pool, own(400), seed=0)

    assert recall("", queries, pool, own(400)).recall_at_1 < 0.5
    assert slope > 1.0
    assert 0.0 < midpoint < 1.0
