"""``mmsearch doctor``: is the index whole."""

from typing import Annotated

import typer

from mmsearch import upkeep
from mmsearch.cli.options import DEFAULT_DATABASE, AsJson, Database
from mmsearch.cli.output import print_json, say, wants_json

_SHOWN = 20


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
    _say_some([f"mended: {line}" for line in mended])
    _say_some([f"problem: {one.sentence}\n    try: {one.remedy}" for one in problems])
    if problems:
        raise typer.Exit(1)
    say(f"{db} is whole")


def _say_some(lines: list[str]) -> None:
    """Say the first of many: a folder that is gone harms every document alike."""
    for line in lines[:_SHOWN]:
        say(line)
    if len(lines) > _SHOWN:
        say(f"and {len(lines) - _SHOWN} more (--json names them all)")
