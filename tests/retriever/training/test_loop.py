"""The loop on a network of random weights that sees drawings: seconds, no files, no network."""

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import largest_file

from mmsearch.errors import BadExample, BadInput, TrainingStopped
from mmsearch.retriever.training.config import (
    DataConfig,
    DataSource,
    LoraSettings,
    ModelConfig,
    ObjectiveConfig,
    OptimiserConfig,
    RunConfig,
    TrainingConfig,
)
from mmsearch.retriever.training.gathering import World
from mmsearch.retriever.training.loop import (
    Interrupts,
    Run,
    TrainingProgress,
    TrainingReport,
    seed_of,
    train,
)
from mmsearch.retriever.training.metrics import read_metrics
from mmsearch.retriever.training.preparing import Prepared, prepare
from mmsearch.retriever.training.snapshots import (
    find_snapshot,
    list_snapshots,
    read_snapshot,
)
from mmsearch.retriever.training.toy import toy_examples

PLAIN = TrainingConfig(
    model=ModelConfig(start="tiny-default"),
    data=DataConfig(toy=12, held_out_toy=6),
    objective=ObjectiveConfig(temperature=0.1),
    optimiser=OptimiserConfig(learning_rate=1e-3, warm_up=0.1),
    run=RunConfig(steps=6, batch=4, save_every=1, keep=9, workers=0),
)
PLUME = replace(
    PLAIN,
    model=ModelConfig(
        start="tiny-qwen2_vl",
        reasoner="rollout",
        options={"steps": 4, "adapter": {"dropout": 0.2}},
    ),
    objective=ObjectiveConfig(name="plume", temperature=0.1),
    optimiser=OptimiserConfig(learning_rate=1e-3, ema=0.9),
    run=replace(PLAIN.run, chunk=2),
)
LAME = replace(
    PLAIN,
    model=ModelConfig(
        start="tiny-default", reasoner="bottleneck", options={"num_tokens": 4, "num_decoded": 2}
    ),
    objective=ObjectiveConfig(name="lame", temperature=0.1, warm_up=0.5),
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run) if "loss" in line]


def with_run(config: TrainingConfig, **changes: Any) -> TrainingConfig:
    return replace(config, run=replace(config.run, **changes))


@contextmanager
def stopping_after(step: int) -> Iterator[Any]:
    """What a person does who presses Ctrl-C when that step was told."""

    def hear(progress: TrainingProgress) -> None:
        if progress.step == step:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        yield hear


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, TrainingReport]]:
    """Each recipe, trained without interruption."""
    torch.set_num_threads(1)
    runs = {}
    for config in (PLAIN, PLUME, LAME):
        out = tmp_path_factory.mktemp("whole") / config.objective.name
        runs[config.objective.name] = out, train(config, out)
    return runs


# ---------------------------------------------------------------- the same again


@pytest.mark.parametrize("config", [PLAIN, PLUME, LAME], ids=lambda one: one.objective.name)
def test_the_same_configuration_learns_the_same(
    config: TrainingConfig, whole: dict[str, tuple[Path, TrainingReport]], tmp_path: Path
) -> None:
    out, _ = whole[config.objective.name]
    train(with_run(config, save_every=0, workers=2), tmp_path / "again")
    assert losses(tmp_path / "again") == losses(out)


def test_another_seed_learns_something_else(
    whole: dict[str, tuple[Path, TrainingReport]], tmp_path: Path
) -> None:
    train(with_run(PLAIN, seed=1, save_every=0), tmp_path / "other")
    assert losses(tmp_path / "other")[0] != losses(whole["plain"][0])[0]


