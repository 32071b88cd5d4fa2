"""benchmarks/index.py at a size at which a step takes a moment."""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


def benchmark(*names: str) -> list[Any]:
    """Modules of the benchmark, which no package holds."""
    return [importlib.import_module(name) for name in names]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The figures of one small run, every step in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        index, asking, world = benchmark("index", "index_speed.asking", "index_speed.world")
        patch.setattr(world, "QUESTIONS", 12)
        patch.setattr(asking, "WARM_UP", 2)
        patch.setattr(index, "run", in_process)
        patch.setattr(sys, "argv", ["index.py", "--rows", "1500"])
        asked = argparse.Namespace(
            rows=[1_500],
            only=["lance", "faiss", "exact", "search"],
            keep=False,
            work=None,
            out=tmp_path_factory.mktemp("bench") / "index.json",
        )
        return json.loads(json.dumps(index.measure(asked, {})))


def in_process(step: str, case: Any, folder: Path) -> dict[str, Any]:
    [index] = benchmark("index")
    asked = {"step": step, "rows": case.rows, "dim": 32, "whole": case.whole}
    return index.child(asked | {"folder": str(folder)})


def test_every_backend_is_measured_and_finds_what_there_is(found: dict[str, Any]) -> None:
    case = found["cases"]["1500x384"]
    assert set(case["build"]) == {"lance", "faiss"}
    for backend in ("lance", "faiss", "exact"):
        one = case["ask"][backend]
        assert one["k10"]["recall"] == 1.0, "so few rows are all looked at"
        assert one["raw"]["recall"] >= 0.98
        assert one["over_raw"] == pytest.approx(one["k10"]["p50_ms"] / one["raw"]["p50_ms"])
    for backend in ("lance", "faiss"):
        filtered = case["ask"][backend]["filtered"]
        assert len(filtered) == 8
        assert all(one["recall"] == 1.0 for one in filtered.values())
    assert set(found["cases"]["1500x384-whole"]["search"]["faiss"]) >= {"no filter", "kind"}


def test_the_page_and_the_plots_are_made_of_the_figures_alone(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    [report] = benchmark("index_speed.report")
    found["matryoshka"] = {
        "rows": 5, "lines": 4, "whole_ms": 1.0,
        "ways": [{"dims": 96, "candidates": 3, "p50_ms": 0.5, "recall": 0.75}],
    }  # fmt: skip
    text = report.page(found, "scaling")
    report.plot(found, tmp_path)

    assert "| 1,500 x 384, faiss | 1.0000 |" in text
    assert "| first 96 | 3 | 0.50 | 0.7500 |" in text
    drawn = {path.name for path in tmp_path.iterdir()}
    assert len(drawn) == 3
    assert all(f"scaling/{name}" in text for name in drawn)


def test_what_should_be_found_is_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    vectors_of, world = benchmark("index_speed.vectors", "index_speed.world")
    nearest = vectors_of.nearest
    vectors, _ = vectors_of.clustered(500, 16)
    assert np.linalg.norm(vectors.astype(np.float32), axis=1) == pytest.approx(1.0, abs=1e-2)
    question = vectors[3:4].astype(np.float32)
    assert nearest(vectors, question, 5)[0, 0] == 3
    odd = np.arange(1, 500, 2)
    assert set(nearest(vectors, question, 5, odd)[0] % 2) == {1}
    for name, (_, share, by_cluster) in world.filters(10_000).items():
        rows = world.fitting(10_000, name)
        assert len(rows) == (max(100, 10_000 * share) if by_cluster else round(10_000 * share))
