"""``mmsearch model``: the models there are."""

import typer

from mmsearch.cli.options import AsJson
from mmsearch.cli.output import print_json, print_table, shown_bytes, wants_json
from mmsearch.engine import available_models

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def root() -> None:
    """See which models there are."""


@app.command("list")
def list_models(as_json: AsJson = None) -> None:
    """Print the models that are installed.

    For example:

    \b
        mmsearch model list
    """
    models = available_models()
    if wants_json(as_json):
        print_json(
            [
                {
                    "name": one.name,
                    "path": str(one.path),
                    "reasoner": one.reasoner,
                    "dim": one.dim,
                    "bytes": one.size,
                    "description": one.about,
                }
                for one in models
            ]
        )
        return
    print_table(
        ["name", "reasoner", "dim", "size", "description"],
        [
            [one.name, one.reasoner, str(one.dim), shown_bytes(one.size), one.about]
            for one in models
        ],
        right=["dim", "size"],
    )
