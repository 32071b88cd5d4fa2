"""The trials of reliability in short; ``benchmarks/reliability`` has them at length.

Each runs as a program of its own: they fork from a process that has opened no index, mount
small disks and look at all children of theirs, none of which suits the process of the tests.
"""

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # scripts, and no part of the package

faults, forks, holdings, mutants = (
    importlib.import_module(f"reliability.{name}")
    for name in ("faults", "forks", "holdings", "mutants")
)
CORPUS = BENCHMARKS.parent / "sample_corpus" / "files"
NUM_KILLS, NUM_FILES = 25, 200  # kills of each of two seeds


def trial(script: str, tmp_path: Path, *options: object) -> Any:
    """Run a trial and return what it wrote down; it ends non-zero where something is wrong."""
    out = tmp_path / "found.json"
    command = [sys.executable, str(BENCHMARKS / "reliability" / script), "--out", str(out)]
    done = subprocess.run(
        [*command, "--scratch", str(tmp_path), *map(str, options)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2))  # side by side
def test_killed_again_and_again_nothing_is_lost_or_doubled(tmp_path: Path, seed: int) -> None:
    enough = ("--kills", 4, "--enough", NUM_KILLS, "--trials", 99)
    found = trial("kill.py", tmp_path, *enough, "--seed", seed)

    assert found["wrong"] == []
    assert found["kills"] >= NUM_KILLS
    assert found["boundaries_killed_at"] >= NUM_KILLS // 4, "kills at many different places"
    assert found["readers_between_saw"].get("between"), "some kills parted a run"


def test_every_damaged_file_is_read_or_its_failure_recorded(tmp_path: Path) -> None:
    found = trial("fuzz.py", tmp_path, "--files", NUM_FILES, "--seed", 1)

    assert found["wrong"] == []
    kinds = found["by_kind"]
    assert sum(kind["files"] for kind in kinds.values()) == NUM_FILES
    assert all(kind["ok"] for kind in kinds.values()), "some damage reaches behind the header"
    assert sum(kind["files"] - kind["ok"] for kind in kinds.values()) > NUM_FILES // 4


@pytest.mark.parametrize(
    "case",
    [
        "disk_full",
        "read_only",
        "clock_backwards",
        "index_moved",
        "file_changed_while_read",
        "two_at_once",
    ],
)
def test_an_accident_does_no_harm(case: str, tmp_path: Path) -> None:
    found = trial("accidents.py", tmp_path, "--case", case, "--rounds", 1)["cases"][case]

    if found["skipped"]:
        pytest.skip(found["skipped"])
    assert found["wrong"] == []
    assert found["rounds"] > 0


def test_readers_see_whole_states_while_one_writes(tmp_path: Path) -> None:
    found = trial("readers.py", tmp_path, "--minutes", 0.05, "--processes", 2, "--threads", 2)

    assert found["wrong"] == []
    assert found["looks_that_missed_a_commit_done_before_them"] == 0
    assert found["looks_that_held_everything_together"] > 0
    assert sum(found["steps_written"].values()) > 40


# ---------------------------------------------------------------- do the trials see anything?


def test_a_trial_sees_what_is_lost_doubled_or_of_another_version() -> None:
    document, row = ("text", "hash", 1, 1, "done", 1, "", False), ("the text", "digest")
    right = holdings.Holdings({"a": document, "b": document}, {"a": (row,), "b": (row,)}, 0, ())
    lost = replace(right, documents={"a": document}, rows={"a": (row,)})
    doubled = replace(right, rows={"a": (row, row), "b": (row,)})
    older = replace(right, rows={"a": (("an old text", "digest"),), "b": (row,)})

    assert holdings.differences(right, right) == []
    for wrong in (lost, doubled, older):
        assert len(holdings.differences(wrong, right)) == 1
        assert holdings.differences(wrong, right, wrong) == [], "between two states either is right"


def test_a_process_dies_at_the_very_call_that_was_named(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")

    def rename_twice() -> None:
        faults.die_at(faults.Boundary("os.rename", True, occurrence=2))
        (tmp_path / "one").rename(tmp_path / "two")
        (tmp_path / "two").rename(tmp_path / "three")

    assert forks.Fork(rename_twice).outcome() == (False, None)
    assert (tmp_path / "two").exists()


def test_a_damaged_file_is_named_by_its_seed_and_number(tmp_path: Path) -> None:
    made = mutants.Mutants(CORPUS, seed=3)
    for folder in ("once", "again"):
        (tmp_path / folder).mkdir()
    once = [made.make(number, tmp_path / "once") for number in range(24)]
    again = [made.make(number, tmp_path / "again") for number in range(24)]

    assert [one.damage for one in once] == [one.damage for one in again]
    assert [one.path.read_bytes() for one in once] == [one.path.read_bytes() for one in again]
    assert len({one.path.read_bytes() for one in once if one.kind != "srt"}) == 21
