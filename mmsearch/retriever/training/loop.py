"""The loop: one for every backbone and every recipe.

    for each step: rows -> chunks -> gradient of the whole batch -> clip -> AdamW -> metrics
    now and then: held-out recall, a snapshot;  at the end: curves

Everything drawn in a step is drawn from seeds of (seed, step, place in the batch). So weights,
moments and the number of the step are all there is to resume from, and a run that was
interrupted learns what it would have learnt, to the bit on a CPU.
"""

import errno
import hashlib
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from mmsearch.errors import BadInput, MissingExtra, StoreError, StoreLocked, TrainingStopped
from mmsearch.retriever.embedding.memory import is_out_of_memory
from mmsearch.retriever.store.lock import LOCK_NAME, WriteLock
from mmsearch.retriever.training.config import TrainingConfig
from mmsearch.retriever.training.examples import TrainingBatch
from mmsearch.retriever.training.gathering import World, gather_values
from mmsearch.retriever.training.grad_cache import backward
from mmsearch.retriever.training.loading import Loader, Opener, open_still
from mmsearch.retriever.training.metrics import Metrics
from mmsearch.retriever.training.objective import Loss, Stage
from mmsearch.retriever.training.optimiser import stage_at
from mmsearch.retriever.training.preparing import Prepared, prepare
from mmsearch.retriever.training.probes import Probe
from mmsearch.retriever.training.records import TOLD, BadRow
from mmsearch.retriever.training.sampling import share
from mmsearch.retriever.training.snapshots import (
    CONFIG_FILE,
    find_snapshot,
    list_snapshots,
    read_snapshot,
    read_state,
    refuse_other,
    refuse_other_start,
    write_run_config,
    write_snapshot,
)
from mmsearch.retriever.training.starting import start_hash

T = TypeVar("T")

logger = logging.getLogger(__name__)

STOPPED_FILE = "stopped.json"
ROWS = "rows"  # in the state of a snapshot
SHOWN_ROWS = 5
AGAIN_S = 2.0
RATE_STEPS = 20  # that the pace is averaged over


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a run is, after a step.

    line:   what `metrics.jsonl` says of it; ``recall`` is in it where it was probed
    eta_s:  seconds left at the pace of the last steps
    """

    step: int
    num_steps: int
    line: Mapping[str, Any]
    eta_s: float


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What came of a run.

    loss:    of the first step and of the last one that this process took; not a number, and
             null as JSON, where it took none because the run was over
    recall:  of the held-out pairs, before the first step and after the last; None where there
             are none, or where the run was resumed
    rows:    pairs that were trained on;  held_out: pairs that it was probed with
    bad:     rows that make no pair, and those that could not be opened while this process
             trained; ``num_bad`` counts them where they are too many to be named
    leaks:   rows that were left out because they would have given an answer away
    curves:  the picture of it; None where matplotlib is not installed
    """

    out: Path
    steps: int
    loss: tuple[float, float]
    recall: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]
    seconds: float
    rows: int
    held_out: int
    bad: tuple[BadRow, ...]
    num_bad: int
    leaks: tuple[BadRow, ...]
    curves: Path | None
    num_bad_held_out: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "out": str(self.out),
            "steps": self.steps,
            "loss": None if math.isnan(self.loss[1]) else list(self.loss),
            "recall_before": self.recall[0],
            "recall": self.recall[1],
            "seconds": round(self.seconds, 1),
            "rows": self.rows,
            "held_out": self.held_out,
            "num_bad_rows": self.num_bad,
            "bad_rows": _named(self.bad),
            "num_leaks": len(self.leaks),
            "leaks": _named(self.leaks),
            "num_bad_held_out": self.num_bad_held_out,
            "curves": str(self.curves) if self.curves else None,
        }


