"""The files of the page, and the door: what a browser is sent, and what it may do with it.

What the page does once it is open is in test_page_in_browser.py.
"""

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from conftest import WordEmbedder

from mmsearch.engine import Engine

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from starlette.testclient import TestClient

from mmsearch.serving.app import make_app
from mmsearch.serving.page import SESSION_COOKIE, is_page_path, is_session, session_of
from mmsearch.serving.settings import Settings

KEY, OTHER_KEY = "a-key-of-this-server", "another-key-of-this-server"
HERE = "http://127.0.0.1:7700"
FOLDER = files("mmsearch.serving") / "page"


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "notes"
    Engine.open(path, create=True, model=WordEmbedder()).close()
    return path


@pytest.fixture(scope="module")
def client(db: Path) -> Iterator[TestClient]:
    settings = Settings(dbs=(db,), model=WordEmbedder(), api_keys=frozenset({KEY, OTHER_KEY}))
    with TestClient(make_app(settings), base_url=HERE) as client:
        yield client


@pytest.fixture(autouse=True)
def _forget_cookies(client: TestClient) -> None:
    client.cookies.clear()


def policy_of(client: TestClient) -> dict[str, str]:
    told = client.get("/").headers["content-security-policy"]
    return {name: value for name, _, value in (one.partition(" ") for one in told.split("; "))}


def test_the_page_itself_needs_no_key_for_it_holds_nothing(client: TestClient) -> None:
    page = client.get("/")

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for address in re.findall(r'(?:src|href)="(page/[^"]+)"', page.text):
        assert client.get(f"/{address}").status_code == 200, address


def test_every_file_that_the_page_names_is_there_and_none_is_from_elsewhere() -> None:
    names = {file.name for file in FOLDER.iterdir()}
    for file in FOLDER.iterdir():
        text = file.read_text(encoding="utf-8")
        addresses = re.findall(r'(?:src|href)="([^"#]+)"|from "\./([^"]+)"|url\(([^)]+)\)', text)
        for address in filter(None, (one for found in addresses for one in found)):
            assert address == "./" or Path(address).name in names, f"{file.name}: {address}"
        without_namespace = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//cdn", without_namespace), file.name


def test_nothing_in_the_page_makes_markup_of_strings() -> None:
    for file in FOLDER.iterdir():
        if file.name.endswith(".js"):
            text = file.read_text(encoding="utf-8")
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(", text
            ), file.name


def test_the_policy_lets_in_no_script_but_ours_and_no_markup_from_strings(
    client: TestClient,
) -> None:
    policy = policy_of(client)

    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["trusted-types"] == policy["frame-ancestors"] == "'none'"
    assert not any("unsafe" in value or "http" in value for value in policy.values())


def test_files_are_kept_for_good_by_their_version_and_the_page_is_asked_for_again(
    client: TestClient,
) -> None:
    page = client.get("/")
    [style] = re.findall(r'href="(page/\w+/style\.css)"', page.text)

    assert page.headers["cache-control"] == "no-cache"
    assert "immutable" in client.get(f"/{style}").headers["cache-control"]
    assert "VERSION" not in page.text

    again = client.get("/", headers={"If-None-Match": page.headers["etag"]})

    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["content-security-policy"] == page.headers["content-security-policy"]


def test_a_page_left_open_over_an_update_gets_the_new_file_and_does_not_keep_it(
    client: TestClient,
) -> None:
    old = client.get("/page/0123456789abcdef/app.js")

    assert old.status_code == 200
    assert old.headers["content-type"] == "text/javascript; charset=utf-8"
    assert old.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "address",
    [
        "/page/x/..%2F..%2Fpage.py",
        "/page/x/%2e%2e/page.py",
        "/page/x/page.py",
        "/page/x/__init__.py",
        "/page/x/",
        "/page/%2e%2e/app.py",
    ],
)
def test_no_other_file_of_the_machine_can_be_had(client: TestClient, address: str) -> None:
    assert client.get(address).status_code in (401, 404, 405)


def test_a_key_opens_the_door_by_a_cookie_that_scripts_cannot_read(client: TestClient) -> None:
    answer = client.post("/page/session", json={"key": OTHER_KEY})

    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{SESSION_COOKIE}={session_of(OTHER_KEY)};")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert OTHER_KEY not in cookie


def test_over_https_the_cookie_never_goes_over_http(db: Path) -> None:
    settings = Settings(dbs=(db,), model=WordEmbedder(), api_keys=frozenset({KEY}))
    with TestClient(make_app(settings), base_url="https://127.0.0.1:7700") as client:
        cookie = client.post("/page/session", json={"key": KEY}).headers["set-cookie"]

    assert "Secure" in cookie


@pytest.mark.parametrize("key", ["", "a-key-of-this-serve", "é" * 20, session_of(KEY)])
def test_what_is_not_a_key_opens_nothing(client: TestClient, key: str) -> None:
    answer = client.post("/page/session", json={"key": key})

    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_a_session_is_of_a_key_that_the_server_still_has() -> None:
    assert is_session(session_of(KEY), {KEY, OTHER_KEY})
    assert is_session(session_of(OTHER_KEY), {KEY, OTHER_KEY})
    assert not is_session(session_of(KEY), {OTHER_KEY})
    assert not is_session(KEY, {KEY})
    assert not is_session("", set())
    assert not is_session("\u20ac", {KEY})


@pytest.mark.parametrize(
    ("path", "is_ours"),
    [
        ("/", True),
        ("/page/session", True),
        ("/page/ab/app.js", True),
        ("/v1/status", False),
        ("//", False),
        ("/pages", False),
        ("/page/../v1/status", False),
    ],
)
def test_only_the_pages_own_files_go_without_a_key(path: str, is_ours: bool) -> None:
    assert is_page_path(path) is is_ours
