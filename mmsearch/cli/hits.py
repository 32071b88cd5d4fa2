"""Printing hits, the same way for every command that has some."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsearch.cli.output import (
    print_json,
    print_lines,
    say,
    shown_path,
    shown_place,
    snippet,
    wants_json,
)
from mmsearch.engine import Engine
from mmsearch.serving.client import Answer
from mmsearch.values import Hit


def print_hits(
    answer: Answer,
    *,
    db: Path,
    asked: dict[str, Any],
    as_json: bool | None,
    files: bool = False,
    preview: bool = False,
    words: Sequence[str] = (),
) -> None:
    """Print hits as a table, as paths only (``files``), or as one JSON object.

    db: the index that keeps their thumbnails, for ``preview``
    """
    hits = answer.hits
    if files:
        print_lines(dict.fromkeys(shown_path(hit.path) for hit in hits))
    elif wants_json(as_json):
        print_json(
            {
                "query": asked,
                "space": answer.space,
                "took_ms": round(answer.took_ms, 1),
                "hits": [hit.as_dict() for hit in hits],
            }
        )
    elif not hits:
        say("no hits")
    else:
        _print_table(hits, words)
        if preview:
            from mmsearch.cli.preview import print_preview

            with Engine.open(db) as engine:
                for hit in hits:
                    print_lines([f"{hit.rank}. {shown_place(hit)}"])
                    print_preview(engine.thumbnail(hit.segment_id))
        say(f"{len(hits)} hits in {answer.took_ms:.0f} ms")


def _print_table(hits: Sequence[Hit], words: Sequence[str]) -> None:
    """Two lines a hit: where it is and its id, and the words in it below."""
    from rich import box
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("where", overflow="fold", ratio=1)
    table.add_column("id", no_wrap=True)
    for hit in hits:
        where = Text(shown_place(hit), style="bold")  # Text: "[x]" in a path is no markup
        said = snippet(hit.text or hit.about, words)
        about = Group(where, Text(said, style="dim")) if said else where
        table.add_row(str(hit.rank), f"{hit.score:.3f}", about, hit.segment_id)
    Console().print(table)
