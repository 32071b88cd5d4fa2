"""What every request has to pass before a route sees it.

    request -> meant for us? -> from our own page? -> a key? -> a body of bearable size and shape

A browser on this machine runs pages of strangers, and these can send requests to a loopback
address: so the host that a request names is checked (a stranger's name may be made to lead
here), and so is the page that it comes from. What comes by the socket in an index's folder was
sent by who owns that folder, and needs neither key nor host.
"""

import asyncio
import contextlib
import hashlib
import hmac
import re
from typing import NoReturn

from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmsearch.serving.answers import error_response
from mmsearch.serving.page import SESSION_COOKIE, is_page_path, is_session
from mmsearch.serving.settings import Limits, Settings
from mmsearch.serving.state import came_by_socket

MAX_HEADERS = 100  # a browser sends some twenty
# Of a body: what is wrong with each of them may be noted before any is told.
MAX_JSON_VALUES = 20_000
MAX_TOKENS = 500_000  # of /v1/embeddings, where inputs may be lists of numbers
_ALL_BODIES = 4  # requests of the largest size whose bodies are held at the same time
_ANYBODYS_PATHS = ("/healthz", "/readyz")
_LOOPBACK_HOSTS = frozenset(("localhost", "127.0.0.1", "[::1]"))
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:]+)(?::\d{1,5})?")
_PASSED_BYTES, _PASSED_S = 8 * 2**20, 1.0  # of a body that is not wanted
_IN_THREAD_BYTES = 256 * 1024
_COOKIE = re.compile(rf"(?:^|;)\s*{SESSION_COOKIE}=([0-9a-f]{{64}})\s*(?:;|$)")
# Strings first, so that a bracket inside one is none; one that never ends is the rest. Nothing
# is tried twice (`++`): a body of escaped quotes would else take the square of its length.
_JSON_MARKS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+|[\[{]|[\]}]|,', re.DOTALL)

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""Of every answer that does not say otherwise."""


class Guard:
    """A layer around the application: refuses, measures and adds headers."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings, self.limits = app, settings, settings.limits
        self._keys = [_digest(key) for key in settings.api_keys]
        self._is_open = settings.is_loopback and not self._keys
        self._hosts = _LOOPBACK_HOSTS | {settings.host.lower()}
        self._held_bytes = 0  # of the bodies of all requests at work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":  # we have no web sockets
            return await send({"type": "websocket.close", "code": 1008})
        sends = _with_headers(send)
        num_values = MAX_TOKENS if scope["path"] == "/v1/embeddings" else MAX_JSON_VALUES
        body = _Body(self, receive, Headers(scope=scope), num_values)
        try:
            self._check(scope)
            await body.check()
            await self._app(scope, body.receive, sends)
        except _Refused as refused:
            await body.let_pass()
            response = error_response(
                scope["path"],
                refused.status_code,
                refused.detail,
                kind=refused.kind,
                hint=refused.hint,
                headers=dict(refused.headers or {}),
            )
            await response(scope, receive, sends)
        finally:
            self._held_bytes -= body.num_bytes
        return None

    def _check(self, scope: Scope) -> None:
        """Raise where a request may not be answered, whatever is in it."""
        if len(scope["headers"]) > MAX_HEADERS:
            hint = f"send at most {MAX_HEADERS}"
            raise _Refused(431, "too many headers", "TooManyHeaders", hint)
        if came_by_socket(scope):
            return
        headers, path = Headers(scope=scope), scope["path"]
        hosts = headers.getlist("host")
        # With a key a stranger's page has nothing to gain, and a proxy may pass on its own name.
        if self._is_open and not (
            len(hosts) == 1
            and (host := _HOST.fullmatch(hosts[0]))
            and host.group(1).lower() in self._hosts
        ):
            hint = f"ask http://{self._settings.host}:{self._settings.port}"
            raise _Refused(421, "this server goes by another name", "WrongHost", hint)
        if not _is_own_page(headers, scope):
            hint = "only this server's own page may ask from a browser"
            raise _Refused(403, "the request comes from another site", "CrossSite", hint)
        if self._keys and not (path in _ANYBODYS_PATHS or is_page_path(path)):
            self._check_key(headers)

    def _check_key(self, headers: Headers) -> None:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else ""
        given = given or headers.get("x-api-key", "")
        # All keys are compared, and digests of them: the time tells nothing of any.
        digest = _digest(given)
        is_known = any([hmac.compare_digest(digest, key) for key in self._keys])
        if is_known and given:
            return
        cookie = _COOKIE.search(headers.get("cookie", ""))
        if cookie and is_session(cookie.group(1), self._settings.api_keys):
            return
        raise _Refused(
            401,
            "this server asks for a key",
            "NoKey",
            "send Authorization: Bearer KEY, or X-API-Key: KEY",
            {"WWW-Authenticate": "Bearer"},
        )

    def hold(self, num_bytes: int) -> None:
        """Count bytes of a body. Raises where those of all requests are too many."""
        self._held_bytes += num_bytes
        if self._held_bytes > _ALL_BODIES * self.limits.max_body_bytes:
            raise _Refused(
                429,
                "the server holds more large requests than it can bear",
                "Busy",
                "ask again in 5 s",
                {"Retry-After": "5"},
            )


