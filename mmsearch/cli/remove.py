"""``mmsearch remove``: take documents out of an index."""

from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli.options import DEFAULT_DATABASE, AsJson, Database
from mmsearch.cli.output import print_json, say, wants_json
from mmsearch.engine import Engine


def remove(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Files, or folders of files, that are in the index.", metavar="PATH..."
        ),
    ],
    db: Database = DEFAULT_DATABASE,
    as_json: AsJson = None,
) -> None:
    """Take documents out of an index; the files themselves stay.

    Ends with exit code 1 when nothing of the kind was in it.

    For example:

    \b
        mmsearch remove docs/old-report.pdf
    """
    with Engine.open(db) as engine:
        removed = engine.remove(paths)
    if wants_json(as_json):
        print_json({"removed": removed})
    say(f"removed {removed} documents from {db}")
    if not removed:
        raise typer.Exit(1)
