"""The door to training: settings for pairs of one's own, and media of every kind."""

import json
from pathlib import Path
from typing import Any

import made_files
import pytest
from PIL import Image as pil

from mmsearch.errors import BadConfig, BadTrainingFile, UnreadableFile
from mmsearch.retriever.training.config import (
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from mmsearch.retriever.training.examples import Media
from mmsearch.retriever.training.loading import MediaCollate
from mmsearch.retriever.training.snapshots import find_snapshot
from mmsearch.training import MediaOpener, config_for_pairs, plan, train, with_pairs
from mmsearch.values import Frames, Image

CONFIG = TrainingConfig(data=DataConfig(toy=4), run=RunConfig(steps=1, workers=1))
SHOTS = [(2.0, made_files.RED), (2.0, made_files.GREEN), (2.0, made_files.BLUE)]


def pairs(folder: Path, count: int, **more: Any) -> Path:
    file = folder / "pairs.jsonl"
    rows = [{"query": f"what is {n}", "positive": f"number {n}", **more} for n in range(count)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


# ---------------------------------------------------------------- media


def test_a_picture_a_page_and_a_film_are_opened(tmp_path: Path) -> None:
    pil.new("RGB", (60, 40), made_files.RED).save(tmp_path / "red.png")
    made_files.pdf(tmp_path / "two.pdf", "The first page", "The second page")
    film = made_files.film(tmp_path / "film.mp4", SHOTS)
    with MediaOpener(CONFIG) as opener:
        picture = opener(Media(tmp_path / "red.png"))
        first, second = (opener(Media(tmp_path / "two.pdf", page=page)) for page in (1, 2))
        whole, span = opener(Media(film)), opener(Media(film, start=4.2, end=5.8))
    assert isinstance(picture, Image)
    assert picture.pixels.shape == (40, 60, 3)
    assert isinstance(first, Image)
    assert isinstance(second, Image)
    assert first.pixels.tolist() != second.pixels.tolist()
    assert isinstance(whole, Frames)
    assert isinstance(span, Frames)
    assert set(_colours(whole)) == {"red", "green", "blue"}
    assert set(_colours(span)) == {"blue"}


def _colours(frames: Frames) -> list[str]:
    names = ("red", "green", "blue")
    return [names[int(frame[-5, -5].argmax())] for frame in frames.pixels]


@pytest.mark.parametrize(
    ("media", "said"),
    [
        (Media(Path("nowhere.png")), "no such file"),
        (Media(Path("two.pdf"), page=3), "two.pdf"),
        (Media(Path("film.mp4"), start=60.0, end=61.0), "it ends at 6.0 s, before 60.0 s"),
        (Media(Path("words.txt")), "no picture, PDF or film"),
        (Media(Path("half.png")), "half.png"),
    ],
)
def test_what_cannot_be_opened_says_why(
    media: Media, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made_files.pdf(tmp_path / "two.pdf", "The first page", "The second page")
    made_files.film(tmp_path / "film.mp4", SHOTS)
    (tmp_path / "words.txt").write_text("nothing to see")
    pil.effect_noise((60, 60), 50).convert("RGB").save(tmp_path / "half.png")
    whole = (tmp_path / "half.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with MediaOpener(CONFIG) as opener, pytest.raises(UnreadableFile, match=said):
        opener(media)


def test_pages_and_clips_are_trained_on(tmp_path: Path) -> None:
    made_files.pdf(tmp_path / "two.pdf", "The first page", "The second page")
    made_files.film(tmp_path / "film.mp4", SHOTS)
    rows = [
        {"query": "the first page", "positive": {"page": "two.pdf#1"}},
        {"query": "the second page", "positive": {"page": "two.pdf#2"}},
        {"query": "red", "positive": {"clip": {"path": "film.mp4", "start": 0.2, "end": 1.8}}},
        {"query": "blue", "positive": {"clip": {"path": "film.mp4", "start": 4.2, "end": 5.8}}},
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config, _ = config_for_pairs(
        tmp_path / "pairs.jsonl",
        "tiny-default",
        overrides=["run.steps=2", "run.batch=4", "run.bad_rows=stop"],
    )
    report = train(config, tmp_path / "run")
    assert report.bad == ()
    assert find_snapshot(tmp_path / "run").step == 2


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("count", "batch", "steps"),
    [(40, 19, 20), (4_000, 128, 148)],  # ten times through few, five through more
)
def test_steps_come_from_the_number_of_pairs(
    tmp_path: Path, count: int, batch: int, steps: int
) -> None:
    config, told = config_for_pairs(pairs(tmp_path, count))
    assert (config.run.batch, config.run.steps) == (batch, steps)
    assert config.data.held_out_share == 0.05
    assert any("kept back" in line for line in told)
    assert config.lora is None


def test_named_pairs_are_held_out_instead(tmp_path: Path) -> None:
    file = pairs(tmp_path, 40)
    config, told = config_for_pairs(file, held_out=file, overrides=["run.seed=3"])
    assert config.data.held_out_share == 0.0
    assert config.data.held_out[0].path == file
    assert config.run.seed == 3
    assert not any("kept back" in line for line in told)


def test_the_recipe_is_that_of_the_reasoner(tmp_path: Path) -> None:
    from mmsearch.retriever.models.tiny import write_random_checkpoint

    for reasoner in ("none", "rollout", "bottleneck"):
        write_random_checkpoint(tmp_path / reasoner, reasoner=reasoner)

    def recipe(reasoner: str, **more: Any) -> str:
        config, told = config_for_pairs(pairs(tmp_path, 40, **more), str(tmp_path / reasoner))
        assert told[0].startswith(f"recipe {config.objective.name}: ")
        return config.objective.name

    assert recipe("none") == "plain"
    assert recipe("bottleneck") == "lame"
    assert recipe("rollout") == "plain"  # nobody has reasoned about these
    assert recipe("rollout", rationale="It is a number. So it is found.") == "plume"


def test_a_recipe_that_is_asked_for_brings_its_reasoner(tmp_path: Path) -> None:
    config, _ = config_for_pairs(pairs(tmp_path, 40), "tiny-default", recipe="lame")
    assert config.model.reasoner == "bottleneck"
    with pytest.raises(BadConfig, match="lame, plain, plume"):
        config_for_pairs(pairs(tmp_path, 40), recipe="best")


def test_a_ready_recipe_takes_pairs_of_ones_own(tmp_path: Path) -> None:
    file = pairs(tmp_path, 60, rationale="It is a number. So it is found.", answer="a number")
    config = with_pairs("plume-qwen2vl-2b", file, model="tiny-qwen2_vl")
    assert [one.path for one in config.data.train] == [file]
    planned = plan(config)
    assert (planned.rows, planned.held_out) == (57, 3)
    assert planned.recipe == "plume"
    assert [name for name, _ in planned.stages][-1] == "8 steps"
    assert planned.trained < planned.parameters  # the vision tower does not learn


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("")
    with pytest.raises(BadTrainingFile):
        config_for_pairs(tmp_path / "pairs.jsonl")


def test_memory_is_counted() -> None:
    config = TrainingConfig(
        model=ModelConfig(start="tiny-default"),
        data=DataConfig(toy=8),
        run=RunConfig(steps=1, batch=4),
    )
    planned = plan(config)
    assert planned.memory["optimiser"] == 12 * planned.trained
    more = plan(TrainingConfig(config.model, config.data, run=RunConfig(steps=1, batch=8)))
    assert more.memory["chunk"] == 2 * planned.memory["chunk"] > 0


def test_the_opener_is_the_one_that_collates(tmp_path: Path) -> None:
    from mmsearch.retriever.models.tiny import random_model
    from mmsearch.retriever.training.examples import Side

    made_files.pdf(tmp_path / "one.pdf", "The first page")
    with MediaOpener(CONFIG) as opener:
        collate = MediaCollate(random_model().backbone, opener)
        item = collate.item(Side((Media(tmp_path / "one.pdf", page=1), "words")))
    assert len(item.parts) == 2
