"""``mmsearch gc``: the disk space that nobody needs."""

from mmsearch import upkeep
from mmsearch.cli.options import DEFAULT_DATABASE, AsJson, Database
from mmsearch.cli.output import print_json, say, shown_bytes, wants_json


def gc(db: Database = DEFAULT_DATABASE, as_json: AsJson = None) -> None:
    """Free the disk space that nobody needs.

    What readers may be at work in is kept for half an hour, what a tag needs for good.

    For example:

    \b
        mmsearch gc
    """
    freed = upkeep.collect_garbage(db)
    if wants_json(as_json):
        print_json({"freed": freed})
    say(f"freed {shown_bytes(freed)}")
