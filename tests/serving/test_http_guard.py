"""What every request has to pass: host, site, key, and a body of bearable size and shape."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from conftest import WordEmbedder

from mmsearch.engine import Engine

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from starlette.exceptions import HTTPException
from starlette.testclient import TestClient
from toy_server import HERE, server

from mmsearch.serving.guard import Guard, complaint
from mmsearch.serving.page import SESSION_COOKIE, session_of
from mmsearch.serving.settings import Limits, Settings

KEY, OTHER_KEY = "the-key-of-this-server", "another-key-of-this-server"
QUESTION = {"query": "pump"}


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("guard") / "db"
    Engine.open(path, create=True, model=WordEmbedder()).close()
    return path


@pytest.fixture(scope="module")
def client(db: Path) -> Iterator[TestClient]:
    limits = Limits(max_body_bytes=20_000, max_json_depth=8)
    with server(db, limits=limits) as client:
        yield client


@pytest.fixture(scope="module")
def locked(db: Path) -> Iterator[TestClient]:
    """A server that asks for a key."""
    with server(db, api_keys=frozenset({KEY, OTHER_KEY})) as client:
        yield client


# ---------------------------------------------------------------- who asks


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:7700", "LOCALHOST", "[::1]:7700"])
def test_a_loopback_server_answers_to_its_own_names(client: TestClient, host: str) -> None:
    assert client.get("/v1/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "", "[::1", "a:b"]
)
def test_a_name_that_was_made_to_lead_here_is_refused(client: TestClient, host: str) -> None:
    """DNS rebinding: a stranger's page asks its own host, whose address became ours."""
    answer = client.get("/v1/status", headers={"Host": host})

    assert answer.status_code == 421
    assert answer.json()["error"]["type"] == "WrongHost"


def test_of_two_names_none_is_ours(client: TestClient) -> None:
    names = [("Host", "127.0.0.1"), ("Host", "evil.example")]

    assert client.get("/v1/status", headers=names).status_code == 421


def test_more_headers_than_anybody_sends_are_refused(client: TestClient) -> None:
    few = [(f"x-{number}", "y") for number in range(50)]
    assert client.get("/v1/status", headers=few).status_code == 200

    answer = client.get("/v1/status", headers=few * 3)
    assert answer.status_code == 431
    assert answer.json()["error"]["type"] == "TooManyHeaders"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://127.0.0.1:7700.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_a_page_of_another_site_gets_nothing(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/v1/search", json=QUESTION, headers=headers).status_code == 403
    assert client.get("/v1/status", headers=headers).status_code == 403


def test_our_own_page_and_a_link_to_it_work(client: TestClient) -> None:
    own = {"Origin": HERE, "Sec-Fetch-Site": "same-origin"}
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}

    assert client.post("/v1/search", json=QUESTION, headers=own).status_code == 200
    assert client.get("/", headers=link).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"X-API-Key": ""},
        {"X-API-Key": f"{KEY},{OTHER_KEY}"},
        {"Cookie": f"{SESSION_COOKIE}={KEY}"},
        {"Cookie": f"{SESSION_COOKIE}={'0' * 64}"},
    ],
)
def test_without_a_key_nothing_of_the_index_is_told(
    locked: TestClient, headers: dict[str, str]
) -> None:
    for method, path in [
        ("GET", "/v1/status"),
        ("GET", "/v1/segments/0000000000000000/file"),
        ("POST", "/v1/search"),
        ("POST", "/v1/embeddings"),
        ("DELETE", "/v1/documents/0000000000000000"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/page/../v1/status"),
        ("GET", "/nowhere"),
    ]:
        answer = locked.request(method, path, headers=headers)
        assert answer.status_code in (401, 404), path
        assert path.startswith("/page/") or answer.status_code == 401, path
        assert KEY not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {OTHER_KEY}"},
        {"X-API-Key": KEY},
        {"Cookie": f"a=b; {SESSION_COOKIE}={session_of(KEY)}"},
    ],
)
def test_any_key_opens_the_door(locked: TestClient, headers: dict[str, str]) -> None:
    assert locked.get("/v1/status", headers=headers).status_code == 200


