"""A watched index: what is done about each change that is heard of.

Watch -> changed paths -> is there work? -> index, once nobody else writes -> IndexReport
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from mmsearch.errors import StoreLocked
from mmsearch.indexers.plan import emptied
from mmsearch.indexers.report import IndexReport
from mmsearch.values import Document

_LOCK_POLL_S = 0.25  # between two tries, while another process is writing


def follow(
    changes: Iterable[Sequence[Path]],
    paths: Sequence[str | Path],
    *,
    manifest: Callable[[], Sequence[Document]],
    has_work: Callable[[Sequence[Document], Sequence[Path]], bool],
    index: Callable[[Sequence[Path], bool], IndexReport],
    on_notice: Callable[[str], object],
) -> Iterator[IndexReport]:
    """Yield a report of the first of ``changes``, which is everything, and of each that counts.

    manifest:  reads the documents that the index has
    has_work:  says whether there is anything to do about changed paths
    index:     does it; is told whether it is the first time
    on_notice: is told, in a sentence, why it waits, and which folder is empty
    """
    is_empty: Collection[Path] = ()
    for number, changed in enumerate(changes):
        is_first = number == 0
        known = manifest()
        was_empty, is_empty = is_empty, emptied(map(Path, paths), (one.path for one in known))
        for root in is_empty:
            if root not in was_empty:
                on_notice(f"{root} is empty: what the index holds of it stays until it is not")
        if not is_first and not has_work(known, changed):
            continue
        report = _when_unlocked(partial(index, changed, is_first), on_notice)
        if is_first or report.documents or report.removed or report.failed:
            yield report


def _when_unlocked(
    index: Callable[[], IndexReport], on_notice: Callable[[str], object]
) -> IndexReport:
    """Do it as soon as no other process is writing to the index."""
    has_said = False
    while True:
        try:
            return index()
        except StoreLocked as error:
            if not has_said:
                on_notice(f"{error}: waiting for it to finish")
            has_said = True
            time.sleep(_LOCK_POLL_S)
