"""``mmsearch train`` and ``mmsearch export``, as a person and a pipe meet them."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from toy_terminal import Run

from mmsearch import Engine
from mmsearch.retriever.training.toy import toy_examples
from mmsearch.training import known_configs

SHORT = ["--set", "run.steps=4", "--set", "data.toy=16", "--set", "data.held_out_toy=4"]
SHORT += ["--set", "run.batch=4", "--set", "run.save_every=2", "--set", "run.probe_every=0"]


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run ``mmsearch`` in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Twenty pairs of words and pictures; a row without words, and one whose file is missing."""
    lines: list[dict[str, Any]] = []
    for number, example in enumerate(toy_examples(20, seed=3)):
        drawing = example.positive.parts[0]
        assert not isinstance(drawing, str)
        opened: Any = drawing.open()  # type: ignore[union-attr]
        Image.fromarray(opened.pixels).save(tmp_path / f"{number}.png")
        lines.append({"query": example.query.text, "positive": {"image": f"{number}.png"}})
    lines.append({"query": "a row without an answer"})
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def started(*words: str) -> "subprocess.Popen[str]":
    """Start the command as a program of its own, one thread each."""
    return subprocess.Popen(
        [sys.executable, "-m", "mmsearch", "train", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("command", ["train", "export"])
def test_every_flag_has_help_and_every_command_an_example(command: str, run: Run) -> None:
    text = run(command, "--help").out
    flags = text.partition("Options:")[2]
    assert not re.findall(r"^  --[\w-]+(?: \S+)?\s*$(?!\n {10})", flags, flags=re.MULTILINE)
    assert examples(text)


@pytest.mark.parametrize("command", ["train", "export"])
def test_the_examples_in_the_help_run(command: str, run: Run, pairs: Path) -> None:
    if command == "export":
        run("train", "tiny", *SHORT)
    for number, example in enumerate(examples(run(command, "--help").out)):
        words = shlex.split(example)[1:]
        if words == ["export", "exported"]:
            continue  # of an index: test_cli.py runs it
        if command == "train" and "--from" not in words:
            # Shorter, and each into a folder of its own.
            words += [*SHORT, "--out", f"runs/{number}"]
        done = run(*words)
        assert done.code == 0, f"{example}\n{done.err}"


def examples(text: str) -> list[str]:
    return re.findall(r"^ +(mmsearch .+)$", text, flags=re.MULTILINE)


def test_the_exit_codes_are_told(run: Run) -> None:
    text = " ".join(run("train", "--help").out.split())
    assert "0 trained; 1 stopped" in text
    assert "130 interrupted" in text


# ---------------------------------------------------------------- from end to end


def test_tiny_learns_and_its_model_searches(run: Run, tmp_path: Path) -> None:
    done = run("train", "tiny", "--out", "run")
    assert done.code == 0, done.err
    *steps, last = done.lines
    report = last["report"]
    # Of the loss that both stages have: the second adds others to it.
    first, last_ten = steps[0]["parts"]["gen"], [one["parts"]["gen"] for one in steps[-10:]]
    assert sum(last_ten) / 10 < 0.5 * first
    before, after = report["recall_before"], report["recall"]
    assert after["query_to_positive"]["10"] > 2 * before["query_to_positive"]["10"]
    assert after["positive_to_query"]["10"] > 2 * before["positive_to_query"]["10"]
    assert "held-out R@1 / R@10" in done.err
    assert (tmp_path / "run" / "curves.png").stat().st_size > 5_000

    exported = run("export", "run", "model")
    assert exported.code == 0, exported.err
    (tmp_path / "pictures").mkdir()
    held_out = toy_examples(24, seed=5)
    for number, example in enumerate(held_out):
        drawing: Any = example.positive.parts[0]
        Image.fromarray(drawing.open().pixels).save(tmp_path / "pictures" / f"{number}.png")
    indexed = run("index", "pictures", "--no-ocr", "--model", "model", "--db", "db")
    assert indexed.code == 0, indexed.err
    places = []
    with Engine.open(tmp_path / "db") as engine:
        for number, example in enumerate(held_out):
            names = [Path(hit.path).name for hit in engine.query(example.query.text, k=24)]
            places.append(names.index(f"{number}.png"))
    # By chance the right one stands in the middle, at 11.5.
    assert sum(places) / len(places) < 8


def test_export_refuses_what_is_no_run(run: Run, tmp_path: Path) -> None:
    done = run("export", "nowhere", "model")
    assert done.code == 1
    assert "nowhere" in done.err
    assert not (tmp_path / "model").exists()


# ---------------------------------------------------------------- pairs of one's own


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    run: Run, pairs: Path, tmp_path: Path
) -> None:
    with pairs.open("a") as file:
        same = {"query": {"image": "3.png"}, "positive": {"image": "3.png"}}
        file.write(json.dumps(same) + "\n")
    before = sorted(tmp_path.iterdir())
    done = run("train", "--from", "pairs.jsonl", "--model", "tiny-default", "--dry-run")
    assert done.code == 0, done.err
    (told,) = done.lines
    assert told["bad_rows"] == 1
    assert told["bad"][0]["row"] == "pairs.jsonl:21"
    assert "pairs.jsonl:22" in [leak["row"] for leak in told["leaks"]]
    assert told["rows"] + told["held_out"] + len(told["leaks"]) == 21
    assert told["steps"] >= 20
    assert 0 < told["trained"] <= told["parameters"]
    assert told["memory"]["weights"] > 4 * told["trained"] - 1
    assert told["recipe"] == "plain"
    assert "recipe plain: " in done.err
    assert sorted(tmp_path.iterdir()) == before


def test_as_a_table_it_names_the_same(run: Run, pairs: Path) -> None:
    done = run(
        "train", "--from", "pairs.jsonl", "--model", "tiny-default", "--dry-run", "--no-json"
    )
    names = [line.split("  ")[0] for line in done.out.splitlines()]
    assert names == [
        *("model", "recipe", "device", "rows", "held out", "bad rows", "leaks", "steps"),
        *("stages", "trained", "memory"),
    ]


@pytest.mark.parametrize("recipe", ["plain", "lame", "plume"])
def test_own_pairs_are_trained_on_with_any_recipe(run: Run, pairs: Path, recipe: str) -> None:
    done = run(
        *("train", "--from", "pairs.jsonl", "--model", "tiny-default", "--recipe", recipe),
        *("--set", "run.steps=2", "--set", "run.batch=4", "--out", "run"),
    )
    assert done.code == 0, done.err
    assert [line["step"] for line in done.lines[:-1]] == [1, 2]
    assert "mmsearch export run" in done.err
    assert "training on 19 pairs; bad rows: 1, left out: 0 (metrics.jsonl names them)" in done.err
    assert "19 pairs were trained on, 1 were kept back\nbad: pairs.jsonl:21: " in done.err


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "name a configuration"),
        (["tiny", "--held-out", "pairs.jsonl"], 2, "it goes with --from"),
        (["tiny", "--recipe", "lame"], 2, "tiny has a recipe"),
        (["tinny"], 2, "no such file, nor a ready configuration"),
        (["tiny", "--set", "run.stps=3"], 2, "did you mean steps?"),
        (["tiny", "--set", "run.batch=1"], 2, "contrast needs at least 2 pairs"),
        (["tiny", "--set", "objective.name=plume"], 2, "latent steps"),
        (["tiny", "--set", "model.frozen=['*']"], 2, "nothing of the model is left"),
        (["tiny", "--set", "run.device=cuda:9"], 2, "device"),
        (["tiny", "--set", "model.start=nowhere"], 1, "no model named 'nowhere'"),
        (["--from", "nowhere.jsonl"], 1, "nowhere.jsonl"),
        (["--from", "pairs.jsonl", "--recipe", "best"], 2, "lame, plain, plume"),
    ],
)
def test_a_mistake_is_one_sentence_and_a_remedy(
    run: Run, pairs: Path, words: list[str], code: int, said: str, tmp_path: Path
) -> None:
    done = run("train", *words)
    assert done.code == code
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "runs").exists()


