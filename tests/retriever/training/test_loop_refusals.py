"""What the loop refuses rather than learn, write or report something that is wrong."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmsearch.errors import BadInput, TrainingStopped
from mmsearch.retriever.store.lock import WriteLock
from mmsearch.retriever.training.config import (
    DataConfig,
    DataSource,
    ModelConfig,
    ObjectiveConfig,
    OptimiserConfig,
    RunConfig,
    TrainingConfig,
)
from mmsearch.retriever.training.loop import train
from mmsearch.retriever.training.metrics import read_metrics
from mmsearch.retriever.training.snapshots import find_snapshot, list_snapshots, write_snapshot

WORDS = ["red bus", "grey cat", "tall tower", "blue door", "old map", "green hill"]


@pytest.fixture
def config(tmp_path: Path) -> TrainingConfig:
    """Two steps on six pairs of words."""
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(line(words) for words in WORDS))
    return TrainingConfig(
        model=ModelConfig(start="tiny-default"),
        data=DataConfig(train=(DataSource(pairs),)),
        objective=ObjectiveConfig(temperature=0.1),
        optimiser=OptimiserConfig(learning_rate=1e-3, warm_up=0.0),
        run=RunConfig(steps=2, batch=4, save_every=1, workers=0),
    )


def line(words: str) -> str:
    return json.dumps({"query": words, "positive": f"a photograph of a {words}"}) + "\n"


def test_a_folder_is_trained_into_by_one_run_at_a_time(
    config: TrainingConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train(config, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with WriteLock(out), pytest.raises(BadInput, match="being trained into by process") as refused:
        train(replace(config, run=replace(config.run, workers=1)), out, resume=True)
    assert "--out" in refused.value.hint
    before.pop(out / "write.lock")
    assert before == {path: path.read_bytes() for path in before}
    train(config, out, resume=True)  # the other is done


def test_a_folder_where_a_run_died_at_once_is_used(config: TrainingConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with WriteLock(out):
        pass
    assert train(config, out).steps == 2


@pytest.mark.parametrize("now", [WORDS[:5], [*WORDS[:5], "new words"], WORDS[::-1]])
def test_a_run_does_not_go_on_with_other_rows(
    config: TrainingConfig, tmp_path: Path, now: list[str]
) -> None:
    out = tmp_path / "run"
    train(config, out)
    (out / "snapshots" / "step-00000002" / "state.json").unlink()
    config.data.train[0].path.write_text("".join(line(words) for words in now))
    with pytest.raises(BadInput, match=r"not those that it began with.* 6 and 0") as refused:
        train(config, out, resume=True)
    assert "put the files back" in refused.value.hint


def test_a_run_that_is_over_says_so_in_json_that_anybody_reads(
    config: TrainingConfig, tmp_path: Path
) -> None:
    train(config, tmp_path / "run")
    report = train(config, tmp_path / "run", resume=True)
    assert math.isnan(report.loss[1])
    told = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert told["loss"] is None


def test_weights_that_are_no_numbers_are_not_kept(config: TrainingConfig, tmp_path: Path) -> None:
    mad = replace(
        config, optimiser=replace(config.optimiser, learning_rate=1e30, weight_decay=1e30)
    )
    with pytest.raises(TrainingStopped, match="is not a number after step 1") as stopped:
        train(mad, tmp_path / "run")
    assert "learning_rate" in stopped.value.hint
    assert not list_snapshots(tmp_path / "run")


def test_nor_are_vectors_of_held_out_pairs(config: TrainingConfig, tmp_path: Path) -> None:
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("".join(line(f"{words} at night") for words in WORDS))
    mad = replace(
        config,
        data=replace(config.data, held_out=(DataSource(held_out),)),
        optimiser=replace(config.optimiser, learning_rate=1e30, weight_decay=1e30),
        run=replace(config.run, steps=1),
    )
    with pytest.raises(TrainingStopped, match="held-out pairs are not numbers"):
        train(mad, tmp_path / "run")
    assert not list_snapshots(tmp_path / "run")


def test_a_snapshot_of_other_sizes_is_refused_by_name(
    config: TrainingConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train(config, out)
    state = json.loads((find_snapshot(out).folder / "state.json").read_text())
    write_snapshot(out, 2, weights={"head.x": torch.zeros(1)}, optimiser={}, state=state, keep=2)
    with pytest.raises(TrainingStopped, match="is of another model"):
        train(config, out, resume=True)


def test_what_was_measured_is_not_lost_where_a_resumed_run_cannot_write(
    config: TrainingConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train(config, out)
    (out / "snapshots" / "step-00000002" / "state.json").unlink()
    with (out / "metrics.jsonl").open("a") as file:
        file.write("3\n")  # no line of ours
    assert [one["step"] for one in read_metrics(out) if "loss" in one] == [1, 2]
    train(config, out, resume=True)
    assert [one["step"] for one in read_metrics(out) if "loss" in one] == [1, 2]
