"""What is done to an index while it may be killed, each in a process of its own.

Each takes the folder of the index and that of the corpus; it can be done again when it was
cut short, and ends in the state that one undisturbed would have ended in.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from mmsearch import Engine, upkeep
from mmsearch.indexers.pipeline import IndexReport
from mmsearch.retriever.store.store import Store
from reliability.holdings import Holdings, holdings
from reliability.world import HashEmbedder

Deed = Callable[[Path, Path], object]

# So that a corpus of a dozen files lives through what one of a million does: many commits
# a run, rows dropped and tables merged in between, and old versions that are really removed.
_HURRY: Mapping[str, Any] = {
    "_COMMIT_EVERY_S": 0.0,
    "COMMIT_EVERY_S": 0.0,
    "TIDY_AFTER": 3,
    "DROP_AFTER": 2,
    "BATCH": 3,
    "KEEP_VERSIONS": timedelta(seconds=1),
}


def hurry() -> list[str]:
    """Make the limits of the product small, in this process; return which were found."""
    found = []
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("mmsearch.") and isinstance(module, ModuleType):
            for name, value in _HURRY.items():
                if hasattr(module, name):
                    setattr(module, name, value)
                    found.append(f"{module_name}.{name}")
    return found


def index(db: Path, docs: Path) -> IndexReport:
    """Bring an index up to date, and make it where there is none."""
    with Engine.open(db, create=True, model=HashEmbedder()) as engine:
        return engine.index([docs], ocr=False, num_workers=1)


def optimize(db: Path, docs: Path) -> None:
    """Compact it and bring its indexes up to date."""
    _upkeep("optimize", db)


def collect_garbage(db: Path, docs: Path) -> None:
    """Free what nobody needs."""
    _upkeep("collect_garbage", db)


def repair(db: Path, docs: Path) -> None:
    """Mend an index that is whole: nothing may come of it."""
    _upkeep("repair", db)


def tag(db: Path, docs: Path) -> None:
    """Keep this state under a name; done before, it is done again."""
    names = [one.name for one in Store.open(db).tags()]  # type: ignore[attr-defined]
    if TAG in names:
        _upkeep("untag", db, TAG)
    _upkeep("tag", db, TAG)


def restore(db: Path, docs: Path) -> None:
    """Bring back the state of `tag`."""
    _upkeep("restore", db, TAG)


TAG = "kept"


def rebuild(db: Path, docs: Path) -> None:
    """Fill it anew through another model than it has."""
    raise NotImplementedError


def _upkeep(name: str, db: Path, *arguments: object) -> None:
    getattr(upkeep, name)(db, *arguments)


# What of it there is in this tree; a deed that is not there yet is not tried.
def available() -> dict[str, Deed]:
    """Return the deeds that this tree knows, by name."""
    here: dict[str, Deed] = {"index": index}
    for name, deed in (
        ("optimize", optimize),
        ("collect_garbage", collect_garbage),
        ("repair", repair),
        ("tag", tag),
        ("restore", restore),
    ):
        if inspect.isfunction(getattr(upkeep, name, None)):
            here[name] = deed
    return here


def look(db: Path) -> Holdings:
    """Return what the index holds."""
    return holdings(db)


def problems(db: Path) -> list[str]:
    """Return what doctor finds."""
    return [problem.sentence for problem in Store.open(db).check()]
