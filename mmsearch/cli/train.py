"""``mmsearch train``: teach a model, by a ready recipe or on pairs of your own."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsearch.cli.options import AsJson
from mmsearch.cli.output import (
    print_facts,
    print_json,
    print_lines,
    say,
    shown_bytes,
    shown_seconds,
    visible,
    wants_json,
)
from mmsearch.cli.progress import Listener
from mmsearch.errors import MissingExtra, MMSearchError
from mmsearch.training import (
    TrainingPlan,
    config_for_pairs,
    is_first_process,
    known_configs,
    load_config,
    plan,
    toml_string,
    with_pairs,
)
from mmsearch.training import train as train_run

if TYPE_CHECKING:
    from mmsearch.retriever.training.config import TrainingConfig
    from mmsearch.retriever.training.loop import TrainingProgress, TrainingReport

_SHOWN_ROWS = 5
_RUNS = Path("runs")


def train(
    config: Annotated[
        str | None,
        typer.Argument(
            help="A TOML file, or the name of a ready configuration.",
            metavar="CONFIG",
            show_default=False,
        ),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Train on these pairs; without CONFIG the settings are chosen, and told.",
            metavar="FILE.jsonl",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name or folder of the model to start from; by default that of the "
            "configuration, or the default model.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(
            help="With --from: pairs to probe with; by default 5 % are kept back.",
            metavar="FILE.jsonl",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="With --from alone: plain, lame or plume; by default as the model thinks.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run; by default runs/NAME.", metavar="RUN", show_default=False
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest snapshot in that folder.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Another value, such as run.steps=100; may be repeated.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    listing: Annotated[
        bool, typer.Option("--list", help="Print the ready configurations, and their files.")
    ] = False,
    as_json: AsJson = None,
) -> None:
    """Train a model on pairs that belong together.

    A pair is a line of JSON: {"query": SIDE, "positive": SIDE, "negatives"?: [SIDE, ...],
    "rationale"?, "answer"?}, a side being words, {"image": PATH}, {"page": "FILE.pdf#3"},
    {"clip": PATH} or a list of those. Piped, every step is a line of JSON, and the last line
    is the report. Several GPUs: torchrun --nproc-per-node N -m mmsearch train CONFIG.

    Exit codes: 0 trained; 1 stopped, the last snapshot is kept; 2 the configuration or the
    command is wrong; 130 interrupted by Ctrl-C or SIGTERM with a snapshot, --resume goes on.

    For example:

    \b
        mmsearch train tiny
        mmsearch train tiny --out runs/short --set run.steps=5
        mmsearch train --from pairs.jsonl --dry-run
        mmsearch train plume-qwen2vl-2b --from pairs.jsonl --model tiny-qwen2_vl --dry-run
    """
    if listing:
        _print_ready(as_json)
        return
    told: list[str] = []
    try:
        chosen, name = _chosen(config, pairs, model, held_out, recipe, settings or [], told)
    except MMSearchError as error:
        if is_first_process():
            raise
        raise typer.Exit(error.exit_code) from None  # the first one says it
    if is_first_process():
        for line in told:
            say(line)
    if dry_run:
        _print_plan(plan(chosen), as_json)
        return
    folder = out or _RUNS / name
    try:
        with _Listener(as_json=as_json) as listener:
            report = train_run(chosen, folder, resume=resume, on_progress=listener.hear)
    except KeyboardInterrupt:
        if is_first_process():
            say(f"interrupted: {_how_far(folder)}")
        raise
    if is_first_process():
        _print_report(report, as_json)


def _chosen(
    config: str | None,
    pairs: Path | None,
    model: str | None,
    held_out: Path | None,
    recipe: str | None,
    settings: list[str],
    told: list[str],
) -> "tuple[TrainingConfig, str]":
    """Return the configuration and its name; what was chosen for the user goes to ``told``."""
    if config is None and pairs is None:
        known = ", ".join(one.name for one in known_configs())
        raise typer.BadParameter(
            f"name a configuration (a TOML file, or {known}), or pairs with --from",
            param_hint="CONFIG",
        )
    if recipe is not None and config is not None:
        reason = f"{config} has a recipe (--set objective.name={recipe})"
        raise typer.BadParameter(reason, param_hint="--recipe")
    if config is None:
        chosen, why = config_for_pairs(
            str(pairs), model or "default", held_out=held_out, recipe=recipe, overrides=settings
        )
        told += why
        return chosen, Path(str(pairs)).stem
    if pairs is not None:
        chosen = with_pairs(config, pairs, model=model, held_out=held_out, overrides=settings)
        return chosen, f"{Path(config).stem}-{pairs.stem}"
    if held_out is not None:
        reason = f"it goes with --from; {config} names its own (data.held_out)"
        raise typer.BadParameter(reason, param_hint="--held-out")
    start = [f"model.start={toml_string(model)}"] if model else []
    return load_config(config, [*start, *settings]), Path(config).stem


def _print_ready(as_json: bool | None) -> None:
    ready = known_configs()
    if wants_json(as_json):
        print_json([{"name": one.name, "about": one.about, "path": str(one.path)} for one in ready])
        return
    width = max(len(one.name) for one in ready)
    print_lines(f"{one.name:<{width}}  {one.about}\n{'':<{width}}  {one.path}" for one in ready)


def _print_plan(planned: TrainingPlan, as_json: bool | None) -> None:
    if wants_json(as_json):
        print_json(planned.as_dict())
    else:
        memory = planned.memory
        print_facts(
            {
                "model": f"{planned.model}, {planned.parameters:,} parameters",
                "recipe": planned.recipe,
                "device": planned.device,
                "rows": f"{planned.rows:,}",
                "held out": f"{planned.held_out:,}",
                "bad rows": f"{planned.num_bad:,}",
                "leaks": f"{len(planned.leaks):,} rows left out",
                "steps": f"{planned.steps:,} of {planned.batch:,} pairs "
                f"({planned.steps_per_epoch:,} an epoch)",
                "stages": "; ".join(f"{name} from step {step}" for name, step in planned.stages),
                "trained": f"{planned.trained:,} parameters"
                + (f", {planned.extras:,} of them never exported" if planned.extras else ""),
                "memory": f"about {shown_bytes(sum(memory.values()))}: "
                + ", ".join(f"{name} {shown_bytes(size)}" for name, size in memory.items()),
            }
        )
    _say_rows("bad", planned.bad, planned.num_bad)
    _say_rows("left out", planned.leaks, len(planned.leaks))


def _say_rows(about: str, rows: Sequence[tuple[str, str]], count: int) -> None:
    """Say which rows, and why; ``count`` is of all of them, more than are named."""
    for row, reason in rows[:_SHOWN_ROWS]:
        say(visible(f"{about}: {row}: {reason}"))
    if count > len(rows[:_SHOWN_ROWS]):
        say(f"{about}: {count - len(rows[:_SHOWN_ROWS]):,} more")


def _print_report(report: "TrainingReport", as_json: bool | None) -> None:
    if wants_json(as_json):
        print_lines([json.dumps({"report": report.as_dict()})])
    first, last = report.loss
    loss = "" if math.isnan(last) else f": loss {first:.3f} -> {last:.3f}"
    before, after = (_shown_recall(one) for one in report.recall)
    recall = f", held-out R@1 / R@10 {before + ' -> ' if before else ''}{after}" if after else ""
    if loss:
        say(f"trained {report.steps} steps in {shown_seconds(report.seconds)}{loss}{recall}")
    else:
        say(f"the run was over: all of its {report.steps} steps are taken")
    say(f"{report.rows:,} pairs were trained on, {report.held_out:,} were kept back")
    _say_rows("bad", [(one.row, one.reason) for one in report.bad], report.num_bad)
    _say_rows("left out", [(one.row, one.reason) for one in report.leaks], len(report.leaks))
    if report.curves is None:
        say(f"no curves were drawn: {MissingExtra('matplotlib', 'train').hint}")
    say(f"{report.out} holds the run: mmsearch export {report.out} MODEL-DIR")


def _shown_recall(recall: Mapping[str, Any] | None) -> str:
    if recall is None:
        return ""
    ways = recall["query_to_positive"]
    return f"{100 * ways['1']:.0f} / {100 * ways['10']:.0f} %"


def _how_far(folder: Path) -> str:
    steps = sorted(path.name for path in folder.glob("snapshots/step-????????"))
    if not steps:
        return "no step was finished, run it again"
    return f"{folder / 'snapshots' / steps[-1]} is whole, run it again with --resume"


class _Listener:
    """Shows progress: a bar on a terminal, lines of JSON in a pipe, sentences on stderr."""

    def __init__(self, *, as_json: bool | None) -> None:
        self._json = wants_json(as_json)
        self._listener = Listener("preparing", is_shown=is_first_process())
        self._recall = ""

    def __enter__(self) -> "_Listener":
        self._listener.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.rest()

    def hear(self, progress: "TrainingProgress") -> None:
        """Show how far the run is."""
        line = progress.line
        if self._json:
            print_lines([json.dumps(line)])
            sys.stdout.flush()
        if "rows" in line:
            self._say_rows(line["rows"])
        if "recall" in line:
            self._recall = f", R@1 / R@10 {_shown_recall(line['recall'])}"
        said = (
            f"loss {line['loss']:.3f}{self._recall}, {line['rows_per_s']:.3g} rows/s, "
            f"{shown_seconds(progress.eta_s)} left"
        )
        where = f"{progress.step} of {progress.num_steps}"
        self._listener.show(
            line["stage"],
            progress.step,
            progress.num_steps,
            f"{where}  {said}",
            line=f"step {where} ({line['stage']}): {said}",
        )

    def _say_rows(self, counts: Mapping[str, int]) -> None:
        """Say before it takes days what it is trained on, and how much of the file is not."""
        if not counts["bad"] and not counts["leaks"]:
            return
        self._listener.note(
            f"training on {counts['train']:,} pairs; bad rows: {counts['bad']:,}, left out: "
            f"{counts['leaks']:,} (metrics.jsonl names them)"
        )
