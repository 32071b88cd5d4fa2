"""What happens to indexes in houses: full disks, wrong clocks, moved folders, two at once.

    python benchmarks/reliability/accidents.py [--rounds 40] [--seed 0] [--out RESULTS.json]
    python benchmarks/reliability/accidents.py --case disk_full --rounds 5

Every case says what must hold, and is held against an undisturbed run over the same files.
Disks are filled, and made read-only, on a tmpfs of a few megabytes: where this user may not
mount one, these two cases are skipped and the report says so.
"""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "benchmarks")) if path not in sys.path]

from mmsearch import Engine  # noqa: E402
from mmsearch.errors import MMSearchError, StoreLocked  # noqa: E402
from mmsearch.retriever.store.store import Store  # noqa: E402
from reliability import deeds, report  # noqa: E402
from reliability.forks import ChildFailed, Fork, preload, say_when  # noqa: E402
from reliability.holdings import Holdings, differences  # noqa: E402
from reliability.world import Corpus, HashEmbedder, sentence, write_pdf  # noqa: E402

DISK_MIB = 96
SPARE_BYTES = 16 * 2**20
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long shift(void) { const char *s = getenv("SHIFT_S"); return s ? atol(s) : 0; }
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, at);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += shift();
    return failed;
}
int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec; at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


class Skipped(Exception):
    """A case that this machine or this user cannot stage."""


@dataclass
class Case:
    """What came of one case: what was seen how often, and what did not hold."""

    must_hold: str
    rounds: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    skipped: str = ""


def main() -> None:
    """Stage the cases, print what came of them, write it down."""
    parser = report.parser(__doc__ or "", "accidents")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--case", choices=sorted(CASES), action="append")
    asked = parser.parse_args()
    here, began = report.machine(), time.monotonic()
    found = {}
    for name in asked.case or CASES:
        with tempfile.TemporaryDirectory(dir=asked.scratch) as scratch:
            found[name] = stage(name, Path(scratch), asked.rounds, asked.seed)
        print(f"{name}: {found[name].rounds} rounds", *found[name].wrong, sep="\n  ", flush=True)
    told = {name: vars(case) | {"seen": dict(case.seen)} for name, case in found.items()}
    report.write(asked.out, here, began, {"seed": asked.seed, "cases": told})
    print(show(found))
    raise SystemExit(1 if any(case.wrong for case in found.values()) else 0)


