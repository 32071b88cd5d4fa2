"""``mmsearch doctor``: is the index whole."""

from typing import Annotated

import typer

from mmsearch import upkeep
from mmsearch.cli.options import DEFAULT_DATABASE, AsJson, Database
from mmsearch.cli.output import print_json, say, wants_json


def doctor(
    db: Database = DEFAULT_DATABASE,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended.")] = False,
    as_json: AsJson = None,
) -> None:
    """Check that manifest, segments, thumbnails and indexes of an index agree.

    Ends with exit code 1 when something is wrong and was not mended.

    For example:

    \b
        mmsearch doctor --fix
    """
    mended = upkeep.repair(db) if fix else []
    problems = upkeep.check(db)
    if wants_json(as_json):
        print_json(
            {
                "mended": mended,
                "problems": [{"problem": one.sentence, "remedy": one.remedy} for one in problems],
            }
        )
    for line in mended:
        say(f"mended: {line}")
    for one in problems:
        say(f"problem: {one.sentence}")
        say(f"    try: {one.remedy}")
    if problems:
        raise typer.Exit(1)
    say(f"{db} is whole")
