"""Speed, recall and memory of vector search, by back-end and by size.

    python benchmarks/index.py                        everything; 25 minutes on two cores
    python benchmarks/index.py --rows 20000 200000    without the largest index
    python benchmarks/index.py --only filters search  these parts again, of what was measured
    python benchmarks/index.py --page                 tables and plots of the last figures

An index of clustered vectors is filled, indexed and asked; each step in a process of its
own, whose memory is that of the step. Every figure of ours stands beside the library's own
call in the same process. Figures go to benchmarks/results/index.json, part by part, so that
a run that is ended early keeps what it found; tables and plots to docs/.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "benchmarks")) if path not in sys.path]
os.environ.setdefault("RUST_LOG", "error")  # of lancedb, read once when it is loaded

from index_speed.world import Case  # noqa: E402

ROWS = (20_000, 200_000, 2_000_000)
# Beyond this many rows only the smaller dimension fits a run.
MOST_ROWS_WIDE = MOST_ROWS_WHOLE = MOST_ROWS_EXACT = 200_000
PARTS = ("lance", "faiss", "exact", "search", "matryoshka")


def main() -> None:
    """Measure what was asked for, write the figures, the page and the plots."""
    asked = arguments()
    if asked.child:
        print(json.dumps(child(json.loads(asked.child))))
        return
    known: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.is_file() else {}
    if not asked.page:
        found = measure(asked, known)
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(found, indent=2) + "\n")
    else:
        found = known
    from index_speed.report import page, plot

    plot(found, asked.docs / "scaling")
    text = page(found, "scaling")
    (asked.docs / "scaling.md").write_text(text)
    print(text)


def measure(asked: argparse.Namespace, known: dict[str, Any]) -> dict[str, Any]:
    """Return the figures: those that are known, and in their place those measured now."""
    from index_speed.report import machine

    found = {
        "command": shlex.join(["python", "benchmarks/index.py", *sys.argv[1:]]),
        "machine": machine(),
        "cases": known.get("cases", {}) if asked.keep or asked.only else {},
    }
    if "matryoshka" in known and (asked.keep or asked.only):
        found["matryoshka"] = known["matryoshka"]

    def save() -> None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(found, indent=2) + "\n")

    parts = asked.only or PARTS
    if asked.work:
        asked.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mmsearch-index-", dir=asked.work) as work:
        for case in cases(asked, parts):
            folder = Path(work) / case.folder
            here = found["cases"].setdefault(case.folder, {})
            here |= {"name": case.name, "rows": case.rows, "dim": case.dim}
            here["made"] = run("make", case, folder)
            save()
            for backend in ("lance", "faiss"):
                if backend in parts or case.whole:
                    here.setdefault("build", {})[backend] = run(f"build {backend}", case, folder)
                    save()
            if case.whole:
                # Built twice over, for two views: not to be compared with the other cases.
                here.pop("build")
                for backend in ("lance", "faiss"):
                    one = run(f"search {backend}", case, folder)
                    here.setdefault("search", {})[backend] = one
                    save()
            else:
                for backend in ("lance", "faiss", "exact"):
                    is_too_much = backend == "exact" and case.rows > MOST_ROWS_EXACT
                    if backend in parts and not is_too_much:
                        one = run(f"ask {backend}", case, folder)
                        here.setdefault("ask", {})[backend] = one
                        save()
            shutil.rmtree(folder)
        if "matryoshka" in parts:
            found["matryoshka"] = run("matryoshka", Case(rows=asked.matryoshka_rows, dim=384), None)
            save()
    return found


def cases(asked: argparse.Namespace, parts: list[str]) -> list[Case]:
    """Return the indexes that the parts need."""
    found = []
    for rows in asked.rows:
        if {"lance", "faiss", "exact"} & set(parts):
            found += [Case(rows=rows, dim=384)]
            if 20_000 < rows <= MOST_ROWS_WIDE:
                found.append(Case(rows=rows, dim=768))
        if "search" in parts and (rows == MOST_ROWS_WHOLE or asked.rows == [rows]):
            found.append(Case(rows=rows, dim=384, whole=True))
    return found


def run(step: str, case: Case, folder: Path | None) -> dict[str, Any]:
    """Run one step in a process of its own and return what it found."""
    began = time.perf_counter()
    asked = {
        "step": step,
        "rows": case.rows,
        "dim": case.dim,
        "whole": case.whole,
        "folder": str(folder),
    }
    command = [sys.executable, __file__, "--child", json.dumps(asked)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.stderr.write(ended.stderr)
        raise SystemExit(f"{step} of {case.name} ended with {ended.returncode}")
    print(f"{time.perf_counter() - began:7.1f} s  {case.name}: {step}", file=sys.stderr, flush=True)
    return json.loads(ended.stdout.splitlines()[-1])


def child(asked: dict[str, Any]) -> dict[str, Any]:
    """Do one step."""
    from index_speed import asking, building, world

    case = Case(rows=asked["rows"], dim=asked["dim"], whole=asked["whole"])
    folder = Path(asked["folder"])
    step, _, backend = asked["step"].partition(" ")
    if step == "make":
        return world.make(case, folder)
    if step == "matryoshka":
        from index_speed.matryoshka import measure

        return measure(ROOT / "sample_corpus", case.rows)
    here = world.open_world(case, folder)
    if step == "build":
        return {"lance": building.build_lance, "faiss": building.build_faiss}[backend](here)
    if step == "search":
        return asking.ask_searcher(here, backend)
    return asking.ask_backend(here, backend)


def arguments() -> argparse.Namespace:
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", type=int, default=list(ROWS))
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts; others are kept")
    parser.add_argument("--keep", action="store_true", help="figures of sizes not asked for")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    parser.add_argument("--matryoshka-rows", type=int, default=200_000)
    parser.add_argument("--work", type=Path, help="folder for the indexes; 8 GB for 2,000,000")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/index.json")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
