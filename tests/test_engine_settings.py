"""An index remembers how its vectors were made, and a bad item ends no run."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import WordEmbedder
from PIL import Image

from mmsearch import Engine, Item, ModelSettings, Query
from mmsearch.errors import (
    BadCheckpoint,
    BadItem,
    BadSetting,
    MMSearchError,
    ModelNotFound,
    OutOfMemory,
    SpaceMismatch,
)
from mmsearch.retriever.embedding.embedder import LatentEmbedder
from mmsearch.retriever.models.tiny import write_random_checkpoint
from mmsearch.values import Role

DOG = "The dog does not like the cat."
SETTINGS = ModelSettings(effort=1, max_pixels=1_500, dims=9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that thinks in latent steps."""
    folder = tmp_path_factory.mktemp("models") / "rollout"
    write_random_checkpoint(folder, reasoner="rollout")
    return folder


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    docs = tmp_path_factory.mktemp("docs")
    (docs / "pump.md").write_text("The pump of the town.")
    (docs / "dog.md").write_text(DOG)
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(docs / "noise.png")
    return docs


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory, folder: Path, docs: Path) -> Path:
    """An index of them, made with settings of its own."""
    db = tmp_path_factory.mktemp("index") / "db"
    with Engine.open(db, create=True, model=folder, device="cpu", settings=SETTINGS) as engine:
        assert engine.index([docs], ocr=False).documents == 3
    return db


def test_an_index_is_asked_with_the_settings_it_was_made_with(db: Path, folder: Path) -> None:
    with Engine.open(db, device="cpu") as bare, Engine.open(db, model=folder) as named:
        assert bare.embedder.space == bare.space == named.embedder.space
        assert (bare.space.effort, bare.space.max_pixels, bare.space.dim) == (1, 1_500, 9)
        assert bare.embedder.embed([Item("pump")]).shape == (1, 9)
        [hit, *_] = bare.query("the pump of the town")

    assert hit.path.endswith("pump.md")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ModelSettings(effort=2), "effort 2, not 1"),
        (ModelSettings(effort=1, dims=8), "8 dimensions, not 9"),
        (ModelSettings(max_pixels=1_501), "pictures of up to 1501 pixels, not 1500"),
    ],
)
def test_other_settings_are_refused_in_words(
    db: Path, folder: Path, settings: ModelSettings, said: str
) -> None:
    with pytest.raises(SpaceMismatch, match=said) as refused:
        Engine.open(db, settings=settings)
    assert refused.value.exit_code == 4
    assert "leave its settings" in refused.value.hint

    with pytest.raises(SpaceMismatch, match=said):
        Engine.open(db, model=folder, settings=settings)


def test_another_model_is_refused_for_its_weights(db: Path) -> None:
    with pytest.raises(SpaceMismatch, match="other weights") as refused:
        Engine.open(db, model="default")

    assert "ask with that model" in refused.value.hint


def test_a_model_whose_weights_have_changed_is_said_to_have_changed(
    tmp_path: Path, docs: Path
) -> None:
    write_random_checkpoint(tmp_path / "model")
    with Engine.open(tmp_path / "db", create=True, model=tmp_path / "model") as engine:
        engine.index([docs], ocr=False)
    write_random_checkpoint(tmp_path / "model", seed=1)

    with (
        Engine.open(tmp_path / "db") as engine,
        pytest.raises(SpaceMismatch, match="other weights") as refused,
    ):
        engine.query("pump")

    assert refused.value.hint.startswith("that model has changed since: put back what it was, or")


def test_an_index_whose_model_was_moved_says_how_to_name_it(tmp_path: Path, docs: Path) -> None:
    write_random_checkpoint(tmp_path / "model")
    with Engine.open(tmp_path / "db", create=True, model=tmp_path / "model") as engine:
        engine.index([docs], ocr=False)
    (tmp_path / "model").rename(tmp_path / "moved")

    with (
        Engine.open(tmp_path / "db") as engine,
        pytest.raises(ModelNotFound, match="db was made with it") as lost,
    ):
        engine.query("pump")
    assert lost.value.hint == "--model DIR says where that folder is now"

    with Engine.open(tmp_path / "db", model=tmp_path / "moved") as engine:
        assert engine.query("pump")


