"""A pull that cannot be says why, and what to do."""

import errno
import json
import os
from pathlib import Path
from typing import NoReturn

import pytest
from toy_hub import NAME, TOKEN, WEIGHTS, Files, ToyHub

from mmsearch.errors import (
    BadCheckpoint,
    DownloadFailed,
    ModelNotFound,
    ToBeConverted,
)
from mmsearch.retriever.embedding.library import (
    available_models,
    model_folder,
    models_home,
    parts_folder,
    repository_folder,
)
from mmsearch.retriever.embedding.pull import PullProgress, pull, remove


@pytest.mark.parametrize(
    ("manners", "said", "hint"),
    [
        ({"status": 404, "error_code": "RepoNotFound"}, "no such repository", "HF_TOKEN"),
        ({"status": 401}, "such repository, or it wants another token", "HF_TOKEN"),
        ({"status": 403, "error_code": "GatedRepo"}, "ask who you are", "HF_TOKEN=..."),
        ({"status": 403}, r"refuses \(403\)", "HF_TOKEN=..."),
        ({"token": "another"}, "ask who you are", "accept their terms"),
        ({"status": 404, "error_code": "RevisionNotFound"}, "no revision 'main'", "takes its"),
        ({"status": 503}, "the hub answers 503", "goes on"),
        ({"page": "<html>Room number?</html>"}, "is not a model hub", "HF_ENDPOINT"),
        ({"page": "[]"}, "is not a model hub", "HF_ENDPOINT"),
        ({"page": '{"id": "a/b", "sha": "1234"}'}, "is not a model hub", "HF_ENDPOINT"),
    ],
)
def test_a_refusal_says_what_to_do(
    hub: ToyHub, published: str, manners: dict[str, str], said: str, hint: str
) -> None:
    for name, value in manners.items():
        setattr(hub.manners, name, value)

    with pytest.raises(DownloadFailed, match=said) as error:
        pull(NAME)

    assert str(error.value).startswith(f"cannot fetch {NAME}: ")
    assert hint in error.value.hint
    assert TOKEN not in f"{error.value!r} {error.value} {error.value.hint}"
    assert not any(models_home().glob("*/*"))


def test_an_unknown_revision_is_named(hub: ToyHub, published: str) -> None:
    with pytest.raises(DownloadFailed, match=f"{NAME} has no revision 'v9'") as error:
        pull(f"{NAME}@v9")

    assert error.value.hint.startswith(f"mmsearch model pull {NAME} takes its newest; ")


@pytest.mark.parametrize("variable", ["HF_ENDPOINT", "HF_HUB_OFFLINE"])
def test_no_network_names_the_other_ways(
    hub: ToyHub, published: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    closed = "http://127.0.0.1:9"
    monkeypatch.setenv(variable, closed if variable == "HF_ENDPOINT" else "1")

    with pytest.raises(DownloadFailed) as error:
        pull(NAME)

    reason = f"{closed} cannot be reached" if variable == "HF_ENDPOINT" else "HF_HUB_OFFLINE is set"
    assert reason in str(error.value)
    assert "--model DIR" in error.value.hint
    assert "HF_ENDPOINT=https://" in error.value.hint
    assert hub.asked == []


def test_an_endpoint_that_is_no_address_is_named(
    hub: ToyHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "mirror")

    with pytest.raises(DownloadFailed, match="HF_ENDPOINT is 'mirror', which is no address"):
        pull(NAME)


def test_a_hub_that_goes_away_half_way_is_waited_for_and_then_given_up(
    hub: ToyHub, published: str
) -> None:
    def go_away(progress: PullProgress) -> None:
        if progress.file == WEIGHTS:
            hub.manners.status = 503

    with pytest.raises(DownloadFailed, match="the hub answers 503"):
        pull(NAME, on_progress=go_away)

    assert len([one for one in hub.asked if one.file == WEIGHTS]) == 3  # and two more tries
    hub.manners.status = 0
    assert pull(NAME).path.name == published


def test_a_model_that_does_not_fit_is_refused_before_it_is_fetched(
    hub: ToyHub, published: str, tiny: Files
) -> None:
    # Stated, not served: no disk has an exabyte.
    hub.publish(NAME, {**tiny, "huge.safetensors": Huge(b"x")})

    with pytest.raises(DownloadFailed, match=r"it takes 1000000000\.0 GB more") as error:
        pull(NAME)

    assert "MMSEARCH_MODELS=DIR" in error.value.hint
    assert hub.files_asked() == set()


class Huge(bytes):
    def __len__(self) -> int:
        return 10**18


def test_a_disk_that_fills_up_is_named(
    hub: ToyHub, published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(DownloadFailed, match="the disk is full") as error:
        pull(NAME)

    assert "MMSEARCH_MODELS=DIR" in error.value.hint


def test_a_place_that_cannot_be_written_is_named(
    hub: ToyHub, published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MMSEARCH_MODELS", str(tmp_path / "file"))

    with pytest.raises(DownloadFailed, match=r"file.* cannot be written: Not a directory"):
        pull(NAME)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"model.safetensors": b"x", "code.py": b"x"}, "neither mmsearch.json nor config.json"),
        ({"config.json": b"{}", "training_args.bin": b"x"}, "no weights"),
        ({}, "neither mmsearch.json nor config.json"),
    ],
)
def test_what_is_no_model_is_refused_before_it_is_fetched(
    hub: ToyHub, files: Files, said: str
) -> None:
    hub.publish(NAME, files)

    with pytest.raises(DownloadFailed, match=said):
        pull(NAME)

    assert hub.files_asked() == set()


def test_a_description_of_other_files_is_refused(hub: ToyHub, tiny: Files) -> None:
    description = json.loads(tiny["mmsearch.json"])
    description["sha256"][WEIGHTS] = "0" * 64
    hub.publish(NAME, {**tiny, "mmsearch.json": json.dumps(description).encode()})

    with pytest.raises(BadCheckpoint, match=f"{WEIGHTS} is not the file") as error:
        pull(NAME)

    assert error.value.hint == f"mmsearch model remove {NAME} deletes what was fetched"
    with pytest.raises(ModelNotFound):
        model_folder(NAME)
    remove(NAME)
    assert not parts_folder(NAME).exists()


def test_pickles_are_fetched_where_there_is_nothing_else_and_not_loaded(hub: ToyHub) -> None:
    # Whoever unpickled this would make a folder named `ran`.
    pickle = b"cos\nmkdir\n(Vran\ntR."
    commit = hub.publish(
        NAME,
        {"config.json": b'{"model_type": "qwen2_vl"}', "pytorch_model.bin": pickle, "a.py": b""},
    )

    for _ in range(2):
        with pytest.raises(ToBeConverted) as error:
            pull(NAME)

    folder = repository_folder(NAME) / commit
    assert error.value.folder == str(folder)
    assert error.value.hint.startswith(f"mmsearch model convert {NAME} DIR")
    assert (folder / "pytorch_model.bin").read_bytes() == pickle
    assert not Path("ran").exists()
    assert [one.about for one in available_models() if one.source] == [
        f"to be converted first: mmsearch model convert {NAME} DIR"
    ]
