"""``mmsearch rebuild``: the same files through another model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsearch import upkeep
from mmsearch.cli.options import (
    DEFAULT_DATABASE,
    AsJson,
    Database,
    Device,
    Dims,
    Dtype,
    Effort,
    MaxPixels,
)
from mmsearch.cli.output import print_json, say, shown_path, shown_seconds, wants_json
from mmsearch.cli.progress import Listener
from mmsearch.engine import ModelSettings

if TYPE_CHECKING:
    from mmsearch.upkeep import RebuildReport

_FAILED_FILES = 3  # the exit code
_SHOWN_MISSING = 20


def rebuild(
    db: Database = DEFAULT_DATABASE,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name or folder of the new model; by default that of the index, for other "
            "settings of it.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    effort: Effort = None,
    max_pixels: MaxPixels = None,
    dims: Dims = None,
    ocr: Annotated[bool, typer.Option(help="Read the words in pictures, scans and films.")] = True,
    forget_missing: Annotated[
        bool,
        typer.Option(
            "--forget-missing", help="Go on without documents whose file is gone; else that stops."
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Reader processes; by default one a core.", show_default=False),
    ] = None,
    as_json: AsJson = None,
) -> None:
    """Read the files of an index again and embed them with another model or settings.

    The index answers as before until all is done. Safe to interrupt: run it again with the
    same options to go on. Where files are gone nothing is done, unless they are to be
    forgotten. Ends with exit code 3 when some files failed or were forgotten.

    For example:

    \b
        mmsearch rebuild --dims 192 --no-ocr
    """
    settings = ModelSettings(effort=effort, max_pixels=max_pixels, dims=dims)
    try:
        with Listener("load") as listener:
            report = upkeep.rebuild(
                db,
                model=model,
                device=device,
                dtype=dtype,
                settings=settings,
                ocr=ocr,
                forget_missing=forget_missing,
                num_workers=workers,
                on_progress=listener.indexing,
            )
    except KeyboardInterrupt:
        say("interrupted: the index answers as before, run it again to go on")
        raise
    if wants_json(as_json):
        print_json(_as_dict(report))
    _say(report, db)
    if report.missing or (report.run and (report.run.failed or report.run.failed_before)):
        raise typer.Exit(_FAILED_FILES)


def _say(report: "RebuildReport", db: Path) -> None:
    run = report.run
    if run is None:
        say(f"{db} is of {report.space} already")
        return
    failed = [*run.failed, *run.failed_before]
    done = f"{run.documents} documents, {run.segments} segments"
    done += f", {run.skipped} of an earlier run" if run.skipped else ""
    say(f"embedded {done} in {shown_seconds(run.seconds['total'])}: {db} is of {report.space}")
    if failed:
        say(f"{len(failed)} failed:")
        for failure in failed:
            say(f"  {shown_path(failure.path)}: {failure.reason}")
    if report.missing:
        say(f"{len(report.missing)} are gone and left out:")
        for path in report.missing[:_SHOWN_MISSING]:
            say(f"  {shown_path(path)}")
        if len(report.missing) > _SHOWN_MISSING:
            say(f"  and {len(report.missing) - _SHOWN_MISSING} more (--json names them all)")
    if report.tags:
        say(f"tags of the old space are gone with it: {', '.join(report.tags)}")


def _as_dict(report: "RebuildReport") -> dict[str, Any]:
    run = report.run
    return {
        "model": report.space.model,
        "space": report.space.id,
        "documents": run.documents if run else 0,
        "segments": run.segments if run else 0,
        "skipped": run.skipped if run else 0,
        "failed": [
            {"path": one.path, "reason": one.reason} for one in (*run.failed, *run.failed_before)
        ]
        if run
        else [],
        "missing": list(report.missing),
        "tags": list(report.tags),
        "seconds": {stage: round(spent, 3) for stage, spent in run.seconds.items()} if run else {},
    }