def test_a_model_that_cannot_be_loaded_leaves_no_index_behind(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "model")
    with (tmp_path / "model" / "model.safetensors").open("ab") as file:
        file.truncate(100)

    with pytest.raises(BadCheckpoint):
        Engine.open(tmp_path / "db", create=True, model=tmp_path / "model")

    assert not (tmp_path / "db").exists()


def test_device_and_precision_keep_no_index_from_being_asked(db: Path) -> None:
    with Engine.open(db, device="cpu", dtype="bfloat16") as engine:
        assert engine.query("the pump of the town")


@pytest.mark.parametrize(
    "how",
    [
        {"device": "gpu"},
        {"device": "cuda:99"},
        {"dtype": "int4"},
        {"settings": ModelSettings(effort=9)},
        {"settings": ModelSettings(dims=0)},
    ],
    ids=str,
)
def test_a_bad_setting_is_refused_before_an_index_is_made(
    tmp_path: Path, db: Path, folder: Path, how: dict[str, str]
) -> None:
    with pytest.raises(BadSetting):
        Engine.open(tmp_path / "new", create=True, model=folder, **how)  # type: ignore[arg-type]
    with pytest.raises(BadSetting):
        Engine.open(db, **how)  # type: ignore[arg-type]

    assert not (tmp_path / "new").exists()


def test_readers_hand_on_the_pixels_that_the_index_asks_for(
    tmp_path: Path, folder: Path, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    areas: list[int] = []
    embed = LatentEmbedder.embed

    def hear(self: LatentEmbedder, items: Sequence[Item], **how: Role) -> object:
        areas.extend(
            part.pixels.shape[-3] * part.pixels.shape[-2]
            for item in items
            for part in item.parts
            if hasattr(part, "pixels")
        )
        return embed(self, items, **how)

    monkeypatch.setattr(LatentEmbedder, "embed", hear)
    settings = ModelSettings(max_pixels=1_500)
    with Engine.open(tmp_path / "db", create=True, model=folder, settings=settings) as engine:
        engine.index([docs / "noise.png"], ocr=False)
        engine.query(Query(images=[docs / "noise.png"]), ocr=False)

    assert len(areas) == 2
    assert 1_200 < min(areas) <= max(areas) <= 1_500


def test_status_says_how_the_vectors_were_made(db: Path) -> None:
    with Engine.open(db) as engine:
        found = engine.status().as_dict()

    assert (found["effort"], found["max_pixels"], found["dims"]) == (1, 1_500, 9)


def test_what_is_similar_is_found_without_loading_the_model(tmp_path: Path, docs: Path) -> None:
    write_random_checkpoint(tmp_path / "model")
    with Engine.open(tmp_path / "db", create=True, model=tmp_path / "model") as engine:
        engine.index([docs], ocr=False)
        [hit, *_] = engine.query("pump")
    (tmp_path / "model" / "model.safetensors").unlink()

    with Engine.open(tmp_path / "db") as engine:
        assert [one.text for one in engine.similar(hit.segment_id)] == [DOG]


@pytest.mark.parametrize(
    ("error", "said"),
    [(lambda: BadItem("9,000 tokens"), "9,000 tokens"), (lambda: OutOfMemory("cuda:0"), "cuda:0")],
    ids=["too long", "too large"],
)
def test_an_item_that_the_model_cannot_take_fails_its_document_or_its_query_alone(
    tmp_path: Path, docs: Path, error: Callable[[], MMSearchError], said: str
) -> None:
    class Narrow(WordEmbedder):
        def _row(self, item: Item) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
            if "dog" in item.text:
                raise error()
            return super()._row(item)

    with Engine.open(tmp_path / "db", create=True, model=Narrow()) as engine:
        report = engine.index([docs], ocr=False)

        assert report.documents == 2
        [failure] = report.failed
        assert failure.path.endswith("dog.md")
        assert said in failure.reason
        assert engine.query("cat")
        with pytest.raises(MMSearchError, match=said):
            engine.query("dog")
