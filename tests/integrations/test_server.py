"""A pipeline beside a running server: what it is told is what an open engine tells."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import made_files
import numpy as np
import pytest
from conftest import WordEmbedder
from PIL import Image

from mmsearch import Engine, Item, Query
from mmsearch.context import Budget
from mmsearch.errors import ServerError, UnreadableFile
from mmsearch.integrations.server import Server
from mmsearch.values import Role

pytest.importorskip("fastapi", reason="needs mmsearch[serve]")
pytest.importorskip("uvicorn", reason="needs mmsearch[serve]")
pytest.importorskip("multipart", reason="needs mmsearch[serve]")
pytest.importorskip("prometheus_client", reason="needs mmsearch[serve]")

from mmsearch.serving.server import running
from mmsearch.serving.settings import Settings

KEY = "a key that is long enough"


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "docs"
    folder.mkdir()
    made_files.pdf(folder / "report.pdf", "The pump and its chart.", "The museum of the town.")
    made_files.film(folder / "film.mp4", [(2.0, made_files.RED)])
    Image.new("RGB", (64, 64), made_files.RED).save(folder / "red bus.png")
    (folder / "note.md").write_text("The dog does not like the cat.\n")
    return folder


@pytest.fixture(scope="module")
def engine(docs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    db = tmp_path_factory.mktemp("library") / "pages"
    # as servers open a small one
    with Engine.open(db, create=True, model=WordEmbedder(), backend="exact") as engine:
        engine.index([docs], ocr=False)
        engine.add_texts({"faq": "The cat is out."}, about={"faq": '{"author": "me"}'})
        yield engine


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Server]:
    settings = Settings(
        dbs=(engine.path,), port=0, model=WordEmbedder(), api_keys=frozenset({KEY}), latency_ms=0
    )
    with running(settings) as url:
        yield Server(url, api_key=KEY)


def test_words_find_what_the_engine_finds(server: Server, engine: Engine) -> None:
    for asked in (
        "the cat",
        Query("museum pump", kinds=["pdf"], where="page = 2", min_score=0.01),
        Query("museum pump", negative=["museum"], path="*.pdf"),
    ):
        served, own = server.query(asked, k=3), engine.query(asked, k=3)

        assert [hit.as_dict() for hit in served] == [hit.as_dict() for hit in own]
        assert [hit.about for hit in served] == [hit.about for hit in own]


@pytest.mark.parametrize(
    "media", ["images", "video", "page"], ids=["a picture", "a film", "a page"]
)
def test_files_are_sent_along(server: Server, engine: Engine, docs: Path, media: str) -> None:
    asked = {
        "images": Query(images=[docs / "red bus.png"]),
        "video": Query(video=docs / "film.mp4"),
        "page": Query(page=f"{docs / 'report.pdf'}#2"),
    }[media]

    served, own = server.query(asked, k=3, ocr=False), engine.query(asked, k=3, ocr=False)

    assert [hit.segment_id for hit in served] == [hit.segment_id for hit in own]
    assert [hit.score for hit in served] == pytest.approx([hit.score for hit in own], abs=1e-6)


def test_hits_may_be_grouped(server: Server) -> None:
    assert len(server.query(Query("museum pump", kinds=["pdf"]), group=True)) == 1


def test_a_picture_is_that_of_the_engine(server: Server, engine: Engine) -> None:
    page = engine.query("pump", k=1)[0].segment_id
    note = engine.query(Query("dog", kinds=["text"]), k=1)[0].segment_id

    assert server.picture(page, max_pixels=50_000) == engine.picture(page, max_pixels=50_000)
    for without in (note, "0" * 16, "../status"):
        with pytest.raises(UnreadableFile, match="no picture"):
            server.picture(without)


def test_what_a_generator_is_given_is_that_of_the_engine(server: Server, engine: Engine) -> None:
    budget = Budget(max_pixels=60_000, image_pixels=50_000)

    served, own = (
        [(part.number, part.citation, part.text, part.image) for part in given]
        for given in (
            index.context("museum pump cat", k=4, budget=budget) for index in (server, engine)
        )
    )

    assert served == own
    assert sum(bool(image) for *_, image in served) == 1


def test_vectors_are_those_of_the_engine(server: Server, engine: Engine, docs: Path) -> None:
    picture = docs / "red bus.png"
    texts = [f"a cat and dog number {n}" for n in range(300)]  # of more than one request

    rows = server.embed_texts(texts, Role.DOCUMENT)
    pictures = server.embed_pictures([picture, io.BytesIO(picture.read_bytes())])

    assert np.array_equal(rows, engine.embed_documents(texts))
    assert np.allclose(pictures, engine.embed_documents([Item([engine.part_of(picture)])] * 2))
    assert server.model == "words"


def test_a_refusal_says_why_and_what_to_do(server: Server) -> None:
    with pytest.raises(ServerError) as refused:
        server.query(Query("cat", where="nonsense = 1"))
    assert refused.value.status == 400
    assert "nonsense" in str(refused.value)
    assert refused.value.hint

    with pytest.raises(ServerError) as locked:
        Server(server.url, api_key="wrong").query("cat")
    assert locked.value.status == 401


def test_a_file_that_is_not_there_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    nobody = Server("http://127.0.0.1:9")
    with pytest.raises(UnreadableFile, match="no such file"):
        nobody.query(Query(images=[tmp_path / "missing.png"]))


def test_nobody_there_is_an_error_with_what_to_type() -> None:
    with pytest.raises(ServerError, match="did not answer") as silent:
        Server("http://127.0.0.1:9", timeout_s=5).query("cat")

    assert silent.value.hint == "mmsearch serve --db DIR"
    with pytest.raises(ValueError, match="http"):
        Server("file:///etc/passwd")


@dataclass
class Fixed:
    """A server of one answer, and what it was sent: (key, body) of each request."""

    url: str
    sent: list[tuple[str, bytes]]


Answering = Callable[[int, dict[str, str], bytes], Fixed]


@pytest.fixture
def answering() -> Iterator[Answering]:
    servers: list[HTTPServer] = []

    def start(status: int, headers: dict[str, str], body: bytes) -> Fixed:
        sent: list[tuple[str, bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                given = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                sent.append((self.headers.get("Authorization", ""), given))
                self.send_response(status)
                for header in headers.items():
                    self.send_header(*header)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, format: str, *args: object) -> None:
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=[0.02], daemon=True).start()
        return Fixed(f"http://127.0.0.1:{servers[-1].server_port}", sent)

    yield start
    for one in servers:
        one.shutdown()
        one.server_close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_key_does_not_follow_a_redirect(answering: Answering, status: int) -> None:
    elsewhere = answering(200, {}, json.dumps({"hits": []}).encode())
    asked = answering(status, {"Location": f"{elsewhere.url}/v1/search"}, b"")

    with pytest.raises(ServerError) as refused:
        Server(asked.url, api_key=KEY).query("cat")

    assert refused.value.status == status
    assert [key for key, _ in asked.sent] == [f"Bearer {KEY}"]
    assert elsewhere.sent == []


def test_what_is_no_server_of_ours_is_said_so(answering: Answering) -> None:
    asked = answering(200, {}, b"<html>")

    with pytest.raises(ServerError, match="no JSON"):
        Server(asked.url).query("cat")


@pytest.mark.parametrize("role", Role)
def test_the_role_is_told(answering: Answering, role: Role) -> None:
    vector = base64.b64encode(np.array([1, 0], "<f4").tobytes()).decode()
    asked = answering(200, {}, json.dumps({"data": [{"embedding": vector}]}).encode())

    rows = Server(asked.url, index="notes").embed_texts(["cat"], role)

    assert rows.tolist() == [[1, 0]]
    assert [json.loads(body) for _, body in asked.sent] == [
        {
            "input": ["cat"],
            "encoding_format": "base64",
            "input_type": str(role),
            "model": "notes",
        }
    ]


# ---------------------------------------------------------------- inside the frameworks


def test_a_langchain_chain_over_a_server(server: Server) -> None:
    pytest.importorskip("langchain_core", reason="needs mmsearch[langchain]")
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnablePassthrough

    from mmsearch.integrations.langchain import MMSearchEmbeddings, MMSearchRetriever

    retriever = MMSearchRetriever(engine=server, k=1, image_pixels=50_000)
    prompt = ChatPromptTemplate.from_template("{context}\n\n{question}")
    told = retriever | (lambda found: f"{found[0].page_content} {found[0].metadata['page']}")
    chain = {"context": told, "question": RunnablePassthrough()} | prompt

    assert "The pump and its chart. 1\n\nthe pump" in chain.invoke("the pump").to_string()
    assert retriever.invoke("the pump")[0].metadata["image"].startswith("data:image/webp;")
    embeddings = MMSearchEmbeddings(server)
    assert embeddings.embed_query("cat") == embeddings.embed_documents(["cat"])[0]


def test_llama_index_over_a_server(server: Server, docs: Path) -> None:
    pytest.importorskip("llama_index.core", reason="needs mmsearch[llama-index]")
    from llama_index.core.schema import ImageNode, QueryBundle

    from mmsearch.integrations.llama_index import MMSearchEmbedding, MMSearchRetriever

    bundle = QueryBundle("", image_path=str(docs / "red bus.png"))
    [found] = MMSearchRetriever(server, k=1).retrieve(bundle)
    embedding = MMSearchEmbedding(server)

    assert isinstance(found.node, ImageNode)
    assert found.node.metadata["citation"] in ("red bus.png", "film.mp4 0:00-0:02")
    assert embedding.model_name == "words"
    assert len(embedding.get_image_embedding(str(docs / "red bus.png"))) == 9