def train(
    config: TrainingConfig,
    out: Path,
    *,
    resume: bool = False,
    on_progress: Callable[[TrainingProgress], object] | None = None,
    opener: Opener = open_still,
    world: World | None = None,
) -> TrainingReport:
    """Train as a configuration says, into the folder ``out``.

    ``resume`` goes on from the newest snapshot in it, or begins where there is none. Where
    the run is interrupted it takes the step it is in to its end, writes a snapshot and raises
    KeyboardInterrupt. Raises BadInput for a folder that holds another run, TrainingStopped
    where the loss is not a number, memory or disk run out; an earlier snapshot is kept then.
    """
    world = world or World()
    refuse_folder(out, config, resume=resume)
    prepared = prepare(config, opener=opener, world=world)
    start = start_hash(prepared.model)
    if list_snapshots(out):
        refuse_other_start(out, start)
    # All have looked, then the first writes: what it half wrote looks like another's folder.
    gather_values(None, world)
    if world.rank != 0:
        return Run(prepared, out, world, on_progress).go(resume=resume)
    with _alone_in(out):
        refuse_folder(out, config, resume=resume)  # another may have trained there meanwhile
        _write_config(out, config, start)
        return Run(prepared, out, world, on_progress).go(resume=resume)


def refuse_folder(out: Path, config: TrainingConfig, *, resume: bool) -> None:
    """Raise BadInput where a run of ``config`` cannot go into the folder."""
    if not list_snapshots(out):
        if out.exists() and not (out.is_dir() and _is_ours(out)):
            error = BadInput(f"{out} is there already, and is no training run")
            error.hint = "name a folder that does not exist yet (--out DIR)"
            raise error
        return
    if not resume:
        error = BadInput(f"{out} holds a run that got to step {find_snapshot(out).step}")
        error.hint = "go on with it (--resume), or train into another folder (--out DIR)"
        raise error
    refuse_other(out, config)


