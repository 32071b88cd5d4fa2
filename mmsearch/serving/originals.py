"""The file that a segment lies in, as an answer: whole, or the range that a player asks for.

    open file + what the index knows of it -> 200, 206, 304 or 416

What the browser is told it is comes from its first bytes, out of a short list, and never is
anything that a browser would run: no HTML, no SVG, no scripts.
"""

import asyncio
import re
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import BinaryIO
from urllib.parse import quote

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mmsearch.values import Document, Kind

_BLOCK_BYTES = 256 * 1024
_PATIENCE_S = 60.0  # with a client that takes no more of what is sent
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
# A player or a picture in a tab of its own needs no more, and a script gets nowhere.
_POLICY = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
_PDF_POLICY = "default-src 'none'; object-src 'self'; style-src 'unsafe-inline'"  # viewers need it
_UNKNOWN = "application/octet-stream"
_TYPES = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"\x00\x00\x00\x0cjP  ", "image/jp2"),
    (b"\x1aE\xdf\xa3", "video/x-matroska"),
    (b"FLV", "video/x-flv"),
    (b"0&\xb2u", "video/x-ms-wmv"),
)


def media_type(head: bytes, kind: Kind | None) -> str:
    """Return what a file is, by its first bytes and by what it was indexed as."""
    if kind is Kind.TEXT:
        return "text/plain; charset=utf-8"
    if kind is Kind.PDF:
        return "application/pdf"
    if head[4:8] == b"ftyp" and kind is Kind.VIDEO:
        return "video/quicktime" if head[8:12] == b"qt  " else "video/mp4"
    if head[4:8] == b"ftyp":
        return "image/avif"
    if head[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo"}.get(head[8:12], _UNKNOWN)
    if head.startswith(b"\x1aE\xdf\xa3") and b"webm" in head[:64]:
        return "video/webm"
    return next((name for start, name in _TYPES if head.startswith(start)), _UNKNOWN)


def disposition(path: str) -> str:
    """Return a Content-Disposition that names a file as its path does, whatever that is."""
    name = path.rpartition("/")[2] or "file"
    plain = re.sub(r"[^A-Za-z0-9 ._()-]", "_", name)[:200]
    return f"inline; filename=\"{plain}\"; filename*=UTF-8''{quote(name[:200], safe='')}"


class Original(Response):
    """An open file as an answer; closed when it is sent."""

    def __init__(self, file: BinaryIO, document: Document) -> None:
        self._file = file
        self._size = file.seek(0, 2)
        file.seek(0)
        kind = media_type(file.read(64), document.kind)
        self._tag = f'"{document.content_hash}"'
        modified = datetime.fromtimestamp(max(0, document.mtime_ns) // 10**9, UTC)
        super().__init__(
            headers={
                "Content-Type": kind,
                "Content-Disposition": disposition(document.path),
                "Content-Security-Policy": _PDF_POLICY if document.kind is Kind.PDF else _POLICY,
                "Accept-Ranges": "bytes",
                "Cache-Control": "private, no-cache",
                "ETag": self._tag,
                "Last-Modified": format_datetime(modified, usegmt=True),
            }
        )

    def close(self) -> None:
        """Close the file where it is not to be sent."""
        self._file.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            start, end = self._prepare(Headers(scope=scope))
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            if scope["method"] == "HEAD" or start == end:
                await send({"type": "http.response.body", "body": b""})
                return
            sending = asyncio.ensure_future(self._send(start, end, send))
            leaving = asyncio.ensure_future(_until_gone(receive))
            try:
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
            finally:
                for task in (sending, leaving):
                    task.cancel()
                await asyncio.gather(sending, leaving, return_exceptions=True)

    def _prepare(self, headers: Headers) -> tuple[int, int]:
        """Set the status and the headers; return the bytes to send, ``[start, end)``."""
        start, end = 0, self._size
        asked = headers.get("range", "")
        if headers.get("if-none-match") == self._tag:
            self.status_code, end = 304, 0
            return start, end
        if asked and headers.get("if-range", self._tag) == self._tag:
            found = _span(asked, self._size)
            if found is not None:
                start, end = found
                self.status_code = 206 if start < end else 416
                said = f"{start}-{end - 1}" if start < end else "*"
                self.headers["Content-Range"] = f"bytes {said}/{self._size}"
        self.headers["Content-Length"] = str(end - start)
        return start, end

    async def _send(self, start: int, end: int, send: Send) -> None:
        self._file.seek(start)
        while start < end:
            block = await to_thread.run_sync(self._file.read, min(_BLOCK_BYTES, end - start))
            start += len(block)
            message = {
                "type": "http.response.body",
                "body": block,
                "more_body": bool(block) and start < end,
            }
            await asyncio.wait_for(send(message), _PATIENCE_S)
            if not block:  # it was cut while it was read: the client sees that bytes are missing
                return


def _span(asked: str, size: int) -> tuple[int, int] | None:
    """Return the one range that is asked for, empty where it lies outside; None for others.

    What is not understood, several ranges among it, is answered with the whole file.
    """
    match = _RANGE.fullmatch(asked.replace(" ", ""))
    if match is None or match.group() == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        return (max(0, size - int(last)), size) if int(last) and size else (0, 0)
    start, end = int(first), min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        return None
    return (start, end) if start < size else (0, 0)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
