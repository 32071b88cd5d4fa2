"""A running server: where it listens, whom it lets in, how it ends."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import WordEmbedder

from mmsearch import __version__
from mmsearch.engine import Engine
from mmsearch.errors import BadSetting, MissingExtra, ModelNotFound, SpaceMismatch
from mmsearch.serving.settings import Limits, Settings, read_api_keys
from mmsearch.serving.sockets import SOCKET_NAME, FolderListener, folder_listener
from mmsearch.values import Item, Role

pytest.importorskip("fastapi", reason="needs the extra 'serve'")
pytest.importorskip("uvicorn", reason="needs the extra 'serve'")

from mmsearch.serving.server import Listening, running, serve

if TYPE_CHECKING:
    from mmsearch.values import Vectors


class GatedEmbedder(WordEmbedder):
    """Says what it was called with, and computes only while the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.asked: list[str] = []

    def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        self.asked += [item.text for item in items]
        assert self.gate.wait(20)
        return super().embed(items, role=role)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    Engine.open(tmp_path / "notes", create=True, model=WordEmbedder()).close()
    return tmp_path / "notes"


@pytest.fixture
def settings(db: Path) -> Settings:
    return Settings(dbs=(db,), port=0, model=WordEmbedder())


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def until(holds: Callable[[], object]) -> None:
    """Wait for what another thread is about to do."""
    for _ in range(2_000):
        if holds():
            return
        time.sleep(0.005)
    raise AssertionError("it did not come to pass")


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.settimeout(10)
    return connection


