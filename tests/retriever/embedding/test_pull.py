"""A model is pulled whole or not at all, from a hub on the loopback."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from toy_hub import NAME, TOKEN, WEIGHTS, Files, ToyHub

from mmsearch.errors import (
    DownloadFailed,
    ModelNotFound,
)
from mmsearch.retriever.embedding.library import (
    available_models,
    model_folder,
    parts_folder,
)
from mmsearch.retriever.embedding.load import load_embedder, model_space
from mmsearch.retriever.embedding.pull import PullProgress, pull, remove
from mmsearch.values import Item


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
