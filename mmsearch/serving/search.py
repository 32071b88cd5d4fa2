"""Searching over HTTP: what is asked in, ranked hits out.

    POST /v1/search     JSON, or a form with files -> Query -> hits
    POST /v1/context    likewise -> parts of a prompt
    POST /v1/similar    a segment's id -> hits

Everything that ``mmsearch query`` can ask can be asked here. Media come as data: URIs or files
of a form; paths of this machine are read only under the server's roots.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from mmsearch.context import Budget
from mmsearch.errors import BadUpload
from mmsearch.serving.answers import json_response
from mmsearch.serving.bodies import checked, json_body
from mmsearch.serving.library import document_id, media_urls, named
from mmsearch.serving.parts import PART_SCHEMA, Upload, Uploads
from mmsearch.serving.state import State, answer, served
from mmsearch.serving.turns import answer_with_media
from mmsearch.values import Hit, Kind, Query

router = APIRouter(tags=["search"])

MAX_K = 1_000
_MAX_CONTEXT = 100  # hits, each of which may be a page to be drawn
_MAX_PIXELS = 50_000_000
_FORM_LISTS = ("negative", "kinds", "images")
_FORM_FILES = {"image": Kind.IMAGE, "images": Kind.IMAGE, "video": Kind.VIDEO, "page": Kind.PDF}

# What the store is asked with: no text is looked for with more, and no path is longer.
Short = Annotated[str, Field(max_length=4_000)]
NumHits = Annotated[int, Field(ge=1, le=MAX_K, description="How many hits, at most.")]


class SearchBody(BaseModel):
    """What to look for, and among what."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    query: Annotated[
        str | list[Any],
        Field(
            description="Words; or a list of texts and parts, each {type: text | image_url | "
            "video_url | document_url, ...}.",
            json_schema_extra={
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"anyOf": [{"type": "string"}, PART_SCHEMA]}},
                ]
            },
        ),
    ] = ""
    images: list[str] = Field(
        default=[],
        description="Pictures to go by: data: URIs, or paths under the server's roots.",
    )
    video: str | None = Field(default=None, description="A film to go by, likewise.")
    page: str | None = Field(
        default=None,
        description="A page to go by: a PDF likewise, then # and its number: "
        "/papers/a.pdf#3, data:application/pdf;base64,...#3.",
    )
    negative: list[Short] = Field(default=[], max_length=16, description="What is not wanted.")
    where: Short | None = Field(
        default=None, description="SQL over path, kind, page, start, end, num_words, modified."
    )
    kinds: list[Literal["pdf", "image", "video", "text"]] | None = Field(
        default=None, max_length=16, description="Only these kinds."
    )
    path: Short | None = Field(default=None, description="Only paths that match this glob.")
    min_score: float = Field(default=0.0, ge=0, le=1, description="Only hits that score this.")
    k: NumHits = 10
    group: bool = Field(default=False, description="Only the best hit of each document.")
    collapse: bool = Field(default=False, description="Only the best of those that look alike.")
    ocr: bool = Field(default=True, description="Read the words in the pictures asked with.")
    index: str | None = Field(default=None, description="Which index; by default the first.")


class ContextBody(SearchBody):
    """What to look for, and how much room there is for what is found."""

    k: Annotated[int, Field(ge=1, le=_MAX_CONTEXT)] = 5
    max_tokens: int = Field(default=Budget().max_tokens, ge=0, le=1_000_000)
    max_pixels: int = Field(default=Budget().max_pixels, ge=0, le=_MAX_PIXELS)
    image_pixels: int = Field(default=Budget().image_pixels, ge=0, le=4_000_000)


class SimilarBody(BaseModel):
    """Which segment to find more like."""

    model_config = ConfigDict(extra="forbid")

    segment: Annotated[str, Field(max_length=64, description="Its id.")]
    k: NumHits = 10
    index: str | None = None


def _described(model: type[BaseModel]) -> dict[str, Any]:
    """Return how the API describes a body that is JSON or a form."""
    schema = model.model_json_schema()
    form = {**schema, "properties": dict(schema["properties"])}
    form["properties"].pop("query")
    form["properties"] |= {
        "query": {"type": "string"},
        "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "video": {"type": "string", "format": "binary"},
        "page": {"type": "string", "format": "binary"},
        "page_number": {"type": "integer", "minimum": 1},
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": schema},
                "multipart/form-data": {"schema": form},
            },
        }
    }


# ---------------------------------------------------------------- routes


@router.post(
    "/v1/search",
    response_model=dict[str, Any],
    openapi_extra=_described(SearchBody),
    summary="Find the best hits",
)
async def search(request: Request, state: State) -> Response:
    """Return the best hits, best first."""
    async with _asked(request, SearchBody) as (body, files):
        name, engine = named(state, body.index)

        def work() -> Response:
            with Uploads(state.settings) as uploads, uploads.named():
                query = _query(body, files, uploads)
                began = time.perf_counter()
                hits = engine.query(
                    query, k=body.k, group=body.group, collapse=body.collapse, ocr=body.ocr
                )
                return _told(hits, name, engine.space.id, time.perf_counter() - began)

        return await _answered(request, work, body, files)


@router.post(
    "/v1/context",
    response_model=dict[str, Any],
    openapi_extra=_described(ContextBody),
    summary="Fill a prompt",
)
async def context(request: Request, state: State) -> Response:
    """Return the best hits as parts of a prompt: text, picture and citation."""
    async with _asked(request, ContextBody) as (body, files):
        _, engine = named(state, body.index)
        budget = Budget(
            max_tokens=body.max_tokens, max_pixels=body.max_pixels, image_pixels=body.image_pixels
        )

        def work() -> Response:
            with Uploads(state.settings) as uploads, uploads.named():
                parts = engine.context(_query(body, files, uploads), k=body.k, budget=budget)
                told = {"parts": [part.as_dict() for part in parts], "space": engine.space.id}
                return json_response(told)

        return await answer_with_media(request, work)


