"""What is done to an index while it may be killed, each in a process of its own.

    index, optimize, collect_garbage, repair, tag, restore, rebuild     to the index of a life
    migrate, import_                                                    to one made for it

Each takes the folder of the index and that of the corpus; it can be done again when it was
cut short, and ends in the state that one undisturbed would have ended in. A deed that this
tree does not know yet is not tried.
"""

import shutil
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from mmsearch import Engine, upkeep
from mmsearch.errors import StoreNotFound, StoreOutdated, UnreadableFile
from mmsearch.indexers.content import content_hash
from mmsearch.indexers.readers import read
from mmsearch.indexers.report import IndexReport
from mmsearch.indexers.sandbox import ReadTask, Sandbox
from mmsearch.retriever.store.store import Store
from mmsearch.values import Segment
from reliability.holdings import Holdings, holdings
from reliability.world import HashEmbedder

Deed = Callable[[Path, Path], object]

FIXTURE = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "index-schema-1.tar.xz"
MODELS = ("hash", "other")  # an index is rebuilt from one to the other and back
TAG = "kept"

# So that a corpus of a dozen files lives through what one of a million does: many commits
# a run, rows dropped and tables merged in between, and old versions that are really removed.
_HURRY: Mapping[str, Any] = {
    "_EMBED_WITHIN_S": 0.0,
    "_COMMIT_EVERY_S": 0.0,
    "MANY_ROWS": 8,
    "MANY_FILES": 4,
    "MANY_UNCOVERED": 4,
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


_in_workers = Sandbox.read


def read_here(here: bool) -> None:
    """Let files be read in the process that asks, or by workers as always.

    A worker takes as long to start as all the rest of a small run. What a kill does to the
    index is the same, so most trials do without; what it does to workers is seen by the others.
    """
    Sandbox.read = _read_here if here else _in_workers  # type: ignore[method-assign]


def _read_here(
    sandbox: Sandbox, tasks: Iterable[ReadTask]
) -> Iterator[tuple[ReadTask, Segment | UnreadableFile | None]]:
    for task in tasks:
        ended, outcome = task, None
        try:
            if task.content_hash == "":
                ended = replace(task, content_hash=content_hash(task.path))
            assert task.kind is not None
            for segment in read(task.path, task.kind, task.policy):
                yield task, segment
        except UnreadableFile as error:
            outcome = error
        yield ended, outcome


def model_of(db: Path) -> str:
    """Return the name of the model an index was made with; the first one where there is none."""
    return Store.open(db).space.model if Store.exists(db) else MODELS[0]


def index(db: Path, docs: Path, *, model: str = "") -> IndexReport:
    """Bring an index up to date, and make it where there is none."""
    with Engine.open(db, create=True, model=HashEmbedder(model or model_of(db))) as engine:
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
    """Keep this state under a name, in place of what the name kept before."""
    if any(one.name == TAG for one in _upkeep("tags", db)):
        _upkeep("untag", db, TAG)
    _upkeep("tag", db, TAG)


def restore(db: Path, docs: Path) -> None:
    """Bring back the state of `tag`."""
    _upkeep("restore", db, TAG)


def rebuild_to(model: str) -> Deed:
    """Return the deed of filling an index anew through another model."""

    def rebuild(db: Path, docs: Path) -> None:
        upkeep.rebuild(db, model=HashEmbedder(model), ocr=False, num_workers=1)

    return rebuild


def migrate(db: Path, docs: Path) -> None:
    """Bring an index of an older schema up to date: its next writer does."""
    with Store.open(db).writing():
        pass


def import_(db: Path, docs: Path) -> None:
    """Make an index of what was exported; one that is there has been imported whole."""
    if not Store.exists(db):
        upkeep.import_index(docs, db)


def prepare_migrate(db: Path, life_db: Path, aside: Path) -> Path:
    """Make ``db`` an index of schema 1."""
    shutil.rmtree(aside, ignore_errors=True)
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(aside, filter="data")
    (aside / "db").rename(db)
    return aside


def prepare_import(db: Path, life_db: Path, aside: Path) -> Path:
    """Export the index of the life to ``aside``, to be imported as ``db``."""
    shutil.rmtree(aside, ignore_errors=True)
    upkeep.export_index(life_db, aside)
    return aside


def available() -> dict[str, Deed]:
    """Return what can be done to the index of a life, by name."""
    deeds: dict[str, Deed] = {"index": index}
    for name, deed in (
        ("optimize", optimize),
        ("collect_garbage", collect_garbage),
        ("repair", repair),
        ("tag", tag),
        ("restore", restore),
        ("rebuild", rebuild_to(MODELS[1])),
    ):
        if hasattr(upkeep, name):
            deeds[name] = deed
    return deeds


def apart() -> dict[str, tuple[Callable[[Path, Path, Path], Path], Deed]]:
    """Return what makes an index of its own, by name: how it is prepared, and the deed."""
    deeds: dict[str, tuple[Callable[[Path, Path, Path], Path], Deed]] = {}
    if FIXTURE.exists():
        deeds["migrate"] = prepare_migrate, migrate
    if hasattr(upkeep, "import_index"):
        deeds["import"] = prepare_import, import_
    return deeds


def _upkeep(name: str, db: Path, *arguments: object) -> Any:  # noqa: ANN401
    return getattr(upkeep, name)(db, *arguments)


def look(db: Path) -> Holdings:
    """Return what the index holds."""
    return holdings(db)


def look_if_there(db: Path) -> Holdings | None:
    """Return what the index holds; None where there is none, or one of an older schema."""
    try:
        return holdings(db)
    except (StoreNotFound, StoreOutdated):
        return None


def look_closely(db: Path) -> tuple[Holdings | None, list[str]]:
    """Return what the index holds, and what doctor finds."""
    seen = look_if_there(db)
    check = getattr(upkeep, "check", None) or (lambda db: Store.open(db).check())
    return seen, [problem.sentence for problem in check(db)] if seen else []
