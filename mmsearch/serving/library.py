"""Looking at what an index holds: documents, segments, their pictures and their files.

    id -> what the index knows -> JSON, WebP, or the bytes of the file

Only what the index knows is given out: no request names a path. Where a picture or a file is
asked for that has changed since it was indexed, the answer is that it has.
"""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from mmsearch import __version__
from mmsearch.engine import Engine
from mmsearch.errors import DocumentNotFound, SegmentNotFound, UnreadableFile
from mmsearch.serving.originals import Original
from mmsearch.serving.parts import plain_reason
from mmsearch.serving.state import Served, State, answer
from mmsearch.serving.turns import answer_with_media
from mmsearch.values import Document, Hit, Kind, given_id

if TYPE_CHECKING:
    from mmsearch.retriever.store.store import StoredSegment

router = APIRouter(prefix="/v1", tags=["library"])

_MAX_PAGE = 1_000  # documents, or segments of one, in one answer
_MAX_FAILED = 1_000
_MAX_PIXELS = 4_000_000
_KEEP_FOR_A_WHILE = "private, max-age=300"

Index = Annotated[str | None, Query(max_length=255, description="By default the first.")]
Id = Annotated[str, Path(max_length=64, description="16 hex digits.")]
Offset = Annotated[int, Query(ge=0, le=2**31)]
Limit = Annotated[int, Query(ge=1, le=_MAX_PAGE)]
_Found = TypeVar("_Found")


# ---------------------------------------------------------------- what all routes share


def named(state: Served, index: str | None) -> tuple[str | None, Engine]:
    """Return the engine of that name, and how addresses of its own name it: None for the first.

    An unknown name is a 404.
    """
    engine = state.engine(index)
    names = [name for name, one in state.engines.items() if one is engine]
    return (None if names[0] == next(iter(state.engines)) else names[0]), engine


@lru_cache(maxsize=2**18)
def document_id(path: str) -> str:
    """Return the id of the document of that path, 16 hex digits."""
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def find_document(engine: Engine, document: str) -> Document:
    """Return the document of that id; raises DocumentNotFound."""
    for one in engine.documents():
        if document_id(one.path) == document:
            return one
    raise DocumentNotFound(document[:64])


def media_urls(found: "Hit | StoredSegment", index: str | None) -> dict[str, str | None]:
    """Return where the pictures and the file of a segment are; None for what it has not."""
    mark = "" if index is None else f"?index={quote(index, safe='')}"
    urls: dict[str, str | None] = {
        name: f"/v1/segments/{found.segment_id}/{name}{mark}"
        for name in ("thumbnail", "picture", "file")
    }
    if given_id(found.path) is not None:
        return dict.fromkeys(urls)
    return urls if found.kind is not Kind.TEXT else urls | {"thumbnail": None, "picture": None}


# ---------------------------------------------------------------- what is told


def _bytes(media: str) -> dict[str, Any]:
    """Return how the API describes an answer that is not JSON."""
    return {"response_class": Response, "responses": {200: {"content": {media: {}}}}}


def _document(found: Document) -> dict[str, Any]:
    return {
        "id": document_id(found.path),
        "path": found.path,
        "kind": None if found.kind is None else str(found.kind),
        "status": str(found.status),
        "error": plain_reason(found.error),
        "size": found.size,
        "modified": _time(datetime.fromtimestamp(max(0, found.mtime_ns) / 1e9, UTC)),
        "num_segments": found.num_segments,
        "awaits_ocr": found.awaits_ocr,
    }


def _failure(found: Document) -> dict[str, str]:
    return {"path": found.path, "reason": plain_reason(found.error)}


def _segment(found: "StoredSegment", index: str | None) -> dict[str, Any]:
    return {
        "id": found.segment_id,
        "document": document_id(found.path),
        "path": found.path,
        "kind": str(found.kind),
        **found.locator.as_dict(),
        "about": found.about,
        "text_origin": str(found.text_origin),
        "text": found.text,
        "modified": _time(found.modified),
        **media_urls(found, index),
    }


def _time(time: datetime) -> str:
    return time.isoformat(timespec="seconds")


def _open(engine: Engine, segment_id: str) -> Original:
    """Open the file of a segment. Raises SegmentNotFound, and UnreadableFile as the engine does."""
    found = engine.show(segment_id)
    document = engine.document(found.path)
    if document is None:
        raise SegmentNotFound(segment_id)
    return Original(engine.open_original(document), document)


def _readable(segment_id: str, work: Callable[[], _Found]) -> _Found:
    """Do it, and say of a file that it cannot be read without a word of its decoder."""
    try:
        return work()
    except UnreadableFile as error:
        raise DocumentNotFound(f"of {segment_id[:64]}", plain_reason(error.reason)) from None


