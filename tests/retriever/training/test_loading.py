"""Media are opened ahead; a bad row goes whole, and the same other one stands in for it."""

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as pil

from mmsearch.errors import BadExample, BadItem, UnreadableFile
from mmsearch.retriever.models.tiny import random_model
from mmsearch.retriever.training import loading
from mmsearch.retriever.training.config import DataSource
from mmsearch.retriever.training.examples import Example, Media, Side, TrainingBatch
from mmsearch.retriever.training.loading import Loader, MediaCollate, chunk_seed, open_still
from mmsearch.retriever.training.records import BadRow, Rows, listed_rows, open_rows
from mmsearch.retriever.training.sampling import BatchPlan
from mmsearch.retriever.training.toy import Drawing, toy_examples
from mmsearch.values import Frames, Item, ReadPolicy, Role, Text


@pytest.fixture(scope="module")
def collate() -> MediaCollate:
    return MediaCollate(random_model().backbone)


def picture(path: Path, colour: str = "red", size: tuple[int, int] = (40, 30)) -> Path:
    pil.new("RGB", size, colour).save(path)
    return path


def half(colour: str = "red", size: int = 64) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A picture that is not plain: its left half is coloured."""
    drawn = pil.new("RGB", (size, size), "white")
    drawn.paste(colour, (0, 0, size // 2, size))
    return np.asarray(drawn)


# ---------------------------------------------------------------- opening media


def test_pictures_are_upright_on_white_and_within_what_readers_hand_on(tmp_path: Path) -> None:
    turned = pil.new("RGB", (60, 20), "red")
    exif = pil.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    pil.new("RGB", (900, 300), "red").save(tmp_path / "turned.tif", exif=exif)
    pil.new("RGBA", (10, 10), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    picture(tmp_path / "large.png", size=(1_000, 500))

    def opened(name: str) -> Any:
        return open_still(Media(tmp_path / name)).pixels

    assert opened("turned.jpg").shape == (60, 20, 3)
    assert opened("turned.tif").shape[0] > 700 > opened("turned.tif").shape[1]
    assert opened("clear.png").min() == 255
    height, width, _ = opened("large.png").shape
    assert width * height <= 448 * 448 < (width + 2) * (height + 1)
    assert width / height == pytest.approx(2.0, rel=0.01)


def test_frames_of_a_film_become_one_size(tmp_path: Path) -> None:
    one, two = picture(tmp_path / "1.png"), picture(tmp_path / "2.png", size=(20, 20))

    frames = open_still(Media(tmp_path, frames=(one, two)))

    assert isinstance(frames, Frames)
    assert frames.pixels.shape == (2, 30, 40, 3)


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    pil.fromarray(noise).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:900])
    (tmp_path / "words.jpg").write_text("not a picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")

    def reason(media: Media) -> str:
        with pytest.raises(UnreadableFile) as error:
            open_still(media)
        return error.value.reason

    assert "truncated" in reason(Media(tmp_path / "cut.png"))
    assert reason(Media(tmp_path / "words.jpg")) == "it is not a picture, or its header is damaged"
    assert reason(Media(tmp_path / "empty.jpg")) == "it is not a picture, or its header is damaged"
    assert reason(Media(tmp_path / "gone.jpg")) == "no such file or directory"
    assert reason(Media(tmp_path / "loop.jpg")) == "too many levels of symbolic links"
    assert reason(Media(tmp_path)) == "is a directory"
    assert "not a page" in reason(Media(tmp_path / "a.pdf", page=1))
    assert "not a span" in reason(Media(tmp_path / "a.mp4", start=0.0, end=1.0))


def test_a_picture_that_asks_for_too_much_memory_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = picture(tmp_path / "large.png", size=(40, 30))
    path.write_bytes(path.read_bytes()[:60])  # nothing to decode: only the header is whole
    monkeypatch.setattr(loading, "POLICY", ReadPolicy(max_decoded_pixels=1_199))

    with pytest.raises(UnreadableFile, match="its picture is 40 x 30"):
        open_still(Media(path))


# ---------------------------------------------------------------- one batch


def test_a_batch_holds_both_sides_of_every_row_and_whose_the_negatives_are(
    collate: MediaCollate,
) -> None:
    one, two, three = (example.positive for example in toy_examples(3, seed=0))
    words = Side(("a bus",))
    examples = [Example(words, one, (two, words)), Example(words, two), Example(one, two, (three,))]

    batch = collate(examples, seed=0)

    assert batch.examples == tuple(examples)
    assert (batch.query.role, batch.positive.role) == (Role.QUERY, Role.DOCUMENT)
    assert batch.query.sides == (words, words, one)
    assert batch.positive.sides == (one, two, two)
    assert batch.negatives is not None
    assert batch.negatives.sides == (two, words, three)
    assert batch.negatives.role is Role.DOCUMENT
    assert batch.negative_of.tolist() == [0, 0, 2]
    assert batch.query.key[0] == batch.query.key[1] == batch.negatives.key[1]
    assert batch.positive.key[1] == batch.positive.key[2] == batch.negatives.key[0]
    assert batch.query.key[2] == batch.positive.key[0] != batch.positive.key[1]
    assert batch.query.key.dtype == torch.int64
    norms = batch.query.look.norm(dim=1).tolist()
    assert norms == pytest.approx([0.0, 0.0, 1.0], abs=1e-6)


def test_no_negatives_are_none(collate: MediaCollate) -> None:
    batch = collate(toy_examples(2, seed=0), seed=0)

    assert batch.negatives is None
    assert batch.negative_of.shape == (0,)


def test_words_are_cut_behind_a_word_and_the_rationale_is_not() -> None:
    side = Side(("one two three", Drawing("red", "circle", "in the middle", "small"), "four five"),
                "It is long. " * 9)  # fmt: skip
    backbone = random_model().backbone

    def words(max_text: int) -> list[str]:
        item = MediaCollate(backbone, max_text=max_text).item(side)
        return [part.text for part in item.parts if isinstance(part, Text)]

    assert words(0) == ["one two three", "four five"]
    assert words(9) == ["one two"]
    assert words(18) == ["one two three", "four"]
    assert words(2) == ["on"]
    cut = MediaCollate(backbone, max_text=9)([Example(side, side)], seed=0)
    assert cut.query.sides[0].rationale == side.rationale


def test_all_bad_rows_of_a_batch_are_named_at_once(collate: MediaCollate, tmp_path: Path) -> None:
    good = Side((Media(picture(tmp_path / "good.png")),))
    bad = Side((Media(tmp_path / "none.png"),))
    words = Side(("words",))
    rows = [
        Example(words, good, row="a"),
        Example(bad, good, row="b"),
        Example(words, bad, row="c"),
        Example(words, good, (bad,), row="d"),
    ]

    with pytest.raises(BadExample) as error:
        collate(rows, seed=0)

    assert list(error.value.reasons) == ["b", "c", "d"]
    assert "none.png: no such file" in error.value.reasons["b"]
    assert str(error.value).startswith("b cannot be trained on: cannot read ")
    assert str(error.value).endswith("(2 more of its batch)")


class ShortSighted:
    """A backbone that reads ten letters at most."""

    def collate(self, items: Sequence[Item], *, role: Role) -> list[str]:
        for item in items:
            if len(item.text) > 10:
                raise BadItem(f"it has {len(item.text)} letters")
        return [item.text for item in items]


def test_a_row_that_is_too_long_for_the_model_is_named() -> None:
    short, long = Side(("short",)), Side(("much longer",))
    rows = [Example(short, short, row="a"), Example(short, long, row="b")]

    with pytest.raises(BadExample) as error:
        MediaCollate(ShortSighted())(rows, seed=0)  # type: ignore[arg-type]

    assert error.value.reasons == {"b": "the item does not fit the model: it has 11 letters"}


# ---------------------------------------------------------------- many steps


class Names:
    """A collate that tells what it was given, and finds some rows bad."""

    def __init__(self, bad: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        self.bad, self.calls, self.lock = bad, 0, threading.Lock()

    def __call__(self, examples: Sequence[Example], *, seed: int) -> TrainingBatch:
        with self.lock:
            self.calls += 1
        found = {one.row: f"{one.row} is bad" for one in examples if one.row in self.bad}
        if found:
            raise BadExample(found)
        return (tuple(one.row for one in examples), seed)  # type: ignore[return-value]


def numbered(count: int, dataset: str = "a") -> list[Example]:
    return [
        Example(Side((f"q{i}",)), Side((f"p{i}",)), dataset=dataset, row=f"{dataset}:{i}")
        for i in range(count)
    ]


def told(loader: Loader, start: int, end: int) -> list[list[Any]]:
    with loader:
        return [list(chunks) for chunks in loader.steps(start, end)]


def rows_told(steps: list[list[Any]]) -> list[tuple[str, ...]]:
    return [tuple(row for chunk, _ in step for row in chunk) for step in steps]


@pytest.fixture
def rows() -> Rows:
    return listed_rows(numbered(40) + numbered(21, "b"))


@pytest.mark.parametrize("workers", [0, 3])
def test_every_step_holds_the_planned_rows_in_chunks(rows: Rows, workers: int) -> None:
    plan = BatchPlan(rows, batch=8, seed=0)

    steps = told(Loader(rows, plan, Names(), seed=5, chunk=3, workers=workers), 2, 9)

    planned = [tuple(rows[i].row for i in plan.rows_of(step)) for step in range(2, 9)]
    assert rows_told(steps) == planned
    assert [len(chunk) for chunk, _ in steps[0]] == [2, 3, 3]
    assert [seed for _, seed in steps[0]] == [chunk_seed(5, 2, place) for place in (0, 2, 5)]
    assert len({seed for step in steps for _, seed in step}) == 7 * 3


@pytest.mark.parametrize("size", [2, 3])
def test_the_processes_together_hold_the_batch_of_one(rows: Rows, size: int) -> None:
    bad = {f"a:{i}" for i in range(0, 40, 6)} | {"b:3"}
    plan = BatchPlan(rows, batch=8, seed=0)
    alone = rows_told(told(Loader(rows, plan, Names(bad), seed=0), 0, 8))

    parts = [
        rows_told(told(Loader(rows, plan, Names(bad), seed=0, rank=rank, size=size, chunk=2), 0, 8))
        for rank in range(size)
    ]

    assert [sum(shares, ()) for shares in zip(*parts, strict=True)] == alone


def test_a_bad_row_is_stood_in_for_by_one_of_its_data_set_and_told_once(rows: Rows) -> None:
    bad = {"a:3", "a:4", "b:7"}
    plan = BatchPlan(rows, batch=8, seed=0)
    said: list[BadRow] = []
    loader = Loader(rows, plan, Names(bad), seed=0, on_bad=said.append)
    steps = rows_told(told(loader, 0, 2 * plan.steps_per_epoch))

    for step, held in enumerate(steps):
        planned = [rows[i].row for i in plan.rows_of(step)]
        assert not bad & set(held)
        assert len({row[0] for row in held}) == 1
        assert [a for a, b in zip(held, planned, strict=True) if b not in bad] == [
            b for b in planned if b not in bad
        ]
    assert sorted(said) == [
        BadRow("a:3", "a:3 is bad", "a"),
        BadRow("a:4", "a:4 is bad", "a"),
        BadRow("b:7", "b:7 is bad", "b"),
    ]
    assert loader.bad == said
    planned_bad = sum(
        rows[int(i)].row in bad for step in range(len(steps)) for i in plan.rows_of(step)
    )
    assert loader.num_replaced >= planned_bad > 3


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_who_stands_in_does_not_depend_on_threads_or_on_where_a_run_began(
    rows: Rows, workers: int
) -> None:
    bad = {f"a:{i}" for i in range(0, 40, 3)}
    plan = BatchPlan(rows, batch=8, seed=1)
    whole = rows_told(told(Loader(rows, plan, Names(bad), seed=0, workers=0), 0, 20))

    tail = told(Loader(rows, plan, Names(bad), seed=0, workers=workers, chunk=3), 13, 20)

    assert rows_told(tail) == whole[13:]


def test_a_bad_row_is_opened_once_only() -> None:
    rows = listed_rows(numbered(16))
    plan = BatchPlan(rows, batch=8, seed=0)
    collate = Names({"a:1"})

    told(Loader(rows, plan, collate, seed=0, workers=1), 0, 20)

    assert collate.calls == 20 + 1


def test_a_run_that_is_to_stop_at_a_bad_row_does(rows: Rows) -> None:
    plan = BatchPlan(rows, batch=8, seed=0)
    loader = Loader(rows, plan, Names({"a:3"}), seed=0, bad_rows="stop")

    with pytest.raises(BadExample, match="a:3 cannot be trained on: a:3 is bad"):
        told(loader, 0, plan.steps_per_epoch)


def test_a_data_set_of_bad_rows_alone_ends_the_run_and_says_where_to_look(rows: Rows) -> None:
    plan = BatchPlan(rows, batch=8, seed=0)
    loader = Loader(rows, plan, Names({f"b:{i}" for i in range(21)}), seed=0)

    with pytest.raises(BadExample, match=r"b:\d+ cannot be trained on") as error:
        told(loader, 0, plan.steps_per_epoch)

    assert "'root' says where they do" in error.value.hint
    assert "'b'" in error.value.hint


def test_a_file_that_changes_in_the_middle_of_an_epoch_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    lines = [json.dumps({"query": f"q{i:02}", "positive": "p"}) + "\n" for i in range(20)]
    path.write_text("".join(lines))
    rows = open_rows([DataSource(path)])
    path.write_text("".join(lines[:7]) + "x" * len(lines[7]) + "".join(lines[8:]))

    loader = Loader(rows, BatchPlan(rows, batch=4, seed=0), Names(), seed=0)
    held = rows_told(told(loader, 0, 5))

    assert [str(bad) for bad in loader.bad] == [
        "pairs.jsonl:8: its file has changed since it was read"
    ]
    assert all("pairs.jsonl:8" not in step for step in held)


def test_only_so_much_is_made_ahead(rows: Rows) -> None:
    collate = Names()
    plan = BatchPlan(rows, batch=8, seed=0)

    with Loader(rows, plan, collate, seed=0, workers=2) as loader:
        steps = loader.steps(0, 1_000)
        next(steps)
        time.sleep(0.1)
        made = collate.calls

    assert made <= 1 + 4  # twice the workers


def test_an_error_of_the_collate_reaches_the_caller_and_the_threads_end(rows: Rows) -> None:
    def broken(examples: Sequence[Example], *, seed: int) -> TrainingBatch:
        raise RuntimeError("no such kernel")

    loader = Loader(rows, BatchPlan(rows, batch=8, seed=0), broken, seed=0, workers=2)

    with pytest.raises(RuntimeError, match="no such kernel"):
        told(loader, 0, 4)

    assert not [one for one in threading.enumerate() if one.name.startswith("mmsearch-loader")]


def test_a_corrupt_picture_in_the_middle_of_an_epoch_is_stood_in_for(
    collate: MediaCollate, tmp_path: Path
) -> None:
    examples = []
    for i in range(12):
        path = tmp_path / f"{i}.png"
        pil.fromarray(half(size=32 + i)).save(path)
        examples.append(
            Example(Side((f"number {i}",)), Side((Media(path),)), dataset="a", row=f"a:{i}")
        )
    (tmp_path / "5.png").write_bytes((tmp_path / "5.png").read_bytes()[:60])
    rows = listed_rows(examples)
    loader = Loader(rows, BatchPlan(rows, batch=4, seed=0), collate, seed=0, chunk=2)

    steps = told(loader, 0, 6)

    for chunk in (chunk for step in steps for chunk in step):
        assert chunk.query.sides == tuple(one.query for one in chunk.examples)
        assert chunk.positive.sides == tuple(one.positive for one in chunk.examples)
        assert all(one.row != "a:5" for one in chunk.examples)
    assert [bad.row for bad in loader.bad] == ["a:5"]
    assert "5.png" in loader.bad[0].reason
