"""An index behind a running ``mmsearch serve``, asked as an open engine is.

    Query -> POST /v1/search -> Hit, Hit, ...        segment id -> GET .../picture -> WebP
    texts, pictures -> POST /v1/embeddings -> vectors

So that a pipeline needs neither the index nor the model on its own machine. Files that a
question or an embedding names are read here and sent along.
"""

import base64
import io
import json
import mimetypes
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mmsearch.context import Budget, ContextPart, parts_of
from mmsearch.errors import ServerError, UnreadableFile
from mmsearch.serving.client import search_body
from mmsearch.values import Hit, Kind, Locator, Query, Role

if TYPE_CHECKING:
    from mmsearch.values import Vectors

_LOCATOR = ("page", "start", "end", "char_start", "char_end")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_AT_ONCE = 256  # texts of one request


class Server:
    """A server by its address; calls may be made from several threads.

    index:     its name, where the server has several; else the first
    timeout_s: without a word from the server
    Every call raises ServerError where the server refuses or does not answer.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:7700",
        *,
        api_key: str | None = None,
        index: str | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"a server is at http://... or https://..., not at {url!r}")
        self.url = url.rstrip("/")
        self.index = index
        self._api_key, self._timeout_s = api_key, timeout_s
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if urllib.parse.urlsplit(url).hostname in _LOOPBACK:
            handlers.append(urllib.request.ProxyHandler({}))  # no proxy reaches this machine
        self._opener = urllib.request.build_opener(*handlers)

    @property
    def model(self) -> str:
        """The name of the model of the index."""
        names = [str(one["id"]) for one in self._json("/v1/models")["data"]]
        return self.index if self.index in names else names[0]

    def query(
        self,
        query: Query | str,
        *,
        k: int = 10,
        group: bool = False,
        collapse: bool = False,
        ocr: bool = True,
    ) -> list[Hit]:
        """Return the ``k`` best hits, best first. Raises UnreadableFile for the query's media."""
        asked = Query(query) if isinstance(query, str) else query
        body = search_body(asked, k=k, group=group, collapse=collapse, ocr=ocr) | {
            "images": [_data_uri(one) for one in asked.images],
            "video": _data_uri(asked.video) if asked.video else None,
            "page": _page_uri(asked.page) if asked.page else None,
            "index": self.index,
        }
        return [_hit(one) for one in self._json("/v1/search", body)["hits"]]

    def context(
        self, query: Query | str, *, k: int = 5, budget: Budget | None = None
    ) -> list[ContextPart]:
        """Return the best hits as what a generator is given; see `Engine.context`."""

        def picture(hit: Hit, max_pixels: int) -> bytes:
            try:
                return self.picture(hit.segment_id, max_pixels=max_pixels)
            except UnreadableFile:
                return b""

        return parts_of(self.query(query, k=k), picture, budget or Budget())

    def picture(self, segment_id: str, *, max_pixels: int = 1_600_000) -> bytes:
        """Return a page, a picture, or the middle of a clip as WebP; empty for text.

        Raises UnreadableFile where it cannot be made any more.
        """
        asked = {"max_pixels": str(max_pixels)} | ({"index": self.index} if self.index else {})
        name = urllib.parse.quote(segment_id, safe="")
        try:
            return self._ask(f"/v1/segments/{name}/picture?{urllib.parse.urlencode(asked)}")
        except ServerError as error:
            if error.status in (404, 422):
                raise UnreadableFile(segment_id, "the server has no picture of it") from error
            raise

    def embed_texts(self, texts: Sequence[str], role: Role) -> "Vectors":
        """Return float32 ``[n, d]``, a unit row for each text."""
        return self._embed(texts, role)

    def embed_pictures(self, pictures: Sequence[str | Path | io.BytesIO]) -> "Vectors":
        """Return float32 ``[n, d]``, a unit row for each picture. Raises UnreadableFile."""
        parts = [{"type": "image_url", "image_url": {"url": _data_uri(one)}} for one in pictures]
        return self._embed(parts, Role.DOCUMENT, at_once=8)

    def _embed(self, inputs: Sequence[object], role: Role, *, at_once: int = _AT_ONCE) -> "Vectors":
        import numpy as np

        rows = []
        for at in range(0, len(inputs), at_once):
            body: dict[str, object] = {
                "input": list(inputs[at : at + at_once]),
                "encoding_format": "base64",
                "input_type": str(role),
            }
            if self.index:
                body["model"] = self.index
            told = self._json("/v1/embeddings", body)["data"]
            rows += [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in told]
        return np.stack(rows).astype(np.float32, copy=False)

    # ------------------------------------------------------------ HTTP

    def _json(self, path: str, body: object = None) -> Any:  # noqa: ANN401  whatever JSON holds
        raw = self._ask(path, None if body is None else json.dumps(body).encode())
        try:
            return json.loads(raw)
        except ValueError:
            raise ServerError(self.url, "its answer is no JSON", hint="is it mmsearch?") from None

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            with error:
                reason, hint = _told(error.read(), str(error.reason))
            raise ServerError(self.url, reason, status=error.code, hint=hint) from None
        except (OSError, HTTPException) as error:  # URLError is an OSError
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            hint = "mmsearch serve --db DIR"
            raise ServerError(self.url, reason, hint=hint) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the key would go along, to wherever an answer points."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        return None


def _told(raw: bytes, otherwise: str) -> tuple[str, str]:
    """Return the message and the hint of an error, as our servers write them."""
    try:
        error = json.loads(raw)["error"]
        return str(error["message"]), str(error.get("hint") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return otherwise, ""


def _hit(told: dict[str, Any]) -> Hit:
    return Hit(
        rank=told["rank"],
        score=told["score"],
        parts=told["parts"],
        segment_id=told["id"],
        path=told["path"],
        kind=Kind(told["kind"]),
        locator=Locator(**{name: told[name] for name in _LOCATOR if name in told}),
        text=told["text"],
        about=told.get("about", ""),
    )


def _data_uri(given: str | Path | io.BytesIO) -> str:
    if isinstance(given, io.BytesIO):
        kind, content = "application/octet-stream", given.getvalue()
    else:
        kind = mimetypes.guess_type(str(given))[0] or "application/octet-stream"
        try:
            content = Path(given).read_bytes()
        except OSError as error:
            raise UnreadableFile(given, (error.strerror or str(error)).lower()) from error
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _page_uri(page: str) -> str:
    path, _, number = page.rpartition("#")
    return f"{_data_uri(path)}#{number}"
