"""Write the tables of the model card from results, never by hand.

    benchmarks/results/default-model.json -> the marked places of MODEL_CARD.md

``python -m mmsearch.retriever.training.default.card --results JSON --card MODEL_CARD.md``.
A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; the words around them
are written by people.
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
PLACE = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(card: str, results: Mapping[str, Any]) -> str:
    """Return the card with every marked table written anew; KeyError for one that is unknown."""

    def table(found: "re.Match[str]") -> str:
        return f"{found[1]}{TABLES[found[2]](results)}\n{found[3]}"

    return PLACE.sub(table, card)


def label(row: Row) -> str:
    """Return what a model is called in a table."""
    name = str(row.get("label") or row["model"])
    return f"{name} K={row['effort']}" if row["model"] == "plume" else name


def side_by_side(rows: Sequence[Row], *, dim: int = 384) -> str:
    """Return tasks by models, ``R@1 / R@10`` in per cent."""
    lines = [
        "| task | queries of pool | " + " | ".join(map(label, rows)) + " |",
        "|---|---|" + "---|" * len(rows),
    ]
    columns = [row["figures"][str(dim)] for row in rows]
    for figures in zip(*columns, strict=True):
        one = figures[0]
        cells = " | ".join(_recalls(figure) for figure in figures)
        lines.append(f"| {one['task']} | {one['queries']} of {one['pool']} | {cells} |")
    held = " | ".join(f"{100 * row['likeness']:.1f}" for row in rows)
    lines.append(f"| similarities of texts, Spearman with MiniLM's | | {held} |")
    lines.append(
        "| mean R@10 of the tasks | | "
        + " | ".join(f"{100 * _mean(column):.1f}" for column in columns)
        + " |"
    )
    return "\n".join(lines)


def dimensions(row: Row) -> str:
    """Return tasks by sizes of the vectors, ``R@1 / R@10`` in per cent."""
    sizes = list(row["figures"])
    lines = [
        "| task | " + " | ".join(f"{size} dimensions" for size in sizes) + " |",
        "|---|" + "---|" * len(sizes),
    ]
    for figures in zip(*row["figures"].values(), strict=True):
        lines.append(f"| {figures[0]['task']} | " + " | ".join(map(_recalls, figures)) + " |")
    return "\n".join(lines)


def _recalls(figure: Row) -> str:
    return f"{100 * figure['recall_at_1']:.1f} / {100 * figure['recall_at_10']:.1f}"


def _mean(figures: Sequence[Row]) -> float:
    return float(sum(one["recall_at_10"] for one in figures) / len(figures))


def _of(results: Mapping[str, Any], which: str) -> list[Row]:
    return [row for row in results["rows"] if row["set"] == which]


def _shipped(results: Mapping[str, Any]) -> Row:
    wanted = results["chosen"]
    here = _of(results, "held out")
    return next(row for row in here if all(row[key] == wanted[key] for key in ("model", "effort")))


def _file(results: Mapping[str, Any]) -> str:
    lines = ["| task | queries of pool | R@1 % | R@5 % | R@10 % |", "|---|---|---|---|---|"]
    for one in results["file"]["figures"]:
        shares = (one["recall_at_1"], one["recall_at_5"], one["recall_at_10"])
        told = " | ".join(f"{100 * share:.1f}" for share in shares)
        lines.append(f"| {one['task']} | {one['queries']} of {one['pool']} | {told} |")
    return "\n".join(lines)


def _remedies(results: Mapping[str, Any]) -> str:
    rows = [row for row in results["remedies"] if row["set"] == "validation"]
    lines = ["| remedy | what was done | mean R@10 | likeness |", "|---|---|---|---|"]
    for row in rows:
        mean = 100 * _mean(row["figures"]["384"])
        like = 100 * row["likeness"]
        lines.append(f"| {row['label']} | {row['done']} | {mean:.1f} | {like:.1f} |")
    return "\n".join(lines)


def _remedies_in_full(results: Mapping[str, Any]) -> str:
    return side_by_side([row for row in results["remedies"] if row["set"] == "held out"])


def _search(results: Mapping[str, Any]) -> str:
    lines = ["| task | model | queries of files | R@1 % | R@5 % | R@10 % |", "|---|" + "---|" * 5]
    for name in ("before", "after"):
        for task, one in results["search"].get(name, {}).items():
            recalls = " | ".join(f"{100 * one[f'R@{k}']:.1f}" for k in (1, 5, 10))
            count = f"{one['queries']:.0f} of {one['files']:.0f}"
            lines.append(f"| {task} | {name} | {count} | {recalls} |")
    return "\n".join(lines)


def _scorecard(results: Mapping[str, Any]) -> str:
    names = list(next(iter(results["scorecard"].values())))
    lines = ["| model | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for model, figures in results["scorecard"].items():
        lines.append(f"| {model} | " + " | ".join(f"{figures[name]:.3f}" for name in names) + " |")
    return "\n".join(lines)


TABLES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "held-out": lambda results: side_by_side(_of(results, "held out")),
    "validation": lambda results: side_by_side(_of(results, "validation")),
    "dimensions": lambda results: dimensions(_shipped(results)),
    "file": _file,
    "remedies": _remedies,
    "remedies-held-out": _remedies_in_full,
    "search": _search,
    "scorecard": _scorecard,
}


def main() -> None:
    """Fill the card that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--card", type=Path, required=True)
    asked = parser.parse_args()
    results = json.loads(asked.results.read_text())
    asked.card.write_text(fill(asked.card.read_text(), results))


if __name__ == "__main__":
    main()
