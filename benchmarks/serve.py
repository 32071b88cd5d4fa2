"""Speed of the server on this machine, with the default model, over loopback.

    python benchmarks/serve.py                        everything, about three minutes
    python benchmarks/serve.py --only command_line    one part
    python benchmarks/serve.py --short                fewer rounds: what the figures mean is less

Each part replaces its figures in ``benchmarks/results/serve.json``, and the table of
``docs/serving.md`` is made from all that is there. See `serve_speed.measures` for what is
measured, and ``benchmarks/serve_soak.py`` for hours of it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "benchmarks")) if path not in sys.path]

from serve_speed import document, measures  # noqa: E402
from serve_speed.running import MMSEARCH, running, serving  # noqa: E402

CORPUS = ROOT / "sample_corpus" / "files"
RESULTS = ROOT / "benchmarks" / "results"
PARTS = ("start", "command_line", "overhead", "concurrency", "encodings")


def main() -> None:
    """Measure what is asked for, keep it, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="A part; repeatable.")
    parser.add_argument("--db", type=Path, help="An index that is there; else one is made.")
    parser.add_argument("--short", action="store_true", help="A quarter of the rounds.")
    parser.add_argument("--out", type=Path, default=RESULTS / "serve.json")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "serving.md")
    asked = parser.parse_args()
    parts = asked.only or PARTS
    with tempfile.TemporaryDirectory() as scratch:
        here = document.machine()
        db = asked.db or indexed(Path(scratch) / "db", CORPUS)
        measured = measure(parts, db, Path(scratch), here, share=0.25 if asked.short else 1.0)
    results = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(results | measured, indent=1) + "\n")
    for part, told in measured.items():
        for name, value in told["figures"].items():
            print(f"{part:<14} {name:<28} {value:>10.2f}")
    document.write(asked.docs, speed=results | measured)


def measure(
    parts: tuple[str, ...], db: Path, scratch: Path, here: dict[str, object], *, share: float
) -> dict[str, dict[str, Any]]:
    """Return the figures of each part, and what the machine was before the first of them."""
    measured: dict[str, dict[str, Any]] = {}

    def keep(part: str, figures: measures.Figures) -> None:
        measured[part] = {
            "figures": {name: round(value, 4) for name, value in figures.items()},
            "machine": here,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
        }

    def rounds(number: int) -> int:
        return max(1, round(number * share))

    if "start" in parts:
        keep("start", measures.start(db, rounds=rounds(5)))
    if {"command_line", "overhead", "concurrency"} & set(parts):
        with running(serving(db)) as server:
            if "command_line" in parts:
                keep("command_line", measures.command_line(db, rounds=rounds(12)))
            if "overhead" in parts:
                keep("overhead", measures.overhead(db, server, rounds=rounds(300)))
            if "concurrency" in parts:
                keep("concurrency", measures.concurrency(server, each=rounds(200), rounds=3))
    if "encodings" in parts:
        keep("encodings", measures.encodings(scratch, inputs=256, rounds=rounds(12)))
    return measured


def indexed(db: Path, corpus: Path) -> Path:
    """Index a folder without OCR, return the index."""
    subprocess.run([*MMSEARCH, "index", str(corpus), "--db", str(db), "--no-ocr"], check=True)
    return db


if __name__ == "__main__":
    main()