def stage(name: str, scratch: Path, rounds: int, seed: int) -> Case:
    """Run the rounds of one case."""
    preload()
    act = CASES[name]
    case = Case(" ".join((act.__doc__ or "").split()))
    dice = random.Random(f"{seed}/{name}")
    try:
        for number in range(max(1, rounds // SLOW.get(name, 1))):
            folder = scratch / f"{number:03}"
            folder.mkdir()
            known = len(case.wrong)
            try:
                act(folder, dice, case)
            except ChildFailed as error:
                case.wrong.append(str(error))
            case.wrong[known:] = [f"round {number}: {one}" for one in case.wrong[known:]]
            case.rounds += 1
            shutil.rmtree(folder, ignore_errors=True)
    except Skipped as error:
        case.skipped = str(error)
    return case


# ---------------------------------------------------------------- the cases


def disk_full(folder: Path, dice: random.Random, case: Case) -> None:
    """A run on a full disk ends with one of our errors and a remedy, or well.

    Every document is as before or as after, doctor finds nothing, and with room again a
    re-run ends as if undisturbed.
    """
    with _small_disk(folder / "disk") as disk:
        corpus, db = Corpus(folder / "docs"), disk / "db"
        before = None
        if dice.random() < 0.75:  # else the disk is full while the index is being made
            corpus.change(dice, 6)
            before = _indexed(db, corpus)
        corpus.change(dice, 5)
        after = _calm(folder, corpus)
        free = 4096 * dice.randrange(160 if before else 40)
        if dice.random() < 0.2:  # about as much as merging files asks for
            free += SPARE_BYTES
        _fill(disk, free)
        deed = dice.choice([name for name in deeds.available() if name in _MAINTENANCE])
        name = deed if before and dice.random() < 0.3 else "index"
        error = Fork(_error_of, deeds.available()[name], db, corpus.folder).result()
        case.seen[_told(error)] += 1
        if error and not error.is_ours:
            case.wrong.append(f"{name} with {free} bytes: {error.text}")
        if error and error.is_ours and not error.hint:
            case.wrong.append(f"{name}: no remedy beside: {error.text}")
        seen, problems = Fork(deeds.look_closely, db).result()
        if before or seen:
            allowed = (before or _NONE, after)
            case.wrong += [f"{name}, full: {one}" for one in differences(seen or _NONE, *allowed)]
        case.wrong += [f"{name}, full: doctor: {one}" for one in problems]
        (disk / "ballast").unlink()
        _hold(case, f"{name} with {free} bytes, room again", _indexed(db, corpus), after)


def read_only(folder: Path, dice: random.Random, case: Case) -> None:
    """A read-only index answers and passes doctor.

    What would change it is refused with a remedy, and nothing about it changes.
    """
    with _small_disk(folder / "disk") as disk:
        corpus, db = Corpus(folder / "docs"), disk / "db"
        corpus.change(dice, 6)
        before = _indexed(db, corpus)
        corpus.change(dice, 3)
        _mount(disk, "remount,ro")
        for name, deed in deeds.available().items():
            if name in ("index", *_MAINTENANCE):
                error = Fork(_error_of, deed, db, corpus.folder).result()
                case.seen[f"{name}: {_told(error)}"] += 1
                if not error or not error.is_ours or not error.hint:
                    case.wrong.append(f"{name}: {error.text if error else 'was not refused'}")
        seen, problems = Fork(deeds.look_closely, db).result()
        case.wrong += problems
        _hold(case, "read-only", seen, before)
        found = Fork(_query, db).result()
        if not found:
            case.wrong.append("a query found nothing")
        _mount(disk, "remount,rw")
        _hold(case, "writable again", _indexed(db, corpus), _calm(folder, corpus))


def clock_backwards(folder: Path, dice: random.Random, case: Case) -> None:
    """Runs under clocks that go back and forth by a year end as if the clock were right.

    Files whose times lie in the past or the future are taken for what they are.
    """
    shim = _shim(folder)
    corpus, db = Corpus(folder / "docs", media=False), folder / "db"
    for shift_days in (0, -365, 365, -1, 0):
        corpus.change(dice, 4)
        for path in dice.sample(corpus.files, min(2, len(corpus.files))):
            at = time.time() + dice.choice((-400, -1, 400)) * 86400 + dice.random()
            os.utime(path, (at, at))
        shifted = os.environ | {"SHIFT_S": str(shift_days * 86400), "LD_PRELOAD": str(shim)}
        command = [sys.executable, __file__, "--index", str(db), str(corpus.folder)]
        done = subprocess.run(command, env=shifted, capture_output=True, text=True, check=False)
        case.seen[f"clock at {shift_days:+} days"] += 1
        if done.returncode:
            case.wrong.append(f"clock at {shift_days} days: {done.stderr[-500:]}")
            return
        if abs(json.loads(done.stdout)["clock"] - time.time() - shift_days * 86400) > 60:
            raise Skipped("the clock could not be shifted")
        seen, problems = Fork(deeds.look_closely, db).result()
        _hold(case, f"clock at {shift_days} days", seen, _calm(folder, corpus))
        case.wrong += problems


def index_moved(folder: Path, dice: random.Random, case: Case) -> None:
    """A moved index is the same index, and none of its files is read again.

    One that is moved during a run loses nothing that it had, the run ends with one of our
    errors or well, and a re-run at the new place completes it.
    """
    corpus, db, moved = Corpus(folder / "docs"), folder / "db", folder / "elsewhere" / "moved"
    moved.parent.mkdir()
    corpus.change(dice, 6)
    before = _indexed(db, corpus)
    db.rename(moved)
    _hold(case, "moved", Fork(deeds.look_closely, moved).result()[0], before)
    read = Fork(_num_read, moved, corpus.folder).result()
    if read:
        case.wrong.append(f"{read} unchanged files were read again after the move")
    moved.rename(db)
    corpus.change(dice, 5)
    after = _calm(folder, corpus)
    running = Fork(_error_of, _slowly_indexed, db, corpus.folder)
    running.wait_for_word()
    time.sleep(dice.uniform(0.0, 0.15))
    db.rename(moved)
    _, error = running.outcome()
    case.seen[_told(error)] += 1
    if error and not error.is_ours:
        case.wrong.append(f"moved during a run: {error.text}")
    seen, problems = Fork(deeds.look_closely, moved).result()
    case.wrong += [f"moved during a run: {one}" for one in differences(seen, before, after)]
    case.wrong += problems
    _hold(case, "at the new place", _indexed(moved, corpus), after)
    if db.exists():
        case.seen["something was made at the old place"] += 1
        if Store.exists(db):
            case.wrong.append("an index was made at the old place")


def file_changed_while_read(folder: Path, dice: random.Random, case: Case) -> None:
    """Files that change again and again while they are read harm no run.

    A document replaced by rename shows pages of one version only, and a run after the last
    change ends as if nothing had changed meanwhile.
    """
    docs, db = folder / "docs", folder / "db"
    corpus = Corpus(docs)
    names = ["a.pdf", "b.pdf", "c.txt", "d.png"]
    seed = dice.random()
    in_place = dice.random() < 0.4
    _write_versions(docs, names, 0, in_place=False)
    changing = Fork(_keep_changing, docs, names, seed, in_place)
    changing.wait_for_word()
    for number in range(3):
        error = Fork(_error_of, deeds.index, db, docs).result()
        if error:
            case.wrong.append(f"run {number}: {error.text}")
        if not in_place:
            case.wrong += Fork(_versions_mixed, db).result()
    changing.kill()
    changing.outcome()
    for name in names:  # what the kill left half written is no version of it
        (docs / f".{name}").unlink(missing_ok=True)
    if in_place:
        _write_versions(docs, names, 10**6, in_place=False)
    case.seen["in place" if in_place else "by rename"] += 1
    seen = _indexed(db, corpus)
    _hold(case, "in place" if in_place else "by rename", seen, _calm(folder, corpus))


def two_at_once(folder: Path, dice: random.Random, case: Case) -> None:
    """Of runs started at once, each ends well or is told that another is at work.

    The index is as if one had run, also where it is made by them, and where one is killed.
    """
    corpus, db = Corpus(folder / "docs"), folder / "db"
    before = None
    if dice.random() < 0.6:
        corpus.change(dice, 5)
        before = _indexed(db, corpus)
    corpus.change(dice, 5)
    after = _calm(folder, corpus)
    children = []
    for _ in range(dice.choice((2, 2, 3))):
        children.append(Fork(_error_of, deeds.index, db, corpus.folder))
        time.sleep(dice.choice((0.0, 0.0, dice.uniform(0.0, 0.3))))
    killed = dice.random() < 0.3
    if killed:
        time.sleep(dice.uniform(0.0, 0.2))
        children[0].kill()
    outcomes = [child.outcome() for child in children]
    errors = [error for lived, error in outcomes if lived]
    case.seen[" & ".join(sorted(_told(error) for error in errors)) + " (one killed)" * killed] += 1
    for error in errors:
        if error and error.name != StoreLocked.__name__:
            case.wrong.append(f"one of several: {error.text}")
    if not killed and all(errors):
        case.wrong.append("none of several did it")
    if any(error is None for error in errors):
        _hold(case, "several at once", Fork(deeds.look_closely, db).result()[0], after)
    _hold(case, "and again", _indexed(db, corpus), after)
    if before and dice.random() < 0.5:  # a lock file of a process that is no more
        (db / "write.lock").write_text('{"pid": 1, "host": "elsewhere", "since": "2001"}')
        _hold(case, "a stale lock", _indexed(db, corpus), after)


CASES: dict[str, Callable[[Path, random.Random, Case], None]] = {
    case.__name__: case
    for case in (
        disk_full,
        read_only,
        clock_backwards,
        index_moved,
        file_changed_while_read,
        two_at_once,
    )
}
SLOW = {"clock_backwards": 5}  # programs started anew for each clock: fewer rounds
_MAINTENANCE = ("index", "optimize", "collect_garbage", "tag")
_NONE = Holdings({}, {}, 0, ())


# ---------------------------------------------------------------- in a child


@dataclass(frozen=True, slots=True)
class Error:
    """What ended a run."""

    name: str
    text: str
    hint: str
    is_ours: bool


def _error_of(deed: deeds.Deed, db: Path, docs: Path) -> Error | None:
    deeds.hurry()
    try:
        deed(db, docs)
    except Exception as error:
        hint = getattr(error, "hint", "")
        text = f"{type(error).__name__}: {error}"
        return Error(type(error).__name__, text, hint, isinstance(error, MMSearchError))
    return None


def _told(error: Error | None) -> str:
    return error.name if error else "ended well"


def _slowly_indexed(db: Path, docs: Path) -> None:
    with Engine.open(db, model=HashEmbedder()) as engine:
        said = False

        def tell(_: object) -> None:
            nonlocal said
            if not said:
                say_when()
            said = True
            time.sleep(0.02)

        engine.index([docs], ocr=False, num_workers=1, on_progress=tell)
    if not said:
        say_when()


def _query(db: Path) -> int:
    with Engine.open(db, model=HashEmbedder()) as engine:
        return len(engine.query("lighthouse"))


def _num_read(db: Path, docs: Path) -> int:
    done = deeds.index(db, docs)
    return done.documents + len(done.failed)


def _index_and_look(db: Path, docs: Path) -> Holdings:
    deeds.hurry()
    deeds.index(db, docs)
    return deeds.look(db)


def _keep_changing(docs: Path, names: list[str], seed: float, in_place: bool) -> None:
    dice = random.Random(seed)
    say_when()
    for version in range(1, 100_000):
        _write_versions(docs, [dice.choice(names)], version, in_place=in_place)
        time.sleep(dice.choice((0.0, 0.002, 0.02)))


def _write_versions(docs: Path, names: list[str], version: int, *, in_place: bool) -> None:
    from PIL import Image

    docs.mkdir(exist_ok=True)
    for name in names:
        aside = docs / f".{name}"
        if name.endswith(".pdf"):
            pages = range(1, 7)
            write_pdf(aside, [sentence(random.Random(1), f"version {version} x") for _ in pages])
        elif name.endswith(".png"):
            colour = (version % 256, version // 256 % 256, 7)
            Image.new("RGB", (64, 48), colour).save(aside, "PNG")
        else:
            parts = [sentence(random.Random(1), f"version {version} x", num_words=170)] * 4
            aside.write_text("\n\n".join(parts))
        if in_place:
            (docs / name).write_bytes(aside.read_bytes())
            aside.unlink()
        else:
            aside.replace(docs / name)


def _versions_mixed(db: Path) -> list[str]:
    """Return the documents whose pages are of several versions."""
    wrong = []
    store = Store.open(db)
    for document in store.documents():
        texts = [segment.text for segment in store.segments_of(document.path) if segment.text]
        versions = {text.split(" x")[0] for text in texts}
        if len({one for one in versions if one.startswith("version")}) > 1:
            wrong.append(f"{Path(document.path).name} shows {sorted(versions)}")
    return wrong


# ---------------------------------------------------------------- the stage


def _indexed(db: Path, corpus: Corpus) -> Holdings:
    holdings: Holdings = Fork(_index_and_look, db, corpus.folder).result()
    return holdings


def _calm(folder: Path, corpus: Corpus) -> Holdings:
    shutil.rmtree(folder / "calm", ignore_errors=True)
    return _indexed(folder / "calm", corpus)


def _hold(case: Case, when: str, seen: Holdings | None, right: Holdings) -> None:
    case.wrong += [f"{when}: {one}" for one in differences(seen or _NONE, right)]


@contextlib.contextmanager
def _small_disk(at: Path) -> Iterator[Path]:
    at.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(at)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise Skipped(f"no tmpfs can be mounted here ({made.stderr.strip()})")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=False)


def _mount(at: Path, options: str) -> None:
    subprocess.run(["mount", "-o", options, str(at)], check=True)


def _fill(disk: Path, free: int) -> None:
    """Leave ``free`` bytes."""
    found = os.statvfs(disk)
    with (disk / "ballast").open("wb") as file:
        file.write(bytes(max(0, found.f_bavail * found.f_frsize - free)))


def _shim(folder: Path) -> Path:
    """Build a library that shifts the clock of whatever is started with it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise Skipped("no C compiler for a library that shifts the clock")
    source, built = folder / "shift.c", folder / "shift.so"
    source.write_text(SHIM)
    command = [compiler, "-shared", "-fPIC", "-o", str(built), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return built


def show(found: dict[str, Case]) -> str:
    """Return a table of them."""
    rows = [
        (name, case.rounds, len(case.wrong), case.skipped or _most(case.seen))
        for name, case in found.items()
    ]
    return report.table(("case", "rounds", "wrong", "seen"), rows)


def _most(seen: Counter[str]) -> str:
    return ", ".join(f"{count} x {what}" for what, count in seen.most_common(4))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--index"]:  # a run of its own, under whatever clock
        deeds.hurry()
        deeds.index(Path(sys.argv[2]), Path(sys.argv[3]))
        print(json.dumps({"clock": time.time()}))
    else:
        main()
