"""The command line and a running server: they find each other, and say the same."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_files
import pytest
from conftest import WordEmbedder
from PIL import Image

from mmsearch import Engine, Hit, Query, __version__
from mmsearch.cli import main as command_line
from mmsearch.serving import client
from mmsearch.upkeep import rebuild
from mmsearch.values import Kind

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
pytest.importorskip("multipart", reason="the extra 'serve' is not installed")

from mmsearch.serving.client import SOCKET_NAME
from mmsearch.serving.server import running
from mmsearch.serving.settings import Settings

PEER_S = 10.0


def ask(db: Path, asked: Query | str, *, k: int = 10) -> client.Answer | None:
    query = asked if isinstance(asked, Query) else Query(asked)
    return client.query(db, query, k=k, group=False, collapse=False, ocr=False)


def dicts(answer: client.Answer | None) -> list[dict[str, Any]]:
    assert answer is not None, "the server was not asked, or did not answer"
    return as_dicts(answer.hits)


def same(answer: client.Answer | None, hits: list[Hit]) -> bool:
    """Whether these are the hits, as far as Lance says the same twice.

    Cosines of its half-precision vectors may differ in the third digit, by where in memory
    they lie; so may the order of hits that score alike.
    """
    told, known = ({one["id"]: one for one in some} for some in (dicts(answer), as_dicts(hits)))
    return told.keys() == known.keys() and all(
        {**one, "rank": 0, "score": 0, "parts": 0}
        == {**known[name], "rank": 0, "score": 0, "parts": 0}
        and one["score"] == pytest.approx(known[name]["score"], abs=0.01)
        and one["parts"] == pytest.approx(known[name]["parts"], abs=0.01)
        for name, one in told.items()
    )


def as_dicts(hits: list[Hit]) -> list[dict[str, Any]]:
    return [hit.as_dict() for hit in hits]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of words, pictures and pages in it."""
    home = tmp_path_factory.mktemp("served")
    docs = home / "docs"
    docs.mkdir()
    for word in ("cat", "dog", "museum"):
        (docs / f"{word}.md").write_text(f"A {word} sat by the pump.\n")
    made_files.pdf(docs / "chart.pdf", "A chart of the rain.", "The museum of the dog.")
    Image.new("RGB", (60, 40), (200, 30, 30)).save(docs / "red.png")
    Image.new("RGB", (60, 40), (20, 30, 200)).save(docs / "blue.png")
    Image.new("RGB", (60, 40), (190, 40, 30)).save(home / "q.png")
    with Engine.open(home / "db", create=True, model=WordEmbedder()) as engine:
        engine.index([docs], ocr=False)
    return home


@pytest.fixture(scope="module")
def served(made: Path) -> Iterator[Path]:
    """The index, while a server of it runs."""
    db = made / "db"
    with running(Settings(dbs=(db,), port=0, model=WordEmbedder())):
        yield db


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens an index here has not asked the server."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the index was opened")

    monkeypatch.setattr(Engine, "open", refuse)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["mmsearch", *words])
    try:
        command_line.main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


# ---------------------------------------------------------------- the same answers


@pytest.mark.parametrize(
    "asked",
    [
        Query("cat"),
        Query("pump", negative=("dog",), min_score=0.3),
        Query("museum", kinds=(Kind.PDF,)),
        Query("museum", kinds=(Kind.PDF, Kind.TEXT), where="page = 2"),
        Query("pump", path="docs/cat*"),
        Query("no such thing", min_score=1.0),
    ],
    ids=str,
)
def test_the_server_finds_what_the_engine_finds(made: Path, served: Path, asked: Query) -> None:
    with Engine.open(served, model=WordEmbedder(), backend="exact") as engine:
        hits = engine.query(asked)

    answer = ask(served, asked)

    assert same(answer, hits)
    assert answer is not None
    assert {hit.about for hit in answer.hits} == {hit.about for hit in hits}
    assert answer.space == WordEmbedder().space.id


def test_pictures_and_pages_are_sent_along(made: Path, served: Path) -> None:
    asked = Query(images=(made / "q.png",), page=f"{made / 'docs' / 'chart.pdf'}#2")
    with Engine.open(served, model=WordEmbedder(), backend="exact") as engine:
        hits = engine.query(asked, ocr=False)

    assert same(ask(served, asked), hits)
    assert {hit.kind for hit in hits} > {Kind.IMAGE}