def test_behind_a_proxy_with_a_key_it_answers_to_the_name_of_the_proxy(locked: TestClient) -> None:
    """A rebound name is of no use there: whoever comes by it has no key and no cookie."""
    name = {"Host": "search.example", "Origin": "https://search.example"}

    assert locked.post("/v1/search", json=QUESTION, headers=name).status_code == 401
    key = name | {"X-API-Key": KEY}
    assert locked.post("/v1/search", json=QUESTION, headers=key).status_code == 200
    other = key | {"Origin": "https://evil.example"}
    assert locked.post("/v1/search", json=QUESTION, headers=other).status_code == 403


def test_whether_it_lives_is_told_to_anybody(locked: TestClient) -> None:
    assert locked.get("/healthz").status_code == 200
    assert locked.get("/").status_code == 200


def test_all_keys_are_compared_however_early_one_fits(
    locked: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hmac

    compared = []
    compare = hmac.compare_digest

    def comparing(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return compare(one, other)

    monkeypatch.setattr("mmsearch.serving.guard.hmac.compare_digest", comparing)

    for key in (KEY, OTHER_KEY, "no key at all"):
        compared.clear()
        locked.get("/v1/status", headers={"X-API-Key": key})
        assert len(compared) == 2


# ---------------------------------------------------------------- what is sent


def test_a_body_over_the_limit_is_refused_by_what_it_announces(client: TestClient) -> None:
    answer = client.post("/v1/search", json={"query": "x" * 20_000})

    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "TooLarge"


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
def test_a_body_that_announces_nothing_is_measured_while_it_comes(
    client: TestClient, kind: str
) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        head = b'--x\r\nContent-Disposition: form-data; name="query"\r\n\r\n'
        yield head if "x" in kind[-1] else b'{"query": "'
        for _ in range(100):
            sent += 1_000
            yield b"x" * 1_000

    answer = client.post("/v1/search", content=body(), headers={"Content-Type": kind})

    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("[" * 9, 400),
        ('{"a":' * 9 + "1" + "}" * 9, 400),
        ("[" * 9_000, 400),
        ("", 400),
        ("{", 400),
        ('"' + '\\"' * 9_000, 400),
        ('{"query": "pump"}'.encode("utf-16"), 400),
        (b'{"query": "\xff"}', 400),
        ('{"path": "\\ud800"}', 422),
        ('{"where": "path = \'\\ud800\'"}', 422),
        ('{"query": NaN}', 422),
        ('{"min_score": NaN}', 422),
        ('{"k": 1' + "0" * 5_000 + "}", 400),
        ('{"k": 1e999}', 422),
        ('{"k": 1001}', 422),
        ("[]", 422),
        ("null", 422),
        ('{"unknown": 1}', 422),
    ],
)
def test_what_cannot_be_read_is_said_to_be_so(
    client: TestClient, body: str | bytes, status: int
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/search", content=body, headers=headers)

    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_other_types_than_json_and_forms_are_not_taken(client: TestClient, kind: str) -> None:
    """Which a stranger's page could send without being asked whether it may."""
    body = json.dumps(QUESTION)

    for path in ("/v1/search", "/v1/similar", "/v1/index"):
        answer = client.post(path, content=body, headers={"Content-Type": kind})
        assert answer.status_code in (415, 422), path


def test_a_compressed_body_is_not_taken(client: TestClient) -> None:
    headers = {"Content-Encoding": "gzip"}

    assert client.post("/v1/search", json=QUESTION, headers=headers).status_code == 415


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[[[[[]]]]]", "deeper than 4 levels"),
        (b'{"a": {"b": {"c": {"d": [1]}}}}', "deeper than 4 levels"),
        (b"[[],[],[],[],[]]", ""),
        (b"[[[[1]]]]", ""),
        (b'["[[[[[[[[[["]', ""),
        (b'["\\"[[[[[[[[[["]', ""),
        (b'["\\\\", [[[[1]]]]]', "deeper than 4 levels"),
        (b"[" + b"1," * 30 + b"1]", "more than 20 values"),
        (b"[" + b"[]," * 15 + b"[]]", "more than 20 values"),
        (b'["' + b"," * 30 + b'"]', ""),
        (b"[\0]", "not UTF-8"),
    ],
)
def test_brackets_are_counted_as_a_parser_sees_them(body: bytes, said: str) -> None:
    told = complaint(body, 4, 20)

    assert said in told
    assert bool(said) == bool(told)


