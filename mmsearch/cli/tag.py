"""``mmsearch tag``: states of an index to come back to."""

from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch import upkeep
from mmsearch.cli.options import DEFAULT_DATABASE, AsJson, Database
from mmsearch.cli.output import print_json, print_table, say, wants_json

if TYPE_CHECKING:
    from mmsearch.retriever.store.store import Tag

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[
    str,
    typer.Argument(
        help="Of the tag: letters, digits, '.', '_' and '-'.", metavar="NAME", show_default=False
    ),
]


@app.callback()
def root() -> None:
    """Name the state of an index, and come back to it."""


@app.command("create")
def create(name: Name, db: Database = DEFAULT_DATABASE, as_json: AsJson = None) -> None:
    """Give the state of now a name; what it holds is kept until the tag is deleted.

    For example:

    \b
        mmsearch tag create before-cleanup
    """
    tag = upkeep.tag(db, name)
    if wants_json(as_json):
        print_json(_as_dict(tag))
    say(f"tagged {tag.num_documents} documents as {tag.name}")


@app.command("list")
def list_tags(db: Database = DEFAULT_DATABASE, as_json: AsJson = None) -> None:
    """List the tags, oldest first.

    For example:

    \b
        mmsearch tag list
    """
    tags = upkeep.tags(db)
    if wants_json(as_json):
        print_json([_as_dict(tag) for tag in tags])
        return
    rows = [
        (tag.name, f"{tag.created.astimezone():%Y-%m-%d %H:%M}", str(tag.num_documents))
        for tag in tags
    ]
    print_table(("name", "created", "documents"), rows, right=("documents",))


@app.command("restore")
def restore(name: Name, db: Database = DEFAULT_DATABASE, as_json: AsJson = None) -> None:
    """Make the index hold what it held when it was tagged.

    All at once or, if it is interrupted, not at all. The tag stays. Files that changed
    since are read again by the next 'mmsearch index'.

    For example:

    \b
        mmsearch tag restore before-cleanup
    """
    num_documents = upkeep.restore(db, name)
    if wants_json(as_json):
        print_json({"name": name, "documents": num_documents})
    say(f"{db} holds the {num_documents} documents of {name} again")


@app.command("delete")
def delete(name: Name, db: Database = DEFAULT_DATABASE, as_json: AsJson = None) -> None:
    """Forget a tag and what only it needed.

    For example:

    \b
        mmsearch tag delete before-cleanup
    """
    upkeep.untag(db, name)
    if wants_json(as_json):
        print_json({"name": name})
    say(f"deleted the tag {name}")


def _as_dict(tag: "Tag") -> dict[str, object]:
    return {
        "name": tag.name,
        "created": tag.created.isoformat(timespec="seconds"),
        "documents": tag.num_documents,
    }
