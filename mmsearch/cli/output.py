"""How answers reach a person or a pipe: stdout is data, stderr is progress."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmsearch.values import Hit, stored_path

_SHORT_WORD = 3  # "of" and "the" are in every text: they say nothing about where to look


def wants_json(asked: bool | None) -> bool:
    """Say whether to print JSON: when asked, else when nobody reads a table."""
    return asked if asked is not None else not (sys.stdout and sys.stdout.isatty())


def print_json(value: Any) -> None:  # noqa: ANN401  whatever json takes
    """Print one JSON object on stdout: indented for a person, one line for a pipe."""
    indent = 2 if sys.stdout.isatty() else None
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=indent) + "\n")


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on stdout."""
    for line in lines:
        sys.stdout.write(line + "\n")


def say(line: str = "") -> None:
    """Say something on stderr."""
    sys.stderr.write(line + "\n")


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Print a table on stdout, as wide as the terminal; ``right`` columns are numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        is_number = column in right
        table.add_column(
            column,
            justify="right" if is_number else "left",
            no_wrap=is_number,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: "[x]" in a path is no markup
    Console().print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Print names and values on stdout, one a line, aligned."""
    width = max(map(len, facts), default=0)
    print_lines(f"{name:<{width}}  {value}" for name, value in facts.items())


def shown_path(path: str) -> str:
    """Return a stored path as a person would type it from here."""
    here = stored_path(Path.cwd()).rstrip("/") + "/"
    return visible(path.removeprefix(here))


def visible(text: str) -> str:
    """Return ``text`` with control characters escaped: a name must not steer the terminal."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def shown_place(hit: Hit) -> str:
    """Return where a hit is: ``report.pdf p.3``, ``talk.mp4 1:04-1:09``."""
    return f"{shown_path(hit.path)} {hit.locator}".rstrip()


def snippet(text: str, words: Sequence[str] = (), *, width: int = 160) -> str:
    """Return a line of the text, from just before the first of the longer words in it."""
    line = visible(" ".join(text.split()))
    if len(line) <= width:
        return line
    long = [word.lower() for word in words if len(word) > _SHORT_WORD]
    found = [at for word in long if (at := line.lower().find(word)) >= 0]
    begin = max(0, min(found, default=0) - width // 4)
    if begin:
        begin = line.find(" ", begin) + 1
    cut = line[begin : begin + width]
    return ("… " if begin else "") + cut + ("…" if begin + width < len(line) else "")


def shown_bytes(num_bytes: int) -> str:
    """Return a size as people read it: ``3.4 MB``."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def shown_seconds(seconds: float) -> str:
    """Return a duration as people read it: ``0.4 s``, ``1:04``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