class Answer:
    """What a server said: status, headers, JSON."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers = answer.status, answer.headers
        self.raw = answer.read()

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


def ask(url: str, method: str = "GET", path: str = "/healthz", body: object = None) -> Answer:
    host, port = url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        return sent(connection, method, path, body)
    finally:
        connection.close()


def ask_by_socket(path: Path, of: str = "/healthz") -> Answer:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(str(path))
        return sent(connection, "GET", of, None)
    finally:
        connection.close()


def sent(connection: http.client.HTTPConnection, method: str, path: str, body: object) -> Answer:
    raw = None if body is None else json.dumps(body)
    connection.request(method, path, raw, {"content-type": "application/json"})
    return Answer(connection.getresponse())


def embed(url: str, text: str) -> Answer:
    return ask(url, "POST", "/v1/embeddings", {"input": text})


def metric(url: str, name: str) -> float:
    lines = ask(url, path="/metrics").raw.decode().splitlines()
    [line] = [one for one in lines if one.startswith(f"{name} ")]
    return float(line.split()[1])


# ---------------------------------------------------------------- life


def test_a_server_says_that_it_lives_and_when_it_is_ready(settings: Settings) -> None:
    with running(settings) as url:
        assert ask(url).json == {"status": "ok", "version": __version__}
        assert ask(url, path="/readyz").json == {"status": "ready"}
        assert "server" not in ask(url).headers


def test_until_the_model_is_there_it_lives_and_is_not_ready(settings: Settings) -> None:
    loading = threading.Event()

    class Slow(WordEmbedder):
        @property
        def space(self) -> Any:
            if threading.current_thread().name != "mmsearch-server":  # where it is opened
                assert loading.wait(10)
            return WordEmbedder().space

        @space.setter
        def space(self, _: object) -> None:
            pass

    where: list[Listening] = []
    stop = threading.Event()
    server = threading.Thread(
        target=serve,
        args=(replace(settings, model=Slow()),),
        kwargs={"on_listening": where.append, "stop": stop},
        name="mmsearch-server",
    )
    server.start()
    try:
        until(lambda: where)
        assert ask(where[0].url).status == 200
        assert ask(where[0].url, path="/readyz").status == 503
        assert ask(where[0].url, path="/readyz").json == {"status": "loading"}
        loading.set()
        until(lambda: ask(where[0].url, path="/readyz").status == 200)
    finally:
        loading.set()
        stop.set()
        server.join(10)


def test_a_model_that_cannot_be_loaded_ends_the_server_with_why(db: Path) -> None:
    with (
        pytest.raises(ModelNotFound, match="no model named 'words'"),
        running(Settings(dbs=(db,), port=0)),
    ):
        pass
    assert not (db / SOCKET_NAME).exists()


def test_another_model_than_the_indexs_is_refused_before_it_listens(settings: Settings) -> None:
    where: list[Listening] = []
    with pytest.raises(SpaceMismatch, match="holds vectors of words"):
        serve(replace(settings, model=WordEmbedder("other")), on_listening=where.append)
    assert where == []


def test_counters_tell_routes_and_never_what_a_client_made_up(settings: Settings) -> None:
    with running(settings) as url:
        ask(url, path="/secret-path")
        ask(url, method="BREW", path="/healthz")
        embed(url, "cat")

        said = ask(url, path="/metrics").raw.decode()

    assert 'route="/v1/embeddings",status="200"} 1.0' in said
    assert 'route="other",status="404"} 1.0' in said
    assert "secret-path" not in said
    assert "BREW" not in said


# ---------------------------------------------------------------- where it listens


def test_beyond_this_machine_it_wants_a_key(settings: Settings) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(BadSetting, match="others could reach it, and there is no key"):
            serve(replace(settings, host=host))
    replace(settings, host="0.0.0.0", api_keys=frozenset({"k" * 32})).check_exposure()
    for host in ("localhost", "127.0.0.2", "::1"):
        replace(settings, host=host).check_exposure()


def test_a_port_that_is_taken_is_named(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(BadSetting, match=f"--port {port}: another program listens there"):
            serve(replace(settings, port=port))


def test_the_socket_in_the_folder_is_its_owners_and_gone_in_the_end(
    settings: Settings, db: Path
) -> None:
    path = db / SOCKET_NAME
    with running(settings):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert ask_by_socket(path).json["status"] == "ok"
    assert not path.exists()


def test_a_socket_that_a_dead_server_left_is_taken_over(settings: Settings, db: Path) -> None:
    path = db / SOCKET_NAME
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    with running(settings):
        assert ask_by_socket(path).status == 200


def test_a_socket_that_answers_is_left_alone(settings: Settings, db: Path) -> None:
    where: list[Listening] = []
    stop = threading.Event()
    with running(settings) as first:
        second = threading.Thread(
            target=serve, args=(settings,), kwargs={"on_listening": where.append, "stop": stop}
        )
        second.start()
        until(lambda: where)

        assert where[0].sockets == ()
        assert "another server already answers" in where[0].notices[0]
        assert ask(where[0].url).status == 200
        stop.set()
        second.join()
        assert ask_by_socket(db / SOCKET_NAME).status == 200  # still the first's
        assert ask(first).status == 200


def test_folders_too_deep_for_an_address_have_their_sockets_all_the_same(tmp_path: Path) -> None:
    deep = [tmp_path / (letter * 120) for letter in "de"]
    made = []
    for folder in deep:
        folder.mkdir()
        made.append(folder_listener(folder))

    addresses = set()
    for folder, one in zip(deep, made, strict=True):
        assert isinstance(one, FolderListener)
        one.socket.listen()
        addresses.add(one.socket.getsockname())
        with socket.socket(socket.AF_UNIX) as client:
            descriptor = os.open(folder, os.O_RDONLY)
            client.connect(f"/proc/self/fd/{descriptor}/{SOCKET_NAME}")
            os.close(descriptor)
        assert "another server" in str(folder_listener(folder))
    assert len(addresses) == 2  # a request is told by the address it came to
    for folder, one in zip(deep, made, strict=True):
        assert isinstance(one, FolderListener)
        one.remove()
        one.socket.close()
        assert list(folder.iterdir()) == []


def test_a_socket_that_took_the_place_of_ours_is_not_removed(tmp_path: Path) -> None:
    ours = folder_listener(tmp_path)
    assert isinstance(ours, FolderListener)
    other = folder_listener(tmp_path)  # ours does not listen, as if it had died
    assert isinstance(other, FolderListener)

    ours.remove()

    assert (tmp_path / SOCKET_NAME).exists()
    other.remove()
    assert not (tmp_path / SOCKET_NAME).exists()
    for one in (ours, other):
        one.socket.close()


def test_a_folder_that_cannot_be_written_to_is_served_without_a_socket(tmp_path: Path) -> None:
    made = folder_listener(tmp_path / "not-there")

    assert isinstance(made, str)
    assert "no such file" in made


def test_each_index_is_meant_in_its_own_socket(tmp_path: Path) -> None:
    dbs = tuple(tmp_path / name / ".mmsearch" for name in ("papers", "films"))
    for db in dbs:
        Engine.open(db, create=True, model=WordEmbedder()).close()
    with running(Settings(dbs=dbs, port=0, model=WordEmbedder())):
        # a route that names the index it was asked of
        told = [ask_by_socket(db / SOCKET_NAME, "/v1/status").json["index"] for db in dbs]

    assert told == ["papers", "films"]


def test_indexes_of_one_space_share_a_model_and_what_it_remembers(tmp_path: Path) -> None:
    dbs = tuple(tmp_path / name / "notes" for name in ("a", "b"))
    for db in dbs:
        Engine.open(db, create=True, model=WordEmbedder()).close()
    with running(Settings(dbs=dbs, port=0, model=WordEmbedder())) as url:
        for name in ("notes", "notes-2"):  # folders of one name are told apart
            body = {"input": "cat", "model": name}
            assert ask(url, "POST", "/v1/embeddings", body).status == 200

        assert metric(url, "mmsearch_cache_hits_total") == 1


# ---------------------------------------------------------------- crowds


def test_requests_that_come_together_are_embedded_together(
    settings: Settings, threads: ThreadPoolExecutor
) -> None:
    model = GatedEmbedder()
    with running(replace(settings, model=model)) as url:
        first = threads.submit(embed, url, "cat")
        until(lambda: model.asked)
        others = [threads.submit(embed, url, text) for text in ("dog", "pump", "chart")]
        until(lambda: metric(url, "mmsearch_embedding_calls_waiting") == 3)
        model.gate.set()

        assert {one.result().status for one in (first, *others)} == {200}
        assert metric(url, "mmsearch_batch_requests_count") == 2
        assert metric(url, "mmsearch_batch_requests_sum") == 4


def test_more_than_the_queue_holds_is_told_to_come_back(
    settings: Settings, threads: ThreadPoolExecutor
) -> None:
    model = GatedEmbedder()
    with running(replace(settings, model=model, limits=Limits(queue=2))) as url:
        let_in = [threads.submit(embed, url, text) for text in ("cat", "dog")]
        until(lambda: metric(url, "mmsearch_requests_running") == 2)

        refused = embed(url, "pump")

        assert refused.status == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json["error"]["type"] == "rate_limit_error"
        assert ask(url).status == 200  # what needs no model is answered
        model.gate.set()
        assert [one.result().status for one in let_in] == [200, 200]
        assert embed(url, "pump").status == 200
        assert metric(url, "mmsearch_refused_busy_total") == 1


def test_what_a_client_left_behind_is_not_computed(
    settings: Settings, threads: ThreadPoolExecutor
) -> None:
    model = GatedEmbedder()
    with running(replace(settings, model=model)) as url:
        first = threads.submit(embed, url, "cat")
        until(lambda: model.asked)
        body = json.dumps({"input": "pump"}).encode()
        with connect(url) as leaving:
            leaving.sendall(
                b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            until(lambda: metric(url, "mmsearch_embedding_calls_waiting") == 1)
        until(lambda: metric(url, "mmsearch_embedding_calls_waiting") == 0)
        model.gate.set()

        assert first.result().status == 200
        assert embed(url, "dog").status == 200
        until(lambda: metric(url, "mmsearch_abandoned_total") == 1)
    assert model.asked == ["cat", "dog"]


def test_a_head_that_does_not_end_ends_the_connection(settings: Settings) -> None:
    limits = Limits(head_timeout_s=0.2)
    with running(replace(settings, limits=limits)) as url:
        for begun in (b"", b"GET /healthz HTTP/1.1\r\nHost: 127", b"GET /healthz HTTP/1.1\r\nX: "):
            with connect(url) as slow:
                slow.sendall(begun)
                assert slow.recv(100) == b""
        with connect(url) as kept:  # the second request of a connection that was kept
            kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert kept.recv(10_000).startswith(b"HTTP/1.1 200")
            kept.sendall(b"GET /heal")
            while kept.recv(10_000):  # what is left of the first answer
                pass
        assert ask(url).status == 200


def test_a_head_without_end_is_refused(settings: Settings) -> None:
    with running(settings) as url, connect(url) as huge:
        with contextlib.suppress(OSError):  # closed at some point while we send
            huge.sendall(b"GET /healthz HTTP/1.1\r\n" + b"X: " + b"x" * 50_000_000)
        with contextlib.suppress(ConnectionResetError):
            said = huge.recv(100)
            while more := huge.recv(10_000):
                said += more
            assert said.startswith(b"HTTP/1.1 400")
        assert ask(url).status == 200


def test_what_nobody_foresaw_is_answered_without_its_words(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(WordEmbedder):
        def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
            raise RuntimeError("a secret of this machine")

    with running(replace(settings, model=Broken())) as url:
        answer = embed(url, "cat")

    assert answer.status == 500
    assert answer.json["error"]["code"] == "InternalError"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"  # as on every answer
    assert b"secret" not in answer.raw
    assert "a secret of this machine" in caplog.text


# ---------------------------------------------------------------- the end


def test_told_to_stop_it_finishes_what_it_began_and_takes_nothing_new(
    settings: Settings, threads: ThreadPoolExecutor
) -> None:
    model = GatedEmbedder()
    where: list[Listening] = []
    stop = threading.Event()
    server = threads.submit(
        serve, replace(settings, model=model), on_listening=where.append, stop=stop
    )
    until(lambda: where)
    url = where[0].url
    begun = threads.submit(embed, url, "cat")
    until(lambda: model.asked)

    stop.set()

    def is_refused() -> bool:
        try:
            connect(url).close()
        except OSError:
            return True
        return False

    until(is_refused)
    assert not begun.done()
    model.gate.set()
    assert begun.result(timeout=10).status == 200
    server.result(timeout=10)


def test_the_command_serves_until_sigterm_and_ends_well(tmp_path: Path) -> None:
    db = tmp_path / "db"
    Engine.open(db, create=True).close()
    command = [sys.executable, "-m", "mmsearch", "serve", "--db", str(db), "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        said = server.stderr.readline()
        [url] = re.findall(r"http://127\.0\.0\.1:\d+", said)
        assert "ready after" in server.stderr.readline()
        assert embed(url, "a cat").status == 200
        server.send_signal(signal.SIGTERM)
        out, rest = server.communicate(timeout=30)
    finally:
        server.kill()
        server.wait()
    assert (server.returncode, out, rest) == (0, "", "stopped\n")
    assert not (db / SOCKET_NAME).exists()


def stop_once_it_answers(db: Path) -> None:
    def answers() -> bool:
        try:
            return ask_by_socket(db / SOCKET_NAME).status == 200
        except OSError:
            return False

    until(answers)
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_examples_in_the_help_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmsearch.cli import main as command_line

    monkeypatch.chdir(tmp_path)
    Engine.open(".mmsearch", create=True).close()
    Path("keys.txt").write_text("k" * 32)
    Path("docs").mkdir()
    monkeypatch.setattr("sys.argv", ["mmsearch", "serve", "--help"])
    with pytest.raises(SystemExit):
        command_line.main()
    examples = re.findall(r"^ {6}(mmsearch serve.*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(examples) == 3

    for example in examples:
        # not beyond this machine in a test, and at no port that may be taken
        words = [*example.replace("0.0.0.0", "127.0.0.1").split(), "--port", "0"]
        monkeypatch.setattr("sys.argv", words)
        stopping = threading.Thread(target=stop_once_it_answers, args=(tmp_path / ".mmsearch",))
        stopping.start()
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        stopping.join()
        assert not ended.value.code
        assert "listening at http://127.0.0.1:" in capsys.readouterr().err


def test_a_library_that_is_not_installed_is_named_with_its_extra(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)

    with pytest.raises(MissingExtra, match="this needs uvicorn") as missing:
        serve(settings)

    assert missing.value.hint == "pip install 'mmsearch[serve]'"


# ---------------------------------------------------------------- keys


def test_keys_are_the_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\n" + "a" * 32 + "\n\n  " + "b" * 32 + "  \n")

    assert read_api_keys(file) == {"a" * 32, "b" * 32}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "there is no key in it"),
        (b"# nothing\n\n", "there is no key in it"),
        (b"short\n", "a key is shorter than 16 characters"),
        (b"\xff\xfe\x00", "it is not text"),
    ],
)
def test_a_file_without_a_usable_key_is_refused(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(BadSetting, match=reason):
        read_api_keys(file)
