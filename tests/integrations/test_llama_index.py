"""LlamaIndex itself, against an index with a model that can be checked on paper."""

import asyncio
import base64
import io
from collections.abc import Iterator
from pathlib import Path

import made_files
import numpy as np
import pytest
from conftest import WORDS, WordEmbedder
from PIL import Image

from mmsearch import Engine

pytest.importorskip("llama_index.core", reason="needs mmsearch[llama-index]")

from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import ImageNode, QueryBundle, TextNode

from mmsearch.integrations.llama_index import MMSearchEmbedding, MMSearchRetriever

RED = made_files.RED


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_files.a_few(tmp_path_factory.mktemp("made") / "docs")


@pytest.fixture(scope="module")
def engine(docs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    db = tmp_path_factory.mktemp("library") / "db"
    with Engine.open(db, create=True, model=WordEmbedder()) as engine:
        engine.index([docs], ocr=False)
        engine.add_texts({"faq": "The cat is out."}, about={"faq": '{"author": "me"}'})
        yield engine


# ---------------------------------------------------------------- embedding


def test_it_is_a_multimodal_embedding_named_after_its_model(engine: Engine) -> None:
    embedding = MMSearchEmbedding(engine)

    assert isinstance(embedding, MultiModalEmbedding)
    assert embedding.model_name == "words"


def test_texts_and_queries_become_vectors_of_the_index(engine: Engine) -> None:
    embedding = MMSearchEmbedding(engine)

    rows = embedding.get_text_embedding_batch(["a cat", "a dog", "a pump"])

    assert [int(np.argmax(row)) for row in rows] == [WORDS.index(w) for w in ("cat", "dog", "pump")]
    assert embedding.get_text_embedding("a cat") == rows[0]
    assert embedding.get_query_embedding("a cat") == engine.embed_queries(["a cat"])[0].tolist()


def test_a_picture_is_given_by_its_path_or_its_bytes(engine: Engine, docs: Path) -> None:
    path = docs / "red bus.png"
    for embedding in (MMSearchEmbedding(engine), MMSearchEmbedding(WordEmbedder())):
        by_path = embedding.get_image_embedding(str(path))
        by_bytes = embedding.get_image_embedding_batch([io.BytesIO(path.read_bytes()), str(path)])

        assert by_bytes == [by_path, by_path]
        assert np.argmax(by_path) >= len(WORDS), "a colour, not a word"


def test_async_calls_give_the_same(engine: Engine, docs: Path) -> None:
    embedding, path = MMSearchEmbedding(engine), str(docs / "red bus.png")

    async def ask() -> tuple[list[float], list[list[float]], list[float], list[list[float]]]:
        return (
            await embedding.aget_query_embedding("cat"),
            await embedding.aget_text_embedding_batch(["cat", "dog"]),
            await embedding.aget_image_embedding(path),
            await embedding.aget_image_embedding_batch([path]),
        )

    query, texts, picture, pictures = asyncio.run(ask())

    assert query == embedding.get_query_embedding("cat")
    assert texts == embedding.get_text_embedding_batch(["cat", "dog"])
    assert picture == pictures[0] == embedding.get_image_embedding(path)


# ---------------------------------------------------------------- retriever


def test_a_page_is_an_image_node_with_its_words_and_place(engine: Engine, docs: Path) -> None:
    [found] = MMSearchRetriever(engine, k=1, image_pixels=50_000).retrieve("the pump and its chart")

    node = found.node
    assert isinstance(node, ImageNode)
    assert node.text == "The pump and its chart."
    assert node.metadata["source"] == str(docs / "report.pdf")
    assert node.metadata["page"] == 1
    assert node.node_id == node.metadata["segment_id"]
    assert 0 < (found.score or 0) <= 1
    picture = Image.open(node.resolve_image())
    assert 0.9 * 50_000 < picture.width * picture.height <= 50_000
    assert base64.b64decode(node.image or "")[:4] == b"RIFF"


def test_a_passage_and_a_given_text_are_text_nodes(engine: Engine) -> None:
    found = MMSearchRetriever(engine, k=2).retrieve("the cat")

    assert {type(one.node) for one in found} == {TextNode}
    by_id = {one.node.node_id: one.node for one in found}
    assert by_id["faq"].metadata == {"author": "me"}


def test_without_pixels_there_are_text_nodes_alone(engine: Engine) -> None:
    [found] = MMSearchRetriever(engine, k=1, image_pixels=0).retrieve("the pump")

    assert type(found.node) is TextNode


def test_a_question_may_be_a_picture(engine: Engine, docs: Path) -> None:
    bundle = QueryBundle("", image_path=str(docs / "red bus.png"))

    [found] = MMSearchRetriever(engine, k=1).retrieve(bundle)

    assert found.node.metadata["citation"] == "red bus.png"


def test_filters_and_grouping_are_passed_on(engine: Engine) -> None:
    pdfs = MMSearchRetriever(engine, kinds=["pdf"], image_pixels=0)
    grouped = MMSearchRetriever(engine, kinds=["pdf"], group=True, image_pixels=0)

    assert [one.node.metadata["page"] for one in pdfs.retrieve("pump museum")] in ([1, 2], [2, 1])
    assert len(grouped.retrieve("pump museum")) == 1


def test_async_retrieval_gives_the_same(engine: Engine) -> None:
    retriever = MMSearchRetriever(engine, k=3, image_pixels=0)

    found = asyncio.run(retriever.aretrieve("the museum"))

    assert [one.node_id for one in found] == [
        one.node_id for one in retriever.retrieve("the museum")
    ]


def test_a_query_engine_answers_from_pages_without_naming_folders(
    engine: Engine, docs: Path
) -> None:
    llm = MockLLM()  # repeats its prompt
    answering = RetrieverQueryEngine(
        retriever=MMSearchRetriever(engine, k=1),
        response_synthesizer=get_response_synthesizer(llm=llm),
    )

    answer = answering.query("Where is the pump?")

    assert "The pump and its chart." in str(answer)
    assert "citation: report.pdf p.1" in str(answer)
    assert str(docs) not in str(answer)
    assert [one.node.metadata["page"] for one in answer.source_nodes] == [1]
