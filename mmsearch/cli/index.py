"""``mmsearch index``: bring an index up to date with files."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
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
    shown_bytes,
    shown_path,
    shown_seconds,
    wants_json,
)
from mmsearch.cli.progress import Listener
from mmsearch.engine import Engine, ModelSettings
from mmsearch.values import stored_path

if TYPE_CHECKING:
    from mmsearch.indexers.estimate import Estimate, Range
    from mmsearch.indexers.plan import Plan
    from mmsearch.indexers.report import IndexReport

_FAILED_FILES = 3  # the exit code


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
        typer.Option(
            help="Only files that match this glob ('*.pdf', 'reports/**'), or lie in a folder "
            "that does; may be repeated.",
            metavar="GLOB",
        ),
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
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep on, and index what changes, until interrupted."),
    ] = False,
    sweep_every: Annotated[
        float,
        typer.Option(
            min=0.1,
            help="With --watch: minutes between two looks at everything.",
            metavar="MINUTES",
        ),
    ] = 15.0,
    as_json: AsJson = None,
) -> None:
    """Read files and folders into an index.

    Unchanged files are skipped, changed ones replaced, deleted ones removed. A folder that
    is empty and was not is refused: its disk may not be mounted. Safe to interrupt and to
    run again. Ends with exit code 3 when some files failed. The index remembers its model,
    effort, pixels and dimensions, and refuses others.

    In a glob, * is any characters but a slash, ? one of them, ** any at all; it may match the
    end of a path. With --watch a line is printed for each change; interrupting it is exit
    code 0.

    For example:

    \b
        mmsearch index ./docs
        mmsearch index ~/papers --include '*.pdf' --db papers.index
        mmsearch index ./docs --db small.index --dims 192 --max-pixels 100000 --device cpu
    """
    preview = partial(Engine.preview, db=db, include=include or [], exclude=exclude or [])
    if dry_run:
        planned = preview(paths, retry_failed=retry_failed, again=again)
        estimate = Engine.estimate(planned, db=db, ocr=ocr, num_workers=workers)
        _print_plan(planned, estimate, as_json)
        return
    plan = None
    if not Engine.exists(db):  # a typing error must not leave an empty index behind
        looked_at = [path for path in paths if not (watch and path.exists())]
        plan = preview(looked_at) if looked_at else None
    settings = ModelSettings(effort=effort, max_pixels=max_pixels, dims=dims)
    try:
        with (
            _terminable(),
            Listener("load") as listener,
            Engine.open(
                db, create=True, model=model, device=device, dtype=dtype, settings=settings
            ) as engine,
        ):
            do = (
                partial(engine.watch, on_notice=listener.note, sweep_every_s=60 * sweep_every)
                if watch
                else partial(_once, engine, plan=plan)
            )
            for report in do(
                paths,
                on_progress=listener.indexing,
                include=include or [],
                exclude=exclude or [],
                ocr=ocr,
                retry_failed=retry_failed,
                again=again,
                num_workers=workers,
            ):
                listener.rest()
                _print_report(report, db, as_json)
                sys.stdout.flush()
    except KeyboardInterrupt:
        if watch:
            say("stopped: what was finished is kept")
            return
        say("interrupted: what was finished is kept, run it again to go on")
        raise
    if report.failed:
        raise typer.Exit(_FAILED_FILES)


def _once(engine: Engine, *args: Any, **how: Any) -> "Iterator[IndexReport]":  # noqa: ANN401
    yield engine.index(*args, **how)


@contextmanager
def _terminable() -> Iterator[None]:
    """End on SIGTERM as on an interrupt: what was finished is kept, no process is left."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_plan(plan: "Plan", estimate: "Estimate", as_json: bool | None) -> None:
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
                "awaiting_ocr": len(plan.awaiting),
                "estimate": estimate.as_dict(),
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
    if plan.awaiting:
        say(f"{len(plan.awaiting)} more are to be read with OCR")
    _say_estimate(estimate)


def _say_estimate(estimate: "Estimate") -> None:
    if not estimate.seconds.high:
        return

    def about(guess: "Range", shown: Callable[[float], str]) -> str:
        low, likely, high = (shown(value) for value in guess)
        return likely if low == high else f"about {likely} ({low} to {high})"

    def rounded(number: float) -> str:
        return f"{round(number):,}"

    kinds = ", ".join(f"{number:,} {kind}" for kind, number in estimate.documents.items())
    opened = f"{estimate.num_opened:,} files opened to count"
    say(f"{kinds}: {about(estimate.segments, rounded)} segments ({opened})")
    stored = about(estimate.bytes, lambda number: shown_bytes(round(number)))
    rates = "earlier runs on this index" if estimate.is_measured else "another machine"
    say(f"time: {about(estimate.seconds, shown_seconds)}; index: {stored}; by rates of {rates}")


def _print_report(report: "IndexReport", db: Path, as_json: bool | None) -> None:
    if wants_json(as_json):
        print_json(_as_dict(report))
    parts = [f"{report.documents} documents, {report.segments} segments"]
    parts += [f"{report.skipped} unchanged"] if report.skipped else []
    parts += [f"{report.removed} removed"] if report.removed else []
    parts += [f"{report.unsupported} of other kinds"] if report.unsupported else []
    parts += [f"{report.alike} like another"] if report.alike else []
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
        "alike": report.alike,
        "seconds": {stage: round(spent, 3) for stage, spent in report.seconds.items()},
    }
