"""One connection that stays open: a request out, a reply in.

Bare asyncio streams: a generator of load shares two cores with the server it measures, and
every library for this costs more than the request does.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

_MOST_LINE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; ``headers`` by their names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401  whatever json gives
        """Return the body as JSON."""
        return json.loads(self.body)


class Wire:
    """A connection to a server; made with `Wire.open`, one request at a time."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str
    ) -> None:
        self._reader, self._writer, self._host = reader, writer, host

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        """Connect."""
        reader, writer = await asyncio.open_connection(host, port, limit=_MOST_LINE_BYTES)
        return cls(reader, writer, f"{host}:{port}")

    async def post(self, path: str, content: object) -> Reply:
        """Send JSON, return the reply."""
        body = json.dumps(content).encode()
        return await self.ask("POST", path, body, {"Content-Type": "application/json"})

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request, return the reply; ConnectionError where the server hangs up."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await self._writer.drain()
        return await self._reply(method)

    async def _reply(self, method: str) -> Reply:
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            status, headers = _head(head)
            body = b"" if method == "HEAD" or status == 304 else await self._body(headers)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the server has hung up") from error
        return Reply(status, headers, body)

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await self._reader.readexactly(int(headers.get("content-length", "0")))
        chunks = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            chunks.append(await self._reader.readexactly(size))
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)
        return b"".join(chunks)

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with contextlib.suppress(OSError):  # the other side was quicker
            await self._writer.wait_closed()


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return int(first.split()[1]), headers
