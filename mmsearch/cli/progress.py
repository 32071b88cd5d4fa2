"""How far a command is, on stderr: a bar on a terminal, a line now and then elsewhere.

IndexProgress, PullProgress, ConvertProgress, a training step -> one bar, or lines
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.cli.output import say, shown_bytes, shown_seconds, visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mmsearch.indexers.report import Progress as IndexProgress
    from mmsearch.retriever.embedding.pull import PullProgress
    from mmsearch.retriever.models.convert import ConvertProgress

_SAY_EVERY_S = 5.0  # where nobody watches a bar


class Listener:
    """Hears how far a command is, and shows it while a ``with`` lasts.

    first:    what stands there before anything was heard
    is_shown: False for the processes of a group that leave talking to the first
    """

    def __init__(self, first: str = "", *, is_shown: bool = True) -> None:
        self._first, self._is_shown = first, is_shown
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._waits = False

    def __enter__(self) -> "Listener":
        self._said_at = time.monotonic()
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def rest(self) -> None:
        """Take the bar away until there is more to hear."""
        if self._bar:
            self._bar.stop()
        self._bar = None

    def show(self, stage: str, done: int, total: int, said: str, *, line: str) -> None:
        """Show a stage, how much of it is done and what is said of it; ``line`` without a bar."""
        if not self._is_shown:
            return
        if self._bar is None:
            self._start()
        if self._bar and self._task is not None:
            self._bar.update(
                self._task, completed=done, total=total, stage=visible(stage), said=visible(said)
            )
        elif time.monotonic() - self._said_at > _SAY_EVERY_S:
            self._said_at = time.monotonic()
            say(visible(line))

    def note(self, sentence: str) -> None:
        """Say something that stays, above the bar."""
        if self._bar:
            self._bar.console.print(visible(sentence), markup=False, highlight=False)
        elif self._is_shown:
            say(visible(sentence))

    def indexing(self, progress: "IndexProgress") -> None:
        """Show how far a run of `Engine.index` is, or of a rebuild."""
        left = progress.eta_s
        said = (
            f"{progress.documents} of {progress.num_documents}  "
            f"{progress.segments} segments, {progress.rate:.1f}/s"
            + (f", {shown_seconds(left)} left" if left is not None else "")
            + f"  {Path(progress.path).name}"
        )
        self.show(
            progress.stage, progress.documents, progress.num_documents, said, line=str(progress)
        )

    def pulling(self, progress: "PullProgress") -> None:
        """Show how far a pull is."""
        if progress.file:
            rate = f", {shown_bytes(round(progress.rate))}/s"
            self._show_bytes(progress.file, progress.done, progress.num_bytes, rate)
        elif not self._waits:
            self._waits = True
            self.note("another process is pulling it: waiting")

    def converting(self, progress: "ConvertProgress") -> None:
        """Show how far a conversion is."""
        self._show_bytes(progress.file, progress.done, progress.num_bytes)

    def _show_bytes(self, file: str, done: int, num_bytes: int, rate: str = "") -> None:
        pace = f"{shown_bytes(done)} of {shown_bytes(num_bytes)}{rate}"
        self.show(file, done, num_bytes, pace, line=f"{file}: {pace}")

    def _start(self) -> None:
        if not self._is_shown or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("{task.fields[stage]:<6}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[said]}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, stage=self._first, said="")
        self._bar.start()
