"""What a run on some paths has to do: the files there are, held against the manifest.

    Wanted -> discover, or what changed alone -> plan.make_plan -> Plan

An empty folder in which the index knows documents is refused: a disk that is not mounted looks
like that.
"""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsearch.errors import NothingToIndex
from mmsearch.indexers.discover import affected_by, discover, discover_again, lying_in
from mmsearch.indexers.plan import Plan, emptied, make_plan
from mmsearch.indexers.watch import at_or_below
from mmsearch.values import Document


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run is asked to look at; see `mmsearch.engine.Engine.index`."""

    paths: Sequence[str | Path]
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    retry_failed: bool = False
    again: bool = False
    only: Sequence[str | Path] | None = None
    within: Sequence[str | Path] | None = None


def plan_of(db: Path, manifest: Sequence[Document], wanted: Wanted) -> Plan:
    """Return what a run has to do; ``db`` is named where it is refused.

    Raises NothingToIndex as `Engine.index` does.
    """
    roots = [Path(path) for path in wanted.paths]
    unmounted = emptied(roots, (document.path for document in manifest))
    if wanted.only is not None:
        kept = {Path(os.path.abspath(root)) for root in unmounted}
        changed = [path for path in affected_by(wanted.only) if path not in kept]
        found = discover_again(roots, changed, include=wanted.include, exclude=wanted.exclude)
        return make_plan(
            lying_in(wanted.within, found),
            {document.path: document for document in at_or_below(changed, manifest)},
            [Path("/")],  # what is left of the manifest lies at or below what changed
            retry_failed=wanted.retry_failed,
            again=wanted.again,
        )
    for root, number in unmounted.items():
        folder, index = shlex.quote(str(root)), shlex.quote(str(db))
        raise NothingToIndex(
            root,
            f"it is empty, and the index knows {number} documents in it",
            hint="mount what belongs there; if they were deleted: "
            f"mmsearch remove {folder} --db {index}",
        )
    found = discover(roots, include=wanted.include, exclude=wanted.exclude)
    plan = make_plan(
        lying_in(wanted.within, found),
        {document.path: document for document in manifest},
        roots,
        retry_failed=wanted.retry_failed,
        again=wanted.again,
    )
    if not plan.num_supported and not plan.gone:
        reason = f"no supported file among the {plan.unsupported} found"
        raise NothingToIndex(", ".join(map(str, wanted.paths)), reason)
    return plan
