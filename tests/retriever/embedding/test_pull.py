"""A model is pulled whole or not at all, from a hub on the loopback."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from toy_hub import TOKEN, ToyHub, a_hub_for

from mmsearch.errors import (
    BadCheckpoint,
    DownloadFailed,
    ModelNotFound,
    NotPulled,
    ToBeConverted,
)
from mmsearch.retriever.embedding.library import (
    KNOWN,
    available_models,
    model_folder,
    models_home,
    parts_folder,
    repository_folder,
    split_name,
)
from mmsearch.retriever.embedding.load import load_embedder, model_space
from mmsearch.retriever.embedding.pull import PullProgress, pull, remove
from mmsearch.retriever.models.tiny import write_random_checkpoint
from mmsearch.values import Item

NAME = "someone/tiny"
WEIGHTS = "model.safetensors"

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a model in our format, as it would be published."""
    folder = tmp_path_factory.mktemp("tiny")
    write_random_checkpoint(folder, seed=4)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ToyHub]:
    """A hub with nothing in it, and a person who has a token and no models."""
    with a_hub_for(monkeypatch, tmp_path / "models") as hub:
        yield hub


@pytest.fixture
def published(hub: ToyHub, tiny: Files) -> str:
    """The commit of the tiny model on the hub."""
    return hub.publish(NAME, tiny)


def weight_requests(hub: ToyHub) -> list[str | None]:
    """Return the ranges in which the weights themselves were asked for."""
    return [one.range for one in hub.asked if one.server == "store"]


# ---------------------------------------------------------------- what arrives


def test_a_pulled_model_is_used_by_its_name(hub: ToyHub, published: str, tiny: Files) -> None:
    pulled = pull(NAME)

    assert (pulled.name, pulled.dim, pulled.reasoner) == (NAME, 32, "none")
    assert {one.name for one in pulled.path.iterdir()} == {*tiny, ".source.json"}
    assert (pulled.path / WEIGHTS).read_bytes() == tiny[WEIGHTS]
    embedder = load_embedder(NAME, device="cpu")
    assert embedder.embed([Item(["a cat"])]).shape == (1, 32)
    assert model_space(NAME) == embedder.space


def test_an_index_remembers_the_very_revision(hub: ToyHub, published: str, tiny: Files) -> None:
    first = pull(NAME)
    remembered = model_space(NAME).model
    hub.publish(NAME, {**tiny, "README.md": b"newer"})
    second = pull(NAME)

    assert remembered == f"{NAME}@{published}"
    assert model_folder(remembered) == first.path
    assert model_folder(NAME) == second.path != first.path


def test_what_an_index_remembers_can_be_pulled_again(hub: ToyHub, published: str) -> None:
    pull(NAME)
    remembered = model_space(NAME)
    remove(NAME)
    with pytest.raises(ModelNotFound) as error:
        model_folder(remembered.model)

    command, name = error.value.hint.rsplit(" ", 1)

    assert command == "mmsearch model pull"
    pull(name)
    assert model_space(remembered.model) == remembered


def test_the_space_of_a_pulled_model_is_that_of_the_published_folder(
    hub: ToyHub, published: str, tiny: Files, tmp_path: Path
) -> None:
    for name, content in tiny.items():
        (tmp_path / name).write_bytes(content)
    pull(NAME)

    assert model_space(NAME).id == model_space(tmp_path).id


def test_code_pickles_and_folders_are_left_where_they_are(hub: ToyHub, tiny: Files) -> None:
    unwanted = {
        "modeling.py": b"raise SystemExit",
        "pytorch_model.bin": b"pickle",
        "optimizer.pt": b"pickle",
        "onnx/model.onnx": b"onnx",
        "checkpoint-5/model.safetensors": b"older",
        ".gitattributes": b"",
        "picture.png": b"",
    }
    wanted = {
        "LICENSE": b"MIT",
        "README.md": b"# it",
        "chat_template.jinja": b"",
        "merges.txt": b"",
    }
    hub.publish(NAME, {**tiny, **wanted, **unwanted})

    pulled = pull(NAME)

    # Of a file without a byte none is asked for.
    assert hub.files_asked() == {*tiny, "LICENSE", "README.md"}
    assert {one.name for one in pulled.path.iterdir()} == {*tiny, *wanted, ".source.json"}


def test_every_file_is_of_one_commit_though_the_branch_moves_on(
    hub: ToyHub, published: str, tiny: Files
) -> None:
    moved = False

    def move_on(progress: PullProgress) -> None:
        nonlocal moved
        if not moved:
            hub.publish(NAME, {name: b"other" for name in tiny})
        moved = True

    pulled = pull(NAME, on_progress=move_on)

    assert moved
    assert pulled.path.name == published
    assert (pulled.path / WEIGHTS).read_bytes() == tiny[WEIGHTS]


def test_the_token_goes_to_the_hub_and_not_to_where_the_bytes_lie(
    hub: ToyHub, published: str
) -> None:
    pull(NAME)

    assert {(one.server, one.token) for one in hub.asked} == {("hub", TOKEN), ("store", None)}


def test_what_is_here_is_not_fetched_again(hub: ToyHub, published: str) -> None:
    first = pull(NAME)
    hub.asked.clear()

    again = pull(NAME)

    assert (again.path, again.size) == (first.path, first.size)
    assert hub.files_asked() == set()