def _picture(request: Request, content: bytes, kept: str) -> Response:
    """Answer with a WebP, or with 304 to who has it already."""
    tag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": kept}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="image/webp", headers=headers)


# ---------------------------------------------------------------- routes


@router.get("/status", summary="What an index holds")
async def status(request: Request, state: State, index: Index = None) -> dict[str, Any]:
    """Return what an index holds, and which others there are."""
    _, engine = named(state, index)
    name = next(name for name, one in state.engines.items() if one is engine)

    def work() -> dict[str, Any]:
        told = engine.status()
        failed = [_failure(one) for one in told.failed[:_MAX_FAILED]]
        return told.as_dict() | {
            "failed": failed,
            "num_failed": len(told.failed),
            "index": name,
            "indexes": list(state.engines),
            "roots": [str(root) for root in state.settings.roots],
            "version": __version__,
        }

    return await answer(request, work)


@router.get("/documents", summary="List documents")
async def documents(
    request: Request, state: State, index: Index = None, offset: Offset = 0, limit: Limit = 100
) -> dict[str, Any]:
    """Return documents by path, those that could not be read among them."""
    _, engine = named(state, index)

    def work() -> dict[str, Any]:
        every = engine.documents()
        shown = [_document(one) for one in every[offset : offset + limit]]
        return {"documents": shown, "total": len(every), "offset": offset}

    return await answer(request, work)


@router.get("/documents/{document}", summary="Show a document")
async def document(
    request: Request,
    state: State,
    document: Id,
    index: Index = None,
    offset: Offset = 0,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Return a document, and its segments in the order they lie in it."""
    name, engine = named(state, index)

    def work() -> dict[str, Any]:
        found = find_document(engine, document)
        segments = engine.segments_of(found.path)
        shown = [_segment(one, name) for one in segments[offset : offset + limit]]
        return _document(found) | {"segments": shown, "offset": offset}

    return await answer(request, work)


@router.get("/segments/{segment}", summary="Show a segment")
async def segment(
    request: Request, state: State, segment: Id, index: Index = None
) -> dict[str, Any]:
    """Return what an index holds of one segment."""
    name, engine = named(state, index)
    return await answer(request, lambda: _segment(engine.show(segment), name))


@router.get("/segments/{segment}/thumbnail", summary="A small picture", **_bytes("image/webp"))
async def thumbnail(request: Request, state: State, segment: Id, index: Index = None) -> Response:
    """Return a WebP of at most 256 x 256 pixels; 404 for a text."""
    _, engine = named(state, index)
    content = await answer(request, lambda: engine.thumbnail(segment))
    if not content:
        raise SegmentNotFound(segment)
    return _picture(request, content, _KEEP_FOR_A_WHILE)


@router.get("/segments/{segment}/picture", summary="A picture in full", **_bytes("image/webp"))
async def picture(
    request: Request,
    state: State,
    segment: Id,
    index: Index = None,
    max_pixels: Annotated[int, Query(ge=1_024, le=_MAX_PIXELS)] = 1_600_000,
) -> Response:
    """Return a page, a picture or the middle of a clip as WebP; 404 for a text."""
    _, engine = named(state, index)

    def work() -> bytes:
        _open(engine, segment).close()
        return engine.picture(segment, max_pixels=max_pixels)

    content = await answer_with_media(request, lambda: _readable(segment, work))
    if not content:
        raise SegmentNotFound(segment)
    return _picture(request, content, _KEEP_FOR_A_WHILE)


@router.get("/segments/{segment}/words", summary="Where the words of a page stand")
async def words(request: Request, state: State, segment: Id, index: Index = None) -> dict[str, Any]:
    """Return the words of a page of a PDF: text, left, top, right and bottom of each.

    They are shares of the page, from its top left corner. Scans and other kinds have none.
    """
    _, engine = named(state, index)

    def work() -> dict[str, Any]:
        if engine.show(segment).kind is Kind.PDF:
            _open(engine, segment).close()
        return {"words": engine.words_on(segment)}

    return await answer_with_media(request, lambda: _readable(segment, work))


@router.head("/segments/{segment}/file", include_in_schema=False)
@router.get("/segments/{segment}/file", summary="The file itself", **_bytes("*/*"))
async def file(request: Request, state: State, segment: Id, index: Index = None) -> Response:
    """Return the file that a segment lies in, or the range of it that is asked for."""
    _, engine = named(state, index)
    return await answer(request, lambda: _readable(segment, lambda: _open(engine, segment)))
