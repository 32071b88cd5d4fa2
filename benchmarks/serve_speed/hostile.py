"""What no client sends: each act says what the server did, and leaves nothing behind.

ACTS: name -> host, port -> the first status, "hung up" or "silence"; bounded in bytes and time
"""

import asyncio
import base64
import contextlib
import json
import struct
import zlib
from collections.abc import Awaitable, Callable

_WAIT_S = 20.0
_SLOW = 200  # connections that say nothing, side by side
_SLOW_S = 3.0
_HEAD = b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
Act = Callable[[str, int], Awaitable[str]]


def _says(*pieces: bytes, half_closed: bool = False) -> Act:
    """Return an act that sends these bytes, and hears what the server says first."""

    async def act(host: str, port: int) -> str:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            for piece in pieces:
                writer.write(piece)
                await asyncio.wait_for(writer.drain(), _WAIT_S)
            if half_closed:
                writer.write_eof()
            first = await asyncio.wait_for(reader.readline(), _WAIT_S)
        except TimeoutError:
            return "silence"
        except OSError:
            return "hung up"
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return first.split()[1].decode("latin-1") if b" " in first else "hung up"

    return act


def _body(content: bytes) -> Act:
    return _says(_HEAD + b"Content-Length: %d\r\n\r\n" % len(content), content)


async def _slow_loris(host: str, port: int) -> str:
    """Open many connections that send a byte of a head now and then; ask another beside them."""
    wires = await asyncio.gather(*(asyncio.open_connection(host, port) for _ in range(_SLOW)))
    try:
        for _ in range(int(_SLOW_S)):
            for _, writer in wires:
                writer.write(b"G")
            await asyncio.sleep(1)
        return await _says(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")(host, port)
    finally:
        for _, writer in wires:
            writer.close()


async def _leaving(host: str, port: int) -> str:
    """Ask again and again, and never wait for an answer."""
    body = json.dumps({"query": "a picture of the pump"}).encode()
    for _ in range(100):
        _, writer = await asyncio.open_connection(host, port)
        writer.write(_HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()
    return await _says(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")(host, port)


def _part(kind: str, url: str) -> bytes:
    """A picture or another part, as an input to embed in the place of a query."""
    return json.dumps({"query": [{"type": kind, kind: {"url": url}}]}).encode()


def _bomb() -> bytes:
    """A picture of 30,000 x 30,000 pixels in a few hundred kilobytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    side = 30_000
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(b"\0" * (side // 8 + 1)) for _ in range(side)) + rows.flush()
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    png += chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return _part("image_url", "data:image/png;base64," + base64.b64encode(png).decode())


async def _picture_bomb(host: str, port: int) -> str:
    return await _body(_bomb())(host, port)


_GET = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
ACTS: dict[str, Act] = {
    "no HTTP": _says(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 100 + b"\r\n\r\n"),
    "a header of a megabyte": _says(_GET + b"X: " + b"a" * 2**20 + b"\r\n\r\n"),
    "ten thousand headers": _says(_GET + b"X: y\r\n" * 10_000 + b"\r\n"),
    "a header of control characters": _says(_GET + b"X: \x00\x01\x1b[2J\r\n\r\n"),
    "a path of 100 kB": _says(b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a path outside": _says(b"GET /page/../../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    "a foreign host": _says(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
    "a negative length": _says(_HEAD + b"Content-Length: -1\r\n\r\n"),
    "a length of exabytes": _says(_HEAD + b"Content-Length: 999999999999999999\r\n\r\n{"),
    "two lengths": _says(_HEAD + b"Content-Length: 2\r\nContent-Length: 9\r\n\r\n{}"),
    "broken chunks": _says(_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
    "half a body": _says(_HEAD + b'Content-Length: 100\r\n\r\n{"query":', half_closed=True),
    "no JSON": _body(b"\xff\xfe{"),
    "deep brackets": _body(b"[" * 200_000),
    "deep objects": _body(b'{"query":' * 50_000 + b"1" + b"}" * 50_000),
    "a long number": _body(b'{"k": ' + b"9" * 1_000_000 + b"}"),
    "a million empty lists": _body(b'{"query": [' + b"[]," * 1_000_000 + b"[]]}"),
    "a text of 20 MB": _body(b'{"query": "' + b"a" * 20_000_000 + b'"}'),
    "more than a body may have": _body(b" " * 70_000_000),
    "a lone surrogate": _body(b'{"query": "\\ud800"}'),
    "NaN": _body(b'{"query": "x", "min_score": NaN}'),
    "an SQL that does more": _body(b'{"query": "x", "where": "1=1; DROP TABLE segments"}'),
    "a picture bomb": _picture_bomb,
    "a file of this machine": _body(_part("image_url", "file:///etc/passwd")),
    "a metadata address": _body(_part("image_url", "http://169.254.169.254/latest/meta-data/")),
    "a form without end": _says(
        b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\nContent-Disp",
        half_closed=True,
    ),
    "slow loris": _slow_loris,
    "a hundred that leave": _leaving,
}
