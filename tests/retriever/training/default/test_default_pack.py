"""Shards hold the mix as any training file does, each picture once, none of them too large."""

import tarfile
from pathlib import Path

import pytest

from mmsearch.retriever.training.config import DataSource
from mmsearch.retriever.training.default.clips import MovingShape, MovingShapes
from mmsearch.retriever.training.default.pack import pack
from mmsearch.retriever.training.default.pictures import Drawn
from mmsearch.retriever.training.examples import Example, Side
from mmsearch.retriever.training.loading import open_still
from mmsearch.retriever.training.records import open_rows


@pytest.fixture
def examples() -> list[Example]:
    shape = MovingShape("circle", "red", "from left to right", 0.5)
    moves = MovingShapes(("white", (255, 255, 255)), (shape,), "0")
    drawn = [Drawn("shapes", i, 0) for i in range(4)]
    rows = [
        Example(Side((f"drawing {i}",), "It asks.", "a drawing"), Side((one,), "It shows."), (),
                "shapes", str(i))
        for i, one in enumerate(drawn)
    ]  # fmt: skip
    rows.append(Example(Side(("it moves",)), Side((moves,)), (), "moving", "4"))
    rows.append(
        Example(Side((drawn[0], "but red")), Side((drawn[1],)), (Side((drawn[2],)),), "composed")
    )
    return rows


def test_a_run_reads_what_was_packed(examples: list[Example], tmp_path: Path) -> None:
    paths = pack(examples, tmp_path / "shards")
    lines = ""
    for path in paths:
        with tarfile.open(path) as shard:
            shard.extractall(tmp_path, filter="data")
    for part in sorted(tmp_path.glob("pairs-*.jsonl")):
        lines += part.read_text()
    (tmp_path / "pairs.jsonl").write_text(lines)

    rows = open_rows((DataSource(tmp_path / "pairs.jsonl"),))

    assert len(rows) == len(examples)
    assert rows.num_bad == 0
    for i, example in enumerate(examples):
        assert rows[i].query.text == example.query.text
        assert rows[i].query.rationale == example.query.rationale
        assert rows[i].dataset == example.dataset
    seen = open_still(rows[0].positive.parts[0])  # type: ignore[arg-type]
    assert seen.pixels.shape[2] == 3
    film = open_still(rows[4].positive.parts[0])  # type: ignore[arg-type]
    assert len(film.pixels) == 8
    assert len(rows[5].negatives) == 1


def test_shards_keep_to_their_size_and_hold_a_picture_once(
    examples: list[Example], tmp_path: Path
) -> None:
    paths = pack(examples, tmp_path, most_bytes=40_000)

    names: list[str] = []
    for path in paths:
        assert path.stat().st_size <= 40_000
        with tarfile.open(path) as shard:
            names += shard.getnames()
    assert len(paths) > 1
    assert len(names) == len(set(names))
    assert sum(name.endswith(".jpg") for name in names) == 4 + 8