@pytest.mark.parametrize(
    ("config", "step"),
    [(PLAIN, 1), (PLUME, 2), (PLUME, 5), (LAME, 3)],
    ids=lambda one: str(one) if isinstance(one, int) else one.objective.name,
)
def test_a_run_goes_on_from_any_step_to_the_bit(
    config: TrainingConfig,
    step: int,
    whole: dict[str, tuple[Path, TrainingReport]],
    tmp_path: Path,
) -> None:
    out, _ = whole[config.objective.name]
    part = tmp_path / "run"
    with stopping_after(step) as hear:
        train(with_run(config, save_every=0), part, on_progress=hear)
    assert [one.step for one in list_snapshots(part)] == [step]
    assert losses(part) == losses(out)[:step]
    train(with_run(config, save_every=0), part, resume=True)
    assert losses(part) == losses(out)
    ours, theirs = (read_snapshot(find_snapshot(one)) for one in (part, out))
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_crash_between_snapshots_is_taken_back_to_the_last(
    whole: dict[str, tuple[Path, TrainingReport]], tmp_path: Path
) -> None:
    def crash(progress: TrainingProgress) -> None:
        if progress.step == 5:
            raise RuntimeError("the power went out")

    config, out = with_run(PLAIN, save_every=3), tmp_path / "run"
    with pytest.raises(RuntimeError):
        train(config, out, on_progress=crash)
    assert find_snapshot(out).step == 3
    assert len(losses(out)) == 5
    train(config, out, resume=True)
    assert losses(out) == losses(whole["plain"][0])


def test_chunks_change_the_memory_and_not_the_step(
    whole: dict[str, tuple[Path, TrainingReport]], tmp_path: Path
) -> None:
    train(with_run(PLAIN, chunk=1), tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx(losses(whole["plain"][0]), rel=1e-4)


# ---------------------------------------------------------------- what it keeps and tells


def test_a_run_writes_what_it_says(whole: dict[str, tuple[Path, TrainingReport]]) -> None:
    out, report = whole["plume"]
    assert [one.step for one in list_snapshots(out)] == [1, 2, 3, 4, 5, 6]
    lines = read_metrics(out)
    assert [line["step"] for line in lines if "recall" in line] == [0, 6]
    steps = [line for line in lines if "loss" in line]
    assert {"gen", "anchor", "ce", "balance"} <= steps[0]["parts"].keys()
    assert steps[0]["stage"] == "1 of 4 steps"
    assert steps[-1]["stage"] == "4 steps"
    assert all(line["norm"] > 0 and line["rows_per_s"] > 0 for line in steps)
    assert report.curves == out / "curves.png"
    assert report.recall[1] == next(
        line["recall"] for line in lines if line["step"] == 6 and "recall" in line
    )
    assert report.loss == (steps[0]["loss"], steps[-1]["loss"])


def test_moments_are_forgotten_at_a_ratio_and_not_at_the_answer(
    whole: dict[str, tuple[Path, TrainingReport]],
) -> None:
    # Six steps: one for each of the first three ratios, then three with the last one, in the
    # middle of which the answer goes.
    out, _ = whole["plume"]
    counted = []
    for snapshot in list_snapshots(out):
        _, state = read_snapshot(snapshot)
        counted.append(int(state["step.reasoner.adapter.ln.weight"].item()))
    assert counted == [1, 1, 1, 1, 2, 3]


def test_the_warm_up_of_lame_leaves_the_backbone_alone(
    whole: dict[str, tuple[Path, TrainingReport]],
) -> None:
    out, _ = whole["lame"]
    first, third, fourth = (read_snapshot(find_snapshot(out, step))[0] for step in (1, 3, 4))
    backbone = [name for name in first if name.startswith("backbone.")]
    assert backbone
    assert all(torch.equal(first[name], third[name]) for name in backbone)
    assert not torch.equal(first["reasoner.reason"], third["reasoner.reason"])
    assert any(not torch.equal(third[name], fourth[name]) for name in backbone)


def test_the_loss_falls_on_pairs_seen_often(tmp_path: Path) -> None:
    config = replace(PLAIN, data=DataConfig(toy=4), run=RunConfig(steps=15, batch=4, workers=0))
    report = train(config, tmp_path / "run")
    assert report.loss[1] < 0.5 * report.loss[0]
    assert report.recall == (None, None)  # nothing was kept back


def test_computing_in_bfloat16_learns_in_float32(tmp_path: Path) -> None:
    train(with_run(PLAIN, dtype="bfloat16", steps=2), tmp_path / "run")
    weights, state = read_snapshot(find_snapshot(tmp_path / "run"))
    assert {tensor.dtype for tensor in (*weights.values(), *state.values())} == {torch.float32}
    assert all(map(math.isfinite, losses(tmp_path / "run")))


def test_a_run_that_is_over_is_not_taken_further(
    whole: dict[str, tuple[Path, TrainingReport]],
) -> None:
    out, _ = whole["plain"]
    before = losses(out)
    report = train(PLAIN, out, resume=True)
    assert losses(out) == before
    assert report.steps == 6


def test_seeds_differ_by_every_number() -> None:
    seeds = {seed_of(0, step, place) for step in range(20) for place in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)


# ---------------------------------------------------------------- what stops it


def test_another_run_in_the_folder_is_refused(
    whole: dict[str, tuple[Path, TrainingReport]], tmp_path: Path
) -> None:
    out, _ = whole["plain"]
    with pytest.raises(BadInput, match="got to step 6") as caught:
        train(PLAIN, out)
    assert "--resume" in caught.value.hint
    with pytest.raises(BadInput, match=r"run\.seed is 1, not 0"):
        train(with_run(PLAIN, seed=1), out, resume=True)
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(BadInput, match="no training run"):
        train(PLAIN, tmp_path)


class _Poisoned:
    """An objective whose query vectors of one row are not numbers."""

    def __init__(self, objective: Any, row: str) -> None:
        self._objective, self._row = objective, row

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objective, name)

    def represent(self, model: Any, batch: Any, stage: Any) -> dict[str, torch.Tensor]:
        made = dict(self._objective.represent(model, batch, stage))
        is_bad = [example.row == self._row for example in batch.examples]
        made["query.vector"] = made["query.vector"].masked_fill(
            torch.tensor(is_bad)[:, None], math.nan
        )
        return made


