"""How a pull shows on stderr: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from typing import TYPE_CHECKING

from mmsearch.cli.output import say, shown_bytes, visible

if TYPE_CHECKING:
    from mmsearch.retriever.embedding.pull import PullProgress

_SAY_EVERY_S = 5.0  # where nobody watches a bar


class Listener:
    """Hears how far a pull is, and shows it while a ``with`` lasts."""

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
            self._task = self._bar.add_task("", total=None, file="asking the hub", pace="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def hear(self, progress: "PullProgress") -> None:
        """Show how far the pull is."""
        if not progress.file:
            if not self._waits:
                say("another process is pulling it: waiting")
            self._waits = True
            return
        pace = f"{shown_bytes(progress.done)} of {shown_bytes(progress.num_bytes)}"
        pace += f", {shown_bytes(round(progress.rate))}/s"
        if self._bar:
            self._bar.update(
                self._task,
                completed=progress.done,
                total=progress.num_bytes,
                file=visible(progress.file),
                pace=pace,
            )
        elif time.monotonic() - self._said_at > _SAY_EVERY_S:
            self._said_at = time.monotonic()
            say(visible(f"{progress.file}: {pace}"))
