"""A Haystack pipeline over an index."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import made_files
import pytest
from conftest import WordEmbedder
from PIL import Image

from mmsearch import Engine
from mmsearch.errors import ServerError

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # it reads that when it is imported
pytest.importorskip("haystack", reason="needs mmsearch[haystack]")

from haystack import Pipeline
from haystack.components.builders import PromptBuilder
from haystack.utils import Secret

from mmsearch.integrations.haystack import MMSearchRetriever
from mmsearch.integrations.server import Server

pytest.importorskip("fastapi", reason="needs mmsearch[serve]")
pytest.importorskip("uvicorn", reason="needs mmsearch[serve]")

from mmsearch.serving.server import running
from mmsearch.serving.settings import Settings

KEY = "a key that is long enough"


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "docs"
    folder.mkdir()
    made_files.pdf(folder / "report.pdf", "The pump and its chart.")
    Image.new("RGB", (64, 64), made_files.RED).save(folder / "red.png")
    return folder


@pytest.fixture(scope="module")
def engine(docs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    db = tmp_path_factory.mktemp("library") / "db"
    with Engine.open(db, create=True, model=WordEmbedder()) as engine:
        engine.index([docs], ocr=False)
        yield engine


def test_a_pipeline_puts_what_was_found_into_its_prompt(engine: Engine) -> None:
    pipeline = Pipeline()
    pipeline.add_component("retriever", MMSearchRetriever.of(engine, top_k=1))
    template = "{% for one in documents %}[{{ one.meta.citation }}] {{ one.content }}{% endfor %}"
    pipeline.add_component("prompt", PromptBuilder(template, required_variables=["documents"]))
    pipeline.connect("retriever.documents", "prompt.documents")

    told = pipeline.run({"retriever": {"query": "the pump"}})

    assert told["prompt"]["prompt"] == "[report.pdf p.1] The pump and its chart."


def test_a_document_has_score_place_and_picture(engine: Engine, docs: Path) -> None:
    retriever = MMSearchRetriever.of(engine, image_pixels=50_000)

    [page] = retriever.run(query="the pump", top_k=1)["documents"]
    [picture] = retriever.run(images=[str(docs / "red.png")], top_k=1)["documents"]

    assert (page.meta["source"], page.meta["page"]) == (str(docs / "report.pdf"), 1)
    assert page.id == page.meta["segment_id"]
    assert 0 < (page.score or 0) <= 1
    assert page.blob is not None
    assert (page.blob.mime_type, page.blob.data[:4]) == ("image/webp", b"RIFF")
    assert picture.meta["citation"] == "red.png"


@pytest.mark.parametrize(
    ("option", "value"),
    [("kinds", ["pdf"]), ("path", "*.pdf"), ("where", "page = 1"), ("min_score", 0.3)],
)
def test_filters_hold_for_every_question(engine: Engine, option: str, value: object) -> None:
    everything = MMSearchRetriever.of(engine).run(query="the pump")["documents"]
    filtered = MMSearchRetriever.of(engine, **{option: value}).run(query="the pump")["documents"]

    assert {one.meta["citation"] for one in everything} == {"report.pdf p.1", "red.png"}
    assert [one.meta["citation"] for one in filtered] == ["report.pdf p.1"]


def test_a_saved_retriever_is_what_it_was(tmp_path: Path) -> None:
    made = MMSearchRetriever(tmp_path / "db", top_k=3, kinds=["pdf"], where="page < 3")

    again = MMSearchRetriever.from_dict(made.to_dict())

    assert again.to_dict() == made.to_dict()
    assert (again.db, again.top_k, again.kinds) == (str(tmp_path / "db"), 3, ["pdf"])


# ---------------------------------------------------------------- beside a server


@pytest.fixture(scope="module")
def url(engine: Engine) -> Iterator[str]:
    """Where the index is served to who knows KEY."""
    settings = Settings(
        dbs=(engine.path,), port=0, model=WordEmbedder(), api_keys=frozenset({KEY}), latency_ms=0
    )
    with running(settings) as url:
        yield url


def test_a_server_is_asked_in_place_of_a_folder(
    engine: Engine, url: str, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_THE_SERVER", KEY)
    key = Secret.from_env_var("KEY_OF_THE_SERVER")
    here = MMSearchRetriever.of(engine, image_pixels=50_000)

    saved = MMSearchRetriever(url=url, api_key=key, image_pixels=50_000).to_dict()
    assert KEY not in json.dumps(saved)

    for there in (
        MMSearchRetriever.from_dict(saved),
        MMSearchRetriever.of(Server(url, api_key=KEY), image_pixels=50_000),
    ):
        for asked in ({"query": "the pump"}, {"images": [str(docs / "red.png")]}):
            told, expected = there.run(**asked)["documents"], here.run(**asked)["documents"]
            assert [one.meta for one in told] == [one.meta for one in expected]
            assert [one.blob for one in told] == [one.blob for one in expected]


def test_without_its_key_the_server_says_what_is_missing(url: str) -> None:
    with pytest.raises(ServerError, match="asks for a key"):
        MMSearchRetriever(url=url).run(query="the pump")