def test_a_loss_that_is_no_number_names_the_row_and_keeps_the_snapshot(tmp_path: Path) -> None:
    out = tmp_path / "run"
    prepared: Prepared = prepare(PLAIN, world=World())
    # A row that the third step is the first to read.
    row = min(_rows_of(prepared, 2) - _rows_of(prepared, 0) - _rows_of(prepared, 1))
    out.mkdir()
    poisoned = replace(prepared, objective=_Poisoned(prepared.objective, row))
    with pytest.raises(TrainingStopped) as caught:
        Run(poisoned, out, World()).go(resume=False)
    assert "the loss is not a number at step 3 of 6" in str(caught.value)
    assert f"by {row} " in str(caught.value)
    assert "the snapshot of step 2 is kept" in str(caught.value)
    told = json.loads((out / "stopped.json").read_text())
    assert told["not_finite"] == [row]
    assert set(told["rows"]) == _rows_of(prepared, 2)
    weights, _ = read_snapshot(find_snapshot(out))
    assert find_snapshot(out).step == 2
    assert all(bool(one.isfinite().all()) for one in weights.values())


def _rows_of(prepared: Prepared, step: int) -> set[str]:
    train_rows = prepared.rows.train
    return {train_rows[int(number)].row for number in prepared.plan.rows_of(step)}


def test_a_rate_that_is_far_too_high_stops_the_run(tmp_path: Path) -> None:
    config = replace(PLAIN, optimiser=OptimiserConfig(learning_rate=1e30, clip=0.0, warm_up=0.0))
    with pytest.raises(TrainingStopped, match="not a number") as caught:
        train(config, tmp_path / "run")
    assert "learning_rate" in caught.value.hint


def test_a_full_disk_keeps_the_snapshot_before(tmp_path: Path) -> None:
    with ExitStack() as until_then:

        def fill(progress: TrainingProgress) -> None:
            if progress.step == 2:
                until_then.enter_context(largest_file(50_000))

        with pytest.raises(TrainingStopped, match=r"the snapshot of step 1 is whole"):
            train(PLAIN, tmp_path / "run", on_progress=fill)
    assert find_snapshot(tmp_path / "run").step == 1
    train(PLAIN, tmp_path / "run", resume=True)


def test_one_ctrl_c_that_comes_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # The terminal sends it to everybody, and torchrun passes it on to its processes.
    import os
    import signal

    with Interrupts() as interrupts:
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert interrupts.asked
        monkeypatch.setattr("mmsearch.retriever.training.loop.AGAIN_S", 0.0)
        with pytest.raises(KeyboardInterrupt):  # whoever asks again later means now
            os.kill(os.getpid(), signal.SIGINT)


