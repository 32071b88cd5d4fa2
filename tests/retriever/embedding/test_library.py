"""Pulled models are found by their names, listed, and removed."""

import subprocess
import sys
from pathlib import Path

import pytest
from toy_hub import NAME, WEIGHTS, Files, ToyHub

from mmsearch.errors import (
    BadCheckpoint,
    DownloadFailed,
    ModelNotFound,
    NotPulled,
)
from mmsearch.retriever.embedding.library import (
    KNOWN,
    available_models,
    described,
    model_folder,
    models_home,
    parts_folder,
    split_name,
)
from mmsearch.retriever.embedding.pull import PullProgress, pull, remove

# ---------------------------------------------------------------- revisions and names


def test_several_revisions_stand_side_by_side(hub: ToyHub, tiny: Files) -> None:
    old = hub.publish(NAME, tiny, revision="v1")
    new = hub.publish(NAME, {**tiny, "README.md": b"better"})
    pull(NAME)
    pull(f"{NAME}@v1")

    assert model_folder(f"{NAME}@v1").name == old
    assert model_folder(f"{NAME}@{old[:7]}").name == old
    assert model_folder(f"{NAME}@main").name == new
    assert model_folder(NAME).name == old  # pulled last
    names = [one.name for one in available_models() if one.source]
    assert sorted(names) == sorted([NAME, f"{NAME}@{new[:12]}"])
    assert {model_folder(name).name for name in names} == {old, new}


def test_two_names_of_one_commit_both_find_it(hub: ToyHub, published: str, tiny: Files) -> None:
    hub.publish(NAME, tiny, revision="v1")
    pull(NAME)
    pull(f"{NAME}@v1")

    assert model_folder(f"{NAME}@main") == model_folder(f"{NAME}@v1")
    assert len([one for one in available_models() if one.source]) == 1


def test_a_short_name_stands_for_its_repository(hub: ToyHub, tiny: Files) -> None:
    hub.publish("CUDAOUTOFMEMORY/PLUME-Qwen2-VL-2B", tiny)

    assert pull("plume").name == "plume"
    assert model_folder("plume") == model_folder("CUDAOUTOFMEMORY/PLUME-Qwen2-VL-2B")


def test_a_published_model_that_is_not_here_names_the_pull(hub: ToyHub) -> None:
    for name in ("plume", "plume@v2", "someone/else"):
        with pytest.raises(ModelNotFound) as error:
            model_folder(name)
        assert error.value.hint == f"mmsearch model pull {name}"


def test_a_folder_is_still_meant_where_nothing_of_its_name_was_pulled(
    hub: ToyHub, published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / NAME).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert model_folder(NAME) == Path(NAME)

    pulled = pull(NAME)

    assert model_folder(NAME) == pulled.path
    assert model_folder(f"./{NAME}") == model_folder(Path(NAME)) == Path(NAME)


def test_known_names_are_of_different_repositories() -> None:
    assert len({one.name for one in KNOWN}) == len({one.repository for one in KNOWN}) == len(KNOWN)
    assert all(split_name(one.repository) == (one.repository, "") for one in KNOWN)


@pytest.mark.parametrize("name", ["nobody", "", "a/b/c", "../up", "a/..", "me/-x", "@v1"])
def test_a_name_that_no_hub_has_is_refused_before_anyone_is_asked(hub: ToyHub, name: str) -> None:
    with pytest.raises(DownloadFailed) as error:
        pull(name)

    assert error.value.hint == "mmsearch model list --all"
    assert hub.asked == []


@pytest.mark.parametrize(
    ("variables", "home"),
    [
        ({"MMSEARCH_MODELS": "/m", "XDG_CACHE_HOME": "/x"}, Path("/m")),
        ({"XDG_CACHE_HOME": "/x"}, Path("/x/mmsearch/models")),
        ({"HOME": "/h"}, Path("/h/.cache/mmsearch/models")),
    ],
)
def test_models_live_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], home: Path
) -> None:
    for name in ("MMSEARCH_MODELS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert models_home() == home


# ---------------------------------------------------------------- removal


def test_a_removed_model_is_gone_and_says_what_went(hub: ToyHub, published: str) -> None:
    pulled = pull(NAME)

    [removed] = remove(NAME)

    assert (removed.path, removed.size) == (pulled.path, pulled.size)
    assert not pulled.path.exists()
    with pytest.raises(ModelNotFound):
        model_folder(NAME)


def test_one_revision_is_removed_and_the_others_stay(hub: ToyHub, tiny: Files) -> None:
    old = hub.publish(NAME, tiny, revision="v1")
    new = hub.publish(NAME, {**tiny, "README.md": b"better"})
    pull(f"{NAME}@v1")
    pull(NAME)

    [removed] = remove(f"{NAME}@v1")

    assert removed.path.name == old
    assert model_folder(NAME).name == new


@pytest.mark.parametrize("name", ["default", "nobody", NAME, "plume", f"{NAME}@v3", "", "/"])
def test_only_what_was_pulled_is_removed(hub: ToyHub, name: str) -> None:
    with pytest.raises(NotPulled):
        remove(name)

    assert model_folder("default").is_dir()


def test_what_an_unfinished_pull_left_is_removed_too(hub: ToyHub, published: str) -> None:
    hub.manners.altered = {WEIGHTS}
    with pytest.raises(DownloadFailed):
        pull(NAME)

    [removed] = remove(NAME)

    assert removed.path == parts_folder(NAME) / published
    assert not removed.path.parent.exists()


def test_nothing_is_removed_under_a_pull(hub: ToyHub, published: str) -> None:
    refused: list[DownloadFailed] = []

    def try_to_remove(progress: PullProgress) -> None:
        if progress.file == WEIGHTS:
            with pytest.raises(DownloadFailed, match="another process is pulling it") as error:
                remove(NAME)
            refused.append(error.value)

    pull(NAME, on_progress=try_to_remove)

    assert refused
    assert model_folder(NAME).name == published


# ---------------------------------------------------------------- start-up


def test_a_folder_without_a_model_is_said_to_hold_none(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("no model")

    with pytest.raises(BadCheckpoint, match=r"neither mmsearch\.json nor config\.json") as refused:
        described(tmp_path)

    assert refused.value.hint == "name a folder with a model in it, or one of 'mmsearch model list'"


def test_models_are_listed_without_a_library_that_takes_time(hub: ToyHub, published: str) -> None:
    pull(NAME)
    code = (
        "import sys\n"
        "from mmsearch.retriever.embedding import library\n"
        "assert len(library.available_models()) == 2\n"
        f"library.model_folder({NAME!r})\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    heavy = {"torch", "numpy", "transformers", "huggingface_hub", "tokenizers", "safetensors"}
    assert heavy.isdisjoint(done.stdout.split())
