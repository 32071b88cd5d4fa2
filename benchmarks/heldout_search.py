"""How well whole searches answer, OCR and words and vectors together, on books never trained on.

    python benchmarks/heldout_search.py --data DATA [--model MODEL] [--out results.json]

Needs the folder of development data. Three indexes are made and asked:

    charts  the held-out books' charts as picture files, read by OCR; asked by alt text
    pages   their text in pages of about 250 words, a file each; asked by figure captions,
            which any page of the figure's module answers
    all     both and some photographs of theirs in one, as people's folders are; each kind of
            question is counted for itself

File names are numbers, so nothing is found by name. R@k is the share of queries with a
right file among the first k. Each question is answered in several ways:

    mmsearch      what `Engine.query` returns
    equal ranks   reciprocal-rank fusion of the same three lists (Cormack et al. 2009, k = 60)
    one list      BM25 over the words; cosines of text vectors; cosines of pixels
"""

import argparse
import random
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reliability import report

from mmsearch import Engine
from mmsearch.retriever.store.store import Snapshot, Store
from mmsearch.retriever.training.default.pairs import (
    HELD_OUT,
    Pair,
    Paragraph,
    read_pairs,
    read_paragraphs,
)
from mmsearch.values import View

CHART = re.compile(r"\b(graph|chart|plot|histogram)s?\b", re.IGNORECASE)
PAGE_WORDS = 250
MOST_QUERIES, MOST_PHOTOS = 350, 200
DEPTHS = (1, 5, 10)
LIST_DEPTH = 200  # of each list, as `search` asks them
RRF_K = 60
OURS = "mmsearch"


@dataclass(frozen=True, slots=True)
class Question:
    """Words, and the stems of the files that answer them."""

    words: str
    right: frozenset[str]


Questions = dict[str, list[Question]]  # by task
Figures = dict[str, float]


