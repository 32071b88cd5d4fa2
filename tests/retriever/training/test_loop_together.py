"""PLUME's whole run in two processes, and what of a run's settings reaches the model."""

import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from mmsearch.retriever.training.config import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimiserConfig,
    RunConfig,
    TrainingConfig,
)
from mmsearch.retriever.training.gathering import World, end_world, start_world
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
    run=RunConfig(steps=2, batch=4, chunk=2, workers=0),
)


def work(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
    }
    world = start_world("cpu")
    try:
        train(PLUME, Path(out), world=world)
    finally:
        end_world(world)


def test_two_processes_learn_plume_as_one_does(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(work, args=(port, str(tmp_path / "two")), nprocs=2)  # type: ignore[no-untyped-call]
    train(PLUME, tmp_path / "one")

    ours, theirs = (
        [line for line in read_metrics(tmp_path / of) if "loss" in line] for of in ("two", "one")
    )
    assert len(ours) == len(theirs) == 2
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["parts"].keys() == {"ce", "gen", "anchor", "balance"}
        assert mine["parts"] == pytest.approx(other["parts"], rel=1e-3)
        assert mine["norm"] == pytest.approx(other["norm"], rel=1e-3)
    weights, alone = (read_snapshot(find_snapshot(tmp_path / of))[0] for of in ("two", "one"))
    for name, tensor in alone.items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-3, rtol=1e-3, msg=name)


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
