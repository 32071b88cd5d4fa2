"""The options that several commands share, said once."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Database: TypeAlias = Annotated[
    Path,
    typer.Option("--db", help="Folder of the index.", envvar="MMSEARCH_DB", metavar="DIR"),
]
DEFAULT_DATABASE = Path(".mmsearch")

AsJson: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--json/--no-json",
        help="Print JSON; by default when the output is piped.",
        show_default=False,
    ),
]

Model: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Name or folder of the model; by default the one the index was made with.",
        metavar="NAME",
        show_default=False,
    ),
]

NumHits: TypeAlias = Annotated[
    int, typer.Option("-k", min=1, max=10_000, help="How many hits to print.")
]
