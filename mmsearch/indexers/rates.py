"""How fast earlier runs on an index were: ``rates.json`` beside its tables.

    what a run did, by kind --> rates.json --> how long another will take, how large it will be

It is a guess for people and never needed: one that is missing or broken is as if there
had been no run. Later runs count more: what was known before is halved by each.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mmsearch.retriever.store.durable import write_file
from mmsearch.values import Kind

NAME = "rates.json"
_VERSION = 1


@dataclass(slots=True)
class Rate:
    """What was done for documents of one kind.

    bytes_read:   size of their files
    read_s:       seconds of the reader processes together, without OCR
    ocr_s:        seconds of the reader processes for reading them again, with OCR
    ocr_segments: segments that were read again
    embed_s:      seconds in the embedder
    commit_s:     seconds of writing rows
    bytes_stored: size of their rows and thumbnails
    """

    documents: float = 0.0
    segments: float = 0.0
    bytes_read: float = 0.0
    read_s: float = 0.0
    ocr_s: float = 0.0
    ocr_segments: float = 0.0
    embed_s: float = 0.0
    commit_s: float = 0.0
    bytes_stored: float = 0.0

    def add(self, other: "Rate", *, share: float = 1.0) -> None:
        """Count what ``other`` counts, or a share of it."""
        for field in fields(self):
            more = share * getattr(other, field.name)
            setattr(self, field.name, getattr(self, field.name) + more)


def read_rates(home: Path) -> dict[Kind, Rate]:
    """Return what is known of earlier runs; nothing where that cannot be read."""
    try:
        content = json.loads((home / NAME).read_bytes())
        if content["version"] != _VERSION:
            return {}
        rates = {Kind(kind): Rate(**rate) for kind, rate in content["kinds"].items()}
        numbers = [value for rate in rates.values() for value in asdict(rate).values()]
        return rates if all(type(n) in (int, float) and 0 <= n < 1e18 for n in numbers) else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def add_rates(home: Path, run: Mapping[Kind, Rate]) -> None:
    """Add what a run did to what is known, durably; a run that did nothing adds nothing.

    Raises OSError.
    """
    if not any(rate.documents or rate.ocr_segments for rate in run.values()):
        return
    known = read_rates(home)
    rates: dict[Kind, Rate] = {}
    for kind in Kind:
        if kind in known or kind in run:
            rates[kind] = Rate()
            rates[kind].add(known.get(kind, Rate()), share=0.5 if kind in run else 1.0)
            rates[kind].add(run.get(kind, Rate()))
    kinds = {
        str(kind): {name: round(value, 3) for name, value in asdict(rate).items()}
        for kind, rate in rates.items()
    }
    content = json.dumps({"version": _VERSION, "kinds": kinds}, indent=2) + "\n"
    write_file(home / NAME, content.encode())
