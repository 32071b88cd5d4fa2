"""Printing hits, the same way for every command that has some."""

from collections.abc import Sequence
from typing import Any

from mmsearch.cli.output import (
    print_json,
    print_lines,
    print_table,
    say,
    shown_path,
    shown_place,
    snippet,
    wants_json,
)
from mmsearch.engine import Engine
from mmsearch.values import Hit


def print_hits(
    engine: Engine,
    hits: Sequence[Hit],
    *,
    asked: dict[str, Any],
    took_ms: float,
    as_json: bool | None,
    files: bool = False,
    preview: bool = False,
    words: Sequence[str] = (),
) -> None:
    """Print hits as a table, as paths only (``files``), or as one JSON object."""
    if files:
        print_lines(dict.fromkeys(shown_path(hit.path) for hit in hits))
    elif wants_json(as_json):
        print_json(
            {
                "query": asked,
                "space": engine.space.id,
                "took_ms": round(took_ms, 1),
                "hits": [hit.as_dict() for hit in hits],
            }
        )
    elif not hits:
        say("no hits")
    else:
        _print_table(hits, words)
        if preview:
            from mmsearch.cli.preview import print_preview

            for hit in hits:
                print_lines([f"{hit.rank}. {shown_place(hit)}"])
                print_preview(engine.thumbnail(hit.segment_id))
        say(f"{len(hits)} hits in {took_ms:.0f} ms")


def _print_table(hits: Sequence[Hit], words: Sequence[str]) -> None:
    print_table(
        ["#", "score", "where", "id", "text"],
        [
            [
                str(hit.rank),
                f"{hit.score:.3f}",
                shown_place(hit),
                hit.segment_id,
                snippet(hit.text or hit.about, words),
            ]
            for hit in hits
        ],
        right=["#", "score", "id"],
    )