def test_the_server_finds_what_is_like_a_segment(served: Path) -> None:
    with Engine.open(served, model=WordEmbedder(), backend="exact") as engine:
        segment_id = engine.query("cat", k=1)[0].segment_id
        hits = engine.similar(segment_id, k=10)

    assert same(client.similar(served, segment_id, k=10), hits)
    assert len(dicts(client.similar(served, segment_id, k=2))) == 2


def test_what_another_process_indexes_is_found(made: Path, tmp_path: Path) -> None:
    db = Path(shutil.copytree(made / "db", tmp_path / "db", ignore=no_sockets))
    (tmp_path / "dog-museum.md").write_text("dog museum dog museum\n")
    with running(Settings(dbs=(db,), port=0, model=WordEmbedder())):
        before = dicts(ask(db, "dog museum", k=1))
        with Engine.open(db, model=WordEmbedder()) as other:
            other.index([tmp_path / "dog-museum.md"], ocr=False)
        after = dicts(ask(db, "dog museum", k=1))

    assert Path(str(before[0]["path"])).name != "dog-museum.md"
    assert Path(str(after[0]["path"])).name == "dog-museum.md"


def test_each_index_of_a_server_is_asked_in_its_own_folder(made: Path, tmp_path: Path) -> None:
    dbs = (made / "db", tmp_path / "other")
    (tmp_path / "pump.md").write_text("the pump\n")
    with Engine.open(dbs[1], create=True, model=WordEmbedder()) as engine:
        engine.index([tmp_path / "pump.md"], ocr=False)
    first = Path(shutil.copytree(dbs[0], tmp_path / "first", ignore=no_sockets))
    with running(Settings(dbs=(first, dbs[1]), port=0, model=WordEmbedder())):
        found = [len(dicts(ask(db, "pump"))) for db in (first, dbs[1])]

    assert found[1] == 1 < found[0]


def test_an_index_of_another_space_in_the_same_place_is_not_answered_for(
    made: Path, tmp_path: Path
) -> None:
    db = Path(shutil.copytree(made / "db", tmp_path / "db", ignore=no_sockets))
    with running(Settings(dbs=(db,), port=0, model=WordEmbedder())):
        assert dicts(ask(db, "cat"))
        rebuild(db, model=WordEmbedder("other words"), ocr=False, num_workers=1)

        answer = ask(db, "cat")

    assert answer is None or answer.space == WordEmbedder("other words").space.id


def no_sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".sock")]


# ---------------------------------------------------------------- finding the server


def test_a_server_in_a_folder_with_a_long_path_is_found(made: Path, tmp_path: Path) -> None:
    db = tmp_path / ("long" * 20) / ("er" * 40) / "db"
    shutil.copytree(made / "db", db, ignore=no_sockets)
    with running(Settings(dbs=(db,), port=0, model=WordEmbedder())):
        assert dicts(ask(db, "cat", k=1))


def test_no_server_is_no_answer_and_takes_no_time(made: Path, tmp_path: Path) -> None:
    db = Path(shutil.copytree(made / "db", tmp_path / "db", ignore=no_sockets))
    with running(Settings(dbs=(db,), port=0, model=WordEmbedder())):
        pass
    assert ask(db, "cat") is None

    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(db / SOCKET_NAME))
    assert ask(db, "cat") is None

    (db / SOCKET_NAME).unlink()
    (db / SOCKET_NAME).write_text("no socket at all")
    assert ask(db, "cat") is None


def test_nobody_elses_socket_is_used(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: served.stat().st_uid + 1)

    assert ask(served, "cat") is None


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
HEALTHY = json.dumps({"status": "ok", "version": __version__}).encode()
NO_HITS = json.dumps({"hits": [], "space": "s", "took_ms": 1.0}).encode()


def reply(body: bytes, *, length: int | None = None, head: bytes = OK) -> bytes:
    size = len(body) if length is None else length
    return head + b"Content-Length: %d\r\n\r\n" % size + body


@contextlib.contextmanager
def peer(db: Path, *replies: bytes, stays: bool = False) -> Iterator[None]:
    """Somebody who listens where a server would, says these things, and hangs up, or not.

    The client has to hang up too, long before PEER_S is over.
    """
    waited: list[float] = []

    def talk(listener: socket.socket) -> None:
        link, _ = listener.accept()
        with link, contextlib.suppress(ConnectionError):
            link.settimeout(PEER_S)
            try:
                for one in replies:
                    link.recv(65536)
                    link.sendall(one)
                if not stays:
                    link.shutdown(socket.SHUT_WR)
                while link.recv(65536):
                    pass
            except TimeoutError:
                waited.append(PEER_S)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(db / SOCKET_NAME))
        listener.listen()
        thread = threading.Thread(target=talk, args=[listener])
        thread.start()
        yield
        thread.join()
    assert not waited, "the client was still there"


