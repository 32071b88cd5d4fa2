"""``mmsearch show``: everything the index holds of one segment."""

from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli.options import DEFAULT_DATABASE, AsJson, Database
from mmsearch.cli.output import print_facts, print_json, print_lines, say, shown_path, wants_json
from mmsearch.engine import Engine
from mmsearch.errors import BadInput


def show(
    segment_id: Annotated[
        str, typer.Argument(help="Id of a segment, as 'mmsearch query' prints it.", metavar="ID")
    ],
    db: Database = DEFAULT_DATABASE,
    save: Annotated[
        Path | None,
        typer.Option(help="Write its thumbnail (WebP) to this file.", metavar="FILE"),
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Show its thumbnail, in terminals that can.")
    ] = False,
    as_json: AsJson = None,
) -> None:
    """Print everything the index holds of one segment.

    For example:

    \b
        mmsearch show 3f2a9c51d0b7e846 --save page.webp
    """
    with Engine.open(db) as engine:
        segment = engine.show(segment_id)
        thumbnail = engine.thumbnail(segment_id) if save or preview else b""
    if wants_json(as_json):
        print_json(
            {
                "id": segment.segment_id,
                "path": segment.path,
                "kind": str(segment.kind),
                **segment.locator.as_dict(),
                "about": segment.about,
                "text_origin": str(segment.text_origin),
                "text": segment.text,
            }
        )
    else:
        place = f"{shown_path(segment.path)} {segment.locator}".rstrip()
        print_facts(
            {
                "id": segment.segment_id,
                "where": place,
                "kind": segment.kind,
                "about": segment.about,
                "words": f"{segment.num_words} ({segment.text_origin or 'none'})",
            }
        )
        print_lines(["", segment.text])
    if preview:
        from mmsearch.cli.preview import print_preview

        print_preview(thumbnail)
    if save:
        _write(save, thumbnail)
        say(f"wrote {save}" if thumbnail else f"wrote {save}, empty: it has no picture")


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error