def test_an_empty_file_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    done = run("train", "--from", "empty.jsonl", "--model", "tiny-default")
    assert done.code == 1
    assert "empty.jsonl" in done.err


def test_one_pair_is_not_enough(run: Run, pairs: Path) -> None:
    pairs.write_text(pairs.read_text().splitlines()[0] + "\n")
    done = run("train", "--from", "pairs.jsonl", "--model", "tiny-default")
    assert done.code == 1
    assert "contrast needs two" in done.err


def test_a_second_run_does_not_write_over_the_first(run: Run) -> None:
    assert run("train", "tiny", *SHORT).code == 0
    done = run("train", "tiny", *SHORT)
    assert done.code == 1
    assert "holds a run that got to step 4" in done.err
    assert "--resume" in done.err
    assert run("train", "tiny", *SHORT, "--resume", "--set", "run.seed=1").code == 1


def test_the_ready_configurations_are_listed(run: Run) -> None:
    (listed,) = run("train", "--list").lines
    assert [one["name"] for one in listed] == [one.name for one in known_configs()]  # type: ignore[index]


# ---------------------------------------------------------------- interrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on(number: signal.Signals, run: Run, tmp_path: Path) -> None:
    longer = [*SHORT, "--set", "run.steps=40", "--set", "run.save_every=0", "--out", "run"]
    process = started("tiny", *longer)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert first["step"] == 1
    done = 1 + len(out.splitlines())
    assert done < 40, "it was told too late for this test"
    assert f"step-{done:08} is whole, run it again with --resume" in err
    assert "Traceback" not in err

    resumed = run("train", "tiny", *longer, "--resume")
    assert resumed.code == 0, resumed.err
    assert resumed.lines[0]["step"] == done + 1
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    kept = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in kept if "loss" in line] == list(range(1, 41))


# ---------------------------------------------------------------- together


def test_two_processes_learn_what_one_learns(run: Run, tmp_path: Path) -> None:
    alone = run("train", "tiny", *SHORT, "--out", "alone")
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    words += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    together = subprocess.run(
        [*words, "-m", "mmsearch", "train", "tiny", *SHORT, "--out", "together"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert together.returncode == 0, together.stderr
    lines = [json.loads(line) for line in together.stdout.splitlines()]
    assert [line.get("step") for line in lines] == [1, 2, 3, 4, None]  # one of them prints
    ours = [line["loss"] for line in lines[:-1]]
    theirs = [line["loss"] for line in alone.lines[:-1]]
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert lines[-1]["report"]["recall"]["pairs"] == 4
    assert "curves.png" in {path.name for path in (tmp_path / "together").iterdir()}


def test_python_m_is_the_command() -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "mmsearch", "--version"], capture_output=True, text=True
    )
    assert done.stdout.startswith("mmsearch ")
    assert time.monotonic() - began < 30
