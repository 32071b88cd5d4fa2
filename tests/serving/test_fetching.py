"""Addresses that a request names: only the public internet is asked, and never twice resolved."""

import contextlib
import http.server
import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mmsearch.errors import BadUpload, NotAllowed, TooLarge
from mmsearch.serving.fetching import fetch, is_public

LOOPBACK = ipaddress.ip_address("127.0.0.1")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "168.63.129.16",
        "192.0.0.192",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "2001:0:1234::1",
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
    ],
)
def test_an_address_that_leads_inside_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700::1111"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://0/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
    ],
)
def test_this_machine_is_refused_however_it_is_written(url: str) -> None:
    with pytest.raises((NotAllowed, BadUpload)) as refused:
        fetch(url)

    assert "reach" in str(refused.value) or "found" in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "file:///etc/passwd",
        "http://user:secret@example.org/",
        "http://example.org@127.0.0.1/",
        "http://example.org\\@127.0.0.1/",
        "http://example.org/\r\nHost: inside",
        "http://exa\tmple.org/",
        "http:///path",
        "http://exämple.org/",
        "http://example.org:99999/",
        "http://[::1",
        "http://[fe80::1%25eth0]/",
        "http://" + "a" * 3000,
    ],
)
def test_what_parsers_could_disagree_about_is_no_address(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("it was resolved"))

    with pytest.raises(BadUpload, match="plain http"):
        fetch(url)


def test_other_ports_than_those_of_the_web_are_refused() -> None:
    with pytest.raises(NotAllowed, match="port 22 is none of 80, 443"):
        fetch("http://example.org:22/")


def resolving_to(*answers: list[str]) -> Callable[..., list[tuple[Any, ...]]]:
    """Return a resolver that gives each answer in turn, the last one for ever."""
    left = list(answers)

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[tuple[Any, ...]]:
        now = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in now]

    return getaddrinfo


def test_one_inside_address_among_several_refuses_them_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to(["8.8.8.8", "127.0.0.1"]))
    monkeypatch.setattr(
        socket, "create_connection", lambda *_, **__: pytest.fail("it was connected")
    )

    with pytest.raises(NotAllowed):
        fetch("http://example.org/")


def test_the_address_that_was_checked_is_the_one_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that leads elsewhere when asked again gains nothing: it is not asked again."""
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to(["8.8.8.8"], ["127.0.0.1"]))
    connected = []

    def create_connection(address: tuple[str, int], *_: object) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", create_connection)

    with pytest.raises(BadUpload, match="did not answer"):
        fetch("http://example.org/")
    assert connected == [("8.8.8.8", 80)]


# ---------------------------------------------------------------- what comes back


class Origin(http.server.BaseHTTPRequestHandler):
    """A server of the outside, of whom nothing good is to be expected."""

    asked: ClassVar[list[dict[str, str]]] = []

    def do_GET(self) -> None:
        self.asked.append(dict(self.headers))
        getattr(self, "_" + self.path.strip("/").partition("?")[0])()

    def _picture(self) -> None:
        self._send(200, b"PNG!")

    def _elsewhere(self) -> None:
        self._send(302, b"", Location="http://127.0.0.1/inside")

    def _secret(self) -> None:
        self._send(404, b"the secret")

    def _squeezed(self) -> None:
        self._send(200, b"x", **{"Content-Encoding": "gzip"})

    def _short(self) -> None:
        self._send(200, b"half", **{"Content-Length": "8"})

    def _large(self) -> None:
        self._send(200, bytes(100_000))

    def _drip(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        for _ in range(100):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.02)

    def _slow_head(self) -> None:
        for _ in range(100):
            self.wfile.write(b"HTTP/1.0 "[:1])
            self.wfile.flush()
            time.sleep(0.02)

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def served_by(
    handler: type[http.server.BaseHTTPRequestHandler], context: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Serve on loopback; yields the port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who left early
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def origin() -> Iterator[int]:
    """The port of such a server."""
    with served_by(Origin) as port:
        yield port


def get(origin: int, path: str, **limits: Any) -> bytes:
    """Fetch from the test's own server, which is not public."""
    return fetch(
        f"http://127.0.0.1:{origin}/{path}",
        ports=frozenset({origin}),
        is_allowed=lambda address: address == LOOPBACK,
        **limits,
    )


def test_what_is_there_comes_as_it_is(origin: int) -> None:
    assert get(origin, "picture?size=1") == b"PNG!"
    assert Origin.asked[-1]["Host"] == f"127.0.0.1:{origin}"
    assert Origin.asked[-1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("path", ["elsewhere", "secret", "squeezed", "short"])
def test_anything_but_the_thing_itself_is_refused_and_not_repeated(origin: int, path: str) -> None:
    asked = len(Origin.asked)

    with pytest.raises(BadUpload) as refused:
        get(origin, path)

    assert len(Origin.asked) == asked + 1, "a redirect is not followed"
    assert "secret" not in str(refused.value)
    assert "inside" not in str(refused.value)


def test_more_than_allowed_is_not_taken(origin: int) -> None:
    assert len(get(origin, "large", max_bytes=100_000)) == 100_000
    with pytest.raises(TooLarge):
        get(origin, "large", max_bytes=99_999)


@pytest.mark.parametrize("path", ["drip", "slow_head"])
def test_bytes_that_drip_do_not_keep_us_beyond_the_time(origin: int, path: str) -> None:
    """Each byte comes within the timeout of a socket; all of them together take 2 s."""
    with pytest.raises(BadUpload, match="not in time"):
        get(origin, path, timeout_s=0.2)


def test_a_resolver_that_hangs_does_not_keep_us(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(5) and [])

    with pytest.raises(BadUpload, match="cannot be found"):
        fetch("http://example.org/", timeout_s=0.05)
    release.set()


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate of ``localhost``, by an authority nobody knows."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    made = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"]
    made += ["ec_paramgen_curve:prime256v1", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(path)]
    made += ["-out", str(path.with_name("public.pem"))]
    subprocess.run(made, check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_name("public.pem").read_text())
    return path


@pytest.fixture(scope="module")
def tls_origin(certificate: Path) -> Iterator[int]:
    """The port of a server that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with served_by(Origin, context) as port:
        yield port


@pytest.mark.parametrize(
    ("host", "is_known", "is_good"),
    [("localhost", True, True), ("127.0.0.1", True, False), ("localhost", False, False)],
)
def test_a_certificate_has_to_be_of_that_very_host(
    tls_origin: int,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    is_known: bool,
    is_good: bool,
) -> None:
    """The connection goes to a checked address; the name in the certificate is the one asked."""
    if is_known:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_name("public.pem")))
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to(["127.0.0.1"]))

    def get() -> bytes:
        url = f"https://{host}:{tls_origin}/picture"
        ports = frozenset({tls_origin})
        return fetch(url, ports=ports, is_allowed=lambda address: address == LOOPBACK)

    if is_good:
        assert get() == b"PNG!"
    else:
        with pytest.raises(BadUpload, match="did not answer"):
            get()