def test_a_commit_that_is_here_needs_no_network(
    hub: ToyHub, published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pull(NAME)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert pull(f"{NAME}@{published}").path == first.path


def test_progress_counts_up_to_every_byte(hub: ToyHub, published: str, tiny: Files) -> None:
    heard: list[PullProgress] = []

    pull(NAME, on_progress=heard.append)

    done = [one.done for one in heard]
    assert done == sorted(done)
    assert heard[-1].done == heard[-1].num_bytes == sum(map(len, tiny.values()))
    assert heard[-1].file == WEIGHTS  # the largest comes last
    assert heard[-1].rate > 0


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


# ---------------------------------------------------------------- pulls that end early


def test_a_cut_connection_is_taken_up_where_it_broke(
    hub: ToyHub, published: str, tiny: Files
) -> None:
    hub.manners.cut_at = [1_000, 50_000]

    pulled = pull(NAME)

    assert weight_requests(hub) == [None, "bytes=1000-", "bytes=51000-"]
    assert (pulled.path / WEIGHTS).read_bytes() == tiny[WEIGHTS]


def test_an_interrupted_pull_is_found_by_no_name_and_goes_on_later(
    hub: ToyHub, published: str, tiny: Files
) -> None:
    def interrupt(progress: PullProgress) -> None:
        if progress.done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(NAME, on_progress=interrupt)
    with pytest.raises(ModelNotFound):
        model_folder(NAME)
    assert [one.name for one in available_models()] == ["default"]

    pulled = pull(NAME)

    [whole, rest] = weight_requests(hub)
    assert whole is None
    assert rest is not None
    assert int(rest.removeprefix("bytes=").removesuffix("-")) > 90_000
    assert (pulled.path / WEIGHTS).read_bytes() == tiny[WEIGHTS]


def test_a_killed_pull_leaves_no_half_model_and_no_lock(
    hub: ToyHub, published: str, tiny: Files
) -> None:
    script = (
        "import os, signal\n"
        "from mmsearch.retriever.embedding.pull import pull\n"
        "def die(progress):\n"
        "    if progress.done > 100_000: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"pull({NAME!r}, on_progress=die)"
    )

    died = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)

    assert died.returncode == -signal.SIGKILL, died.stderr
    with pytest.raises(ModelNotFound):
        model_folder(NAME)
    assert (pull(NAME).path / WEIGHTS).read_bytes() == tiny[WEIGHTS]


def test_what_an_earlier_run_left_is_not_believed(hub: ToyHub, published: str, tiny: Files) -> None:
    part = parts_folder(NAME) / published
    part.mkdir(parents=True)
    (part / WEIGHTS).write_bytes(bytes(5_000))
    (part / "tokenizer.json").write_bytes(bytes(len(tiny["tokenizer.json"]) + 9))

    pulled = pull(NAME)

    assert weight_requests(hub) == ["bytes=5000-", None]
    for name in (WEIGHTS, "tokenizer.json"):
        assert (pulled.path / name).read_bytes() == tiny[name]


def test_a_hub_that_knows_no_ranges_sends_the_whole_file_again(
    hub: ToyHub, published: str, tiny: Files
) -> None:
    hub.manners.cut_at = [1_000]
    hub.manners.ignores_ranges = True

    assert (pull(NAME).path / WEIGHTS).read_bytes() == tiny[WEIGHTS]


@pytest.mark.parametrize("file", [WEIGHTS, "tokenizer.json"])
def test_a_file_that_is_not_the_one_described_is_refused_and_dropped(
    hub: ToyHub, published: str, file: str
) -> None:
    hub.manners.altered = {file}

    with pytest.raises(DownloadFailed, match=f"{file} is not the file that the hub describes"):
        pull(NAME)

    assert not (parts_folder(NAME) / published / file).exists()
    with pytest.raises(ModelNotFound):
        model_folder(NAME)
    hub.manners.altered = set()
    assert pull(NAME).path.name == published


@pytest.mark.parametrize("ignores_ranges", [False, True])
def test_a_file_that_is_too_short_is_not_asked_for_for_ever(
    hub: ToyHub, published: str, ignores_ranges: bool
) -> None:
    hub.manners.short = {WEIGHTS}
    hub.manners.ignores_ranges = ignores_ranges

    with pytest.raises(DownloadFailed, match=f"{WEIGHTS} is not the file"):
        pull(NAME)

    assert len(weight_requests(hub)) == 2


@pytest.mark.parametrize("error", [ValueError("mine"), BrokenPipeError("mine too")])
def test_an_error_of_the_listener_ends_the_pull(
    hub: ToyHub, published: str, error: Exception
) -> None:
    def listen(progress: PullProgress) -> None:
        if progress.done > 100_000:
            raise error

    with pytest.raises((type(error), DownloadFailed)):
        pull(NAME, on_progress=listen)

    assert len(weight_requests(hub)) == 1


def test_two_pulls_at_once_fetch_it_once(hub: ToyHub, published: str, tiny: Files) -> None:
    found: list[Path] = []
    waited = threading.Event()

    def second() -> None:
        found.append(pull(NAME, on_progress=lambda _: waited.set()).path)

    other = threading.Thread(target=second)

    def let_it_wait(progress: PullProgress) -> None:
        if not other.ident:
            other.start()
            assert waited.wait(20)

    found.append(pull(NAME, on_progress=let_it_wait).path)
    other.join()

    assert found[0] == found[1]
    assert weight_requests(hub) == [None]


# ---------------------------------------------------------------- what is said when it fails


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
