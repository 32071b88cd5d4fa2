"""What a run says of itself, step by step: a line of JSON each, and TensorBoard's files.

    {"step": 12, "loss": 3.1, "parts": {"gen": 2.2, ...}, "lr": 5e-05, "norm": 0.8, ...}
    {"step": 20, "recall": {"query_to_positive": {"1": 0.5, ...}, ...}}   where it was probed

A resumed run cuts the lines of steps that it takes again, so the file reads as if nothing
had happened.
"""

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mmsearch.errors import MissingExtra
from mmsearch.retriever.store.durable import write_file

FILE = "metrics.jsonl"
EVENTS = "tensorboard"


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run in order; one that was cut short by a crash is left out."""
    return list(_lines(run / FILE))


class Metrics:
    """Writes the lines of one run; a context manager.

    after:       lines of later steps are dropped, 0 begins anew
    tensorboard: event files too; raises MissingExtra where TensorBoard is not installed
    """

    def __init__(self, run: Path, *, after: int = 0, tensorboard: bool = False) -> None:
        self._board = _board(run / EVENTS, after) if tensorboard else None
        kept = [line for line in _lines(run / FILE) if line["step"] <= after] if after else []
        # At once, so that nothing is lost where the disk is full or the run dies meanwhile.
        write_file(run / FILE, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = (run / FILE).open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line, which is there for whoever watches the file at once."""
        self._put(line)
        if self._board is not None:
            for name, value in _numbers(line):
                self._board.add_scalar(name, value, line["step"])

    def _put(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def _board(folder: Path, after: int) -> Any:  # noqa: ANN401 - TensorBoard is not typed
    try:
        events = import_module("torch.utils.tensorboard")  # which is typed by halves
    except ImportError:
        raise MissingExtra("tensorboard", "train") from None
    return events.SummaryWriter(str(folder), purge_step=after + 1 if after else None)


def _numbers(line: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, float]]:
    """Yield ``("parts/gen", 2.2)`` for every number in a line but its step."""
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{at}{name}/")
        elif isinstance(value, int | float) and (at or name != "step"):
            yield f"{at}{name}", value


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    if not file.is_file():
        return
    for text in file.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
            yield {"step": int(line["step"]), **line}
        except (ValueError, TypeError, KeyError):  # the last line of a run that was killed
            return
