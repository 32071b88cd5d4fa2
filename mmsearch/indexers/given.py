"""Texts that were given and lie in no file: handed over by a program, kept as documents.

    id, text, about -> Segment -> vector -> (Document, Row)

Each is a document of one segment, under a path that no file has (`values.given_path`), so
what is done with documents is done with these. A run of `index` never meets them: what it
reads, replaces and forgets lies in folders. There is no file to read again, so a rebuild
takes their words from the index itself.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmsearch.retriever.seams import Embedder
from mmsearch.retriever.store.store import Row, Store, Writer, new_commit_id
from mmsearch.values import (
    Document,
    Kind,
    Locator,
    Role,
    Segment,
    Status,
    TextOrigin,
    View,
    given_id,
    given_path,
    segment_id,
)

if TYPE_CHECKING:
    from mmsearch.values import Vectors

_AT_ONCE = 4_096  # texts of one commit when an index is rebuilt


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenText:
    """A text by its id; ``about`` is searched and given back, and not embedded."""

    text_id: str
    text: str
    about: str = ""


def given_segment_id(text_id: str) -> str:
    """Return the id of the one segment of a given text."""
    return segment_id(given_path(text_id), Locator())


def as_documents(
    texts: Sequence[GivenText], embedder: Embedder
) -> list[tuple[Document, Sequence[Row]]]:
    """Return texts as what a writer commits; one of nothing but blanks has no vector.

    Raises as `Embedder.embed` does, and ValueError for an empty id.
    """
    if not all(one.text_id for one in texts):
        raise ValueError("a text needs an id that is not empty")
    now_ns = time.time_ns()
    vectors = _vectors([_segment(one) for one in texts], embedder)
    return [
        (_document(one, now_ns), [_row(one, known)])
        for one, known in zip(texts, vectors, strict=True)
    ]


def carry_over(old: Store, embedder: Embedder, writer: Writer) -> int:
    """Embed the given texts of an index for another one and commit them; return how many."""
    num_texts = 0
    for texts in _kept(old):
        writer.commit_all(as_documents(texts, embedder))
        num_texts += len(texts)
    if num_texts:
        writer.refresh()
    return num_texts


def _kept(store: Store) -> Iterator[list[GivenText]]:
    ids = [id_ for one in store.documents() if (id_ := given_id(one.path)) is not None]
    for at in range(0, len(ids), _AT_ONCE):
        some = {given_segment_id(id_): id_ for id_ in ids[at : at + _AT_ONCE]}
        yield [
            GivenText(text_id=some[one.segment_id], text=one.text, about=one.about)
            for one in store.segments(list(some))
        ]


def _segment(given: GivenText) -> Segment:
    return Segment(kind=Kind.TEXT, text=given.text, text_origin=TextOrigin.FILE, about=given.about)


def _vectors(segments: Sequence[Segment], embedder: Embedder) -> "list[dict[View, Vectors]]":
    views = [
        (number, view, item)
        for number, segment in enumerate(segments)
        for view, item in segment.views().items()
    ]
    vectors: list[dict[View, Vectors]] = [{} for _ in segments]
    if views:
        rows = embedder.embed([item for *_, item in views], role=Role.DOCUMENT)
        for (number, view, _), row in zip(views, rows, strict=True):
            vectors[number][view] = row
    return vectors


def _document(given: GivenText, now_ns: int) -> Document:
    content = given.text.encode(errors="surrogatepass")
    return Document(
        path=given_path(given.text_id),
        kind=Kind.TEXT,
        content_hash=hashlib.blake2b(content, digest_size=16).hexdigest(),
        size=len(content),
        mtime_ns=now_ns,
        status=Status.DONE,
        commit_id=new_commit_id(),
        num_segments=1,
    )


def _row(given: GivenText, vectors: "dict[View, Vectors]") -> Row:
    segment = _segment(given)
    return Row(
        segment_id=given_segment_id(given.text_id),
        kind=segment.kind,
        locator=segment.locator,
        text=segment.text,
        text_origin=segment.text_origin,
        about=segment.about,
        vectors=vectors,
        thumbnail=b"",
    )
