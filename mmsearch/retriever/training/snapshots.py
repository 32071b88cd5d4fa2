"""What a run can be resumed from, and exported from: its snapshots.

    RUN/
      config.json                 what it was told, every field named; what it started from
      metrics.jsonl               one line a step
      snapshots/step-00000100/    weights.safetensors     every parameter that ever learns
                                  optimiser.safetensors   moments, and averages of the weights
                                  state.json              the step

A snapshot is written beside and renamed when all of it is on the disk, so that whatever
moment a run dies there is the one before or the new one, whole. What never learns is not
in it: that is made again from the start that ``config.json`` names.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from mmsearch.errors import BadCheckpoint, BadInput, TrainingStopped
from mmsearch.retriever.models.tensors import opened_tensors, tensor_bytes, tensor_info
from mmsearch.retriever.models.weight_files import TensorWriter, read_header, read_json
from mmsearch.retriever.store.durable import flush, write_file
from mmsearch.retriever.training.config import TrainingConfig, config_of, differences

FORMAT = 1
START = "start_hash"  # of the space that the run's start had
CONFIG_FILE, STATE_FILE = "config.json", "state.json"
WEIGHTS_FILE, OPTIMISER_FILE = "weights.safetensors", "optimiser.safetensors"
AVERAGE = "ema."  # stands before the name of a weight's average in the optimiser's file
FOLDER, PREFIX, UNFINISHED = "snapshots", "step-", ".part"

# What a run may be resumed with although it began with another: none of it changes what is
# learnt but by rounding.
MAY_CHANGE = frozenset(
    f"run.{name}"
    for name in (
        *("device", "workers", "keep", "save_every", "probe_every", "probe_pairs"),
        *("tensorboard", "checkpointing", "chunk"),
    )
)


class Snapshot(NamedTuple):
    """One of a run; ``step`` is how many steps were taken."""

    step: int
    folder: Path


def list_snapshots(run: Path) -> list[Snapshot]:
    """Return the whole snapshots of a run, the oldest first."""
    found = []
    for folder in (run / FOLDER).glob(f"{PREFIX}*"):
        number = folder.name.removeprefix(PREFIX)
        if number.isdecimal() and (folder / STATE_FILE).is_file():
            found.append(Snapshot(int(number), folder))
    return sorted(found)


def find_snapshot(run: Path, step: int | None = None) -> Snapshot:
    """Return the snapshot of a step, or the newest; raises BadInput where there is none."""
    found = list_snapshots(run)
    if not found:
        reason = "it holds no snapshot" if run.is_dir() else "there is no such folder"
        error = BadInput(f"{run} is no run that can be gone on with: {reason}")
        error.hint = "name the folder that 'mmsearch train' wrote (--out)"
        raise error
    for one in found:
        if step is not None and one.step == step:
            return one
    if step is None:
        return found[-1]
    error = BadInput(f"{run} has no snapshot of step {step}")
    error.hint = f"it has those of step {', '.join(str(one.step) for one in found)}"
    raise error


def write_snapshot(
    run: Path,
    step: int,
    *,
    weights: Mapping[str, Tensor],
    optimiser: Mapping[str, Tensor],
    state: Mapping[str, Any],
    keep: int,
) -> Snapshot:
    """Write a snapshot, and delete those beyond the ``keep`` newest.

    Raises TrainingStopped where the disk is full or not to be written to; the snapshots that
    were there are as they were.
    """
    folder = run / FOLDER / f"{PREFIX}{step:08}"
    unfinished = folder.with_name(folder.name + UNFINISHED)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        _write_tensors(unfinished / WEIGHTS_FILE, weights)
        _write_tensors(unfinished / OPTIMISER_FILE, optimiser)
        (unfinished / STATE_FILE).write_text(json.dumps({"step": step, **state}))
        for file in unfinished.iterdir():
            flush(file)
        flush(unfinished)
        shutil.rmtree(folder, ignore_errors=True)  # of the same step, by a run before
        os.replace(unfinished, folder)
        flush(folder.parent)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise cannot_write(run, step, weights, optimiser, error) from None
    for old in list_snapshots(run)[:-keep]:
        shutil.rmtree(old.folder, ignore_errors=True)
    return Snapshot(step, folder)


def cannot_write(
    run: Path,
    step: int,
    weights: Mapping[str, Tensor],
    optimiser: Mapping[str, Tensor],
    error: OSError,
) -> TrainingStopped:
    """Return what to say of a snapshot that could not be written."""
    held = list_snapshots(run)
    size = sum(one.numel() * one.element_size() for one in (*weights.values(), *optimiser.values()))
    kept = f"the snapshot of step {held[-1].step} is whole" if held else "there is none yet"
    return TrainingStopped(
        f"the snapshot of step {step} ({size / 1e6:,.0f} MB) cannot be written to {run}: "
        f"{(error.strerror or str(error)).lower()}; {kept}",
        hint="free some space, then run it again with --resume (--set run.keep=1 keeps fewer)",
    )


def read_state(snapshot: Snapshot) -> dict[str, Any]:
    """Return what was said beside a snapshot; raises TrainingStopped where it is damaged."""
    try:
        return read_json(snapshot.folder, STATE_FILE)
    except (BadCheckpoint, OSError) as error:
        raise _damaged(snapshot, error) from None


def read_snapshot(snapshot: Snapshot) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights and the optimiser's state of a snapshot.

    Raises TrainingStopped where a file of it is damaged.
    """
    files = [snapshot.folder / name for name in (WEIGHTS_FILE, OPTIMISER_FILE)]
    try:
        state = read_json(snapshot.folder, STATE_FILE)
        if state.get("format", FORMAT) != FORMAT:
            raise BadCheckpoint(snapshot.folder, f"it is of format {state['format']}")
        weights, optimiser = (_read_tensors(file) for file in files)
    except (BadCheckpoint, OSError) as error:
        raise _damaged(snapshot, error) from None
    return weights, optimiser


