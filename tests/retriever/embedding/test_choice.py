"""A model is found with the settings that its index was made with."""

import dataclasses
from pathlib import Path

import pytest
from conftest import WordEmbedder

from mmsearch.errors import BadSetting, ModelNotFound
from mmsearch.retriever.embedding.choice import choose_model
from mmsearch.retriever.embedding.load import model_space
from mmsearch.retriever.models.description import ModelSettings
from mmsearch.retriever.models.tiny import write_random_checkpoint
from mmsearch.values import Space

MADE_WITH = ModelSettings(effort=1, max_pixels=900, dims=9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "rollout"
    write_random_checkpoint(folder, reasoner="rollout")
    return folder


@pytest.fixture(scope="module")
def indexed(folder: Path) -> Space:
    """The space of an index of that model."""
    return model_space(folder, MADE_WITH)


def test_what_is_left_open_is_as_in_the_index(folder: Path, indexed: Space) -> None:
    assert choose_model(folder, like=indexed).space == indexed


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (ModelSettings(effort=0), "effort 0, not 1"),
        (ModelSettings(dims=8), "8 dimensions, not 9"),
        (ModelSettings(max_pixels=1_000), "pictures of up to 1000 pixels, not 900"),
        (
            ModelSettings(effort=2, dims=9, max_pixels=899),
            "effort 2, not 1; pictures of up to 899 pixels, not 900",
        ),
        (MADE_WITH, ""),
    ],
)
def test_what_is_asked_for_stays_and_the_difference_has_words(
    folder: Path, indexed: Space, asked: ModelSettings, said: str
) -> None:
    assert choose_model(folder, settings=asked, like=indexed).space.difference(indexed) == said


def test_a_new_index_takes_the_model_as_it_is(folder: Path) -> None:
    assert choose_model(folder).space == model_space(folder)


def test_another_model_is_another_one_whatever_its_settings(indexed: Space) -> None:
    chosen = choose_model("default", like=indexed)

    assert chosen.space.effort == 0  # it has no other
    said = chosen.space.difference(indexed)
    assert said.startswith("other weights; reasoner none, not rollout; effort 0, not 1")


def test_prompts_and_frames_are_told_apart_too(indexed: Space) -> None:
    other = dataclasses.replace(indexed, prompt="Find it.", max_frames=99)

    assert other.difference(indexed) == (
        f"films of up to 99 frames, not {indexed.max_frames}; other prompts"
    )


def test_what_the_model_does_not_have_is_refused_when_asked_for(
    folder: Path, indexed: Space
) -> None:
    with pytest.raises(BadSetting, match="effort 9"):
        choose_model(folder, settings=ModelSettings(effort=9), like=indexed)
    with pytest.raises(ModelNotFound):
        choose_model(folder / "nothing", like=indexed)


def test_a_model_is_loaded_as_it_was_chosen(folder: Path, indexed: Space) -> None:
    chosen = choose_model(folder, device="cpu", like=indexed)

    assert chosen.load().space == indexed
    assert chosen.load().calibration == chosen.calibration


def test_an_embedder_of_ones_own_is_taken_as_it_is() -> None:
    mine = WordEmbedder()

    chosen = choose_model(mine, like=dataclasses.replace(mine.space, effort=7))

    assert (chosen.load(), chosen.space) == (mine, mine.space)
    assert chosen.calibration == mine.calibration


@pytest.mark.parametrize(
    "how", [{"device": "cpu"}, {"dtype": "float32"}, {"settings": ModelSettings(dims=3)}], ids=str
)
def test_an_embedder_of_ones_own_takes_no_settings(how: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="an embedder comes with"):
        choose_model(WordEmbedder(), **how)  # type: ignore[arg-type]
