"""The command line as a page: every command, its options and its examples, in Markdown.

    typer's own description of the commands --> Markdown on stdout

`make docs` writes docs/commands.md with it, so that the page says what ``--help`` says.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import typer

from mmsearch.cli.main import GROUPS, app
from mmsearch.cli.output import print_lines

_EXAMPLES = "For example:"


def reference() -> Iterator[str]:
    """Yield the lines of the page."""
    # Typer brings a click of its own, under a private name.
    root: Any = typer.main.get_command(app)
    yield "# Commands"
    yield ""
    yield from _prose(root.help)
    yield ""
    yield "Written from `mmsearch --help` by `python -m mmsearch.cli.reference`."
    grouped = [name for names in GROUPS.values() for name in names]
    others = tuple(name for name in root.commands if name not in grouped)
    for title, names in {**GROUPS, "Others": others}.items():
        there = [name for name in names if name in root.commands]
        if there:
            yield from ("", f"## {title}")
        for name in there:
            yield from _command(root.commands[name], f"mmsearch {name}")


def _command(command: Any, called: str) -> Iterator[str]:  # noqa: ANN401  click's
    commands = getattr(command, "commands", {})
    yield from ("", f"### {called}", "")
    about, _, examples = inspect.cleandoc(command.help or "").partition(_EXAMPLES)
    yield from _prose(about)
    if commands:
        for name, one in commands.items():
            yield from _command(one, f"{called} {name}")
        return
    context = command.make_context(called, [], resilient_parsing=True)
    usage = command.get_usage(context).removeprefix("Usage: ")
    lines = [line.strip() for line in examples.replace("\b", "").splitlines()]
    yield from ("", "```", " ".join(usage.split()), "```")
    if any(lines):
        yield from ("", "```", *(line for line in lines if line), "```")
    rows = [_row(parameter, context) for parameter in command.params]
    if any(rows):
        yield from ("", "| option | what for |", "|---|---|", *(row for row in rows if row))


def _row(parameter: Any, context: Any) -> str:  # noqa: ANN401  click's
    names, told = parameter.get_help_record(context) or ("", "")
    if parameter.param_type_name == "argument":
        names = names.partition(" <")[0]
    return f"| `{_cell(names)}` | {_cell(_escaped(told))} |" if names != "--help" and names else ""


def _prose(text: str | None) -> Iterator[str]:
    yield _escaped(inspect.cleandoc(text or "").replace("\b", "")).strip()


def _escaped(text: str) -> str:
    """Return a text whose brackets and stars are no Markdown."""
    return "".join(f"\\{one}" if one in "*_<>[]" else one for one in text)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    print_lines(reference())