@router.post("/v1/similar", response_model=dict[str, Any], summary="Find more like a segment")
async def similar(request: Request, body: SimilarBody, state: State) -> Response:
    """Return the segments most like one of the index, itself left out."""
    name, engine = named(state, body.index)

    def work() -> Response:
        began = time.perf_counter()
        hits = engine.similar(body.segment, k=body.k)
        return _told(hits, name, engine.space.id, time.perf_counter() - began)

    return await answer(request, work)


# ---------------------------------------------------------------- from a request to a query

_Files = list[tuple[str, UploadFile]]
_Body = TypeVar("_Body", bound=BaseModel)


@contextlib.asynccontextmanager
async def _asked(request: Request, model: type[_Body]) -> AsyncIterator[tuple[_Body, _Files]]:
    """Yield the fields of a body, JSON or a form, and the files of a form by their field.

    Files are closed at the end of the block.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        yield await json_body(request, model), []
        return
    if kind != "multipart/form-data":
        raise HTTPException(415, "the body is neither application/json nor multipart/form-data")
    limits = served(request).settings.limits
    async with request.form(
        max_files=limits.max_media,
        max_fields=4 * limits.max_parts,
        max_part_size=limits.max_body_bytes,
    ) as form:
        fields, files = _of_form(form.multi_items())
        yield checked(fields, model), files


def _of_form(items: Sequence[tuple[str, str | UploadFile]]) -> tuple[dict[str, Any], _Files]:
    fields: dict[str, Any] = {}
    files: _Files = []
    for name, value in items:
        if isinstance(value, UploadFile):
            if name not in _FORM_FILES:
                raise BadUpload(name[:40], f"files go by {', '.join(_FORM_FILES)}")
            files.append((name, value))
        elif name in _FORM_LISTS:
            given = value.split(",") if name == "kinds" else [value]
            fields.setdefault(name, []).extend(one.strip() for one in given if one.strip())
        elif value or name == "query":  # a browser sends what was left empty too
            fields[name] = value
    if number := fields.pop("page_number", None):
        files = [(f"page#{number}" if name == "page" else name, file) for name, file in files]
    return fields, files


def _query(body: SearchBody, files: _Files, uploads: Uploads) -> Query:
    """Return what a body asks, its media at their places in ``uploads``."""
    texts: list[str] = []
    media: list[Upload] = []
    for part in uploads.parts(body.query, name="query"):
        if isinstance(part, Upload):
            media.append(part)
        else:
            texts.append(part)
    media += [
        _medium(given, Kind.IMAGE, f"images[{place}]", uploads)
        for place, given in enumerate(body.images)
    ]
    if body.video:
        media.append(_medium(body.video, Kind.VIDEO, "video", uploads))
    if body.page:
        given, mark, number = body.page.rpartition("#")
        if not mark or not number.isascii() or not number.isdecimal() or len(number) > 9:
            raise BadUpload("page", "it does not end with # and a number", hint="a.pdf#3")
        media.append(_medium(given, Kind.PDF, "page", uploads, page=int(number)))
    for name, file in files:
        name, _, number = name.partition("#")
        page = int(number) if number.isascii() and number.isdecimal() and len(number) < 9 else 1
        media.append(uploads.from_file(file.file, _FORM_FILES[name], name=name, page=page))
    # It is one text by now, so it keeps to the limit of one.
    text = uploads.text("\n".join(texts), name="query")
    films = [one for one in media if one.kind is Kind.VIDEO]
    pages = [one for one in media if one.kind is Kind.PDF]
    for several in (films[1:], pages[1:]):
        for one in several:
            raise BadUpload(one.name, "a query has one film and one page at most")
    return Query(
        text=text,
        images=tuple(one.path for one in media if one.kind is Kind.IMAGE),
        video=films[0].path if films else None,
        page=f"{pages[0].path}#{pages[0].page}" if pages else None,
        negative=tuple(uploads.text(text, name="negative") for text in body.negative),
        where=body.where,
        kinds=None if body.kinds is None else tuple(Kind(kind) for kind in body.kinds),
        path=body.path,
        min_score=body.min_score,
    )


def _medium(given: str, kind: Kind, name: str, uploads: Uploads, *, page: int = 1) -> Upload:
    if given[:5].lower() in ("data:", "http:", "https"):
        return uploads.from_uri(given, kind, name=name, page=page)
    return uploads.from_path(given, kind, name=name, page=page)


async def _answered(
    request: Request, work: Callable[[], Response], body: SearchBody, files: _Files
) -> Response:
    """Answer at once where there are only words, else in turn."""
    has_media = bool(files or body.images or body.video or body.page) or (
        isinstance(body.query, list) and any(not isinstance(part, str) for part in body.query)
    )
    return await (answer_with_media if has_media else answer)(request, work)


# ---------------------------------------------------------------- from hits to an answer


def _told(hits: Sequence[Hit], index: str | None, space: str, took_s: float) -> Response:
    told = [hit_json(hit, index) for hit in hits]
    return json_response({"hits": told, "space": space, "took_ms": round(took_s * 1000, 1)})


def hit_json(hit: Hit, index: str | None) -> dict[str, Any]:
    """Return a hit as the API tells it: as the command line does, and where its pictures are.

    index: its name where the address has to say it
    """
    return {
        **hit.as_dict(),
        "about": hit.about,
        "document": document_id(hit.path),
        **media_urls(hit, index),
    }