def test_quotes_without_end_take_no_longer_than_their_length() -> None:
    """A pattern that tries again at every quote would take hours for these 4 MB."""
    assert complaint(b"[" * 5 + b'"' + b'\\"' * 2_000_000, 8, 20) == ""
    assert complaint(b"[" * 5 + b'"\\' * 2_000_000, 4, 20) != ""


# ---------------------------------------------------------------- bodies that come badly


async def reading_app(scope: Any, receive: Any, send: Any) -> None:
    """Read the body to its end, and answer."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def status_of(
    guard: Guard,
    pieces: list[bytes],
    *,
    pause_s: float = 0.0,
    is_whole: bool = True,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Send a guard a body in pieces, each after a pause, and return the status it answers."""
    left, told = list(pieces), list[Any]()

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause_s)
        if not left:
            return {"type": "http.disconnect"}
        body = left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(left) or not is_whole}

    async def send(message: Any) -> None:
        told.append(message)

    given = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": "9"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/search",
        "headers": [(a.lower().encode(), b.encode()) for a, b in {**given, **headers}.items()],
        "server": ("127.0.0.1", 7700),
    }
    await guard(scope, receive, send)
    return int(told[0]["status"])


def guard(app: Any = reading_app, **limits: Any) -> Guard:
    return Guard(app, settings=Settings(limits=Limits(**limits)))


def test_a_body_that_comes_in_time_is_read() -> None:
    assert asyncio.run(status_of(guard(), [b'{"a"', b": 1}"])) == 200


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize(("num_pieces", "pause_s"), [(1, 5.0), (500, 0.01)])
def test_a_body_that_stops_or_drips_is_given_up(kind: str, num_pieces: int, pause_s: float) -> None:
    """The time is for the whole body: no piece begins it anew."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await reading_app(scope, receive, send)
        except HTTPException as error:  # as the application has it
            await send({"type": "http.response.start", "status": error.status_code})

    slow = status_of(
        guard(app, body_timeout_s=0.05),
        [b" "] * num_pieces,
        pause_s=pause_s,
        headers={"Content-Type": kind},
    )

    assert asyncio.run(slow) == 408


def test_what_is_refused_is_not_waited_for_to_its_end() -> None:
    """Whoever goes on sending after the answer is cut off, however little it sends."""
    told: list[Any] = []

    async def check() -> None:
        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0.001)
            return {"type": "http.request", "body": b" " * 2**20, "more_body": True}

        async def send(message: Any) -> None:
            told.append(message)

        headers = [(b"host", b"127.0.0.1"), (b"content-length", b"9" * 12)]
        scope = {"type": "http", "method": "POST", "path": "/v1/search", "headers": headers}
        await guard()(scope, receive, send)

    asyncio.run(check())

    assert told[0]["status"] == 413
    assert (b"connection", b"close") in told[0]["headers"]


def test_a_body_that_breaks_off_is_no_body() -> None:
    assert asyncio.run(status_of(guard(), [b'{"a'], is_whole=False)) == 400


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "", " 7", "9" * 30])
def test_a_length_that_is_no_length_is_refused(length: str) -> None:
    status = asyncio.run(status_of(guard(), [b"{}"], headers={"Content-Length": length}))

    assert status in (400, 413)


def test_the_bodies_of_all_requests_together_are_limited() -> None:
    """Many requests of the largest size at the same time take the memory of a few."""

    async def check() -> None:
        release = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await release.wait()
            await reading_app(scope, receive, send)

        one = guard(app, max_body_bytes=100)
        held = [asyncio.create_task(status_of(one, [b" " * 100])) for _ in range(4)]
        await asyncio.sleep(0.01)

        assert await status_of(one, [b" "]) == 429
        release.set()
        assert await asyncio.gather(*held) == [200] * 4
        assert await status_of(one, [b" " * 100]) == 200, "what was held was given back"

    asyncio.run(check())


# ---------------------------------------------------------------- what is answered


def test_every_answer_says_what_a_browser_may_do_with_it(client: TestClient) -> None:
    for path in ("/v1/status", "/nowhere", "/healthz"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
    assert "script-src 'self'" in client.get("/").headers["content-security-policy"]


def test_no_answer_allows_another_site_to_read_it(client: TestClient) -> None:
    answer = client.options(
        "/v1/search",
        headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
    )

    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]
