"""The benchmark of indexing runs, at toy size; what it measures means nothing here."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))  # scripts, and no part of the package

document, parts = (
    importlib.import_module(f"ingest_speed.{name}") for name in ("document", "parts")
)


def test_growth_is_counted_a_document() -> None:
    samples = [{"documents": 10.0 * n, "rss_mib": 100.0 + 5.0 * n} for n in range(5)]

    assert parts.slope(samples, "rss_mib") == pytest.approx(0.5)
    assert parts.slope(samples[:1], "rss_mib") == 0.0


def test_the_whole_pipeline_reads_what_its_readers_alone_read(tmp_path: Path) -> None:
    measured = parts.pipeline(tmp_path, num=4, rounds=1)

    for name in ("pictures", "pages"):
        assert measured[name]["segments"] == 4
        assert measured[name]["readers"][0]["segments"] == 4
    lines = document._pipeline(measured, tmp_path)
    assert any(line.startswith("| 4 pages |") for line in lines)
    assert (tmp_path / "ingest-pipeline.png").stat().st_size > 0


def test_a_soak_leaves_nothing_behind(tmp_path: Path) -> None:
    measured = parts.soak(tmp_path, num=12, every_s=0.05)

    assert (measured["documents"], measured["failed"], measured["problems"]) == (12, 0, [])
    assert measured["after"]["children"] <= measured["before"]["children"]
    assert list(tmp_path.iterdir()) == []


def test_a_part_is_measured_and_written_down(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/ingest.py"), "--only", "unchanged"]
    command += ["--num", "12", "--rounds", "1", "--scratch", str(tmp_path)]
    command += ["--out", str(tmp_path / "out.json"), "--docs", str(tmp_path / "docs")]
    subprocess.run(command, check=True, capture_output=True)

    measured = json.loads((tmp_path / "out.json").read_text())["unchanged"]
    assert (measured["files"], measured["files_opened"]) == (12, 0)
    assert "opens 0 of them" in (tmp_path / "docs/ingest.md").read_text()
