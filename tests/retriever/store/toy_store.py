"""A store small enough to hold in the head: four dimensions, and documents of a few pages."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.retriever.store.store import Row, Store, Writer, new_commit_id
from mmsearch.values import (
    Document,
    Kind,
    Locator,
    Space,
    Status,
    TextOrigin,
    View,
    segment_id,
)

if TYPE_CHECKING:
    from mmsearch.values import Vectors

DIM = 4
SPACE = Space(
    model="toy",
    weights_hash="0" * 16,
    reasoner="none",
    effort=0,
    dim=DIM,
    prompt="",
    max_pixels=100,
    max_frames=1,
)


def unit(*numbers: float) -> "Vectors":
    """A unit vector in that direction, zeros behind it."""
    vector = np.zeros(DIM, dtype=np.float32)
    vector[: len(numbers)] = numbers
    return vector / np.linalg.norm(vector)


def a_document(
    path: str, *, kind: Kind | None = Kind.PDF, status: Status = Status.DONE, error: str = ""
) -> Document:
    return Document(
        path=path,
        kind=kind,
        content_hash="ab" * 16,
        size=10,
        mtime_ns=20,
        status=status,
        commit_id=new_commit_id(),
        error=error,
    )


def a_row(
    path: str,
    locator: Locator,
    *,
    kind: Kind = Kind.PDF,
    text: str = "",
    about: str = "",
    vectors: "Mapping[View, Vectors] | None" = None,
    thumbnail: bytes = b"",
) -> Row:
    return Row(
        segment_id=segment_id(path, locator),
        kind=kind,
        locator=locator,
        text=text,
        text_origin=TextOrigin.LAYER if text else TextOrigin.NONE,
        about=about,
        vectors={View.VISUAL: unit(1)} if vectors is None else vectors,
        thumbnail=thumbnail,
    )


def pages(path: str, texts: Sequence[str]) -> list[Row]:
    """One page a text, each with a thumbnail that says what it is of."""
    return [
        a_row(path, Locator(page=number), text=text, thumbnail=thumbnail(path, number, text))
        for number, text in enumerate(texts, start=1)
    ]


def thumbnail(path: str, page: int, text: str) -> bytes:
    """The one that `pages` gives to a page."""
    return f"{path} {page} {text}".encode("utf-8", "backslashreplace")


def put(writer: Writer, path: str, texts: Sequence[str]) -> Document:
    """Commit a PDF with these pages; return it as it was handed over."""
    document = a_document(path)
    writer.commit(document, pages(path, texts))
    return document


def contents(store: Store) -> dict[str, list[str]]:
    """What a reader finds: the texts of every document, by way of every question there is."""
    snapshot = store.snapshot()
    texts = {d.path: [s.text for s in snapshot.segments_of(d.path)] for d in snapshot.documents}
    found = snapshot.nearest(View.VISUAL, unit(1), k=1_000)
    segments = snapshot.segments([neighbour.segment_id for neighbour in found])
    assert sorted(s.text for s in segments) == sorted(t for some in texts.values() for t in some)
    for segment in segments:
        shown = thumbnail(segment.path, segment.locator.page or 0, segment.text)
        assert snapshot.thumbnail(segment.segment_id) == shown
    return texts


def num_rows(store: Store) -> int:
    """Rows in the table, those that no reader counts among them."""
    return store.snapshot().table.count()


def media_files(store: Store) -> list[str]:
    """The packs of thumbnails that lie in the folder, by name."""
    return sorted(path.stem for path in store.path.glob("media/*/*"))
