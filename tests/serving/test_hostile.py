"""Requests made to harm: whatever comes, the server answers the next one, and with no 5xx.

The long forms (2,000 uploads, thirty minutes) are in benchmarks/serve_soak.py.
"""

import http.client
import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import WordEmbedder

pytest.importorskip("fastapi", reason="needs the extra 'serve'")
pytest.importorskip("uvicorn", reason="needs the extra 'serve'")

from toy_server import data_uri, make_files, make_index, png

from mmsearch.serving.library import document_id
from mmsearch.serving.server import running
from mmsearch.serving.settings import Limits, Settings

LIMITS = Limits(max_body_bytes=2 * 2**20, body_timeout_s=0.5, head_timeout_s=0.5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("hostile") / "files")


@pytest.fixture(scope="module")
def url(files: Path) -> Iterator[str]:
    db = make_index(files, files.parent / "db")
    settings = Settings(dbs=(db,), model=WordEmbedder(), roots=(files,), port=0, limits=LIMITS)
    with running(settings) as url:
        yield url


@pytest.fixture(autouse=True)
def _still_answers(url: str) -> Iterator[None]:
    yield
    assert post(url, {"query": "pump"}) == 200


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def post(url: str, body: object, path: str = "/v1/search", **headers: str) -> int:
    """Send a body, JSON unless it is bytes, and return the status."""
    connection = http.client.HTTPConnection(*address(url), timeout=20)
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request("POST", path, sent, {"Content-Type": "application/json"} | headers)
        return connection.getresponse().status
    finally:
        connection.close()


def say(url: str, *pieces: bytes, then_close: bool = False) -> bytes:
    """Send raw bytes and return all that comes back until the connection ends."""
    with socket.create_connection(address(url), timeout=20) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            if then_close:
                connection.shutdown(socket.SHUT_WR)
            told = b""
            while block := connection.recv(65_536):
                told += block
        except OSError:
            return b""
        return told


def status(told: bytes) -> int:
    """Return the status of an answer, 0 where the connection just ended."""
    return int(told.split(b" ", 2)[1]) if told else 0


def head(**headers: object) -> bytes:
    lines = {"Host": "127.0.0.1", "Content-Type": "application/json"} | headers
    said = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"POST /v1/search HTTP/1.1\r\n{said}\r\n".encode()


# ---------------------------------------------------------------- uploads


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return a file with some bytes changed, cut out, doubled, or its end cut off."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 12)):
        at = chance.randrange(len(changed))
        match chance.randrange(4):
            case 0:
                changed[at] = chance.randrange(256)
            case 1:
                changed[at : at + 4] = chance.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
            case 2:
                del changed[at : at + chance.randint(1, 64)]
            case _:
                changed[at:at] = changed[at : at + 64]
        changed = changed or bytearray(b"\0")
    return bytes(changed)


@pytest.mark.parametrize("kind", ["images", "page", "video"])
def test_broken_uploads_are_answered_and_harm_nobody(url: str, files: Path, kind: str) -> None:
    chance = random.Random(20261121)
    pattern = {"images": "*.png", "page": "*.pdf", "video": "*.mp4"}[kind]
    content = next(files.glob(pattern)).read_bytes()
    told = set()
    for _ in range(10):
        uri = data_uri(mutated(content, chance))
        asked: Any = {"images": [uri], "page": f"{uri}#1", "video": uri}[kind]
        told.add(post(url, {kind: asked, "ocr": False}))

    assert told <= {200, 400, 413}


def test_a_torn_form_is_answered(url: str) -> None:
    chance = random.Random(7)
    form = (
        b'--x\r\nContent-Disposition: form-data; name="ocr"\r\n\r\nfalse\r\n--x\r\n'
        b'Content-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
        + png()
        + b"\r\n--x--\r\n"
    )
    kind = "multipart/form-data; boundary=x"
    told = {post(url, mutated(form, chance), **{"Content-Type": kind}) for _ in range(40)}

    assert post(url, form, **{"Content-Type": kind}) == 200
    assert told <= {200, 400, 403, 413, 422}


