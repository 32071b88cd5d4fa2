"""``mmsearch remove``: take documents out of an index."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli.options import DEFAULT_DATABASE, AsJson, Database
from mmsearch.cli.output import print_json, print_lines, say, shown_path, wants_json
from mmsearch.engine import Engine
from mmsearch.values import Document


def remove(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Files, or folders of files, that are in the index.", metavar="PATH..."
        ),
    ],
    db: Database = DEFAULT_DATABASE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be taken out, and do nothing.")
    ] = False,
    as_json: AsJson = None,
) -> None:
    """Take documents out of an index; the files themselves stay.

    Ends with exit code 1 when nothing of the kind was in it.

    For example:

    \b
        mmsearch remove --dry-run docs/old-report.pdf
        mmsearch remove docs/old-report.pdf
    """
    with Engine.open(db) as engine:
        if dry_run:
            _print_doomed(engine.documents(paths), as_json)
            return
        removed = engine.remove(paths)
    if wants_json(as_json):
        print_json({"removed": removed})
    say(f"removed {removed} documents from {db}")
    if not removed:
        raise typer.Exit(1)


def _print_doomed(documents: Sequence[Document], as_json: bool | None) -> None:
    if wants_json(as_json):
        print_json({"remove": [one.path for one in documents]})
    else:
        print_lines(shown_path(one.path) for one in documents)
    say(f"{len(documents)} documents would be removed")
    if not documents:
        raise typer.Exit(1)
