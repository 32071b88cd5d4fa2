"""The web page: its files, and the door that a key opens for it.

    GET  /                       index.html, never older than the server
    GET  /page/{version}/{name}  its style, scripts and icon, which a browser may keep for good
    POST /page/session           a key -> a cookie; pictures and films cannot send headers

The page is plain files, without a build and without anything from elsewhere. Its policy
(CSP) forbids what it does not need: inline scripts and styles, other hosts, frames, and
markup made from strings (Trusted Types), so that no text of a document can become any.
"""

import hashlib
import hmac
from collections.abc import Collection
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from mmsearch.serving.state import State

router = APIRouter(include_in_schema=False)

SESSION_COOKIE = "mmsearch_session"
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self'",
        "connect-src 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOR_GOOD = "public, max-age=31536000, immutable"
_WORD_OF_VERSION = b"VERSION"  # in index.html


def is_page_path(path: str) -> bool:
    """Say whether a path is the page's own, which holds nothing of an index: no key for it."""
    return path == "/" or (path.startswith("/page/") and ".." not in path)


def session_of(key: str) -> str:
    """Return what the cookie of that key says; the key cannot be told from it."""
    return hmac.new(key.encode(), b"mmsearch page session", hashlib.sha256).hexdigest()


def is_session(cookie: str, keys: Collection[str]) -> bool:
    """Say whether a cookie was given for one of these keys; takes the same time for any."""
    given = cookie.encode()
    return any([hmac.compare_digest(session_of(key).encode(), given) for key in keys])


@router.api_route("/", methods=["GET", "HEAD"])
def index(request: Request) -> Response:
    """Answer with the page, or with 304 to who has this version of it."""
    version, _ = _page()
    headers = {
        "Cache-Control": "no-cache",
        "ETag": f'"{version}"',
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return _file("index.html", headers)


@router.api_route("/page/{version}/{name}", methods=["GET", "HEAD"])
def asset(version: str, name: str) -> Response:
    """Answer with a file of the page; an older version gets today's, and is not to keep it."""
    current, contents = _page()
    if name not in contents:
        raise HTTPException(404, "the page has no such file")
    kept = _FOR_GOOD if version == current else "no-store"
    return _file(name, {"Cache-Control": kept, "X-Content-Type-Options": "nosniff"})


class Door(BaseModel):
    """What opens it."""

    key: str = Field(max_length=512)


@router.post("/page/session", status_code=204)
def enter(door: Door, request: Request, state: State) -> Response:
    """Give whoever has a key the cookie that says so: for this site only, not for scripts."""
    given = session_of(door.key)
    if not is_session(given, state.settings.api_keys):
        raise HTTPException(401, "that is not a key of this server")
    answer = Response(status_code=204)
    answer.set_cookie(
        SESSION_COOKIE,
        given,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@cache
def _page() -> tuple[str, dict[str, bytes]]:
    """Return the version of the page, which any change of a file changes, and its files."""
    folder = files("mmsearch.serving") / "page"
    contents = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(contents):
        digest.update(name.encode() + b"\0" + contents[name] + b"\0")
    version = digest.hexdigest()
    contents["index.html"] = contents["index.html"].replace(_WORD_OF_VERSION, version.encode())
    return version, contents


def _file(name: str, headers: dict[str, str]) -> Response:
    _, contents = _page()
    kind = _TYPES["." + name.rpartition(".")[2]]
    return Response(contents[name], media_type=kind, headers=headers)
