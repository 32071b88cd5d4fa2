"""Speed and memory of the main job with the default model, on this machine.

    python benchmarks/engine.py [--runs 5] [--out benchmarks/results/engine.json]

Every figure is a median over runs, and stands beside the baseline it is a ratio
of: a bare typer app for ``--help``, bare imports of torch and lancedb for a cold query.
Indexing is measured in a process of its own, with OCR off, over copies of the
sample corpus; the processor time of its workers counts.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "sample_corpus" / "files"
MMSEARCH = [sys.executable, "-m", "mmsearch.cli.main"]
BARE_TYPER = """
import typer
app = typer.Typer(add_completion=False, rich_markup_mode=None)
@app.callback()
def root(): "A bare app."
@app.command()
def query(text: str = "", k: int = 10): "Ask."
app()
"""
INDEX_RUN = """
import json, resource, sys, time
from pathlib import Path
from mmsearch import Engine
with Engine.open(sys.argv[1], create=True) as engine:
    engine.load()
    began = time.perf_counter()
    report = engine.index([sys.argv[2]], ocr=False)
    wall = time.perf_counter() - began
assert not report.failed, report.failed
own = resource.getrusage(resource.RUSAGE_SELF)
workers = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"segments": report.segments, "wall_s": wall, "rss_mb": own.ru_maxrss / 1024,
    "cpu_s": own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime,
    "stages_s": dict(report.seconds)}))
"""
QUESTIONS = (
    "chart of water losses by district",
    "how long does the battery last",
    "a cat looking at the camera",
    "monthly rainfall",
    "rocket on a launch pad",
    "opening hours of the museum",
    "recipe with lemon",
    "network diagram with a firewall",
)


def main() -> None:
    """Measure, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/engine.json")
    asked = parser.parse_args()
    here = machine()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(Path(scratch), asked.runs)
    rounded = {name: round(value, 4) for name, value in figures.items()}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps({"machine": here, "figures": rounded}, indent=2) + "\n")
    for name, value in figures.items():
        print(f"{name:<34} {value:>10.3f}")


def measure(scratch: Path, runs: int) -> dict[str, float]:
    """Return every figure by name; seconds, megabytes, or a ratio, as the name says."""
    figures: dict[str, float] = {}
    figures |= help_speed(runs)
    figures |= index_speed(scratch, "pdf", text_layer_pdfs(), copies=6)
    figures |= index_speed(scratch, "pdf_x4", text_layer_pdfs(), copies=24)  # is memory flat?
    figures |= index_speed(scratch, "image", sorted((CORPUS / "images").rglob("*.*")), copies=5)
    database = scratch / "corpus"
    run([*MMSEARCH, "index", str(CORPUS), "--db", str(database), "--no-ocr", "--json"])
    figures |= cold_query(database, runs)
    figures |= warm_query(database)
    return figures


def help_speed(runs: int) -> dict[str, float]:
    """``mmsearch --help`` against a bare typer app, in turn."""
    ours, bare = in_turn(
        runs,
        lambda: run([*MMSEARCH, "--help"]),
        lambda: run([sys.executable, "-c", BARE_TYPER, "--help"]),
    )
    return {"help_s": ours, "help_bare_typer_s": bare, "help_ratio": ours / bare}


def index_speed(
    scratch: Path, name: str, files: Sequence[Path], *, copies: int
) -> dict[str, float]:
    """Index copies of files in a fresh process; segments a second and its memory."""
    folder = scratch / f"{name}-files"
    for copy in range(copies):
        (folder / str(copy)).mkdir(parents=True)
        for file in files:
            shutil.copy(file, folder / str(copy) / file.name)
    output = run([sys.executable, "-c", INDEX_RUN, str(scratch / f"{name}-db"), str(folder)])
    found = json.loads(output)
    cores = len(os.sched_getaffinity(0))
    return {
        f"index_{name}_segments": found["segments"],
        f"index_{name}_per_s": found["segments"] / found["wall_s"],
        f"index_{name}_cpu_s_each": found["cpu_s"] / found["segments"],
        f"index_{name}_cores_busy": found["cpu_s"] / found["wall_s"] / cores,
        f"index_{name}_main_rss_mb": found["rss_mb"],
    }


def text_layer_pdfs() -> list[Path]:
    """The PDFs of the sample corpus that need no OCR."""
    import pymupdf

    def has_text(path: Path) -> bool:
        with pymupdf.open(path) as document:
            return all(page.get_text().strip() for page in document)

    return [path for path in sorted(CORPUS.rglob("*.pdf")) if has_text(path)]


def cold_query(database: Path, runs: int) -> dict[str, float]:
    """A query by a new process, against bare imports of what it stands on, in turn."""
    ask = [*MMSEARCH, "query", QUESTIONS[0], "--db", str(database), "--json"]
    cold, torch, both = in_turn(
        runs,
        lambda: run(ask),
        lambda: run([sys.executable, "-c", "import torch"]),
        lambda: run([sys.executable, "-c", "import torch, lancedb"]),
    )
    return {
        "query_cold_s": cold,
        "import_torch_s": torch,
        "import_torch_and_lancedb_s": both,
        "query_cold_beyond_torch_s": cold - torch,
        "query_cold_beyond_both_s": cold - both,
    }


def warm_query(database: Path) -> dict[str, float]:
    """Text queries by one engine that has answered before."""
    from mmsearch import Engine

    spent: list[float] = []
    with Engine.open(database) as engine:
        engine.query(QUESTIONS[0])
        for question in QUESTIONS * 4:
            began = time.perf_counter()
            engine.query(question)
            spent.append(time.perf_counter() - began)
    spent.sort()
    return {
        "query_warm_p50_ms": statistics.median(spent) * 1000,
        "query_warm_p95_ms": spent[int(len(spent) * 0.95)] * 1000,
    }


def in_turn(runs: int, *actions: Callable[[], object]) -> list[float]:
    """Run the actions in turn after one warm-up each; return the median seconds of each."""
    spent: list[list[float]] = [[] for _ in actions]
    for number in range(runs + 1):
        for seconds, action in zip(spent, actions, strict=True):
            began = time.perf_counter()
            action()
            if number:
                seconds.append(time.perf_counter() - began)
    return [statistics.median(seconds) for seconds in spent]


def run(command: Sequence[str]) -> str:
    """Run a command and return what it printed; an error ends the benchmark."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command[:6])} ... ended with {done.returncode}:\n{done.stderr}"
        )
    return done.stdout


def machine() -> dict[str, object]:
    """What the figures are measured on; call it before the load is our own."""
    names = ("torch", "lancedb", "pymupdf", "decord2", "numpy")
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
    }


if __name__ == "__main__":
    main()
