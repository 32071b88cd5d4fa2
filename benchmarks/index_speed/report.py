"""What was found, for people: a page of tables and plots, made of the JSON alone."""

import datetime
import os
import platform
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

Found = dict[str, Any]
PACKAGES = ("faiss-cpu", "lancedb", "numpy", "pyarrow")
BACKENDS = ("lance", "faiss", "exact")
COLOURS = {"lance": "#b2543a", "faiss": "#2f6f8f", "exact": "#6b6b6b"}


def machine() -> Found:
    """Return what the figures are measured on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages / 2**30),
        "load_before": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def page(found: Found, pictures: str) -> str:
    """Return docs/scaling.md; ``pictures`` is the folder of the plots beside it."""
    here = found["machine"]
    parts = [
        "# How it scales",
        f"Made by `{found['command']}` from the figures it measured, on {here['date'][:10]}: "
        f"{here['cores']} cores ({here['processor']}), {here['memory_gb']} GB, "
        f"load {here['load_before']} before the run; "
        + ", ".join(f"{name} {here[name]}" for name in PACKAGES)
        + ". Clustered unit vectors in half precision (`benchmarks/index_speed/vectors.py`), "
        "questions of the same law, one at a time; recall@10 against every cosine. A *raw* "
        "call is the library's own, as hard as ours, in the same process and in turns with it.",
        "## Asking",
        _asking(found),
        f"![Recall against time]({pictures}/recall-against-latency.png)",
        f"![Time against rows]({pictures}/latency-against-rows.png)",
        "## Making",
        "Processor seconds count all threads. Peaks are those of a process that does nothing "
        "else; `other indexes` are words, paths, pages, kinds and ids. The faiss file is a "
        "cache of the tables, made by `mmsearch optimize --faiss`.",
        _making(found),
        "## With a filter",
        "A random filter knows nothing of the vectors; one by cluster is a range of paths, in "
        "which documents of like content lie together, and most questions are of another "
        "cluster. `first` is the first question with that filter on a new state of the index.",
        _filtered(found),
        f"![Recall and time with a filter]({pictures}/filtered-recall.png)",
        _growth(found),
        _searches(found),
        _matryoshka(found),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


# ---------------------------------------------------------------- tables


def _rows(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cases(found: Found, key: str) -> list[tuple[str, Found]]:
    """Return (name, case) of those that have ``key``, small ones first."""
    cases = [case for case in found["cases"].values() if key in case]
    return [(case["name"], case) for case in sorted(cases, key=lambda c: (c["rows"], c["dim"]))]


def _asking(found: Found) -> str:
    rows = []
    for name, case in _cases(found, "ask"):
        for backend in BACKENDS:
            one = case["ask"].get(backend)
            if one:
                rows.append(
                    [
                        f"{name}, {backend}",
                        f"{one['k10']['recall']:.4f}",
                        f"{one['k10']['p50_ms']:.2f}",
                        f"{one['k10']['p95_ms']:.2f}",
                        f"{one['raw']['p50_ms']:.2f}",
                        f"{one['over_raw']:.2f}",
                        f"{one['first_pass']['p50_ms']:.2f}" if "first_pass" in one else "",
                        f"{one['k200']['p50_ms']:.2f}",
                        f"{one['k200']['recall']:.3f}",
                        f"{one['rss_mb']:,.0f}",
                    ]
                )
    head = ["rows x dimensions", "recall@10", "p50 ms", "p95 ms", "raw p50 ms", "ours / raw"]
    return _rows([*head, "first pass", "200 hits: p50 ms", "recall@200", "RSS MB"], rows)


def _making(found: Found) -> str:
    rows = []
    for name, case in _cases(found, "build"):
        for backend in ("lance", "faiss"):
            one = case["build"].get(backend)
            if one:
                rows.append(
                    [
                        f"{name}, {backend}",
                        f"{one['wall_s']:.1f}",
                        f"{one['cpu_s']:.1f}",
                        f"{one['peak_mb']:,.0f}",
                        f"{one['bytes'] / 1e6:,.0f}",
                        f"{one['table_bytes'] / 1e6:,.0f}" if "table_bytes" in one else "",
                        f"{one['other_indexes_cpu_s']:.1f}" if "table_bytes" in one else "",
                    ]
                )
    head = ["rows x dimensions", "wall s", "processor s", "peak MB", "MB on disk", "tables MB"]
    return _rows([*head, "other indexes, processor s"], rows)


def _filtered(found: Found) -> str:
    rows = []
    for name, case in _cases(found, "ask"):
        for backend in ("lance", "faiss"):
            filtered = case["ask"].get(backend, {}).get("filtered", {})
            for which, one in filtered.items():
                rows.append(
                    [
                        f"{name}, {backend}, {which}",
                        f"{one['recall']:.4f}",
                        f"{one['p50_ms']:.2f}",
                        f"{one['p95_ms']:.2f}",
                        f"{one['first_ms']:.1f}",
                    ]
                )
    return _rows(["index and filter", "recall@10", "p50 ms", "p95 ms", "first ms"], rows)


def _growth(found: Found) -> str:
    """Rows of each step by how much its costs grow; one dimension."""
    cases = [(name, case) for name, case in _cases(found, "ask") if case["dim"] == 384]
    rows = []
    for (_, small), (name, large) in pairwise(cases):
        for backend in ("lance", "faiss"):
            asked = [case["ask"].get(backend) for case in (small, large)]
            built = [case.get("build", {}).get(backend) for case in (small, large)]
            if all(asked) and all(built):
                rows.append(
                    [
                        f"to {name}, {backend}",
                        f"{large['rows'] / small['rows']:.0f}",
                        f"{asked[1]['k10']['p50_ms'] / asked[0]['k10']['p50_ms']:.2f}",
                        f"{built[1]['cpu_s'] / max(0.01, built[0]['cpu_s']):.1f}",
                        f"{asked[1]['rss_mb'] / asked[0]['rss_mb']:.2f}",
                    ]
                )
    if not rows:
        return ""
    head = ["step", "rows x", "question time x", "build processor s x", "RSS x"]
    return "## Growth\n\n" + _rows(head, rows)


def _searches(found: Found) -> str:
    rows = [
        [f"{name}, {backend}, {which}", f"{one['p50_ms']:.1f}", f"{one['p95_ms']:.1f}"]
        for name, case in _cases(found, "search")
        for backend, all_ in case["search"].items()
        for which, one in all_.items()
        if which != "rss_mb"
    ]
    if not rows:
        return ""
    text = (
        "## Whole searches\n\nTwo vector lists of 200, the words of texts of 80 words, a "
        "filter, fused, ten hits read: all but the embedding of the question.\n\n"
    )
    return text + _rows(["index and filter", "p50 ms", "p95 ms"], rows)


def _matryoshka(found: Found) -> str:
    one = found.get("matryoshka")
    if not one:
        return ""
    rows = [["none: all 384", "all", f"{one['whole_ms']:.2f}", "1.0000"]]
    if "ours_ms" in one:
        ours = f"{one['ours_ms']:.2f}"
        rows.append(["ours: first 192", "by proof", ours, f"{one['ours_recall']:.4f}"])
    rows += [
        [f"first {w['dims']}", str(w["candidates"]), f"{w['p50_ms']:.2f}", f"{w['recall']:.4f}"]
        for w in one["ways"]
    ]
    text = (
        f"## A first pass over short vectors\n\nVectors of the default model: "
        f"{one['lines']:,} lines of the sample corpus, and mixtures of two of them up to "
        f"{one['rows']:,} rows; numpy, single precision. The `exact` back-end takes the first "
        "half of the dimensions first where they hold three quarters of the squared length "
        "or more, and then only rows that can be among the best by what is left of them: "
        "fewer products, the same answer. A fixed number of candidates is a guess instead.\n\n"
    )
    return text + _rows(["first pass", "candidates", "p50 ms", "recall@10"], rows)


# ---------------------------------------------------------------- plots


def plot(found: Found, folder: Path) -> None:
    """Draw what there is of the three plots."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update(
        {
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "figure.dpi": 130,
            "font.size": 9,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    if not _cases(found, "ask"):
        return
    _plot_recall(found, folder / "recall-against-latency.png")
    _plot_rows(found, folder / "latency-against-rows.png")
    _plot_filtered(found, folder / "filtered-recall.png")


def _plot_recall(found: Found, path: Path) -> None:
    from matplotlib import pyplot as plt

    cases = _cases(found, "ask")
    figure, axes = plt.subplots(1, len(cases), figsize=(3.4 * len(cases), 3.2), squeeze=False)
    for axis, (name, case) in zip(axes[0], cases, strict=True):
        for backend in ("lance", "faiss"):
            one = case["ask"].get(backend)
            if not one:
                continue
            curve = one["curve"]
            colour = COLOURS[backend]
            axis.plot(
                [p["p50_ms"] for p in curve], [p["recall"] for p in curve],
                "o-", color=colour, markersize=3, linewidth=1, label=f"{backend}, raw",
            )  # fmt: skip
            axis.plot(
                one["k10"]["p50_ms"], one["k10"]["recall"],
                "*", color=colour, markersize=12, label=f"{backend}, ours",
            )  # fmt: skip
        axis.axhline(0.98, color="black", linewidth=0.7, linestyle=":")
        axis.set_xscale("log")
        axis.set_title(name)
        axis.set_xlabel("p50 of a question, ms")
    axes[0][0].set_ylabel("recall@10")
    axes[0][0].legend()
    _save(figure, path)


def _plot_rows(found: Found, path: Path) -> None:
    from matplotlib import pyplot as plt

    cases = [case for _, case in _cases(found, "ask") if case["dim"] == 384]
    figure, axis = plt.subplots(figsize=(5, 3.4))
    for backend in BACKENDS:
        some = [case for case in cases if backend in case["ask"]]
        axis.plot(
            [case["rows"] for case in some],
            [case["ask"][backend]["k10"]["p50_ms"] for case in some],
            "o-", color=COLOURS[backend], label=backend,
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("rows of 384 dimensions")
    axis.set_ylabel("p50 of a question, ms")
    axis.legend()
    _save(figure, path)


def _plot_filtered(found: Found, path: Path) -> None:
    from matplotlib import pyplot as plt

    cases = _cases(found, "ask")
    figure, axes = plt.subplots(
        2, len(cases), figsize=(3.4 * len(cases), 5.2), squeeze=False, sharex=True
    )
    for column, (name, case) in enumerate(cases):
        for backend in ("lance", "faiss"):
            filtered = case["ask"].get(backend, {}).get("filtered", {})
            for kind, style in (("random", "o-"), ("by cluster", "s--")):
                some = [one for which, one in filtered.items() if which.startswith(kind)]
                shares = [
                    float(which.removeprefix(kind).removesuffix("%"))
                    for which in filtered
                    if which.startswith(kind)
                ]
                for row, key in enumerate(("recall", "p50_ms")):
                    axes[row][column].plot(
                        shares, [one[key] for one in some], style,
                        color=COLOURS[backend], markersize=4, linewidth=1,
                        label=f"{backend}, {kind}",
                    )  # fmt: skip
        axes[0][column].axhline(0.98, color="black", linewidth=0.7, linestyle=":")
        axes[0][column].set_title(name)
        axes[0][column].set_xscale("log")
        axes[1][column].set_yscale("log")
        axes[1][column].set_xlabel("rows that fit, %")
    axes[0][0].set_ylabel("recall@10")
    axes[1][0].set_ylabel("p50 of a question, ms")
    axes[1][-1].legend(fontsize=7)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:  # noqa: ANN401
    from matplotlib import pyplot as plt

    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