def main() -> None:
    """Make the indexes, ask, print a table, and write the figures if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="figures/, text/, ...")
    parser.add_argument("--model", help="a model's name or folder; the default one otherwise")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    asked = parser.parse_args()
    here, began = report.machine(), time.monotonic()
    pairs = read_pairs(asked.data)
    held_out = [pair for pair in pairs if pair.book in HELD_OUT]
    figures: dict[str, dict[str, Figures]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        of_charts = charts(held_out, Path(scratch) / "charts")
        of_pages = pages(held_out, read_paragraphs(asked.data, pairs), Path(scratch) / "pages")
        of_photos = photos(held_out, Path(scratch) / "photos")
        for folders, questions in (
            (["charts"], of_charts),
            (["pages"], of_pages),
            (
                ["charts", "pages", "photos"],
                {
                    f"{task}, among all": some
                    for task, some in (of_charts | of_pages | of_photos).items()
                },
            ),
        ):
            roots = [Path(scratch) / folder for folder in folders]
            index = Path(scratch) / f"index of {len(figures)}"
            figures |= ask(roots, index, asked.model, questions)
    print("| task | way | queries of files | " + " | ".join(f"R@{k} %" for k in DEPTHS) + " |")
    print("|---|---|---|" + "---:|" * len(DEPTHS))
    for task, by_way in figures.items():
        for way, one in by_way.items():
            recalls = " | ".join(f"{100 * one[f'R@{k}']:.1f}" for k in DEPTHS)
            print(f"| {task} | {way} | {one['queries']:.0f} of {one['files']:.0f} | {recalls} |")
    if asked.out:
        report.write(asked.out, here, began, {"figures": figures})


def charts(held_out: Sequence[Pair], folder: Path) -> Questions:
    """Copy the charts, and return their descriptions."""
    chosen = [pair for pair in held_out if CHART.search(pair.alt)]
    return {"description -> chart": _copied(chosen, folder, "c")}


def photos(held_out: Sequence[Pair], folder: Path) -> Questions:
    """Copy some photographs, and return their descriptions."""
    chosen = [pair for pair in held_out if pair.is_photo and not CHART.search(pair.alt)]
    drawn = random.Random(0).sample(chosen, min(MOST_PHOTOS, len(chosen)))
    return {"description -> photo": _copied(drawn, folder, "p")}


def _copied(pairs: Sequence[Pair], folder: Path, mark: str) -> list[Question]:
    folder.mkdir(parents=True)
    for number, pair in enumerate(pairs):
        shutil.copy(pair.path, folder / f"{mark}{number:04}{pair.path.suffix}")
    return [
        Question(pair.alt, frozenset({f"{mark}{number:04}"})) for number, pair in enumerate(pairs)
    ]


def pages(held_out: Sequence[Pair], paragraphs: Sequence[Paragraph], folder: Path) -> Questions:
    """Write the text in pages, and return captions of figures of the same modules."""
    folder.mkdir(parents=True)
    modules: dict[tuple[str, str], list[str]] = {}
    for paragraph in paragraphs:
        modules.setdefault((paragraph.book, paragraph.module), []).extend(paragraph.text.split())
    names: dict[tuple[str, str], set[str]] = {}
    number = 0
    for home, words in modules.items():
        for start in range(0, len(words), PAGE_WORDS):
            (folder / f"{number:04}.txt").write_text(" ".join(words[start : start + PAGE_WORDS]))
            names.setdefault(home, set()).add(f"{number:04}")
            number += 1
    questions = [
        Question(pair.caption, frozenset(names[pair.book, pair.module]))
        for pair in held_out
        if pair.caption and (pair.book, pair.module) in names
    ]
    drawn = random.Random(0).sample(questions, min(MOST_QUERIES, len(questions)))
    return {"caption -> text page": drawn}


def ask(
    folders: Sequence[Path], index: Path, model: str | None, questions: Questions
) -> dict[str, dict[str, Figures]]:
    """Index the folders; return by task and way how often a right file is found in time."""
    with Engine.open(index, create=True, model=model) as engine:
        if failed := engine.index(folders).failed:
            raise SystemExit(f"not read: {failed}")
        num_files = len(engine.documents())
        snapshot = Store.open(index).snapshot()
        return {
            task: _recalls([answers(engine, snapshot, one) for one in some], num_files)
            for task, some in questions.items()
        }


def answers(engine: Engine, snapshot: Snapshot, question: Question) -> dict[str, int]:
    """Return by way at which rank the first right file stands, one beyond DEPTHS for none."""
    words = question.words
    [asked] = engine.embed_queries([words])
    lists = {
        "words alone (BM25)": snapshot.matching(words, k=LIST_DEPTH),
        "text vectors alone": snapshot.nearest(View.TEXT, asked, k=LIST_DEPTH),
        "pixels alone": snapshot.nearest(View.VISUAL, asked, k=LIST_DEPTH),
    }
    ranked = {way: [one.segment_id for one in some] for way, some in lists.items()}
    paths = snapshot.paths(sorted({one for some in ranked.values() for one in some}))
    ways = {
        OURS: [hit.path for hit in engine.query(words, k=max(DEPTHS), group=True)],
        f"equal ranks (RRF, k = {RRF_K})": [paths[one] for one in fused_by_rank(ranked.values())],
        **{way: [paths[one] for one in some] for way, some in ranked.items()},
    }
    return {way: _rank(some, question.right) for way, some in ways.items()}


def fused_by_rank(lists: Iterable[Sequence[str]]) -> list[str]:
    """Return the ids of several lists by the sum of 1 / (k + rank), ties by id."""
    scores: dict[str, float] = {}
    for some in lists:
        for rank, one in enumerate(some, start=1):
            scores[one] = scores.get(one, 0.0) + 1 / (RRF_K + rank)
    return sorted(scores, key=lambda one: (-scores[one], one))


def _rank(paths: Sequence[str], right: frozenset[str]) -> int:
    stems = [Path(path).stem for path in dict.fromkeys(paths)]  # the best of each file
    found = (rank for rank, stem in enumerate(stems, start=1) if stem in right)
    return min(next(found, max(DEPTHS) + 1), max(DEPTHS) + 1)


def _recalls(ranks: Sequence[dict[str, int]], num_files: int) -> dict[str, Figures]:
    return {
        way: {
            "queries": len(ranks),
            "files": num_files,
            **{f"R@{k}": sum(one[way] <= k for one in ranks) / len(ranks) for k in DEPTHS},
        }
        for way in ranks[0]
    }


if __name__ == "__main__":
    main()
