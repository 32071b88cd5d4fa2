"""``mmsearch index``: bring an index up to date with files."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsearch.cli.options import (
    DEFAULT_DATABASE,
    AsJson,
    Database,
    Device,
    Dims,
    Dtype,
    Effort,
    MaxPixels,
    Model,
)
from mmsearch.cli.output import (
    print_json,
    print_lines,
    say,
    shown_path,
    shown_seconds,
    wants_json,
)
from mmsearch.engine import Engine, ModelSettings
from mmsearch.values import stored_path

if TYPE_CHECKING:
    from mmsearch.indexers.pipeline import IndexReport, Progress
    from mmsearch.indexers.plan import Plan

_FAILED_FILES = 3  # the exit code
_SAY_EVERY_S = 5.0  # where nobody watches a bar


def index(
    paths: Annotated[
        list[Path], typer.Argument(help="Files and folders.", metavar="PATH...", show_default=False)
    ],
    db: Database = DEFAULT_DATABASE,
    model: Model = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    effort: Effort = None,
    max_pixels: MaxPixels = None,
    dims: Dims = None,
    include: Annotated[
        list[str] | None,
        typer.Option(help="Only files that match this glob; may be repeated.", metavar="GLOB"),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="No files or folders that match this glob; may be repeated.", metavar="GLOB"
        ),
    ] = None,
    ocr: Annotated[bool, typer.Option(help="Read the words in pictures, scans and films.")] = True,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try files again that failed before.")
    ] = False,
    again: Annotated[
        bool,
        typer.Option("--again", help="Read unchanged files too, as after --no-ocr."),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Reader processes; by default one a core.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    as_json: AsJson = None,
) -> None:
    """Read files and folders into an index.

    Unchanged files are skipped, changed ones replaced, deleted ones removed. Safe to
    interrupt and to run again. Ends with exit code 3 when some files failed. The index
    remembers its model, effort, pixels and dimensions, and refuses others.

    For example:

    \b
        mmsearch index ./docs
        mmsearch index ~/papers --include '*.pdf' --db papers.index
        mmsearch index ./docs --db small.index --dims 192 --max-pixels 100000 --device cpu
    """
    globs = {"include": include or [], "exclude": exclude or []}
    if dry_run:
        plan = Engine.preview(paths, db=db, retry_failed=retry_failed, again=again, **globs)
        _print_plan(plan, as_json)
        return
    if not Engine.exists(db):  # a typing error must not leave an empty index behind
        Engine.preview(paths, db=db, include=globs["include"], exclude=globs["exclude"])
    settings = ModelSettings(effort=effort, max_pixels=max_pixels, dims=dims)
    try:
        with (
            _Listener() as listener,
            Engine.open(
                db, create=True, model=model, device=device, dtype=dtype, settings=settings
            ) as engine,
        ):
            report = engine.index(
                paths,
                on_progress=listener.hear,
                ocr=ocr,
                retry_failed=retry_failed,
                again=again,
                num_workers=workers,
                **globs,
            )
    except KeyboardInterrupt:
        say("interrupted: what was finished is kept, run it again to go on")
        raise
    _print_report(report, db, as_json)
    if report.failed:
        raise typer.Exit(_FAILED_FILES)


def _print_plan(plan: "Plan", as_json: bool | None) -> None:
    paths = [stored_path(one.source.path) for one in plan.read if not one.error]
    failed = [(stored_path(one.source.path), one.error) for one in plan.read if one.error]
    if wants_json(as_json):
        print_json(
            {
                "read": paths,
                "bytes": sum(one.source.size for one in plan.read),
                "unchanged": plan.unchanged + len(plan.touched),
                "remove": list(plan.gone),
                "unreadable": [{"path": path, "reason": reason} for path, reason in failed],
                "unsupported": plan.unsupported,
            }
        )
        return
    print_lines(f"read        {shown_path(path)}" for path in paths)
    print_lines(f"unreadable  {shown_path(path)}: {reason}" for path, reason in failed)
    print_lines(f"remove      {shown_path(path)}" for path in plan.gone)
    say(
        f"{len(plan.read)} to read, {len(plan.gone)} to remove, "
        f"{plan.unchanged + len(plan.touched)} unchanged, {plan.unsupported} of other kinds"
    )


def _print_report(report: "IndexReport", db: Path, as_json: bool | None) -> None:
    if wants_json(as_json):
        print_json(_as_dict(report))
    parts = [f"{report.documents} documents, {report.segments} segments"]
    parts += [f"{report.skipped} unchanged"] if report.skipped else []
    parts += [f"{report.removed} removed"] if report.removed else []
    parts += [f"{report.unsupported} of other kinds"] if report.unsupported else []
    say(f"indexed {', '.join(parts)} in {shown_seconds(report.seconds['total'])} -> {db}")
    if report.failed:
        say(f"{len(report.failed)} failed:")
        for failure in report.failed:
            say(f"  {shown_path(failure.path)}: {failure.reason}")
    if report.failed_before:
        say(f"{len(report.failed_before)} failed before; try them again with --retry-failed")


def _as_dict(report: "IndexReport") -> dict[str, Any]:
    return {
        "documents": report.documents,
        "segments": report.segments,
        "skipped": report.skipped,
        "removed": report.removed,
        "failed": [{"path": one.path, "reason": one.reason} for one in report.failed],
        "failed_before": [{"path": one.path, "reason": one.reason} for one in report.failed_before],
        "unsupported": report.unsupported,
        "seconds": {stage: round(spent, 3) for stage, spent in report.seconds.items()},
    }


class _Listener:
    """Shows progress on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __enter__(self) -> "_Listener":
        self._said_at = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
            )

            self._bar = Progress(
                TextColumn("{task.fields[stage]:<6}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[pace]}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[path]}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=None, stage="load", pace="", path="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def hear(self, progress: "Progress") -> None:
        """Show how far the run is."""
        if self._bar:
            left = progress.eta_s
            self._bar.update(
                self._task,
                completed=progress.documents,
                total=progress.num_documents,
                stage=progress.stage,
                pace=f"{progress.segments} segments, {progress.rate:.1f}/s"
                + (f", {shown_seconds(left)} left" if left is not None else ""),
                path=Path(progress.path).name,
            )
        elif time.monotonic() - self._said_at > _SAY_EVERY_S:
            self._said_at = time.monotonic()
            say(str(progress))
