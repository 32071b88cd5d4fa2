"""``mmsearch duplicates``: which pictures, pages and clips an index holds more than once."""

import json

from mmsearch.cli.options import DEFAULT_DATABASE, AsJson, Database
from mmsearch.cli.output import print_lines, say, shown_path, wants_json
from mmsearch.engine import Engine


def duplicates(db: Database = DEFAULT_DATABASE, as_json: AsJson = None) -> None:
    """Print which pictures, pages and clips look alike.

    The largest group comes first. A picture compressed anew, made smaller or without its
    colours is found again; one that was cropped by more than a hair is not. Where words can
    be read in them, these have to be about the same. One JSON object a group when piped.

    For example:

    \b
        mmsearch duplicates
        mmsearch duplicates --json --db .mmsearch
    """
    with Engine.open(db) as engine:
        groups = engine.near_duplicates()
    if wants_json(as_json):
        print_lines(
            json.dumps(
                {
                    "segments": [
                        {
                            "id": one.segment_id,
                            "path": one.path,
                            "kind": str(one.kind),
                            **one.locator.as_dict(),
                        }
                        for one in group
                    ]
                },
                ensure_ascii=False,
            )
            for group in groups
        )
    else:
        for group in groups:
            first, *others = (f"{shown_path(one.path)} {one.locator}".rstrip() for one in group)
            print_lines([first, *(f"  {one}" for one in others), ""])
    num_alike = sum(len(group) - 1 for group in groups)
    say(f"{len(groups)} groups; {num_alike} segments look like the first of theirs")
