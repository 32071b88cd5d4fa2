"""Readers: a path in, segments out, one at a time.

    path --sniff--> Kind --read--> Segment, Segment, ...

Readers trust nothing in a file, but they cannot stop a decoder that hangs or
aborts the process: whoever reads files of unknown origin calls them through
`mmsearch.indexers.sandbox`.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from mmsearch.errors import UnreadableFile
from mmsearch.indexers.readers.sniff import SUPPORTED_SUFFIXES, sniff
from mmsearch.values import Kind, Locator, ReadPolicy, Segment

__all__ = ["SUPPORTED_SUFFIXES", "counted", "placed", "read", "read_whole", "sniff"]


def read(
    path: Path, kind: Kind, policy: ReadPolicy, *, only: Locator | None = None
) -> Iterator[Segment]:
    """Yield the segments of a file in order, each read when it is asked for.

    ``only`` keeps to one page of a PDF and is ignored elsewhere. A file that
    could be opened yields at least one segment. Raises UnreadableFile, possibly
    after some segments were handed on: whoever collects them drops them then.
    """
    page = only.page if only is not None else None
    yield from _said_plainly(path, lambda: _segments(path, kind, policy, page))


def read_whole(
    path: Path, kind: Kind, policy: ReadPolicy, *, only: Locator | None = None
) -> Segment:
    """Return a film as one segment with frames from all of it, for queries.

    ``only`` keeps to a span of it. Other kinds give their first segment. Raises
    UnreadableFile.
    """
    if kind is not Kind.VIDEO:
        return next(read(path, kind, replace(policy, max_pages=1)))
    reader = import_module("mmsearch.indexers.readers.video")
    return next(_said_plainly(path, lambda: iter([reader.read_whole(path, policy, only=only)])))


def counted(path: Path, kind: Kind, policy: ReadPolicy) -> Segment:
    """Return a segment whose text says how many a file holds, about. Raises UnreadableFile."""
    count = import_module("mmsearch.indexers.readers.count").count
    said = (Segment(kind=kind, text=str(count(path, kind, policy))) for _ in range(1))
    return next(_said_plainly(path, lambda: said))


def placed(path: Path, kind: Kind, policy: ReadPolicy, *, only: Locator | None = None) -> Segment:
    """Return a segment whose text says in JSON which words stand where on one page of a PDF.

    A row for each: text, left, top, right, bottom; see `PlacedWord`. Other kinds have none.
    Raises UnreadableFile.
    """
    page = only.page if only is not None and kind is Kind.PDF else None

    def said() -> Iterator[Segment]:
        words = []
        if page is not None:
            words = import_module("mmsearch.indexers.readers.pdf").placed_words(path, policy, page)
        yield Segment(kind=kind, text=json.dumps(words))

    return next(_said_plainly(path, said))


def _segments(path: Path, kind: Kind, policy: ReadPolicy, page: int | None) -> Iterator[Segment]:
    # Imported here: each brings a decoder of its own, and most runs need one or two.
    reader = import_module(f"mmsearch.indexers.readers.{kind}")
    return reader.read(path, policy, page=page) if kind is Kind.PDF else reader.read(path, policy)


def _said_plainly(path: Path, segments: Callable[[], Iterator[Segment]]) -> Iterator[Segment]:
    """Pass segments on, and turn whatever a decoder raises into UnreadableFile.

    Four decoders raise a dozen unrelated types on damaged bytes (struct.error,
    SyntaxError, mupdf's own, ...), so all of Exception is caught; a lack of
    memory is not the file's damage and goes through for the sandbox to name.
    """
    try:
        yield from segments()
    except (UnreadableFile, MemoryError, ImportError):
        raise
    except OSError as error:
        damage = f"it is damaged ({error})"  # pillow says so with an OSError of its own
        reason = _lowered(error.strerror) if error.strerror else damage
        raise UnreadableFile(path, reason) from error
    except Exception as error:
        detail = _lowered(str(error).strip().partition("\n")[0])[:120]
        reason = (
            f"it is damaged ({detail})" if detail else f"it is damaged ({type(error).__name__})"
        )
        raise UnreadableFile(path, reason) from error


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
