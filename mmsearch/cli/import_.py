"""``mmsearch import``: an index from the folder that ``mmsearch export`` wrote."""

from pathlib import Path
from typing import Annotated

import typer

from mmsearch import upkeep
from mmsearch.cli.options import DEFAULT_DATABASE, AsJson, Database
from mmsearch.cli.output import print_json, say, wants_json


def import_(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder that 'mmsearch export' wrote.", metavar="FOLDER", show_default=False
        ),
    ],
    db: Database = DEFAULT_DATABASE,
    as_json: AsJson = None,
) -> None:
    """Make an index of an export: the same documents, vectors and thumbnails.

    Nothing may be at --db yet, and nothing is unless all of the export is as it was
    written. Documents keep their paths; their files need not be there to be found.

    For example:

    \b
        mmsearch import exported --db copy.index
    """
    dump = upkeep.import_index(folder, db)
    if wants_json(as_json):
        print_json(dump.as_dict())
    say(f"imported {dump.num_documents} documents, {dump.num_segments} segments -> {db}")