@pytest.mark.parametrize(
    "body",
    [
        b"--x\r\nContent-Disposition: " + b"a" * 2_000_000,
        b"--x\r\n" + b"A: b\r\n" * 300_000,
        b'--x\r\nContent-Disposition: form-data; name="k"\r\n\r\n1\r\n' * 30_000,
        b"--x\r\n" * 300_000,
        b"\r\n" * 900_000,
        b"",
    ],
)
def test_a_form_that_is_nothing_but_form_is_refused(url: str, body: bytes) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=x"}

    assert post(url, body, **kind) in (400, 413)
    assert post(url, body, **{"Content-Type": "multipart/form-data"}) == 400


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 2_000_000,
        b'{"query":' * 200_000,
        b'{"query": [' + b"[]," * 600_000 + b"[]]}",
        b"{" + b",".join(b'"%d": 1' % number for number in range(100_000)) + b"}",
        b'{"k": ' + b"1" * 1_000_000 + b"}",
        b"[" * 40 + b'"' + b'\\"' * 900_000,
        b'{"query": "' + b"a" * 1_900_000 + b'"}',
        b"\xef\xbb\xbf{}",
        b"\x00" * 1_000_000,
    ],
)
def test_json_that_would_be_much_more_in_memory_is_refused(url: str, body: bytes) -> None:
    for path in ("/v1/search", "/v1/index", "/v1/similar", "/v1/embeddings"):
        assert post(url, body, path) in (400, 413, 422), path


# ---------------------------------------------------------------- connections


def test_bodies_that_do_not_come_keep_nobody_waiting(url: str) -> None:
    """Slow-loris: many connections that promise a body and send a byte of it."""
    slow = []
    for _ in range(60):
        connection = socket.create_connection(address(url), timeout=20)
        connection.sendall(head(Content_Length=1_000) + b"{")
        slow.append(connection)

    assert post(url, {"query": "pump"}) == 200, "while they wait"
    for connection in slow:
        told = b""
        try:
            while block := connection.recv(65_536):
                told += block
        except ConnectionError:
            pass
        connection.close()
        assert status(told) in (0, 408)


@pytest.mark.parametrize(
    "said",
    [
        head(Content_Length=1_000) + b'{"query',
        head(Transfer_Encoding="chunked") + b"5\r\n{",
        head(Content_Length=5)[:-2],
        b"POST /v1/sea",
    ],
)
def test_what_is_half_said_and_then_closed_is_no_request(url: str, said: bytes) -> None:
    assert status(say(url, said, then_close=True)) in (0, 400)


@pytest.mark.parametrize(
    "said",
    [
        head(X="a" * 200_000),
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
        head(Content_Length=-1),
        head(Content_Length="1, 2") + b"{}",
        head(Content_Length=5, Transfer_Encoding="chunked") + b"2\r\n{}\r\n0\r\n\r\n",
        head(Transfer_Encoding="chunked") + b"ffffffffffffffff\r\n{}",
        head(Transfer_Encoding="gzip") + b"{}",
        head(Expect="100-continue", Content_Length=10**12),
        head(Host="evil.example", Content_Length=2) + b"{}",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        b"\x00" * 1_000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_proper_request_is_refused(url: str, said: bytes) -> None:
    told = say(url, said, then_close=True)

    assert status(told) in {0, *range(400, 500)}
    assert b"Traceback" not in told


# ---------------------------------------------------------------- our own description


def test_what_our_own_description_allows_and_forbids_is_answered(url: str, files: Path) -> None:
    """A short run of schemathesis: of every operation some requests that fit, some that do not."""
    schemathesis = pytest.importorskip("schemathesis")
    import requests
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis.errors import Unsatisfiable

    schema = schemathesis.openapi.from_dict(requests.get(f"{url}/openapi.json", timeout=20).json())
    documents = requests.get(f"{url}/v1/documents", timeout=20).json()["documents"]
    known = {
        "document": documents[0]["id"],
        "segment": requests.get(
            f"{url}/v1/documents/{document_id(documents[0]['path'])}", timeout=20
        ).json()["segments"][0]["id"],
    }
    num_calls, ids = 0, dict[str, str]()
    for found in schema.get_all_operations():
        operation = found.ok()
        # Nothing is taken out of the index.
        ids.clear()
        ids.update({} if operation.method.upper() == "DELETE" else known)
        for mode in schemathesis.GenerationMode:

            @seed(20261121)
            @settings(
                max_examples=4,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                nonlocal num_calls
                if num_calls % 2:  # such ids as are never guessed
                    for name in ids.keys() & (case.path_parameters or {}).keys():
                        case.path_parameters[name] = ids[name]
                        (case.query or {}).pop("index", None)
                num_calls += 1
                answer = case.call(base_url=url, timeout=20)
                assert answer.status_code < 500, case.as_curl_command()

            try:
                ask()
            except Unsatisfiable:
                continue  # there is nothing in it that could be wrong

    assert num_calls > 80