def _damaged(snapshot: Snapshot, error: Exception) -> TrainingStopped:
    reason = f"the snapshot {snapshot.folder} cannot be read: {error}"
    hint = "delete that folder; --resume then goes on from the one before it"
    return TrainingStopped(reason, hint=hint)


def final_weights(snapshot: Snapshot) -> dict[str, Tensor]:
    """Return the weights to export: their averages where the run kept some."""
    weights, optimiser = read_snapshot(snapshot)
    averages = {
        name.removeprefix(AVERAGE): average
        for name, average in optimiser.items()
        if name.startswith(AVERAGE)
    }
    return weights | averages


def write_run_config(run: Path, config: TrainingConfig, *, start: str = "") -> None:
    """Write what a run is told into its folder, and the hash of the model it starts from."""
    text = json.dumps({"format": FORMAT, START: start, **config.as_dict()}, indent=2) + "\n"
    write_file(run / CONFIG_FILE, text.encode())


def read_run_config(run: Path) -> TrainingConfig:
    """Return what a run was told; raises BadInput where the folder is none, and BadConfig."""
    if not (run / CONFIG_FILE).is_file():
        find_snapshot(run)
    try:
        fields = read_json(run, CONFIG_FILE)
    except BadCheckpoint as error:
        raise BadInput(f"{run} is no run that can be read: {error.reason}") from None
    for name in ("format", START):
        fields.pop(name, None)
    return config_of(fields, path=run / CONFIG_FILE)


def refuse_other_start(run: Path, start: str) -> None:
    """Raise BadInput where a run began from another model than the one of that hash.

    What never learns is in no snapshot: it would be the other model's.
    """
    before = read_json(run, CONFIG_FILE).get(START)
    if before and start and before != start:
        name = read_run_config(run).model.start
        error = BadInput(f"{run} started from {name} as it was; that is another model now")
        error.hint = f"put the files of {name} back, or train again into another folder (--out DIR)"
        raise error


def refuse_other(run: Path, config: TrainingConfig) -> None:
    """Raise BadInput where a run began with a configuration that learns something else."""
    other = [
        line
        for line in differences(config, read_run_config(run))
        if line.split(" ", 1)[0] not in MAY_CHANGE
    ]
    if other:
        shown = "; ".join(other[:3]) + (f"; and {len(other) - 3} more" if len(other) > 3 else "")
        error = BadInput(f"{run} began with another configuration: {shown}")
        error.hint = "resume it as it began, or train into another folder (--out DIR)"
        raise error


def _write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    infos = {name: tensor_info(tensor) for name, tensor in tensors.items()}
    with TensorWriter(file, infos) as writer:
        for name in writer.names:
            writer.write(name, tensor_bytes(tensors[name]))


def _read_tensors(file: Path) -> dict[str, Tensor]:
    names = read_header(file)  # which refuses a file that is cut short
    with opened_tensors([file]) as read:
        return {name: read(name).clone() for name in names}
