"""PLUME's whole run in two processes, and what of a run's settings reaches the model."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_processes import join_world, run_together

from mmsearch.errors import BadInput
from mmsearch.retriever.training import loop
from mmsearch.retriever.training.config import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimiserConfig,
    RunConfig,
    TrainingConfig,
)
from mmsearch.retriever.training.gathering import World, end_world
from mmsearch.retriever.training.loop import Run, train
from mmsearch.retriever.training.metrics import read_metrics
from mmsearch.retriever.training.preparing import prepare
from mmsearch.retriever.training.snapshots import find_snapshot, read_snapshot

# One process takes two chunks a step and each of two takes one: dropout, which is drawn anew
# for each chunk, is the same either way.
PLUME = TrainingConfig(
    model=ModelConfig(
        start="tiny-default",
        reasoner="rollout",
        options={"steps": 4, "adapter": {"dropout": 0.2}},
    ),
    data=DataConfig(toy=8),
    objective=ObjectiveConfig(name="plume", temperature=0.1),
    optimiser=OptimiserConfig(learning_rate=1e-3),
    run=RunConfig(steps=2, batch=4, chunk=2, workers=0, device="cpu"),
)


def work(rank: int, port: int, folder: str) -> None:
    world = join_world(rank, port)
    try:
        train(PLUME, Path(folder) / "two", world=world)
    finally:
        end_world(world)
    if rank == 0:  # here, where threads and precision are those of the other run
        train(PLUME, Path(folder) / "one")


def test_two_processes_learn_plume_as_one_does(tmp_path: Path) -> None:
    run_together(work, tmp_path)

    ours, theirs = (
        [line for line in read_metrics(tmp_path / of) if "loss" in line] for of in ("two", "one")
    )
    assert len(ours) == len(theirs) == 2
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["parts"].keys() == {"ce", "gen", "anchor", "balance"}
        assert mine["parts"] == pytest.approx(other["parts"], rel=1e-5)
        assert mine["norm"] == pytest.approx(other["norm"], rel=1e-5)
    weights, alone = (read_snapshot(find_snapshot(tmp_path / of))[0] for of in ("two", "one"))
    for name, tensor in alone.items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-4, rtol=1e-5, msg=name)


@pytest.mark.parametrize("rank", [0, 1])
def test_nobody_writes_before_all_have_looked_at_the_folder(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waits(Exception):
        pass

    def wait(value: Any, world: World) -> Any:
        raise Waits

    monkeypatch.setattr(loop, "gather_values", wait)
    with pytest.raises(Waits):
        train(PLUME, tmp_path / "new", world=World(rank, 2))
    assert not (tmp_path / "new").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(BadInput, match="is no training run"):
        train(PLUME, tmp_path / "other", world=World(rank, 2))


@pytest.mark.parametrize("is_on", [False, True])
def test_layers_are_computed_again_where_that_is_asked(is_on: bool) -> None:
    config = replace(PLUME, run=replace(PLUME.run, checkpointing=is_on))
    assert prepare(config, world=World()).model.backbone.checkpointing is is_on


def test_averages_are_what_is_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(
        PLUME,
        model=ModelConfig(start="tiny-default"),
        data=DataConfig(toy=8, held_out_toy=4),
        objective=ObjectiveConfig(temperature=0.1),
        optimiser=OptimiserConfig(learning_rate=1e-2, ema=0.9),
    )
    run = Run(prepare(config, world=World()), tmp_path, World())
    probed: list[Mapping[str, Tensor]] = []
    recalls = run.probe.recalls

    def watched(*asked: Any, **choices: Any) -> Any:
        probed.append(
            {name: one.detach().clone() for name, one in run.optimiser.parameters.items()}
        )
        return recalls(*asked, **choices)

    monkeypatch.setattr(run.probe, "recalls", watched)
    run.go(resume=False)

    averages = run.optimiser.averages
    assert all(torch.equal(probed[-1][name], average) for name, average in averages.items())
    learnt = run.optimiser.parameters
    assert any(not torch.equal(learnt[name], average) for name, average in averages.items())
