"""``mmsearch model`` as a person sees it; what it pulls comes from a hub on the loopback."""

import json
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from published_folders import PLUME_TOKENS, write_published
from toy_hub import Files, ToyHub
from toy_terminal import Run

from mmsearch.cli import progress
from mmsearch.cli.output import shown_bytes
from mmsearch.retriever.models.tiny import write_random_checkpoint

COMMANDS = ("list", "pull", "info", "verify", "convert", "remove")
PLUME = "CUDAOUTOFMEMORY/PLUME-Qwen2-VL-2B"


@pytest.fixture
def run(run: Run) -> Run:
    """Run ``mmsearch model`` with these words."""
    return partial(run, "model")


@pytest.fixture
def tiny(tiny: Files) -> Files:
    return {**tiny, "LICENSE": b"Apache-2.0"}


@pytest.fixture(scope="module")
def pickled(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """PLUME as its authors would have published it, had they pickled it."""
    folder = tmp_path_factory.mktemp("pickled")
    write_published(folder, tokens=PLUME_TOKENS, num_experts=2, pickled=True)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def hub(hub: ToyHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Files) -> ToyHub:
    """A hub with the tiny model under PLUME's name."""
    monkeypatch.chdir(tmp_path)
    hub.publish(PLUME, tiny)
    return hub


def examples(help_text: str) -> list[str]:
    return [line.strip() for line in help_text.splitlines() if line.startswith("      mmsearch ")]


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_has_help_and_every_command_an_example(command: str, run: Run) -> None:
    help_text = run(command, "--help").out

    for option in re.findall(r"^  --\S.*$", help_text, re.MULTILINE):
        assert re.search(r"\S  +\S", option.strip()), f"no help beside {option}"
    assert examples(help_text)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_in_the_help_run(command: str, hub: ToyHub, run: Run, pickled: Files) -> None:
    if command == "convert":
        hub.publish(PLUME, pickled)
    if command in ("remove", "convert"):
        run("pull", "plume")
    for example in examples(run(command, "--help").out):
        done = run(*shlex.split(example)[2:])

        assert done.code == 0, f"{example}\n{done.err}"


def test_help_and_list_load_nothing_heavy() -> None:
    script = (
        "import sys, mmsearch.cli.main as m\n"
        "for words in (['model', '--help'], ['model', 'list', '--all', '--json']):\n"
        "    try: m.app(words)\n"
        "    except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'transformers', 'huggingface_hub', 'safetensors', 'httpx2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.stdout.splitlines()[-1] == "[]"


# ---------------------------------------------------------------- pull, list, remove


def test_a_piped_pull_is_one_json_object_and_says_how_to_go_on(hub: ToyHub, run: Run) -> None:
    done = run("pull", "plume")

    assert done.code == 0
    assert (done.json["name"], done.json["repository"]) == ("plume", PLUME)
    assert Path(done.json["path"], "model.safetensors").is_file()
    size = shown_bytes(done.json["bytes"])
    assert done.err == f"plume is here ({size}): mmsearch index PATH --model plume\n"


def test_pulled_models_are_listed_and_then_removed(hub: ToyHub, run: Run) -> None:
    assert [one["name"] for one in run("list").json] == ["default"]

    pulled = run("pull", "plume").json
    assert [one["name"] for one in run("list").json] == ["default", "plume"]
    done = run("remove", "plume")

    assert done.json == [{"path": pulled["path"], "bytes": pulled["bytes"]}]
    assert done.err == f"removed {pulled['path']} ({shown_bytes(pulled['bytes'])})\n"
    assert [one["name"] for one in run("list").json] == ["default"]


def test_all_adds_what_could_be_pulled_and_is_not_here(
    hub: ToyHub, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("pull", "plume")

    rows = {one["name"]: one for one in run("list", "--all").json}

    assert rows["plume"]["installed"]
    assert not rows["gme"]["installed"]
    assert rows["gme"]["repository"] == "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct"
    monkeypatch.setenv("COLUMNS", "200")
    table = run("list", "--all", "--no-json")
    assert re.search(r"gme +not here yet\.", table.out)
    assert re.search(rf"plume +none +32 +{shown_bytes(rows['plume']['bytes'])} ", table.out)
    assert table.err == "fetch one: mmsearch model pull ume-r1\n"


def test_progress_is_a_line_now_and_then_where_nobody_watches(
    hub: ToyHub, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SAY_EVERY_S", 0.0)

    said = run("pull", "plume").err.splitlines()

    assert re.fullmatch(r"model\.safetensors: (\d+\.\d kB) of \1, \d+\.\d [kM]B/s", said[-2]), said


def test_progress_is_a_bar_on_a_terminal(
    hub: ToyHub, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")

    said = run("pull", "plume").err

    assert "asking the hub" in said
    assert "━" in said


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (
            ["pull", "nobody"],
            "cannot fetch nobody: it is neither a known name nor OWNER/NAME",
            "mmsearch model list --all",
        ),
        (
            ["pull", "someone/else"],
            "cannot fetch someone/else: the hub has no such repository, "
            "or shows it to its members only",
            "mmsearch model list --all names some; a private one needs HF_TOKEN=...",
        ),
        (
            ["pull", "plume@v9"],
            f"cannot fetch plume@v9: {PLUME} has no revision 'v9'",
            f"mmsearch model pull {PLUME} takes its newest; "
            "a commit is named with all its 40 digits",
        ),
        (["info", "gme"], "no model named 'gme', and no such folder", "mmsearch model pull gme"),
        (
            ["verify", "nobody"],
            "no model named 'nobody', and no such folder",
            "mmsearch model list",
        ),
        (
            ["remove", "default"],
            "'default' was not pulled, so there is nothing to remove",
            "mmsearch model list",
        ),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_a_sentence_a_remedy_and_exit_code_1(
    hub: ToyHub, run: Run, words: list[str], error: str, hint: str
) -> None:
    assert run(*words) == (1, "", f"error: {error}\n  try: {hint}\n")


def test_without_a_network_the_other_ways_are_named(
    hub: ToyHub, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    done = run("pull", "plume")

    assert done.code == 1
    assert done.err.startswith("error: cannot fetch plume: http://127.0.0.1:9 cannot be reached")
    assert "--model DIR" in done.err.splitlines()[1]


# ---------------------------------------------------------------- info and verify


def test_info_tells_what_a_model_is(hub: ToyHub, run: Run) -> None:
    run("pull", "plume")

    told = run("info", "plume").json

    assert (told["family"], told["reasoner"], told["dim"]) == ("default", "none", 32)
    assert (told["effort"], told["efforts"], told["layout"]) == (0, [0], "own")
    assert (told["max_pixels"], told["max_frames"]) == (64 * 64, 4)
    assert told["prompts"] == {"query": "", "document": ""}
    assert told["licences"] == ["LICENSE"]
    assert re.fullmatch("[0-9a-f]{16}", told["space"])
    [weights] = [one for one in told["files"] if one["name"] == "model.safetensors"]
    assert re.fullmatch("[0-9a-f]{64}", weights["sha256"])
    assert weights["bytes"] > 100_000
    page = run("info", "plume", "--no-json").out
    assert re.search(rf"^pulled from +{PLUME} \(main\)$", page, re.MULTILINE)
    assert re.search(rf"^space +{told['space']}$", page, re.MULTILINE)


def test_info_of_a_folder_needs_no_name(hub: ToyHub, run: Run, tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "mine", seed=1)

    told = run("info", "./mine").json

    assert told["path"] == "mine"
    assert told["repository"] is None


def test_a_name_from_elsewhere_steers_no_terminal(hub: ToyHub, run: Run, tiny: Files) -> None:
    description = json.loads(tiny["mmsearch.json"]) | {"about": "\x1b[2Jgone"}
    hub.publish("someone/evil", {**tiny, "mmsearch.json": json.dumps(description).encode()})
    run("pull", "someone/evil")

    shown = run("info", "someone/evil", "--no-json").out + run("list", "--no-json").out

    assert "\x1b" not in shown
    assert "gone" in shown


def test_verify_says_ok_file_by_file(hub: ToyHub, run: Run) -> None:
    run("pull", "plume")

    done = run("verify", "plume", "--no-json")

    assert done.code == 0
    files = ["LICENSE", "model.safetensors", "tokenizer.json", "tensors"]
    assert done.out.splitlines() == [f"ok     {name}" for name in files]


def test_verify_finds_a_changed_bit_and_a_missing_file(hub: ToyHub, run: Run) -> None:
    folder = Path(run("pull", "plume").json["path"])
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "LICENSE").unlink()

    done = run("verify", "plume")

    assert done.code == 1
    assert {one["name"]: one["problem"] for one in done.json} == {
        "LICENSE": "it is not there",
        "model.safetensors": "it is not the file that was described",
        "tokenizer.json": None,
    }
    assert "mmsearch model remove plume" in done.err


def test_verify_compares_the_tensors_with_the_description(
    hub: ToyHub, run: Run, tmp_path: Path
) -> None:
    write_random_checkpoint(tmp_path / "mine", seed=1)
    description = json.loads((tmp_path / "mine" / "mmsearch.json").read_text())
    description["backbone"]["config"]["decoder"]["num_layers"] = 3
    (tmp_path / "mine" / "mmsearch.json").write_text(json.dumps(description))

    done = run("verify", "./mine", "--no-json")

    assert done.code == 1
    assert re.search(r"^wrong  tensors: missing tensors .*decoder", done.out, re.MULTILINE)


def test_verify_of_a_folder_that_is_no_model_says_so(hub: ToyHub, run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mmsearch.json").write_text("{")

    done = run("verify", "./mine", "--no-json")

    assert done.code == 1
    assert done.out.startswith("wrong  mmsearch.json: mmsearch.json cannot be read")
    assert "fetch or convert that folder again" in done.err
    assert "model remove" not in done.err


# ---------------------------------------------------------------- convert


def test_a_pickled_model_is_pulled_converted_and_used(
    hub: ToyHub, run: Run, pickled: Files
) -> None:
    hub.publish(PLUME, pickled)

    refused = run("pull", "plume")
    done = run("convert", "plume", "mine", "--dtype", "float32")

    assert refused.code == 1
    assert "its weights are pickles" in refused.err
    assert refused.err.endswith(
        "try: mmsearch model convert plume DIR, then name DIR with --model\n"
    )
    assert (done.code, done.json["path"], done.json["reasoner"]) == (0, "mine", "rollout")
    assert run("verify", "./mine").code == 0


def test_convert_keeps_what_is_there(hub: ToyHub, run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()

    done = run("convert", "default", "mine")

    assert done.code == 1
    assert "mine is there already" in done.err
