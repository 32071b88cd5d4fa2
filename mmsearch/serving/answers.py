"""What a client is told when something went wrong.

    error of ours, of the framework, or unforeseen -> status, {"error": {"message", "type", "hint"}}

Under /v1/embeddings the same object has OpenAI's ``type``, ``param`` and ``code`` too, which
its clients read. Of an error that is not the client's nothing is told but that there was one:
its text may name files of this machine.
"""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmsearch.errors import (
    Abandoned,
    BadInput,
    BadItem,
    BadSetting,
    Busy,
    DocumentNotFound,
    MissingExtra,
    MMSearchError,
    NotAllowed,
    NothingToIndex,
    OutOfMemory,
    SegmentNotFound,
    StoreLocked,
    StoreNotFound,
    TooLarge,
    UnreadableFile,
)

log = logging.getLogger("mmsearch.serving")

# The first that an error is an instance of.
_STATUS: tuple[tuple[type[MMSearchError], int], ...] = (
    (SegmentNotFound, 404),
    (DocumentNotFound, 404),
    (StoreNotFound, 404),
    (NothingToIndex, 404),
    (UnreadableFile, 422),
    (TooLarge, 413),
    (NotAllowed, 403),
    (BadInput, 400),
    (BadItem, 400),
    (BadSetting, 400),
    (OutOfMemory, 413),
    (StoreLocked, 409),
    (Busy, 429),
    (Abandoned, 499),  # nobody reads it; so it is in the log of nginx, and in our counters
    (MissingExtra, 501),
)
_OPENAI_PATH = "/v1/embeddings"
_OPENAI_TYPE = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def handle_errors(app: FastAPI) -> None:
    """Have every error of an app answered in our shape."""
    app.add_exception_handler(MMSearchError, _ours)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(Unforeseen)


def json_response(told: object) -> Response:
    """Return an answer as JSON.

    Made in the thread that did the work, where what a route returns as it is would be looked
    through and written out on the event loop, which all requests share.
    """
    return Response(to_json(told), media_type="application/json")


def error_response(
    path: str,
    status: int,
    message: str,
    *,
    kind: str,
    hint: str = "",
    param: str | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """Return an error as clients of that path read it; ``kind`` is its name in our tree."""
    told: dict[str, Any] = {"message": message, "type": kind, "hint": hint}
    if path == _OPENAI_PATH:
        told["type"] = _OPENAI_TYPE.get(
            status, "invalid_request_error" if status < 500 else "server_error"
        )
        told |= {"param": param, "code": kind}
    return JSONResponse({"error": told}, status_code=status, headers=headers)


async def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MMSearchError)
    path = request.url.path
    for kind, status in _STATUS:
        if isinstance(error, kind):
            headers = None
            if isinstance(error, Busy):
                headers = {"Retry-After": str(max(1, round(error.retry_after_s)))}
            return error_response(
                path,
                status,
                str(error),
                kind=type(error).__name__,
                hint=error.hint,
                headers=headers,
            )
    return await _unforeseen(request, error)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    told = error.detail if isinstance(error.detail, str) else "the request cannot be answered"
    return error_response(
        request.url.path, error.status_code, told, kind=_name_of(error.status_code), headers=headers
    )


def _name_of(status: int) -> str:
    """Return what an error of the framework is called: ``NotFound``."""
    from http import HTTPStatus

    try:
        return HTTPStatus(status).phrase.title().replace(" ", "").replace("-", "")
    except ValueError:
        return "Error"


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Name the first field that is wrong, and what is wrong with it; never what was in it."""
    assert isinstance(error, RequestValidationError)
    path = request.url.path
    first = error.errors()[0]
    place = [str(step) for step in first["loc"] if step not in ("body", "query", "path")]
    where = ".".join(place)
    reason = first["msg"].removeprefix("Value error, ")
    message = f"{where}: {reason}" if where else reason
    status = 400 if path == _OPENAI_PATH else 422
    return error_response(
        path,
        status,
        message[:500],
        kind="BadRequest",
        hint="GET /docs describes every field",
        param=where or None,
    )


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return error_response(
        request.url.path,
        500,
        "the server could not answer; its log says why",
        kind="InternalError",
        hint="look into the server's log",
    )


class Unforeseen:
    """Answers what no handler knows; inside all other layers, which add their headers to it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if has_begun or scope["type"] != "http" or isinstance(error, HTTPException):
                raise  # too late to say so, or the guard's, which knows what to say
            response = await _unforeseen(Request(scope), error)
            await response(scope, receive, send)
