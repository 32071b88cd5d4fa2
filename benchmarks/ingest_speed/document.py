"""Pictures and a page of what was measured: ``docs/ingest.md``."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 110


def write(results: Mapping[str, Any], folder: Path) -> None:
    """Write the page, and the pictures of those parts that were measured."""
    lines = [
        "# How fast files go in",
        "",
        "Made by `python benchmarks/ingest.py`; do not edit. Figures of "
        "`benchmarks/results/ingest.json`, each of the machine named with it.",
        "",
    ]
    for name, section in _SECTIONS.items():
        if name in results:
            measured = results[name]
            lines += [*section(measured, folder), f"*{_machine(measured)}*", ""]
    (folder / "ingest.md").write_text("\n".join(lines))


def _machine(measured: Mapping[str, Any]) -> str:
    where = measured["machine"]
    return f"{where['cores']} cores ({where['cpu']}), {where['date']}, `{measured['command']}`"


def _pipeline(measured: Mapping[str, Any], folder: Path) -> list[str]:
    names = ("pictures", "pages")
    figure, axes = _figure()
    for at, name in enumerate(names):
        one = measured[name]
        bars = (one["readers_per_s"], one["pipeline_per_s"])
        axes.bar([at - 0.2, at + 0.2], bars, 0.38, color=["#9aa5b1", "#2f6f9f"])
        label = f"{one['ratio']:.0%}"
        axes.annotate(label, (at + 0.2, bars[1]), ha="center", va="bottom")
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("segments a second")
    axes.set_title("Readers alone (grey), the whole pipeline (blue)")
    _save(figure, folder / "ingest-pipeline.png")
    lines = [
        "## The pipeline against its readers",
        "",
        "An embedder that takes 1 ms an item without a core (a mock: it sleeps) and real "
        f"decoding on {measured['workers']} processes, against the same processes reading the "
        "same files with their outcomes thrown away; in turns, medians.",
        "",
        "| | readers alone | pipeline | ratio (wall) | ratio (CPU) |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        one = measured[name]
        lines.append(
            f"| {one['segments']} {name} | {one['readers_per_s']:.0f}/s "
            f"| {one['pipeline_per_s']:.0f}/s | {one['ratio']:.2f} | {one['cpu_ratio']:.2f} |"
        )
    return [*lines, "", "![pipeline](ingest-pipeline.png)", ""]


def _unchanged(measured: Mapping[str, Any], folder: Path) -> list[str]:
    return [
        "## A run over files that did not change",
        "",
        f"{measured['files']:,} text files: the first run took {measured['first_s']:.0f} s, "
        f"a run over the same files takes {measured['again_s']:.1f} s "
        f"({measured['again_cpu_s']:.1f} CPU s) and opens {measured['files_opened']} of them. "
        f"Peak memory of both {measured['peak_mib']:.0f} MiB.",
        "",
    ]


def _soak(measured: Mapping[str, Any], folder: Path) -> list[str]:
    samples = measured["samples"]
    x = [one["documents"] / 1000 for one in samples]
    figure, axes = _figure()
    axes.plot(x, [one["rss_mib"] for one in samples], label="this process", color="#2f6f9f")
    axes.plot(x, [one["children_mib"] for one in samples], label="readers", color="#c77d2f")
    axes.set_xlabel("thousand pictures")
    axes.set_ylabel("resident MiB")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")
    axes.set_title("Memory while many pictures are indexed")
    _save(figure, folder / "ingest-soak.png")
    slopes = measured["slope_per_10k"]
    before, after = measured["before"], measured["after"]
    return [
        "## Many small pictures",
        "",
        f"{measured['pictures']:,} PNG files of 64 x 64 random pixels, an embedder that takes no "
        f"time: {measured['per_s']:.0f} a second, {measured['failed']} failed, "
        f"{len(measured['problems'])} problems found afterwards.",
        "",
        "| | at warm-up | at the end | growth a 10,000 pictures |",
        "|---|---|---|---|",
        f"| resident MiB | {measured['rss_mib_at_warm_up']:.0f} | {measured['rss_mib_at_end']:.0f} "
        f"| {slopes['rss_mib']:+.2f} |",
        f"| resident MiB of readers | | | {slopes['children_mib']:+.2f} |",
        "",
        "| | before | after | growth a 10,000 pictures |",
        "|---|---|---|---|",
        f"| open files | {before['files']} | {after['files']} | {slopes['files']:+.2f} |",
        f"| processes | {before['children']} | {after['children']} | {slopes['children']:+.2f} |",
        f"| threads | {before['threads']} | {after['threads']} | |",
        "",
        "![memory](ingest-soak.png)",
        "",
    ]


def _default(measured: Mapping[str, Any], folder: Path) -> list[str]:
    rows = [
        f"| {name} | {measured[name]['per_s']:.1f} | {measured[name]['cpu_s_each'] * 1000:.0f} |"
        for name in ("pages", "pictures")
    ]
    return [
        "## With the default model",
        "",
        "OCR off, the model loaded; reading, embedding and committing share the cores.",
        "",
        "| | a second | CPU ms each |",
        "|---|---|---|",
        *rows,
        "",
    ]


def _searchable(measured: Mapping[str, Any], folder: Path) -> list[str]:
    return [
        "## When a picture can be found",
        "",
        f"{measured['pictures']} pictures of the sample corpus, OCR on, the default model: the "
        f"first can be found after {measured['first_s']:.1f} s, all of them by their looks after "
        f"{measured['all_by_look_s']:.1f} s, and by their words after "
        f"{measured['all_by_words_s']:.1f} s.",
        "",
    ]


_SECTIONS = {
    "pipeline": _pipeline,
    "default": _default,
    "searchable": _searchable,
    "unchanged": _unchanged,
    "soak": _soak,
}


def _figure() -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), dpi=_DPI, layout="constrained")
    return figure, figure.subplots()


def _save(figure: "Figure", path: Path) -> None:
    figure.savefig(path, metadata={"Software": None})
