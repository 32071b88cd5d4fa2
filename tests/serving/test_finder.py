"""Who stays beside a running server leaves the finding, and the model, to it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import WordEmbedder

from mmsearch import Engine, Item, Query
from mmsearch.serving.finder import Finder
from mmsearch.values import Role

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
pytest.importorskip("multipart", reason="the extra 'serve' is not installed")

from mmsearch.serving.server import running
from mmsearch.serving.settings import Settings

if TYPE_CHECKING:
    from mmsearch.values import Vectors


class CountingEmbedder(WordEmbedder):
    """A model that counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.num_calls = 0

    def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        self.num_calls += 1
        return super().embed(items, role=role)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    for word in ("cat", "dog", "museum"):
        (docs / f"{word}.md").write_text(f"A {word} sat by the pump.\n")
    with Engine.open(tmp_path / "db", create=True, model=WordEmbedder()) as engine:
        engine.index([docs], ocr=False)
    return tmp_path / "db"


@pytest.fixture
def model() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
def engine(db: Path, model: CountingEmbedder) -> Iterator[Engine]:
    with Engine.open(db, model=model) as engine:
        yield engine


def names(finder: Finder, asked: str) -> list[str]:
    hits = finder.query(Query(asked), k=2, group=False)
    assert len(hits) == 2
    alike = finder.similar(hits[0].segment_id, k=2)
    assert hits[0].segment_id not in [hit.segment_id for hit in alike]
    return [Path(hits[0].path).name, *sorted(Path(hit.path).name for hit in alike)]


def test_a_running_server_finds_and_the_own_model_rests(
    db: Path, engine: Engine, model: CountingEmbedder
) -> None:
    finder = Finder(engine, asks_server=True)

    with running(Settings(dbs=(db,), port=0, model=WordEmbedder())):
        finder.load()
        assert names(finder, "dog") == ["dog.md", "cat.md", "museum.md"]
        assert model.num_calls == 0

    finder.load()
    assert names(finder, "dog") == ["dog.md", "cat.md", "museum.md"]
    assert model.num_calls > 0


def test_who_wants_no_server_is_not_led_to_one(
    db: Path, engine: Engine, model: CountingEmbedder
) -> None:
    finder = Finder(engine, asks_server=False)

    with running(Settings(dbs=(db,), port=0, model=WordEmbedder())):
        names(finder, "dog")

    assert model.num_calls > 0