def test_a_peer_that_says_what_a_server_says_is_believed(tmp_path: Path) -> None:
    with peer(tmp_path, reply(HEALTHY), reply(NO_HITS)):
        assert ask(tmp_path, "cat") == client.Answer([], "s", 1.0)


@pytest.mark.parametrize(
    "replies",
    [
        [b"SSH-2.0-OpenSSH_9.2\r\n"],
        [reply(b"<html>")],
        [reply(b"[]")],
        [reply(HEALTHY.replace(__version__.encode(), b"9.9.9")), reply(NO_HITS)],
        [reply(HEALTHY, head=OK.replace(b"200 OK", b"503 Unavailable")), reply(NO_HITS)],
        [reply(HEALTHY, length=1000)[:-3]],
        [reply(HEALTHY), b""],
        [reply(HEALTHY), reply(NO_HITS, head=OK.replace(b"200 OK", b"429 Too Many"))],
        [reply(HEALTHY), reply(NO_HITS, head=OK.replace(b"200 OK", b"400 Bad Request"))],
        [reply(HEALTHY), reply(NO_HITS[:-4])],
        [reply(HEALTHY), reply(b'{"hits": [{"rank": 1}], "space": "s", "took_ms": 1}')],
        [reply(HEALTHY), reply(b'{"hits": 7, "space": "s", "took_ms": 1}')],
    ],
    ids=lambda replies: f"{len(replies)}-{replies[-1][-24:]!r}",
)
def test_a_peer_that_says_anything_else_is_no_server(tmp_path: Path, replies: list[bytes]) -> None:
    with peer(tmp_path, *replies):
        assert ask(tmp_path, "cat") is None


def test_a_peer_that_says_nothing_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_GREETING_S", 0.05)
    with peer(tmp_path, stays=True):
        assert ask(tmp_path, "cat") is None
    (tmp_path / SOCKET_NAME).unlink()
    monkeypatch.setattr(client, "_GREETING_S", 60.0)
    monkeypatch.setattr(client, "_ANSWER_S", 0.05)
    with peer(tmp_path, reply(HEALTHY), stays=True):
        assert ask(tmp_path, "cat") is None


# ---------------------------------------------------------------- on the command line


@pytest.mark.usefixtures("no_engine")
def test_a_query_is_answered_without_opening_the_index(
    served: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "query", "cat", "--db", str(served), "-k", "1", "--json") == 0
    told = json.loads(capsys.readouterr().out)

    assert set(told) == {"query", "space", "took_ms", "hits"}
    assert told["query"] == {"text": "cat"}
    [hit] = told["hits"]
    assert Path(hit["path"]).name == "cat.md"

    assert run(monkeypatch, "similar", hit["id"], "--db", str(served), "-k", "2", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["--no-server"],
        ["--model", "default"],
        ["--device", "cpu"],
        ["--dtype", "float32"],
        ["--effort", "0"],
        ["--max-pixels", "4096"],
        ["--dims", "9"],
        ["--backend", "exact"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("no_engine")
def test_whoever_names_how_to_compute_gets_a_model_of_their_own(
    served: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    with pytest.raises(AssertionError, match="the index was opened"):
        run(monkeypatch, "query", "cat", "--db", str(served), *words)


def test_an_error_is_the_same_with_a_server_as_without(
    made: Path,
    served: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    open_index = Engine.open
    monkeypatch.setattr(
        Engine, "open", lambda db, **how: open_index(db, **{**how, "model": WordEmbedder()})
    )
    told = []
    for words in (["cat", "--where", "colour = 1"], ["--image", str(made / "gone.png")], [""]):
        for server in ("--server", "--no-server"):
            code = run(monkeypatch, "query", *words, "--db", str(served), server)
            told.append((code, capsys.readouterr().err))

    assert told[0::2] == told[1::2]
    assert [code for code, _ in told] == [1] * 6
    assert "cannot filter by" in told[0][1]
    assert "gone.png" in told[2][1]


def test_a_warm_query_imports_nothing_heavy(served: Path) -> None:
    script = (
        "import sys, mmsearch.cli.main as m\n"
        f"sys.argv = ['mmsearch', 'query', 'cat', '--db', {str(served)!r}, '--json']\n"
        "try: m.app()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'lancedb', 'pyarrow', 'PIL', 'fastapi', 'uvicorn', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    hits, heavy = done.stdout.splitlines()
    assert json.loads(hits)["hits"]
    assert heavy == "[]"
