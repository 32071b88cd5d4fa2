"""Composed pairs: the target is the source, changed as the words say; neither half suffices."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil

from mmsearch.retriever.training.default.composed import (
    CHANGES,
    UNSEEN,
    Changed,
    change_chart,
    change_figures,
    change_photo,
    held_out_composed,
    is_changed,
    wordings,
)
from mmsearch.retriever.training.default.pictures import Photo, is_colourful
from mmsearch.retriever.training.examples import Example, Picture
from mmsearch.values import Image


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    """Return pictures of soft colours, no two alike, the last one gray."""
    draw = np.random.default_rng(0)
    found = []
    for i in range(5):
        cells = draw.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        if i == 4:
            cells = cells.mean(axis=2, keepdims=True).repeat(3, axis=2).astype(np.uint8)
        picture = pil.fromarray(cells).resize((120, 90), pil.Resampling.BICUBIC)
        picture.save(tmp_path / f"{i}.png")
        found.append(Photo(tmp_path, f"{i}.png", True))
    return found


def pixels(picture: Picture) -> "np.ndarray":
    part = picture.open()
    assert isinstance(part, Image)
    return np.asarray(pil.fromarray(part.pixels).resize((64, 64)), float)


def pictures(example: Example) -> tuple[Picture, Picture]:
    [source] = [part for part in example.query.parts if not isinstance(part, str)]
    [target] = example.positive.parts
    return source, target  # type: ignore[return-value]


@pytest.mark.parametrize("change", [*CHANGES, *UNSEEN])
def test_a_change_changes_the_picture_and_is_like_no_other(
    change: str, photos: list[Photo]
) -> None:
    seen = {name: pixels(Changed(photos[0], name)) for name in (*CHANGES, *UNSEEN)}
    seen[""] = pixels(photos[0])
    mine = seen.pop(change)

    for name, other in seen.items():
        assert np.abs(mine - other).mean() > 4, name


def test_a_gray_picture_is_not_asked_to_lose_its_colours(photos: list[Photo]) -> None:
    assert [is_colourful(photo) for photo in photos] == [True] * 4 + [False]
    rows = change_photo(random.Random(0), photos[4], "row", colourful=False, num=12)

    targets = [example.positive.parts[0] for example in rows]
    assert all(isinstance(one, Changed) and not CHANGES[one.change].colours for one in targets)


def test_every_row_has_a_changed_target_and_hard_negatives(photos: list[Photo]) -> None:
    chance = random.Random(1)
    rows = change_photo(chance, photos[0], "photo", colourful=True, num=3)
    for number in range(12):
        rows += [*change_chart(chance, f"chart {number}"), change_figures(chance, f"f {number}")]

    assert len({example.row for example in rows}) == len(rows)
    for example in rows:
        source, target = pictures(example)
        assert np.abs(pixels(source) - pixels(target)).max() > 20, example.row
        wrong = [part for side in example.negatives for part in side.parts]
        keys = {getattr(part, "key", part) for part in wrong}
        assert source.key in keys
        assert target.key not in keys
        assert any(isinstance(part, str) for part in example.query.parts)
        assert example.query.rationale.endswith(".")


def test_the_held_out_words_and_half_its_changes_are_not_trained_on() -> None:
    said = wordings()

    assert not said["train"] & said["held out"]
    assert not any(change.train for change in UNSEEN.values())
    assert not CHANGES.keys() & UNSEEN.keys()


def test_neither_words_nor_picture_alone_find_the_held_out_answer(photos: list[Photo]) -> None:
    probe = held_out_composed(photos, seed=0, num_photos=4, per_photo=6)
    changes = len(CHANGES) + len(UNSEEN)

    assert len(probe.pool) == 4 * (1 + changes)  # the gray one is left out
    assert len({one.key for one in probe.pool}) == len(probe.pool)
    assert len(probe.queries) == len(probe.answers) == 24
    assert sum(probe.seen) == 12
    for query, place, seen in zip(probe.queries, probe.answers, probe.seen, strict=True):
        answer = probe.pool[place]
        assert isinstance(answer, Changed)
        photo, words = query.parts
        assert answer.picture == photo
        assert words in {**CHANGES, **UNSEEN}[answer.change].held_out
        assert (answer.change in CHANGES) == seen
        alike = [one for one in probe.pool if isinstance(one, Changed) and one.change ==
                 answer.change]  # fmt: skip
        assert len(alike) == 4


def test_the_mirror_image_of_a_symmetric_picture_is_not_asked_for(tmp_path: Path) -> None:
    half = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    pil.fromarray(np.concatenate([half, half[:, ::-1]], axis=1)).save(tmp_path / "even.png")
    photo = Photo(tmp_path, "even.png")

    assert not is_changed(photo, "mirrored")
    assert is_changed(photo, "negative")


def test_composed_rows_are_a_function_of_their_chance(photos: list[Photo]) -> None:
    one, same = (
        change_photo(random.Random("x"), photos[0], "r", colourful=True, num=4) for _ in range(2)
    )

    assert one == same
    assert change_chart(random.Random("x"), "r") == change_chart(random.Random("x"), "r")
