"""A model hub on the loopback, small enough to hold in the head, and ill-behaved if asked.

It speaks as much of the hub's language as a pull needs: what a repository holds at a
revision, and ranges of its files. Weights lie on a second server, as they do on the real
one, and the first one only says where.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import huggingface_hub
import huggingface_hub.constants
import pytest

from mmsearch.retriever.embedding import hub as hub_module
from mmsearch.retriever.models.tiny import write_random_checkpoint

NAME = "someone/tiny"  # what stands on it in most tests
WEIGHTS = "model.safetensors"
TOKEN = "hf_nobodyshouldreadthis"
LARGE = (".safetensors", ".bin")  # what the real one keeps in LFS

Files = Mapping[str, bytes]


@contextmanager
def a_hub_for(monkeypatch: pytest.MonkeyPatch, models: Path) -> Iterator["ToyHub"]:
    """Let the person who runs a test have this hub and no other, and models in ``models``."""
    monkeypatch.setenv("MMSEARCH_MODELS", str(models))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub_module, "_WAITS_S", (0.0, 0.0))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    huggingface_hub.close_session()  # it remembers the proxies of its first day
    with ToyHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub
    huggingface_hub.close_session()


@cache
def tiny_model() -> Files:
    """Return the files of a model of random weights in our format, as it would be published."""
    with tempfile.TemporaryDirectory() as folder:
        write_random_checkpoint(Path(folder), seed=4)
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator["ToyHub"]:
    """A hub with nothing on it, and a person who has a token and no models."""
    with a_hub_for(monkeypatch, tmp_path / "models") as hub:
        yield hub


@pytest.fixture
def tiny() -> Files:
    return tiny_model()


@pytest.fixture
def published(hub: "ToyHub", tiny: Files) -> str:
    """The commit of the tiny model on the hub."""
    return hub.publish(NAME, tiny)


class Asked(NamedTuple):
    """One request that was heard."""

    file: str  # empty where the listing was asked for
    server: str  # "hub", or "store" where the bytes of weights lie
    range: str | None
    token: str | None


@dataclass
class Manners:
    """How the hub behaves; each may be changed while it runs.

    status:      what every request is answered with, where that is not 0
    error_code:  the name that the real hub gives its refusals
    token:       what a request must bring
    cut_at:      bytes after which the next answer with weights breaks off, once each
    altered:     files that are served with one bit changed
    short:       files that are served without their last byte, as though they were whole
    ignores_ranges: whether a range is answered with the whole file
    page:        what is sent instead of a listing: a hotel's log-in page, say
    """

    status: int = 0
    error_code: str = ""
    token: str = ""
    cut_at: list[int] = field(default_factory=list)
    altered: set[str] = field(default_factory=set)
    short: set[str] = field(default_factory=set)
    ignores_ranges: bool = False
    page: str = ""


class ToyHub:
    """Serve repositories while a ``with`` lasts; ``url`` is what HF_ENDPOINT names."""

    def __init__(self) -> None:
        self.manners = Manners()
        self.asked: list[Asked] = []
        self._commits: dict[str, Files] = {}
        self._revisions: dict[str, dict[str, str]] = {}
        self._servers = [self._server("hub"), self._server("store")]
        self.url, self._store = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers
        )

    def publish(self, repository: str, files: Files, *, revision: str = "main") -> str:
        """Put ``files`` at ``revision`` of a repository; return the commit."""
        content = [(name, hashlib.sha256(files[name]).hexdigest()) for name in sorted(files)]
        commit = hashlib.sha1(json.dumps([repository, content]).encode()).hexdigest()
        self._commits[commit] = dict(files)
        self._revisions.setdefault(repository, {})[revision] = commit
        return commit

    def __enter__(self) -> "ToyHub":
        for server in self._servers:
            Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def files_asked(self) -> set[str]:
        """Return the names of the files whose bytes were asked for."""
        return {one.file for one in self.asked} - {""}

    # ------------------------------------------------------------ what it answers

    def _server(self, role: str) -> ThreadingHTTPServer:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self, role)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # a client that went away, which is what some tests are about

        return Server(("127.0.0.1", 0), Handler)

    def _answer(self, request: Any, role: str) -> None:
        path = unquote(urlsplit(request.path).path)
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path)
        content = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)", path)
        name = content[3] if content else ""
        token = (request.headers["Authorization"] or "").removeprefix("Bearer ") or None
        self.asked.append(Asked(name, role, request.headers["Range"], token))
        how = self.manners
        if how.status:
            _send(request, how.status, b"{}", {"X-Error-Code": how.error_code})
        elif how.token and role == "hub" and token != how.token:
            _send(request, 401, b"{}", {"X-Error-Code": "GatedRepo"})
        elif listing and how.page:
            _send(request, 200, how.page.encode(), {"Content-Type": "text/html"})
        elif listing:
            self._list(request, *listing.groups())
        elif content and name.endswith(LARGE) and role == "hub":
            _send(request, 302, b"", {"Location": self._store + request.path})
        elif content:
            self._give(request, self._commits[content[2]][name], name)
        else:
            _send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _list(self, request: Any, repository: str, revision: str) -> None:
        known = self._revisions.get(repository)
        if known is None:
            _send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        commit = known.get(revision, revision if revision in known.values() else "")
        if not commit:
            _send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [_sibling(name, data) for name, data in self._commits[commit].items()]
        listing = {"id": repository, "modelId": repository, "sha": commit, "siblings": siblings}
        _send(request, 200, json.dumps(listing).encode(), {"Content-Type": "application/json"})

    def _give(self, request: Any, data: bytes, name: str) -> None:
        how = self.manners
        if name in how.altered:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if name in how.short:
            data = data[:-1]
        begin = 0
        if (asked := request.headers["Range"]) and not how.ignores_ranges:
            begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]
        headers = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if begin else {}
        cut = how.cut_at.pop(0) if how.cut_at and name.endswith(LARGE) else None
        _send(request, 206 if begin else 200, data[begin:], headers, cut=cut)


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    sibling: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git}
    if name.endswith(LARGE):
        sha256 = hashlib.sha256(data).hexdigest()
        sibling["lfs"] = {"size": len(data), "sha256": sha256, "pointerSize": 134}
    return sibling


def _send(
    request: Any, status: int, body: bytes, headers: Mapping[str, str], *, cut: int | None = None
) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body if cut is None else body[:cut])
    if cut is not None:
        request.close_connection = True
