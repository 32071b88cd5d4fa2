"""The picture of a run: its loss and its held-out recall over the steps.

metrics.jsonl -> curves.png
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

from mmsearch.errors import MissingExtra
from mmsearch.retriever.training.metrics import read_metrics

FILE = "curves.png"
SMOOTH = 0.9  # of the loss that is drawn over the steps' own


def draw_curves(run: Path) -> Path:
    """Draw ``curves.png`` of a run into its folder, and return where it is.

    Stages are told apart by lines between them. Raises MissingExtra without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "train") from None
    lines = read_metrics(run)
    steps = [line for line in lines if "loss" in line]
    probes = [line for line in lines if "recall" in line]
    figure = Figure(figsize=(10, 4))
    FigureCanvasAgg(figure)
    losses, recalls = figure.subplots(1, 2)
    # By hand: matplotlib's own layout would draw everything twice, half a second of it.
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.13, top=0.9, wspace=0.2)
    at, loss = [line["step"] for line in steps], [line["loss"] for line in steps]
    losses.plot(at, loss, color="0.8", linewidth=1, label="loss")
    losses.plot(at, smoothed(loss), color="C0", label=f"smoothed ({SMOOTH})")
    for one, other in pairwise(steps):
        if one["stage"] != other["stage"]:
            for axes in (losses, recalls):
                axes.axvline(other["step"], color="0.6", linewidth=0.8, linestyle=":")
    for number, (way, style) in enumerate(
        [("query_to_positive", "-"), ("positive_to_query", "--")]
    ):
        for depth, colour in (("1", "C0"), ("5", "C1"), ("10", "C2")):
            recalls.plot(
                [line["step"] for line in probes],
                [_recall(line, way, depth) for line in probes],
                color=colour,
                linestyle=style,
                marker="." if number == 0 else None,
                label=f"R@{depth} {way.replace('_', ' ')}",
            )
    losses.set(xlabel="step", ylabel="loss", title=run.name)
    pairs = probes[-1]["recall"]["pairs"] if probes else 0
    recalls.set(xlabel="step", ylabel=f"recall of {pairs} held-out pairs", ylim=(-0.02, 1.02))
    for axes, shown in ((losses, steps), (recalls, probes)):
        axes.grid(alpha=0.3)
        if shown:
            axes.legend(fontsize="small")
    figure.savefig(run / FILE, dpi=120)
    return run / FILE


def smoothed(values: list[float]) -> list[float]:
    """Return a moving average that forgets, as TensorBoard draws it; even from the first on."""
    kept: list[float] = []
    total = weight = 0.0
    for value in values:
        total, weight = SMOOTH * total + value, SMOOTH * weight + 1
        kept.append(total / weight)
    return kept


def _recall(line: dict[str, Any], way: str, depth: str) -> float:
    return float(line["recall"][way][depth])
