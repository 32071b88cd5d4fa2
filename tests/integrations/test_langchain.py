"""LangChain's own standard suites, against an index with a model that can be checked on paper."""

import asyncio
import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import made_files
import numpy as np
import pytest
from conftest import WordEmbedder

from mmsearch import Engine, Item
from mmsearch.errors import BadInput, UnreadableFile
from mmsearch.values import Role

if TYPE_CHECKING:
    from mmsearch.values import Vectors

pytest.importorskip("langchain_core", reason="needs mmsearch[langchain]")
pytest.importorskip("langchain_tests", reason="needs langchain-tests")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

from mmsearch.integrations.langchain import (
    MMSearchEmbeddings,
    MMSearchRetriever,
    MMSearchVectorStore,
)

pytestmark = pytest.mark.anyio
RED = made_files.RED


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_files.a_few(tmp_path_factory.mktemp("made") / "docs")


@pytest.fixture(scope="module")
def library(docs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An index of files that no test changes."""
    db = tmp_path_factory.mktemp("library") / "db"
    with Engine.open(db, create=True, model=WordEmbedder()) as engine:
        engine.index([docs], ocr=False)
        yield engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path / "db", create=True, model=WordEmbedder()) as engine:
        yield engine


@pytest.fixture
def store(engine: Engine) -> MMSearchVectorStore:
    return MMSearchVectorStore(engine)


# ---------------------------------------------------------------- the standard suites


class TestEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[MMSearchEmbeddings]:
        return MMSearchEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": WordEmbedder()}


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[MMSearchEmbeddings]:
        return MMSearchEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": WordEmbedder()}


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _of_the_library(self, library: Engine) -> None:
        self.engine = library

    @property
    def retriever_constructor(self) -> type[MMSearchRetriever]:
        return MMSearchRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"engine": self.engine}

    @property
    def retriever_query_example(self) -> str:
        return "the pump"


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, engine: Engine) -> VectorStore:
        return MMSearchVectorStore(engine)


# ---------------------------------------------------------------- embeddings


def test_texts_and_pictures_lie_in_one_space(library: Engine, docs: Path) -> None:
    embeddings = MMSearchEmbeddings(library)

    [picture] = embeddings.embed_image([str(docs / "red bus.png")])
    red = np.full((4, 4, 3), RED, dtype=np.uint8)

    assert np.allclose(picture, library.embed_documents([Item(red)])[0], atol=1e-6)
    assert len(picture) == len(embeddings.embed_query("red"))
    assert embeddings.embed_documents([]) == []
    assert embeddings.embed_image([]) == []


def test_a_model_is_told_which_is_a_question() -> None:
    class Telling(WordEmbedder):
        def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
            asked.append(str(role))
            return super().embed(items, role=role)

    asked: list[str] = []
    embeddings = MMSearchEmbeddings(Telling())

    embeddings.embed_query("cat")
    embeddings.embed_documents(["cat"])

    assert asked == ["query", "document"]


def test_a_model_by_itself_needs_no_index(docs: Path, library: Engine) -> None:
    alone, of_index = MMSearchEmbeddings(WordEmbedder()), MMSearchEmbeddings(library)
    picture = str(docs / "red bus.png")

    assert alone.embed_query("a cat") == of_index.embed_query("a cat")
    assert np.allclose(alone.embed_image([picture]), of_index.embed_image([picture]))


def test_what_is_no_picture_is_refused(docs: Path, library: Engine) -> None:
    for embeddings in (MMSearchEmbeddings(WordEmbedder()), MMSearchEmbeddings(library)):
        with pytest.raises(UnreadableFile, match=r"note\.md"):
            embeddings.embed_image([str(docs / "note.md")])


# ---------------------------------------------------------------- retriever


def test_a_page_says_where_it_is(library: Engine, docs: Path) -> None:
    [page] = MMSearchRetriever(engine=library, k=1).invoke("the pump and its chart")

    assert page.page_content == "The pump and its chart."
    assert page.metadata["source"] == str(docs / "report.pdf")
    assert (page.metadata["page"], page.metadata["citation"]) == (1, "report.pdf p.1")
    assert page.id == page.metadata["segment_id"]
    assert "image" not in page.metadata


def test_a_picture_goes_with_a_page_where_it_is_asked_for(library: Engine) -> None:
    [page] = MMSearchRetriever(engine=library, k=1, image_pixels=50_000).invoke("the pump")

    kind, _, content = page.metadata["image"].partition(",")
    assert kind == "data:image/webp;base64"
    assert base64.b64decode(content)[:4] == b"RIFF"


def test_a_question_may_bring_a_picture(library: Engine, docs: Path) -> None:
    retriever = MMSearchRetriever(engine=library, k=1)

    [found] = retriever.invoke("", images=[docs / "red bus.png"])

    assert found.metadata["citation"] == "red bus.png"
    assert "red bus" in found.page_content, "a picture without words is told by its name"


def test_filters_of_the_retriever_hold_for_every_question(library: Engine) -> None:
    retriever = MMSearchRetriever(engine=library, kinds=["text"], k=5)

    assert [found.metadata["kind"] for found in retriever.invoke("the museum")] == ["text"]


def test_what_is_not_wanted_and_where_to_look_are_passed_on(library: Engine) -> None:
    words = "pump museum dog"
    everything = MMSearchRetriever(engine=library, k=9)

    first = everything.invoke(words)[0]
    without = everything.invoke(words, negative=[first.page_content])[0]
    here = MMSearchRetriever(engine=library, k=9, path="*.md").invoke(words)
    grouped = MMSearchRetriever(engine=library, k=9, kinds=["pdf"], group=True).invoke(words)

    assert without.id != first.id
    assert [one.metadata["citation"] for one in here] == ["note.md @0"]
    assert len(grouped) == 1


def test_a_chain_answers_from_what_was_found(library: Engine) -> None:
    def cite(found: list[Document]) -> str:
        return "\n".join(f"[{one.metadata['citation']}] {one.page_content}" for one in found)

    def generator(prompt: Any) -> str:  # repeats what it was told
        return prompt.to_string()

    chain = (
        {
            "context": MMSearchRetriever(engine=library, k=1) | cite,
            "question": RunnablePassthrough(),
        }
        | ChatPromptTemplate.from_template("{context}\n\n{question}")
        | RunnableLambda(generator)
        | StrOutputParser()
    )

    assert chain.invoke("the pump") == (
        "Human: [report.pdf p.1] The pump and its chart.\n\nthe pump"
    )


# ---------------------------------------------------------------- vector store


def test_metadata_comes_back_as_it_went_in(store: MMSearchVectorStore) -> None:
    metadata = {"n": 1, "deep": {"list": [1, None, "ä"]}, "quote": '"\\', "odd": "\udce9"}

    [text_id] = store.add_texts(["The cat."], [metadata])

    assert store.get_by_ids([text_id])[0].metadata == metadata
    assert store.similarity_search("cat", k=1)[0].metadata == metadata


def test_metadata_that_is_not_json_is_refused_by_name(store: MMSearchVectorStore) -> None:
    with pytest.raises(TypeError, match="metadata of 'a' cannot be kept"):
        store.add_texts(["The cat."], [{"when": object()}], ids=["a"])
    assert store.similarity_search("cat") == []


def test_as_many_ids_and_metadatas_as_texts(store: MMSearchVectorStore) -> None:
    with pytest.raises(ValueError, match="2 texts, but 1 ids"):
        store.add_texts(["cat", "dog"], ids=["1"])
    with pytest.raises(ValueError, match="1 texts, but 2 metadatas"):
        store.add_texts(["cat"], [{}, {}])


def test_no_option_is_dropped_in_silence(store: MMSearchVectorStore) -> None:
    with pytest.raises(TypeError, match="no option filters"):
        store.similarity_search("cat", filters={"a": 1})


def test_a_filter_finds_what_lies_far_down(store: MMSearchVectorStore) -> None:
    texts = ["The cat sleeps."] * 300 + ["A dog and a pump and a chart and a cat."]
    store.add_texts(texts, [{"n": n} for n in range(301)])

    by_metadata = store.similarity_search("cat", k=1, filter={"n": 300})
    by_function = store.similarity_search("cat", k=1, filter=lambda one: "dog" in one.page_content)

    assert [one.metadata["n"] for one in by_metadata + by_function] == [300, 300]
    assert store.similarity_search("cat", filter={"missing": None}) == []


def test_scores_are_between_0_and_1_and_fall(store: MMSearchVectorStore) -> None:
    store.add_texts(["cat", "cat dog", "museum"])

    scored = store.similarity_search_with_score("cat", k=3)
    relevant = store.similarity_search_with_relevance_scores("cat", k=3)

    assert [one.page_content for one, _ in scored] == ["cat", "cat dog", "museum"]
    scores = [score for _, score in scored]
    assert 1 >= scores[0] > scores[1] > scores[2] > 0
    assert relevant == scored


def test_a_retriever_of_the_store_passes_its_options_on(store: MMSearchVectorStore) -> None:
    store.add_texts(["cat", "cat dog"], [{"n": 1}, {"n": 2}])

    retriever = store.as_retriever(search_kwargs={"k": 1, "filter": {"n": 2}})

    assert [one.page_content for one in retriever.invoke("cat")] == ["cat dog"]


def test_documents_that_say_the_same_are_told_once(store: MMSearchVectorStore) -> None:
    store.add_texts(["cat pump", "cat pump too", "cat dog"])

    plain = store.similarity_search("cat pump", k=2)
    retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "lambda_mult": 0.2})

    assert {one.page_content for one in plain} == {"cat pump", "cat pump too"}
    told = [one.page_content for one in retriever.invoke("cat pump")]
    assert told[0].startswith("cat pump")
    assert told[1] == "cat dog"
    assert store.max_marginal_relevance_search("cat", filter={"n": 1}) == []


def test_files_are_found_beside_texts(store: MMSearchVectorStore, docs: Path) -> None:
    store.add_texts(["The cat."], ids=["a"])
    store.engine.index([docs], ocr=False)

    found = store.similarity_search("the dog and the cat", k=2)

    assert {one.metadata.get("citation") for one in found} == {None, "note.md @0"}
    [note] = [one for one in found if one.metadata]
    assert store.get_by_ids([str(note.id), "a"]) == [note, store.get_by_ids(["a"])[0]]
    texts_alone = store.similarity_search("the dog and the cat", path="text:*")
    assert [one.id for one in texts_alone] == ["a"]


def test_deleting_all_texts_leaves_files(store: MMSearchVectorStore, docs: Path) -> None:
    store.add_texts(["The cat.", "The dog."])
    store.engine.index([docs], ocr=False)

    assert store.delete()

    assert store.similarity_search("cat", path="text:*") == []
    assert store.engine.status().documents == {"image": 1, "pdf": 1, "text": 1}


def test_a_part_of_a_file_is_not_deleted_as_a_text(store: MMSearchVectorStore, docs: Path) -> None:
    store.add_texts(["The cat."], ids=["a"])
    store.engine.index([docs], ocr=False)
    [page] = store.similarity_search("pump", k=1)

    with pytest.raises(BadInput, match=r"part of .*report\.pdf") as refused:
        store.delete(["a", str(page.id)])

    assert refused.value.hint.startswith("mmsearch remove ")
    assert len(store.get_by_ids(["a"])) == 1, "nothing was deleted"


def test_threads_that_write_at_once_wait_for_each_other(store: MMSearchVectorStore) -> None:
    async def add_all() -> None:
        await asyncio.gather(*(store.aadd_texts([f"cat {n}"], ids=[str(n)]) for n in range(4)))

    asyncio.run(add_all())

    assert store.engine.status().segments == 4


def test_a_store_is_made_from_texts_and_opened_again(tmp_path: Path) -> None:
    embeddings = MMSearchEmbeddings(WordEmbedder())

    made = MMSearchVectorStore.from_texts(["The cat."], embeddings, ids=["a"], db=tmp_path / "new")
    more = MMSearchVectorStore.from_texts(["The dog."], made.embeddings, ids=["b"])

    assert more.engine is made.engine
    with Engine.open(tmp_path / "new", model=WordEmbedder()) as engine:
        again = MMSearchVectorStore(engine)
        assert {one.id for one in again.similarity_search("cat dog")} == {"a", "b"}


def test_a_store_takes_no_foreign_embeddings(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not DeterministicFakeEmbedding"):
        MMSearchVectorStore.from_texts(
            ["The cat."], DeterministicFakeEmbedding(size=9), db=tmp_path / "new"
        )
    assert not (tmp_path / "new").exists()


def test_metadata_given_by_others_is_told_as_it_is(store: MMSearchVectorStore) -> None:
    store.engine.add_texts({"a": "The cat."}, about={"a": "by Hokusai"})

    assert store.get_by_ids(["a"])[0].metadata == {"about": "by Hokusai"}


def test_a_document_survives_json(store: MMSearchVectorStore) -> None:
    store.add_documents([Document("The cat.", metadata={"n": 1})], ids=["a"])

    [found] = store.similarity_search("cat")

    assert json.loads(found.model_dump_json())["metadata"] == {"n": 1}
