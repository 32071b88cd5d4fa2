"""``mmsearch optimize``: an index as fast as it can be."""

from typing import Annotated

import typer

from mmsearch import upkeep
from mmsearch.cli.options import DEFAULT_DATABASE, Database
from mmsearch.cli.output import say


def optimize(
    db: Database = DEFAULT_DATABASE,
    faiss: Annotated[
        bool | None,
        typer.Option(
            "--faiss/--no-faiss",
            help="Make the faiss accelerator anew, or remove it; by default one that is there "
            "is kept up to date.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Merge small files, bring every index up to date and drop old versions.

    'mmsearch index' does so when it pays; this does it at once. An index that was made by
    an older mmsearch is brought up to date.

    For example:

    \b
        mmsearch optimize
        mmsearch optimize --no-faiss
    """
    upkeep.optimize(db, faiss=faiss)
    say(f"{db} is optimized")
