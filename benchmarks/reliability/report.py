"""What a trial hands in: the machine, the findings as JSON, a short table."""

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
_LIBRARIES = ("lancedb", "pyarrow", "faiss-cpu", "pymupdf", "decord2", "pillow", "numpy")


def parser(doc: str, trial: str) -> argparse.ArgumentParser:
    """Return a parser with what every trial is asked."""
    ours = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ours.add_argument("--seed", type=int, default=0)
    ours.add_argument("--out", type=Path, default=RESULTS / f"reliability-{trial}.json")
    ours.add_argument("--scratch", type=Path, help="Folder to work in; a temporary one.")
    return ours


def machine() -> dict[str, object]:
    """Return what a trial ran on."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **versions,
        "commit": commit(),
    }


def commit() -> str:
    """Return the commit of the tree, with a plus where the product differs from it."""
    git = ("git", "-C", str(ROOT))
    try:
        name = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True).strip()
        changed = subprocess.check_output([*git, "status", "--porcelain", "mmsearch"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + ("+" if changed.strip() else "")


def write(
    path: Path, here: Mapping[str, object], began: float, findings: Mapping[str, Any]
) -> None:
    """Write what was found; ``began`` is of `time.monotonic`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": here,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "wall_s": round(time.monotonic() - began, 1),
        "cpu_s": round(sum(os.times()[:4]), 1),
        **findings,
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows under their heads, the first column to the left."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )
