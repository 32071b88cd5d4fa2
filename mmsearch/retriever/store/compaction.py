"""Merging small files: when it is worth it, and doing it beside a run.

Every commit is a file of its own in each table. LanceDB merges all files below a million
rows that lie side by side, so a thousand rows added to a hundred thousand rewrite all of
them (54 MB for 2 MB of new rows). Merged when a quarter of the rows are in small files,
each row is written about five times however large the table grows.
"""

import logging
import threading
from collections.abc import Callable

from mmsearch.errors import StoreError
from mmsearch.retriever.store.tables import Table

log = logging.getLogger(__name__)

SMALL_SHARE = 1 / 4  # of the rows in small files: then they are merged
MANY_FILES = 1_024  # so many are merged in any case: each commit lists them all
# At the end of a run: rows that no index covers are looked through by every question.
MANY_UNCOVERED = 1_000
FEW_ROWS = 20_000  # so few are merged at once


def is_worth_it(table: Table, *, at_end: bool = False) -> bool:
    """Say whether to merge the files of ``table`` now; ``at_end`` of a run, sooner."""
    files = table.files()
    if files.num_files > MANY_FILES or files.num_small_rows > SMALL_SHARE * files.num_rows:
        return files.num_files > 1
    if not at_end:
        return False
    return (files.num_rows <= FEW_ROWS and files.num_files > 1) or (
        table.num_uncovered() > MANY_UNCOVERED
    )


class Beside:
    """One task at a time in a thread of its own; what it raises is raised when asked for."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._raised: Exception | None = None

    @property
    def is_running(self) -> bool:
        """Whether the task is still at work."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, task: Callable[[], None]) -> None:
        """Begin a task. Raises what the last one raised."""
        self.finish()
        # Not waited for by an interpreter that ends: a table survives that as it does a kill.
        self._thread = threading.Thread(target=self._do, args=(task,), daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait for the task. Raises what it raised, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def stop(self) -> None:
        """Wait for the task, and only log what it raises: something else has gone wrong."""
        try:
            self.finish()
        except StoreError as error:
            log.warning("small files were not merged: %s", error)

    def check(self) -> None:
        """Raise what the last task raised; does not wait."""
        if not self.is_running:
            self.finish()

    def _do(self, task: Callable[[], None]) -> None:
        try:
            task()
        except StoreError as error:
            self._raised = error
        except Exception as error:  # a thread has nobody else to tell
            self._raised = StoreError(f"small files were not merged: {error}")
