"""The command line: read the flags, call the engine, print the answer.

Nothing here knows how search works. Each command is one small file; heavy
libraries are imported by the engine when it needs them, so that ``--help``
answers at once.
"""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mmsearch import __version__
from mmsearch.cli import (
    doctor,
    duplicates,
    evaluate,
    export,
    gc,
    import_,
    index,
    info,
    mcp,
    model,
    optimize,
    query,
    rebuild,
    remove,
    serve,
    show,
    similar,
    status,
    tag,
    train,
)
from mmsearch.cli.output import print_lines, say
from mmsearch.errors import MMSearchError

# The order of the help; a command that is named in none of them comes last.
GROUPS = {
    "Index and search": ("index", "query", "similar", "show", "status", "duplicates", "eval"),
    "Look after an index": (
        "remove",
        "doctor",
        "optimize",
        "gc",
        "tag",
        "rebuild",
        "export",
        "import",
    ),
    "Serve": ("serve", "mcp"),
    "Models": ("model", "train", "info"),
}


class _InGroups(TyperGroup):
    """Prints the commands in their groups."""

    # Typer brings a click of its own, under a private name.
    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        grouped = {name for names in GROUPS.values() for name in names}
        others = tuple(name for name in self.commands if name not in grouped)
        for title, names in {**GROUPS, "Others": others}.items():
            rows = [
                (name, self.commands[name].get_short_help_str(64))
                for name in names
                if name in self.commands
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=12)


app = typer.Typer(
    name="mmsearch",
    cls=_InGroups,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text: it can be piped, grepped and pasted into the README
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        print_lines([f"mmsearch {__version__}"])
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Find the page, the picture or the moment that answers a question.

    Exit codes: 0 ok; 1 error; 2 usage; 3 finished, with failed files;
    4 index and model do not match; 130 interrupted, run it again to resume.
    """


app.command("index")(index.index)
app.command("query")(query.query)
app.command("similar")(similar.similar)
app.command("show")(show.show)
app.command("status")(status.status)
app.command("remove")(remove.remove)
app.command("doctor")(doctor.doctor)
app.command("optimize")(optimize.optimize)
app.command("gc")(gc.gc)
app.command("rebuild")(rebuild.rebuild)
app.command("duplicates")(duplicates.duplicates)
app.command("eval")(evaluate.evaluate)
app.command("train")(train.train)
app.command("export")(export.export)
app.command("import")(import_.import_)
app.command("serve")(serve.serve)
app.command("mcp")(mcp.mcp)
app.command("info")(info.info)
app.add_typer(tag.app, name="tag")
app.add_typer(model.app, name="model")


def main() -> None:
    """Run the app; an error of ours becomes one line, a hint, and its exit code."""
    try:
        if sys.stdout is None:  # closed by whoever started us
            raise OSError("standard output is closed")
        app()
    except OSError as error:  # of printing: what the engine meets is an error of ours
        say(f"error: {(error.strerror or str(error)).lower()}")
        raise SystemExit(1) from None
    except MMSearchError as error:
        say(f"error: {error}")
        if error.hint:
            say(f"  try: {error.hint}")
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
