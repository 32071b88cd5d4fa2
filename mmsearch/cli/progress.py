"""How far bytes have come, on stderr: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from typing import TYPE_CHECKING

from mmsearch.cli.output import say, shown_bytes, visible

if TYPE_CHECKING:
    from mmsearch.retriever.embedding.pull import PullProgress
    from mmsearch.retriever.models.convert import ConvertProgress

_SAY_EVERY_S = 5.0  # where nobody watches a bar


class Listener:
    """Hears how far a pull or a conversion is, and shows it while a ``with`` lasts.

    ``first`` is what stands there before anything was heard.
    """

    def __init__(self, first: str) -> None:
        self._first = first

    def __enter__(self) -> "Listener":
        self._said_at = time.monotonic()
        self._waits = False
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.fields[file]}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[pace]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=None, file=self._first, pace="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def pulling(self, progress: "PullProgress") -> None:
        """Show how far a pull is."""
        if progress.file:
            rate = f", {shown_bytes(round(progress.rate))}/s"
            self._show(progress.file, progress.done, progress.num_bytes, rate)
        elif not self._waits:
            self._waits = True
            say("another process is pulling it: waiting")

    def converting(self, progress: "ConvertProgress") -> None:
        """Show how far a conversion is."""
        self._show(progress.file, progress.done, progress.num_bytes)

    def _show(self, file: str, done: int, num_bytes: int, rate: str = "") -> None:
        pace = f"{shown_bytes(done)} of {shown_bytes(num_bytes)}{rate}"
        if self._bar:
            self._bar.update(
                self._task, completed=done, total=num_bytes, file=visible(file), pace=pace
            )
        elif time.monotonic() - self._said_at > _SAY_EVERY_S:
            self._said_at = time.monotonic()
            say(visible(f"{file}: {pace}"))
