import json
from pathlib import Path

import pytest
import torch
from full_disk import largest_file

from mmsearch.errors import BadInput, TrainingStopped
from mmsearch.retriever.training.config import DataConfig, RunConfig, TrainingConfig
from mmsearch.retriever.training.snapshots import (
    Snapshot,
    final_weights,
    find_snapshot,
    list_snapshots,
    read_run_config,
    read_snapshot,
    refuse_other,
    write_run_config,
    write_snapshot,
)

CONFIG = TrainingConfig(data=DataConfig(toy=4), run=RunConfig(steps=5))


def write(run: Path, step: int, *, keep: int = 2, size: int = 4) -> Snapshot:
    torch.manual_seed(step)
    weights = {"backbone.w": torch.randn(size, 3), "extras.w": torch.randn(2)}
    optimiser = {"exp_avg.backbone.w": torch.randn(size, 3), "step.backbone.w": torch.tensor(7.0)}
    return write_snapshot(
        run, step, weights=weights, optimiser=optimiser, state={"num_steps": 9}, keep=keep
    )


def test_every_bit_comes_back(tmp_path: Path) -> None:
    written = write(tmp_path, 3)
    weights, optimiser = read_snapshot(written)
    torch.manual_seed(3)
    assert torch.equal(weights["backbone.w"], torch.randn(4, 3))
    assert torch.equal(optimiser["step.backbone.w"], torch.tensor(7.0))
    assert json.loads((written.folder / "state.json").read_text()) == {"step": 3, "num_steps": 9}


def test_the_newest_stay_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for step in (1, 9, 10, 100):
        write(tmp_path, step, keep=2)
    assert [one.step for one in list_snapshots(tmp_path)] == [10, 100]
    assert find_snapshot(tmp_path).step == 100
    assert find_snapshot(tmp_path, 10).step == 10


def test_one_that_is_unfinished_is_none(tmp_path: Path) -> None:
    write(tmp_path, 1)
    unfinished = tmp_path / "snapshots" / "step-00000002.part"
    unfinished.mkdir()
    (unfinished / "state.json").write_text("{}")
    (tmp_path / "snapshots" / "step-00000003").mkdir()  # without its state
    assert [one.step for one in list_snapshots(tmp_path)] == [1]
    write(tmp_path, 2)  # and what was left behind is in nobody's way
    assert [one.step for one in list_snapshots(tmp_path)] == [1, 2]


def test_no_space_keeps_the_one_before(tmp_path: Path) -> None:
    first = write(tmp_path, 1)
    with largest_file(10_000), pytest.raises(TrainingStopped) as caught:
        write(tmp_path, 2, keep=1, size=10_000)
    assert "the snapshot of step 2 (0 MB) cannot be written" in str(caught.value)
    assert "the snapshot of step 1 is whole" in str(caught.value)
    assert "--resume" in caught.value.hint
    assert list_snapshots(tmp_path) == [first]
    read_snapshot(first)
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == ["step-00000001"]


def test_a_damaged_one_is_named_with_the_remedy(tmp_path: Path) -> None:
    written = write(tmp_path, 1)
    file = written.folder / "optimiser.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(TrainingStopped, match="cut short") as caught:
        read_snapshot(written)
    assert "delete that folder" in caught.value.hint


def test_averages_are_what_is_exported(tmp_path: Path) -> None:
    weights = {"a": torch.zeros(2), "b": torch.zeros(2)}
    one = write_snapshot(
        tmp_path, 1, weights=weights, optimiser={"ema.a": torch.ones(2)}, state={}, keep=1
    )
    assert final_weights(one)["a"].tolist() == [1.0, 1.0]
    assert final_weights(one)["b"].tolist() == [0.0, 0.0]


def test_a_step_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 4)
    with pytest.raises(BadInput) as caught:
        find_snapshot(tmp_path, 2)
    assert caught.value.hint == "it has those of step 1, 4"


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no snapshot"):
        find_snapshot(tmp_path)
    with pytest.raises(BadInput, match="no such folder"):
        read_run_config(tmp_path / "nowhere")


def test_the_configuration_comes_back_equal(tmp_path: Path) -> None:
    write_run_config(tmp_path, CONFIG)
    assert read_run_config(tmp_path) == CONFIG


def test_another_configuration_is_refused_with_what_differs(tmp_path: Path) -> None:
    write_run_config(tmp_path, CONFIG)
    other = TrainingConfig(data=DataConfig(toy=4), run=RunConfig(steps=6, workers=9, keep=7))
    with pytest.raises(BadInput, match=r"run\.steps is 6, not 5$"):
        refuse_other(tmp_path, other)
    harmless = TrainingConfig(data=DataConfig(toy=4), run=RunConfig(steps=5, workers=9, keep=7))
    refuse_other(tmp_path, harmless)