# ---------------------------------------------------------------- rows of files


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Ten pairs of words and picture files, one of them damaged."""
    from PIL import Image

    lines = []
    for number, example in enumerate(toy_examples(10, seed=3)):
        name = f"{number}.png"
        drawing = example.positive.parts[0]
        assert not isinstance(drawing, str)
        Image.fromarray(drawing.open().pixels).save(tmp_path / name)  # type: ignore[union-attr]
        lines.append({"query": example.query.text, "positive": {"image": name}})
    whole = (tmp_path / "4.png").read_bytes()
    (tmp_path / "4.png").write_bytes(whole[: len(whole) // 2])
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_a_damaged_picture_is_replaced_and_told(pairs: Path, tmp_path: Path) -> None:
    data = DataConfig(train=(DataSource(pairs),), compare_looks=False)
    config = with_run(replace(PLAIN, data=data), batch=5, save_every=0)
    report = train(config, tmp_path / "run")
    assert [one.row for one in report.bad] == ["pairs.jsonl:5"]
    assert len(losses(tmp_path / "run")) == 6


def test_rows_that_are_not_trained_on_are_counted_and_named(pairs: Path, tmp_path: Path) -> None:
    with pairs.open("a") as file:  # a row that is none, and two that are their own answers
        file.write('{"query": "a row without an answer"}\n')
        file.write('{"query": {"image": "1.png"}, "positive": {"image": "1.png"}}\n')
    kept_back = tmp_path / "held-out.jsonl"
    kept_back.write_text(
        '{"query": {"image": "8.png"}, "positive": {"image": "8.png"}}\n'
        '{"query": "what is the ninth?", "positive": {"image": "9.png"}}\n'
    )
    data = DataConfig(train=(DataSource(pairs),), held_out=(DataSource(kept_back),))
    told: list[TrainingProgress] = []
    report = train(
        with_run(replace(PLAIN, data=data), batch=4, save_every=0),
        tmp_path / "run",
        on_progress=told.append,
    )
    assert [one.row for one in report.bad] == ["pairs.jsonl:11", "pairs.jsonl:5"]
    left = {one.row: one.reason for one in report.leaks}
    assert left == {
        "pairs.jsonl:9": "it shows a held-out picture",
        "pairs.jsonl:10": "it shows a held-out picture",
        "pairs.jsonl:12": "its query shows a picture of its positive",
        "held-out.jsonl:1": "its query shows a picture of its positive",
    }
    assert (report.rows, report.held_out, report.num_bad) == (8, 1, 2)
    first, *lines = read_metrics(tmp_path / "run")
    assert first["step"] == 0
    assert first["rows"] == {"train": 8, "held_out": 1, "bad": 1, "leaks": 4}
    assert [one["row"] for one in first["bad"]] == ["pairs.jsonl:11"]
    assert {one["row"] for one in first["leaks"]} == left.keys()
    met = [line["bad_rows"] for line in lines if "bad_rows" in line]
    assert [[one["row"] for one in rows] for rows in met] == [["pairs.jsonl:5"]]
    assert told[0].line["rows"] == first["rows"]
    assert sum("rows" in one.line for one in told) == 1
    shown = report.as_dict()
    assert (shown["rows"], shown["num_bad_rows"], shown["num_leaks"]) == (8, 2, 4)


def test_or_it_stops_the_run_by_name(pairs: Path, tmp_path: Path) -> None:
    data = DataConfig(train=(DataSource(pairs),), compare_looks=False)
    config = with_run(replace(PLAIN, data=data), batch=5, bad_rows="stop")
    with pytest.raises(BadExample, match=r"pairs\.jsonl:5"):
        train(config, tmp_path / "run")


# ---------------------------------------------------------------- all of it together


def test_lora_with_checkpointing_goes_on_and_is_exported_without(tmp_path: Path) -> None:
    from mmsearch.retriever.models.checkpoint import read_checkpoint
    from mmsearch.retriever.training.export import export_run

    config = replace(
        with_run(PLUME, steps=4, checkpointing=True, save_every=0),
        lora=LoraSettings(rank=2, alpha=4.0),
    )
    train(config, tmp_path / "whole")
    with stopping_after(2) as hear:
        train(config, tmp_path / "part", on_progress=hear)
    train(config, tmp_path / "part", resume=True)
    assert losses(tmp_path / "part") == losses(tmp_path / "whole")
    weights, _ = read_snapshot(find_snapshot(tmp_path / "part"))
    assert any(".lora_A." in name for name in weights)
    assert not any("q_proj" in name and ".lora_" not in name for name in weights)
    export_run(tmp_path / "part", tmp_path / "model")
    description, model = read_checkpoint(tmp_path / "model")
    assert description.reasoner == "rollout"
    assert not any("lora" in name for name in model.state_dict())