class Run:
    """One run in one process."""

    def __init__(
        self,
        prepared: Prepared,
        out: Path,
        world: World,
        on_progress: Callable[[TrainingProgress], object] | None = None,
    ) -> None:
        self.prepared, self.out, self.world, self._tell = prepared, out, world, on_progress
        self.config, self.optimiser = prepared.config, prepared.optimiser
        self.stages, self.num_steps = prepared.objective.stages, prepared.num_steps
        run = self.config.run
        self.probe = Probe(
            prepared.rows.held_out, prepared.collate, most=run.probe_pairs, chunk=run.chunk
        )
        self.bad: list[BadRow] = []  # that could not be opened, in any process
        self._met: list[BadRow] = []  # in this one, since the others were told
        self.losses: list[float] = []
        self.recall: list[Mapping[str, Any] | None] = [None, None]
        self._saved = -1

    def go(self, *, resume: bool) -> TrainingReport:
        """Take the steps that are left, and return what came of them."""
        began = time.perf_counter()
        start = self._resumed() if resume and list_snapshots(self.out) else 0
        run = self.config.run
        with (
            _Metrics(self.out, self.world, start, run.tensorboard) as metrics,
            Loader(
                self.prepared.rows.train,
                self.prepared.plan,
                self.prepared.collate,
                seed=run.seed,
                rank=self.world.rank,
                size=self.world.size,
                chunk=run.chunk,
                workers=run.workers,
                bad_rows=run.bad_rows,
                on_bad=self._met.append,
            ) as loader,
            Interrupts() as interrupts,
        ):
            if start == 0:
                metrics.write({"step": 0, **self._about_rows()})
                self._probe(0, metrics)
            pace = _Pace(run.batch)
            chunks_of = iter(loader.steps(start, self.num_steps))
            for step in range(start, self.num_steps):
                self._enter_stage(step, start)
                line = self._step(step, next(chunks_of))
                line["rows_per_s"] = round(pace.step(), 2)
                metrics.write(line)
                done = step + 1
                is_last = done == self.num_steps
                if met := self._newly_bad():
                    metrics.write({"step": done, "bad_rows": _named(met)})
                    line["bad_rows"] = _named(met)
                if step == start:
                    line |= self._about_rows()
                if len(self.probe) and (is_last or _is_due(done, run.probe_every)):
                    line |= self._probe(done, metrics)
                    pace.pause()
                if self._tell and self.world.rank == 0:
                    left = pace.seconds * (self.num_steps - done)
                    self._tell(TrainingProgress(done, self.num_steps, line, left))
                # Not before: the probe takes long, and whoever is told may have had enough.
                stops = any(gather_values(interrupts.asked, self.world)) and not is_last
                if is_last or stops or _is_due(done, run.save_every):
                    self._save(done)
                    pace.pause()
                if stops:
                    raise KeyboardInterrupt
        return self._report(time.perf_counter() - began)

    def _about_rows(self) -> dict[str, Any]:
        """Return what the metrics say of the rows before any is opened."""
        rows = self.prepared.rows
        counts = {"train": len(rows.train), "held_out": len(rows.held_out)}
        return {
            "rows": counts | {"bad": rows.num_bad, "leaks": len(rows.leaks)},
            "bad": _named(rows.bad),
            "leaks": _named(rows.leaks),
        }

    def _newly_bad(self) -> list[BadRow]:
        """Return the bad rows that any process met since the last step, and none before."""
        known = {one.row for one in self.bad}
        heard = gather_values(list(self._met), self.world)
        self._met.clear()
        met = {one.row: one for rows in heard for one in rows if one.row not in known}
        self.bad += met.values()
        return list(met.values())

    def _enter_stage(self, step: int, start: int) -> None:
        """Let learn what learns from this step on, and forget moments where that is asked."""
        now = stage_at(self.stages, step, self.num_steps)
        before = stage_at(self.stages, step - 1, self.num_steps) if step else now
        entered = self.stages[before + 1 : now + 1]
        if step != start and not entered:
            return
        self.optimiser.begin(self.stages[now], forget=any(one.is_new for one in entered))

    def _step(self, step: int, chunks: Sequence[TrainingBatch]) -> dict[str, Any]:
        """Take one step, and return its line of the metrics."""
        prepared, run = self.prepared, self.config.run
        stage = self.stages[stage_at(self.stages, step, self.num_steps)]
        place = share(run.batch, self.world.rank, self.world.size).start
        seeds = []
        for chunk in chunks:
            seeds.append(seed_of(run.seed, step, place))
            place += len(chunk)
        try:
            loss = backward(
                prepared.model,
                prepared.objective,
                chunks,
                stage,
                world=self.world,
                seeds=seeds,
                autocast=prepared.autocast,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise _out_of_memory(max(map(len, chunks)), self.config) from None
        norm = self.optimiser.clip()
        total = loss.total.item()
        if not (math.isfinite(total) and bool(norm.isfinite())):
            self._stop_at(step, chunks, stage, loss, norm)
        rate = self.optimiser.step(step)
        self.losses.append(total)
        return {
            "step": step + 1,
            "stage": stage.name,
            "loss": total,
            "parts": {name: part.item() for name, part in loss.parts.items()},
            "lr": rate,
            "norm": norm.item(),
        }

    def _probe(self, step: int, metrics: "_Metrics") -> dict[str, Any]:
        """Look at the held-out pairs, and return what the metrics say of it."""
        if not len(self.probe):
            return {}
        stage = self.stages[stage_at(self.stages, max(step - 1, 0), self.num_steps)]
        description = self.prepared.description
        # Before the last stages it has not learnt to take all of its steps.
        effort = stage.effort if stage.effort in description.efforts else description.effort
        with self.optimiser.averaged():
            recall = self.probe.recalls(
                self.prepared.model,
                description,
                world=self.world,
                effort=effort,
                autocast=self.prepared.autocast,
            )
        metrics.write({"step": step, "recall": recall})
        self.recall[0 if step == 0 else 1] = recall
        return {"recall": recall}

    def _save(self, step: int) -> None:
        if self.world.rank == 0 and step != self._saved:
            self._refuse_not_finite(step)
            write_snapshot(
                self.out,
                step,
                weights={name: one.detach() for name, one in self.optimiser.parameters.items()},
                optimiser=self.optimiser.state(),
                state={"num_steps": self.num_steps, ROWS: self._rows()},
                keep=self.config.run.keep,
            )
        self._saved = step

    def _rows(self) -> dict[str, Any]:
        """Return what tells these rows from others: how many, and a hash of them in order."""
        train, held_out = self.prepared.rows.train, self.prepared.rows.held_out
        digest = hashlib.sha256(train.keys.tobytes() + held_out.keys.tobytes())
        return {"train": len(train), "held_out": len(held_out), "hash": digest.hexdigest()[:16]}

    def _refuse_not_finite(self, step: int) -> None:
        """Raise TrainingStopped where a weight is not a number: no snapshot is made of it."""
        for name, weight in self.optimiser.parameters.items():
            if not bool(weight.isfinite().all()):
                held = list_snapshots(self.out)
                kept = f"; the snapshot of step {held[-1].step} is kept" if held else ""
                raise TrainingStopped(
                    f"{name} is not a number after step {step} of {self.num_steps}{kept}",
                    hint="lower optimiser.learning_rate, and train again",
                )

    def _resumed(self) -> int:
        """Take the weights and moments of the newest snapshot; return how many steps it took."""
        snapshot = find_snapshot(self.out)
        began = read_state(snapshot).get(ROWS, self._rows())
        if began != self._rows():
            was, now = (f"{one['train']} and {one['held_out']}" for one in (began, self._rows()))
            error = BadInput(
                f"the rows of {self.out} are not those that it began with: to train on and held "
                f"out they were {was}, and are {now}" + (", others" if was == now else "")
            )
            error.hint = "put the files back as they were, or train into another folder (--out DIR)"
            raise error
        weights, state = read_snapshot(snapshot)
        known = self.optimiser.parameters
        shapes = {name: one.shape for name, one in known.items()}
        if other := sorted(
            name
            for name in weights.keys() | known.keys()
            if name not in weights or shapes.get(name) != weights[name].shape
        ):
            raise TrainingStopped(
                f"{snapshot.folder} is of another model: {other[0]} is not the same in both",
                hint="train into another folder (--out DIR)",
            )
        with torch.no_grad():
            for name, tensor in weights.items():
                known[name].copy_(tensor)
        self.optimiser.load_state(state)
        self._saved = snapshot.step
        return snapshot.step

    def _stop_at(
        self,
        step: int,
        chunks: Sequence[TrainingBatch],
        stage: Stage,
        loss: Loss,
        norm: Tensor,
    ) -> None:
        """Raise TrainingStopped that names the rows; all of them are in ``stopped.json``."""
        rows = [example.row for chunk in chunks for example in chunk.examples]
        rows = _of_all(rows, self.world)
        culprits = _of_all(self._not_finite(chunks, stage), self.world)
        parts = {name: part.item() for name, part in loss.parts.items()}
        if self.world.rank == 0:
            told = {"step": step + 1, "stage": stage.name, "rows": rows, "not_finite": culprits}
            told |= {"loss": str(loss.total.item()), "norm": str(norm.item())}
            told |= {"parts": {name: str(value) for name, value in parts.items()}}
            with suppress(OSError):  # the rows are named below, as many as a line holds
                (self.out / STOPPED_FILE).write_text(json.dumps(told, indent=2) + "\n")
        named = culprits or rows
        shown = ", ".join(named[:SHOWN_ROWS])
        shown += f" and {len(named) - SHOWN_ROWS} more" if len(named) > SHOWN_ROWS else ""
        what = "the loss" if not math.isfinite(loss.total.item()) else "its gradient"
        held = list_snapshots(self.out)
        kept = f"; the snapshot of step {held[-1].step} is kept" if held else ""
        raise TrainingStopped(
            f"{what} is not a number at step {step + 1} of {self.num_steps}, "
            f"{'by' if culprits else 'in the batch of'} {shown} "
            f"(all in {self.out / STOPPED_FILE}){kept}",
            hint="take those rows out, or lower optimiser.learning_rate, and train again",
        )

    @torch.no_grad()
    def _not_finite(self, chunks: Sequence[TrainingBatch], stage: Stage) -> list[str]:
        """Return the rows of this process that alone make something that is not finite."""
        prepared, found = self.prepared, []
        for chunk in chunks:
            with torch.autocast(
                prepared.device.type,
                prepared.autocast or torch.bfloat16,
                enabled=prepared.autocast is not None,
            ):
                made = prepared.objective.represent(prepared.model, chunk, stage)
            for place, example in enumerate(chunk.examples):
                tensors = [one for name, one in made.items() if not name.startswith("negative")]
                if not all(
                    bool(one[place].isfinite().all()) for one in tensors if one.is_floating_point()
                ):
                    found.append(example.row)
        return found

    def _report(self, seconds: float) -> TrainingReport:
        rows = self.prepared.rows
        curves = None
        if self.world.rank == 0:
            from mmsearch.retriever.training.curves import draw_curves

            try:
                curves = draw_curves(self.out)
            except MissingExtra:
                curves = None  # the run is whole without; the command says how to get it
            except OSError as error:
                logger.warning("%s", _not_written(self.out, error))
        return TrainingReport(
            out=self.out,
            steps=self.num_steps,
            loss=(self.losses[0], self.losses[-1]) if self.losses else (math.nan, math.nan),
            recall=(self.recall[0], self.recall[1]),
            seconds=seconds,
            rows=len(rows.train),
            held_out=len(rows.held_out),
            bad=(*rows.bad, *self.bad),
            num_bad=rows.num_bad + len(self.bad),
            leaks=rows.leaks,
            curves=curves,
            num_bad_held_out=self.probe.bad,
        )


def seed_of(*numbers: int) -> int:
    """Return a seed that is the same for the same numbers, and unlike that of any others."""
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(slots=True)
class _Pace:
    """Rows a second over the last steps, without what is done between them."""

    batch: int
    seconds: float = 0.0
    _since: float = field(default_factory=time.perf_counter)
    _spans: list[float] = field(default_factory=list)

    def step(self) -> float:
        """Say that a step is done, and return the rows a second of the last ones."""
        now = time.perf_counter()
        self._spans = [*self._spans[-RATE_STEPS + 1 :], now - self._since]
        self._since = now
        self.seconds = sum(self._spans) / len(self._spans)
        return self.batch / max(self.seconds, 1e-9)

    def pause(self) -> None:
        """Leave out what was done since the last step."""
        self._since = time.perf_counter()


class _Metrics:
    """`Metrics` of the first process; the others write nothing. A full disk stops the run."""

    def __init__(self, out: Path, world: World, start: int, tensorboard: bool) -> None:
        self._out = out
        self._metrics = None
        if world.rank == 0:
            try:
                self._metrics = Metrics(out, after=start, tensorboard=tensorboard)
            except OSError as error:
                raise _not_written(out, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._metrics is not None:
            self._metrics.__exit__(kind, error, trace)

    def write(self, line: Mapping[str, Any]) -> None:
        if self._metrics is None:
            return
        try:
            self._metrics.write(line)
        except OSError as error:
            raise _not_written(self._out, error) from None


class Interrupts:
    """Hears Ctrl-C and SIGTERM while a ``with`` lasts; a later one is not waited with.

    Later is AGAIN_S later: the terminal and torchrun both pass on the same Ctrl-C. Only in
    the main thread, as signals are. ``asked`` says whether one came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._asked_at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            self.asked, self._asked_at = True, time.monotonic()
        elif time.monotonic() - self._asked_at > AGAIN_S:
            raise KeyboardInterrupt


def _of_all(values: list[T], world: World) -> list[T]:
    return [one for part in gather_values(values, world) for one in part]


def _named(rows: Sequence[BadRow]) -> list[dict[str, str]]:
    """Return rows as JSON, as many of them as are kept of a file's."""
    return [{"row": one.row, "reason": one.reason} for one in rows[:TOLD]]


def _is_due(done: int, every: int) -> bool:
    return bool(every) and done % every == 0


def _is_ours(out: Path) -> bool:
    """Return whether a folder is empty, or what a run left that got to no snapshot."""
    names = {path.name for path in out.iterdir()}
    return names <= {LOCK_NAME} or CONFIG_FILE in names


def _write_config(out: Path, config: TrainingConfig, start: str) -> None:
    try:
        write_run_config(out, config, start=start)
    except OSError as error:
        raise _not_written(out, error) from None


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Make the folder, and keep other runs out of it; raises BadInput while one is in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(out, error) from None
    lock = WriteLock(out)
    try:
        lock.__enter__()
    except StoreLocked as error:
        refused = BadInput(f"{out} is being trained into by {error.holder}")
        refused.hint = "wait for it to finish, or train into another folder (--out DIR)"
        raise refused from None
    except StoreError as error:
        raise TrainingStopped(str(error), hint="name another folder (--out DIR)") from None
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _not_written(out: Path, error: OSError) -> TrainingStopped:
    reason = f"{out} cannot be written to: {(error.strerror or str(error)).lower()}"
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = "free some space, then run it again with --resume"
    return TrainingStopped(reason, hint=hint if is_full else "name another folder (--out DIR)")


def _out_of_memory(chunk: int, config: TrainingConfig) -> TrainingStopped:
    smaller = f"--set run.chunk={max(chunk // 2, 1)}"
    more = "" if config.run.checkpointing else " --set run.checkpointing=true"
    hint = f"{smaller}{more}: the step stays that of the whole batch"
    if chunk == 1:
        hint = f"lower model.max_pixels or data.max_text, or use LoRA{more and ', or' + more}"
    return TrainingStopped(f"a chunk of {chunk} pairs does not fit into the memory", hint=hint)
