"""Speed and memory of indexing on this machine.

    python benchmarks/ingest.py                       everything, about 20 minutes
    python benchmarks/ingest.py --only pipeline       one part
    python benchmarks/ingest.py --only soak --num 20000

Each part runs in a process of its own and replaces its figures in
``benchmarks/results/ingest.json``; ``docs/ingest.md`` and its pictures are made from all
that is there. See `ingest_speed.parts` for what is measured.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "benchmarks")) if path not in sys.path]

# How many files, where --num does not say.
PARTS = {
    "pipeline": 1_920,
    "default": 240,
    "searchable": 48,
    "unchanged": 100_000,
    "soak": 100_000,
}
PACKAGES = ("mmsearch", "lancedb", "numpy", "pillow", "pymupdf", "pyarrow", "torch")


def main() -> None:
    """Measure what is asked for, keep it, and write the page."""
    asked = _arguments()
    parts = [asked.only] if asked.only else list(PARTS)
    if len(parts) > 1:
        for part in parts:  # memory of one shall not count for the next
            command = [sys.executable, __file__, "--only", part, *_passed_on(asked)]
            subprocess.run(command, check=True)
        return
    [part] = parts
    measured = _measure(part, asked) | {
        "machine": _machine(),
        "command": f"python benchmarks/ingest.py --only {part} --num {asked.num or PARTS[part]}",
    }
    results = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    results[part] = measured
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(results, indent=1) + "\n")
    shown = {
        name: value
        for name, value in measured.items()
        if name not in ("samples", "runs", "machine", "rates")
    }
    print(json.dumps({part: shown}, indent=1, default=str))
    if asked.docs:
        from ingest_speed import document

        asked.docs.mkdir(parents=True, exist_ok=True)
        document.write(results, asked.docs)


def _measure(part: str, asked: argparse.Namespace) -> dict[str, Any]:
    from ingest_speed import parts

    num = asked.num or PARTS[part]
    options: dict[str, Any] = {"num": num}
    if part in ("pipeline", "default", "unchanged"):
        options["rounds"] = asked.rounds
    if part == "soak":
        options["every_s"] = asked.every
    with tempfile.TemporaryDirectory(dir=asked.scratch) as scratch:
        measured: dict[str, Any] = getattr(parts, part)(Path(scratch), **options)
    return measured


def _machine() -> dict[str, Any]:
    from mmsearch.retriever.embedding.cores import num_cores

    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cores": num_cores(),
        "cpu": names[0] if names else platform.processor(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "date": time.strftime("%Y-%m-%d"),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=PARTS, help="measure this part alone")
    parser.add_argument("--num", type=int, help="files (pages, pictures) of a part")
    parser.add_argument("--rounds", type=int, default=5, help="runs of which the median counts")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between samples")
    parser.add_argument("--scratch", type=Path, help="where files and indexes are made")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "ingest.json")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page goes")
    return parser.parse_args()


def _passed_on(asked: argparse.Namespace) -> list[str]:
    options = {
        "--num": asked.num,
        "--rounds": asked.rounds,
        "--every": asked.every,
        "--scratch": asked.scratch,
        "--out": asked.out,
        "--docs": asked.docs,
    }
    return [
        str(word) for name, value in options.items() if value is not None for word in (name, value)
    ]


if __name__ == "__main__":
    main()
