"""Training as a user names it: from a file of settings, a ready name, or pairs of their own.

    from mmsearch.training import known_configs, load_config, train, export
    report = train(load_config("tiny"), "runs/tiny")
    export("runs/tiny", "tiny-model")          # then: mmsearch index PATH --model tiny-model

Every function is the door to a part of the retriever, which is imported when it is called.
What only the indexers can do, reading a page of a PDF or a clip of a film, is joined to it
here.
"""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.errors import BadConfig, UnreadableFile

if TYPE_CHECKING:
    from mmsearch.indexers.sandbox import Sandbox
    from mmsearch.retriever.embedding.library import ModelInfo
    from mmsearch.retriever.training.config import TrainingConfig
    from mmsearch.retriever.training.examples import Media
    from mmsearch.retriever.training.loop import TrainingProgress, TrainingReport
    from mmsearch.values import Frames, Image

RECIPES = {"plain": "", "plume": "rollout", "lame": "bottleneck"}  # and the reasoner of each
HELD_OUT_SHARE = 0.05
LARGE_BYTES = 500_000_000  # of a model's files: more is trained beside, with LoRA
FRAMES = 8  # of a film, where the model does not say


@dataclass(frozen=True, slots=True)
class ReadyConfig:
    """A configuration that comes with the package; ``about`` is its first line."""

    name: str
    about: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """What a run would do, as far as it can be known before its first step.

    rows, held_out:  pairs to train on, and to be probed with
    bad, leaks:      rows left out and why: they make no pair; they would give an answer away
    steps_per_epoch: in which every row is seen once
    parameters:      all of them;  trained: those that learn in any stage, extras among them
    stages:          their names, and the step each begins with
    memory:          bytes a process takes, about: weights, optimiser, chunk
    """

    rows: int
    held_out: int
    num_bad: int
    bad: Sequence[tuple[str, str]]
    leaks: Sequence[tuple[str, str]]
    steps: int
    steps_per_epoch: int
    batch: int
    parameters: int
    trained: int
    extras: int
    stages: Sequence[tuple[str, int]]
    memory: dict[str, int]
    model: str
    recipe: str
    device: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "model": self.model,
            "recipe": self.recipe,
            "device": self.device,
            "rows": self.rows,
            "held_out": self.held_out,
            "bad_rows": self.num_bad,
            "bad": [{"row": row, "reason": reason} for row, reason in self.bad],
            "leaks": [{"row": row, "reason": reason} for row, reason in self.leaks],
            "steps": self.steps,
            "steps_per_epoch": self.steps_per_epoch,
            "batch": self.batch,
            "parameters": self.parameters,
            "trained": self.trained,
            "extras": self.extras,
            "stages": [{"name": name, "step": step} for name, step in self.stages],
            "memory": self.memory,
        }


def known_configs() -> list[ReadyConfig]:
    """Return the configurations that come with the package, by name."""
    import mmsearch.retriever.training as home

    folder = Path(home.__path__[0]) / "configs"
    return [
        ReadyConfig(path.stem, path.read_text().partition("\n")[0].lstrip("# "), path)
        for path in sorted(folder.glob("*.toml"))
    ]


def load_config(name_or_path: str | Path, overrides: Sequence[str] = ()) -> "TrainingConfig":
    """Return a configuration by the name of a ready one or from a TOML file.

    ``overrides`` are such as ``"run.steps=100"``. Raises BadConfig.
    """
    from mmsearch.retriever.training.config import read_config

    ready = {one.name: one.path for one in known_configs()}
    path = Path(name_or_path)
    if not path.is_file() and str(name_or_path) in ready:
        return read_config(ready[str(name_or_path)], overrides, home=Path.cwd())
    if not path.exists():
        reason = f"there is no such file, nor a ready configuration of that name ({_listed(ready)})"
        raise BadConfig(path, reason, hint="mmsearch train tiny, or write one: see --help")
    return read_config(path, overrides)


def with_pairs(
    name_or_path: str | Path,
    pairs: str | Path,
    *,
    model: str | None = None,
    held_out: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> "TrainingConfig":
    """Return a configuration that is trained on pairs of one's own instead of its data."""
    from mmsearch.retriever.training.config import BARE_DATA

    said = [*BARE_DATA, f"data.train=[{{path={toml_string(pairs)}}}]"]
    if held_out is None:
        said.append(f"data.held_out_share={HELD_OUT_SHARE}")
    else:
        said.append(f"data.held_out=[{{path={toml_string(held_out)}}}]")
    if model is not None:
        said.append(f"model.start={toml_string(model)}")
    return load_config(name_or_path, [*said, *overrides])


def toml_string(value: str | Path) -> str:
    """Return a string as TOML writes it: as JSON does, but for what is no character there."""
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def config_for_pairs(
    pairs: str | Path,
    model: str = "default",
    *,
    held_out: str | Path | None = None,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
) -> "tuple[TrainingConfig, list[str]]":
    """Return sensible settings for a file of pairs, and what was chosen, in sentences.

    Raises BadConfig for a recipe there is not, BadTrainingFile, ModelNotFound.
    """
    from mmsearch.retriever.embedding.library import described, model_folder, model_info
    from mmsearch.retriever.training.config import DataSource, config_of, with_overrides
    from mmsearch.retriever.training.records import open_rows

    if recipe is not None and recipe not in RECIPES:
        raise BadConfig("--recipe", f"{recipe!r} is none of {_listed(RECIPES)}")
    source = Path(pairs).expanduser().absolute()
    rows = open_rows([DataSource(source)])
    if model.startswith("tiny-"):  # random, made in milliseconds
        reasoner, is_large, backbone = "none", False, ""
    else:
        folder = model_folder(model)
        description = described(folder)
        reasoner, backbone = description.reasoner, description.backbone
        is_large = model_info(folder).size > LARGE_BYTES
    told = []
    if recipe is None:
        recipe, why = _recipe(reasoner, rows)
        told.append(f"recipe {recipe}: {why}")
    num = len(rows)
    kept = 0 if held_out else round(num * HELD_OUT_SHARE)
    batch = max(min(64 if is_large else 128, (num - kept) // 2), 2)
    epochs = next(count for most, count in _EPOCHS if num < most)
    steps = max(round(epochs * (num - kept) / batch), 20)
    through = f"{num - kept} pairs" + (f", {rows.num_bad} rows being none" if rows.num_bad else "")
    told.append(f"{steps} steps of {batch} pairs: {epochs} times through at most {through}")
    table: dict[str, Any] = {
        "model": {"start": model, "reasoner": "" if recipe == "plain" else RECIPES[recipe]},
        "data": {"train": [{"path": str(source)}]},
        "objective": {"name": recipe, "temperature": 0.03},
        "optimiser": {"learning_rate": 2e-5, "new_learning_rate": 5e-4, "warm_up": 0.1},
        "run": {"steps": steps, "batch": batch, "save_every": max(steps // 5, 1)},
    }
    table["run"]["probe_every"] = max(steps // 10, 1)
    if held_out:
        table["data"]["held_out"] = [{"path": str(Path(held_out).expanduser().absolute())}]
    else:
        table["data"]["held_out_share"] = HELD_OUT_SHARE
        told.append(f"{kept} of {num} pairs are kept back to see whether it learns (--held-out)")
    if is_large:
        table["lora"] = {"rank": 16, "alpha": 32}
        table["optimiser"]["learning_rate"] = 1e-4
        table["run"] |= {"chunk": 4, "checkpointing": True, "dtype": "bfloat16"}
        told.append("LoRA of rank 16 in bfloat16, 4 pairs at once: the model is large")
    elif backbone == "default":
        table["run"]["chunk"] = 32
        table["objective"]["weights"] = {"hold": 1.0}
        told.append("every weight learns, at 2e-5; vectors of words are held near what they are")
    name = Path("these settings")
    with_overrides(table, overrides, path=name)
    return config_of(table, path=name), told


_EPOCHS = ((1_000, 10), (10_000, 5), (100_000, 2), (float("inf"), 1))


def _recipe(reasoner: str, rows: Any) -> tuple[str, str]:  # noqa: ANN401 - Rows
    """Return the recipe for a model that thinks so, and why."""
    if reasoner == "bottleneck":
        return "lame", "the model has reason tokens"
    if reasoner == "rollout":
        some = range(0, len(rows), max(len(rows) // 100, 1))
        written = sum(bool(rows[number].query.rationale) for number in some)
        if 2 * written >= len(some):
            return "plume", "the model takes latent steps, and the pairs have rationales"
        return "plain", "the model takes latent steps, and most pairs have no rationale to learn"
    return "plain", "the model reads its vector out at once (--recipe lame adds reason tokens)"


def plan(config: "TrainingConfig") -> TrainingPlan:
    """Return what a run of ``config`` would do; reads the rows and makes the model."""
    from mmsearch.retriever.training.gathering import World
    from mmsearch.retriever.training.optimiser import count
    from mmsearch.retriever.training.preparing import estimated_bytes, prepare

    with MediaOpener(config) as opener:
        prepared = prepare(config, opener=opener, world=World())
        memory = estimated_bytes(prepared, World())
    rows, learning = prepared.rows, prepared.optimiser.parameters
    return TrainingPlan(
        rows=len(rows.train),
        held_out=len(rows.held_out),
        num_bad=rows.num_bad,
        bad=[(one.row, one.reason) for one in rows.bad],
        leaks=[(one.row, one.reason) for one in rows.leaks],
        steps=prepared.num_steps,
        steps_per_epoch=prepared.plan.steps_per_epoch,
        batch=config.run.batch,
        parameters=count(prepared.model.parameters()),
        trained=count(learning.values()),
        extras=count(prepared.objective.extras.parameters()),
        stages=[
            (stage.name, round(stage.start * prepared.num_steps))
            for stage in prepared.objective.stages
        ],
        memory=memory,
        model=prepared.description.name,
        recipe=prepared.objective.name,
        device=str(prepared.device),
    )


def train(
    config: "TrainingConfig",
    out: str | Path,
    *,
    resume: bool = False,
    on_progress: "Callable[[TrainingProgress], object] | None" = None,
) -> "TrainingReport":
    """Train into the folder ``out``; under torchrun, together with the other processes.

    Interrupted (Ctrl-C, SIGTERM) it writes a snapshot and raises KeyboardInterrupt;
    ``resume`` goes on from there. Raises BadInput, BadConfig, ModelError, TrainingStopped.
    """
    from mmsearch.retriever.training.gathering import end_world, start_world
    from mmsearch.retriever.training.loop import train as train_loop
    from mmsearch.retriever.training.preparing import pick_run_device

    world = start_world(pick_run_device(config.run.device))
    try:
        with MediaOpener(config) as opener:
            return train_loop(
                config,
                Path(out),
                resume=resume,
                on_progress=on_progress,
                opener=opener,
                world=world,
            )
    finally:
        end_world(world)


def is_first_process() -> bool:
    """Say whether this process is the one that prints, of those that torchrun started."""
    import os

    return os.environ.get("RANK", "0") == "0"


def export(
    run: str | Path, out: str | Path, *, step: int | None = None, quantise: bool = False
) -> "ModelInfo":
    """Write the model of a run's newest snapshot, or that of ``step``, into the folder ``out``.

    What only training needs is left out. ``quantise`` keeps matrices as int8 rows. Raises
    BadInput where the folder holds no run, or no such snapshot.
    """
    from mmsearch.retriever.embedding.library import model_info
    from mmsearch.retriever.training.export import export_run

    export_run(Path(run), Path(out), step=step, quantise=quantise)
    return model_info(Path(out))


class MediaOpener:
    """Opens what a row of training names: pictures here, pages and films in the sandbox.

    A context manager; several threads may call it. See `retriever.training.loading.Opener`.
    """

    def __init__(self, config: "TrainingConfig") -> None:
        from mmsearch.values import ReadPolicy

        self._policy = ReadPolicy(ocr=False, max_frames=config.model.max_frames or FRAMES)
        # Large enough for what any model asks for: it brings pictures down to its own size.
        most = config.model.max_pixels or 1_536 * 1_536
        self._policy = replace(self._policy, max_pixels=most)
        self._num_workers = max(config.run.workers, 1)
        self._sandbox: Sandbox | None = None
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> "MediaOpener":
        from mmsearch.indexers.sandbox import Sandbox

        self._warnings.__enter__()
        # Of large pictures: those that are too large are reported with their rows.
        warnings.filterwarnings("ignore", r"Image size \(\d+ pixels\)")
        self._sandbox = Sandbox(self._num_workers)  # starts none before the first page
        return self

    def __exit__(self, *_: object) -> None:
        self._warnings.__exit__(None, None, None)
        if self._sandbox is not None:
            self._sandbox.close()

    def __call__(self, media: "Media") -> "Image | Frames":
        """Return the pixels; raises UnreadableFile."""
        from mmsearch.indexers.readers import sniff
        from mmsearch.retriever.training.loading import open_still
        from mmsearch.values import Kind

        if media.frames:
            return open_still(media)
        if not media.path.is_file():
            reason = "it is no file" if media.path.exists() else "there is no such file"
            raise UnreadableFile(media.path, reason)
        kind = Kind.PDF if media.page is not None else sniff(media.path)
        if kind is Kind.IMAGE:
            return open_still(media)
        if kind is not Kind.PDF and kind is not Kind.VIDEO:
            raise UnreadableFile(media.path, "it is no picture, PDF or film")
        return self._read(media, kind)

    def _read(self, media: "Media", kind: Any) -> "Image | Frames":  # noqa: ANN401 - a Kind
        from mmsearch.indexers.sandbox import ReadTask
        from mmsearch.values import Frames, Image, Kind, Locator

        if self._sandbox is None:
            raise ValueError("pages and films are opened inside of its context")
        if kind is Kind.PDF:
            only = Locator(page=media.page or 1)
            task = ReadTask(media.path, kind, self._policy, only=only)
        else:
            span = None
            if media.start is not None or media.end is not None:
                end = media.end if media.end is not None else _FOR_EVER_S
                span = Locator(start=media.start or 0.0, end=end)
            task = ReadTask(media.path, kind, self._policy, only=span, whole=True)
        for segment in self._sandbox.read_one(task):
            if segment.pixels is not None:
                if kind is Kind.VIDEO:
                    return Frames(segment.pixels)
                return Image(segment.pixels[0])
        raise UnreadableFile(media.path, "it shows nothing")


_FOR_EVER_S = 1e9


def _listed(names: Sequence[str] | dict[str, Any]) -> str:
    return ", ".join(sorted(names))
