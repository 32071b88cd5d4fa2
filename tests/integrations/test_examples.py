"""The examples do what they say, against real servers on this machine."""

import base64
import importlib.util
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import made_files
import numpy as np
import pytest
from conftest import WordEmbedder
from PIL import Image

from mmsearch import Engine, Item

EXAMPLES = Path(__file__).parents[2] / "examples"


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "docs"
    folder.mkdir()
    made_files.pdf(
        folder / "report.pdf",
        "The pump station was built in 1931. It has a chart of the tides.",
        "The museum of the town opens at nine.",
    )
    return folder


# ---------------------------------------------------------------- rag.py


@pytest.fixture(scope="module")
def db(docs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index made by the example itself, with the model that comes with mmsearch."""
    db = tmp_path_factory.mktemp("rag") / "db"
    assert loaded("rag").main(["pump", "--db", str(db), "--index", str(docs)]) == 0
    return db


def test_an_answer_quotes_a_page_and_names_its_sources(
    db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = loaded("rag").main(["When was the pump station built?", "--db", str(db), "-k", "2"])

    told = capsys.readouterr().out.splitlines()
    assert status == 0
    assert "The pump station was built in 1931." in told[0]
    assert told[0].endswith("[1]")
    sources = [line.split("  (")[0] for line in told[2:]]
    assert sources == ["[1] report.pdf p.1", "[2] report.pdf p.2"]


def test_what_the_sources_do_not_tell_is_not_known() -> None:
    rag = loaded("rag")

    assert rag.stub(rag.messages_of("who?", [])) == "I do not know."


def test_an_index_that_is_not_there_is_an_error_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loaded("rag").main(["pump", "--db", str(tmp_path / "nowhere")]) == 1

    assert "try: mmsearch index" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


@pytest.fixture
def chat() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve OpenAI's chat API with one fixed answer; yields its address and what was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path, **body})
            answer = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": "In 1931 [1]."},
                    }
                ],
            }
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", asked
    server.shutdown()
    server.server_close()


def test_a_generator_is_sent_the_pages_as_words_and_pictures(
    db: Path,
    chat: tuple[str, list[dict[str, Any]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("openai", reason="needs openai")
    url, asked = chat

    asking = ["When was the pump built?", "--db", str(db), "-k", "1", "--max-pixels", "40000"]
    loaded("rag").main([*asking, "--base-url", url, "--model", "seer"])

    assert capsys.readouterr().out.startswith("In 1931 [1].\n")
    [request] = asked
    assert (request["path"], request["model"]) == ("/v1/chat/completions", "seer")
    system, user = request["messages"]
    assert system["role"] == "system"
    source, picture, question = user["content"]
    assert source["text"].startswith("[1] report.pdf p.1\nThe pump station was built in 1931.")
    assert question["text"] == "Question: When was the pump built?"
    kind, _, content = picture["image_url"]["url"].partition(";base64,")
    page = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (kind, page.format) == ("data:image/jpeg", "JPEG")
    assert 0.9 * 40_000 < page.width * page.height <= 40_000


# ---------------------------------------------------------------- openai_client.py


def test_openais_client_embeds_texts_and_pictures_in_one_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    openai = pytest.importorskip("openai", reason="needs openai")
    for package in ("fastapi", "uvicorn", "multipart", "prometheus_client"):
        pytest.importorskip(package, reason="needs mmsearch[serve]")
    from mmsearch.serving.server import running
    from mmsearch.serving.settings import Settings

    red, blue = tmp_path / "red.png", tmp_path / "blue.png"
    Image.new("RGB", (32, 32), made_files.RED).save(red)
    Image.new("RGB", (32, 32), made_files.BLUE).save(blue)
    Engine.open(tmp_path / "db", create=True, model=WordEmbedder()).close()
    settings = Settings(dbs=(tmp_path / "db",), port=0, model=WordEmbedder(), latency_ms=0)
    example = loaded("openai_client")
    with running(settings) as url:
        told = [str(red), str(blue), "--say", "cat", "--base-url", f"{url}/v1"]
        assert example.main([*told, "--dimensions", "6"]) == 0
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        rows = example.embed(client, ["cat", example.picture(red), ["a dog", example.picture(red)]])
        with pytest.raises(openai.BadRequestError, match="9, not 10"):
            example.embed(client, ["cat"], dimensions=10)

    assert np.allclose(
        rows, WordEmbedder().embed([Item("cat"), Item([red]), Item(["a dog", red])]), atol=1e-6
    )
    *head, first, second = capsys.readouterr().out.splitlines()
    assert head == ["3 vectors of 6 dimensions", "", "cat"]
    assert {first, second} == {"  +0.000  blue.png", "  +0.000  red.png"}, "no colour is a word"


# ---------------------------------------------------------------- langchain_chain.py


def test_a_chain_quotes_what_a_server_found(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("langchain_core", reason="needs mmsearch[langchain]")
    for package in ("fastapi", "uvicorn", "multipart", "prometheus_client"):
        pytest.importorskip(package, reason="needs mmsearch[serve]")
    from mmsearch.serving.server import running
    from mmsearch.serving.settings import Settings

    chain = loaded("langchain_chain")
    with running(Settings(dbs=(db,), port=0)) as url:
        assert chain.main(["When does the museum open?", "--server", url, "-k", "1"]) == 0
    assert capsys.readouterr().out == (
        "\u201cThe museum of the town opens at nine....\u201d [report.pdf p.2]\n"
    )

    assert chain.main(["When?", "--server", url]) == 1
    assert "did not answer" in capsys.readouterr().err


# ---------------------------------------------------------------- README.md


def test_the_readme_names_what_there_is() -> None:
    told = (EXAMPLES / "README.md").read_text()

    for example in EXAMPLES.glob("*.py"):
        assert f"`{example.name}`" in told
