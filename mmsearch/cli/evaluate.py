"""``mmsearch eval``: how well an index answers queries whose answers are known."""

import sys
from pathlib import Path
from typing import Annotated

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
    UsedBackend,
)
from mmsearch.cli.output import print_json, print_table, say, wants_json
from mmsearch.engine import Engine, ModelSettings
from mmsearch.values import Backend


def evaluate(
    queries: Annotated[
        Path, typer.Argument(help="One JSON object a line.", metavar="QUERIES.jsonl")
    ],
    db: Database = DEFAULT_DATABASE,
    model: Model = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    effort: Effort = None,
    max_pixels: MaxPixels = None,
    dims: Dims = None,
    backend: UsedBackend = Backend.AUTO,
    as_json: AsJson = None,
) -> None:
    """Measure how well queries with known answers are answered.

    A line: {"id", "kind", "text"?, "images"?, "video"?, "page"?, "relevant": [{"path",
    "page"?, "start"?, "end"?}], "note"?}, paths relative to the file.

    For example:

    \b
        mmsearch eval queries.jsonl --json
        mmsearch eval queries.jsonl --device cpu
    """

    def count(number: int, total: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{number}/{total} queries" + ("\n" if number == total else ""))

    settings = ModelSettings(effort=effort, max_pixels=max_pixels, dims=dims)
    with Engine.open(
        db, model=model, device=device, dtype=dtype, settings=settings, backend=backend
    ) as engine:
        report = engine.evaluate(queries, on_progress=count)
    if wants_json(as_json):
        print_json(report.as_dict())
        return
    names = report.measure_names
    print_table(
        ["kind", "queries", *names],
        [
            [row.kind, str(row.num_queries), *(f"{row.values[name]:.3f}" for name in names)]
            for row in report.rows
        ],
        right=["queries", *names],
    )
    say(report.no_answer_sentence)
