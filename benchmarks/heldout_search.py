"""How well whole searches answer, OCR and words and vectors together, on books never trained on.

    python benchmarks/heldout_search.py --data DATA [--model MODEL] [--out results.json]

Needs the folder of development data. Two indexes are made and asked:

    charts  the held-out books' charts as picture files, read by OCR; asked by alt text
    pages   their text in pages of about 250 words, a file each; asked by figure captions,
            which any page of the figure's module answers

File names are numbers, so nothing is found by name. R@k is the share of queries with a
right file among the first k.
"""

import argparse
import json
import platform
import random
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmsearch import Engine
from mmsearch.retriever.training.default.pairs import (
    HELD_OUT,
    Pair,
    Paragraph,
    read_pairs,
    read_paragraphs,
)

CHART = re.compile(r"\b(graph|chart|plot|histogram)s?\b", re.IGNORECASE)
PAGE_WORDS = 250
MOST_QUERIES = 350
DEPTHS = (1, 5, 10)


def main() -> None:
    """Make both indexes, ask, print a table, and write the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="figures/, text/, ...")
    parser.add_argument("--model", help="a model's name or folder; the default one otherwise")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    asked = parser.parse_args()
    pairs = read_pairs(asked.data)
    held_out = [pair for pair in pairs if pair.book in HELD_OUT]
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            "description -> chart": charts(held_out, Path(folder) / "charts", asked.model),
            "caption -> text page": pages(
                held_out, read_paragraphs(asked.data, pairs), Path(folder) / "pages", asked.model
            ),
        }
    print("| task | queries of files | " + " | ".join(f"R@{k} %" for k in DEPTHS) + " |")
    print("|---|---|" + "---|" * len(DEPTHS))
    for task, one in figures.items():
        recalls = " | ".join(f"{100 * one[f'R@{k}']:.1f}" for k in DEPTHS)
        print(f"| {task} | {one['queries']:.0f} of {one['files']:.0f} | {recalls} |")
    if asked.out:
        made = {"machine": platform.machine(), "python": platform.python_version()}
        asked.out.write_text(json.dumps({"made": made, "figures": figures}, indent=2) + "\n")


def charts(held_out: Sequence[Pair], folder: Path, model: str | None) -> dict[str, float]:
    """Return the figures of asking for charts by their descriptions."""
    chosen = [pair for pair in held_out if CHART.search(pair.alt)]
    files = folder / "files"
    files.mkdir(parents=True)
    for number, pair in enumerate(chosen):
        shutil.copy(pair.path, files / f"{number:04}{pair.path.suffix}")
    questions = [(pair.alt, {f"{number:04}"}) for number, pair in enumerate(chosen)]
    return ask(files, folder / "index", model, questions)


def pages(
    held_out: Sequence[Pair], paragraphs: Sequence[Paragraph], folder: Path, model: str | None
) -> dict[str, float]:
    """Return the figures of asking for pages of text by captions of the same module."""
    files = folder / "files"
    files.mkdir(parents=True)
    modules: dict[tuple[str, str], list[str]] = {}
    for paragraph in paragraphs:
        modules.setdefault((paragraph.book, paragraph.module), []).extend(paragraph.text.split())
    names: dict[tuple[str, str], set[str]] = {}
    number = 0
    for home, words in modules.items():
        for start in range(0, len(words), PAGE_WORDS):
            (files / f"{number:04}.txt").write_text(" ".join(words[start : start + PAGE_WORDS]))
            names.setdefault(home, set()).add(f"{number:04}")
            number += 1
    questions = [
        (pair.caption, names[pair.book, pair.module])
        for pair in held_out
        if pair.caption and (pair.book, pair.module) in names
    ]
    drawn = random.Random(0).sample(questions, min(MOST_QUERIES, len(questions)))
    return ask(files, folder / "index", model, drawn)


def ask(
    files: Path, index: Path, model: str | None, questions: Sequence[tuple[str, set[str]]]
) -> dict[str, float]:
    """Index ``files`` and return how often a file of the right stem is found in time."""
    with Engine.open(index, create=True, model=model) as engine:
        report = engine.index([files])
        if report.failed:
            raise SystemExit(f"not read: {report.failed}")
        ranks = []
        for text, right in questions:
            hits = engine.query(text, k=max(DEPTHS), group=True)
            found = (hit.rank for hit in hits if Path(hit.path).stem in right)
            ranks.append(next(found, max(DEPTHS) + 1))
    recalls = {f"R@{k}": sum(rank <= k for rank in ranks) / len(ranks) for k in DEPTHS}
    return {"queries": len(ranks), "files": len(list(files.iterdir())), **recalls}


if __name__ == "__main__":
    main()