class _Refused(HTTPException):
    """A request that goes no further: an error of the framework, which passes it on unchanged."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str,
        hint: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        # What it has not sent yet is not waited for: it could go on for ever.
        super().__init__(status, message, {"Connection": "close"} | (headers or {}))
        self.kind, self.hint = kind, hint


class _Body:
    """The body of a request, measured while it comes in.

    JSON is taken as a whole and looked at before anything parses it; a form goes through.
    """

    def __init__(self, guard: Guard, receive: Receive, headers: Headers, num_values: int) -> None:
        self._num_values = num_values
        self._guard, self._receive, self._headers = guard, receive, headers
        self._limits: Limits = guard.limits
        self._whole: Message | None = None
        length = headers.get("content-length", "0")
        self._has_body = length != "0" or "transfer-encoding" in headers
        self._is_over = self._is_slow = False
        self._deadline = 0.0
        self.num_bytes = 0

    async def check(self) -> None:
        """Raise for a body that is announced as too large, or is no JSON that can be parsed."""
        announced = self._headers.get("content-length", "0")
        if not announced.isascii() or not announced.isdecimal():
            raise _Refused(400, "Content-Length is no number", "BadRequest")
        if len(announced) > 18 or int(announced) > self._limits.max_body_bytes:
            self._too_large()
        if self._headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise _Refused(415, "a body that is compressed is not taken", "BadRequest")
        kind = self._headers.get("content-type", "").lstrip().lower()
        if not self._has_body or kind.startswith("multipart/"):
            return
        blocks = []
        more = True
        while more:
            message = await self.receive()
            blocks.append(message.get("body", b""))
            more = message.get("more_body", False)
        raw = b"".join(blocks)
        bounds = (raw, self._limits.max_json_depth, self._num_values)
        if len(raw) < _IN_THREAD_BYTES:
            reason = complaint(*bounds)
        else:
            reason = await to_thread.run_sync(complaint, *bounds)
        if reason:
            raise _Refused(400, f"the body {reason}", "BadRequest")
        self._whole = {"type": "http.request", "body": raw, "more_body": False}

    async def receive(self) -> Message:
        """Return the next piece; raises where it is too much, too slow, or breaks off."""
        if self._whole is not None:
            whole, self._whole = self._whole, None
            return whole
        if self._is_over:  # what comes now is that the client leaves
            return await self._receive()
        now = asyncio.get_running_loop().time()
        self._deadline = self._deadline or now + self._limits.body_timeout_s
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            self._is_slow = True
            raise _Refused(408, "the body took too long to arrive", "TooSlow") from None
        if message["type"] == "http.disconnect":
            self._is_over = True
            raise _Refused(400, "the body breaks off", "BadRequest")
        size = len(message.get("body", b""))
        if self.num_bytes + size > self._limits.max_body_bytes:
            self._too_large()
        self.num_bytes += size
        self._guard.hold(size)
        self._is_over = not message.get("more_body", False)
        return message

    async def let_pass(self) -> None:
        """Let what is still coming pass unread, for a moment.

        Most clients read no answer before they have sent all, and the end of the connection
        in the middle of that would be all they see of ours.
        """
        if self._is_over or self._is_slow or not self._has_body or "expect" in self._headers:
            return
        left = _PASSED_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PASSED_S):
                while left > 0:
                    message = await self._receive()
                    if not message.get("more_body"):
                        return
                    left -= len(message.get("body", b""))

    def _too_large(self) -> NoReturn:
        limit = f"{self._limits.max_body_bytes / 2**20:g} MiB"
        raise _Refused(413, f"the body is over the limit of {limit}", "TooLarge", "send less")


def complaint(raw: bytes, max_depth: int, max_values: int) -> str:
    """Return why a body is not to be parsed as JSON, as a clause; empty where it may be.

    A few megabytes of brackets become gigabytes of lists, or end the parser's stack. Nothing
    is said of what is merely not JSON: parsing it does no harm.
    """
    if b"\0" in raw:
        return "is not UTF-8"  # a parser would take it for UTF-16, and this scan would not
    opening, commas = raw.count(b"[") + raw.count(b"{"), raw.count(b",")
    if opening <= max_depth and opening + commas <= max_values:
        return ""
    depth = values = 0
    for mark in _JSON_MARKS.finditer(raw):
        sign = mark.group()[:1]
        if sign in b"[{":
            depth += 1
            if depth > max_depth:
                return f"is nested deeper than {max_depth} levels"
        elif sign in b"]}":
            depth -= 1
        values += sign != b'"'
        if values > max_values:
            return f"holds more than {max_values} values"
    return ""


def _is_own_page(headers: Headers, scope: Scope) -> bool:
    """Say whether a request comes from no browser, or from a page of this very server."""
    origin = headers.get("origin")
    if origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower():
        return False
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return True
    # A link on another site may lead to the page, and to nothing else.
    is_link = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
    return is_link and is_page_path(scope["path"])


def _with_headers(send: Send) -> Send:
    async def sends(message: Message) -> None:
        if message["type"] == "http.response.start":
            message.setdefault("headers", [])
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sends


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
