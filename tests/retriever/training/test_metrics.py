from pathlib import Path

import pytest
from PIL import Image

from mmsearch.retriever.training.curves import draw_curves, smoothed
from mmsearch.retriever.training.metrics import Metrics, read_metrics


def line(step: int, loss: float = 1.0, stage: str = "a") -> dict[str, object]:
    return {"step": step, "stage": stage, "loss": loss, "parts": {"gen": loss}, "lr": 1e-3}


def recall(step: int, value: float) -> dict[str, object]:
    way = {"1": value, "5": value, "10": value}
    return {
        "step": step,
        "recall": {"pairs": 4, "query_to_positive": way, "positive_to_query": way},
    }


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        metrics.write(line(1))
        assert read_metrics(tmp_path) == [line(1)]  # before it is closed
        metrics.write(line(2))
    assert read_metrics(tmp_path) == [line(1), line(2)]


def test_a_resumed_run_drops_the_steps_it_takes_again(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        for step in (1, 2, 3):
            metrics.write(line(step))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while it wrote
    with Metrics(tmp_path, after=2) as metrics:
        metrics.write(line(3, 9.0))
    assert read_metrics(tmp_path) == [line(1), line(2), line(3, 9.0)]


def test_a_new_run_begins_anew(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        metrics.write(line(1))
    with Metrics(tmp_path):
        pass
    assert read_metrics(tmp_path) == []


def test_event_files_hold_every_number(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    with Metrics(tmp_path, tensorboard=True) as metrics:
        metrics.write(line(1, 0.5))
        metrics.write(recall(1, 0.25))
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Scalars("parts/gen")[0].value == 0.5
    assert events.Scalars("recall/query_to_positive/10")[0].value == 0.25


def test_smoothing_forgets_and_begins_even() -> None:
    assert smoothed([2.0]) == [2.0]
    assert smoothed([1.0, 0.0])[1] == pytest.approx(0.9 / 1.9)


def test_curves_are_drawn_also_of_a_run_without_probes(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        for step in range(1, 6):
            metrics.write(line(step, 1 / step, "a" if step < 3 else "b"))
    first = draw_curves(tmp_path).read_bytes()
    with Metrics(tmp_path, after=5) as metrics:
        metrics.write(recall(5, 0.5))
    with Image.open(draw_curves(tmp_path)) as picture:
        assert picture.size == (1200, 480)
    assert (tmp_path / "curves.png").read_bytes() != first
