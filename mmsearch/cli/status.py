"""``mmsearch status``: what an index holds."""

from mmsearch.cli.options import DEFAULT_DATABASE, AsJson, Database
from mmsearch.cli.output import (
    print_facts,
    print_json,
    print_lines,
    shown_bytes,
    shown_path,
    wants_json,
)
from mmsearch.engine import Engine


def status(db: Database = DEFAULT_DATABASE, as_json: AsJson = None) -> None:
    """Print what an index holds, and which files failed.

    For example:

    \b
        mmsearch status --json
    """
    with Engine.open(db) as engine:
        found = engine.status()
    if wants_json(as_json):
        print_json(found.as_dict())
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.documents.items())
    print_facts(
        {
            "index": found.path,
            "model": found.space,
            "pictures": f"of up to {found.space.max_pixels:,} pixels",
            "documents": f"{sum(found.documents.values())} ({kinds})" if kinds else "0",
            "segments": found.segments,
            "await OCR": found.awaits_ocr,
            "on disk": shown_bytes(found.bytes),
            "schema": found.schema,
            "looks into": f"{found.backend}: "
            + ", ".join(f"{what} ({view})" for view, what in found.vector_index.items()),
            "tags": ", ".join(found.tags) or "none",
            "failed": len(found.failed),
        }
    )
    print_lines(f"  {shown_path(one.path)}: {one.error}" for one in found.failed)
