"""Kill -9 at every moment: does a re-run end as if nothing had happened?

    python benchmarks/reliability/kill.py [--trials 1000] [--seed 0] [--out RESULTS.json]
    python benchmarks/reliability/kill.py --only 137          one trial of that seed again
    python benchmarks/reliability/kill.py --sum A.json B.json  runs of several seeds as one

A trial changes a few files, kills what is done to the index, opens the index at once as a
reader does, does the same again, and holds every row against undisturbed runs over the
same files in a folder of its own. An index lives through many trials, so that what one
kill left behind meets the next. Three ways to die, in turn:

    boundary   at a call or return of a function of the store, or of fsync, rename, unlink,
               mkdir, lock: the first one after the files of the index have changed. Where
               that is undisturbed runs have shown; each change is as likely as any other
    inside     at the last one before they change, and up to 20 ms on: in native code
    moment     at a moment drawn from the length of an undisturbed run

Most lives read files without workers (`deeds.read_here`), one in four reads as users do.
"""

import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "benchmarks")) if path not in sys.path]

from reliability import deeds, faults, report  # noqa: E402
from reliability.deeds import Deed  # noqa: E402
from reliability.faults import Boundary  # noqa: E402
from reliability.forks import ChildFailed, Fork, preload, say_when, wait_until_alone  # noqa: E402
from reliability.holdings import NOTHING, Holdings, differences  # noqa: E402
from reliability.world import Corpus  # noqa: E402

WAYS = ("boundary", "inside", "moment")
TRIALS_A_LIFE = 20
ANEW = 0.2  # of the indexes that others are held against are made by one run
FIRST_COMMIT = "writer.Writer.commit_all"
INSIDE_S = 0.02
MEDIA_EVERY = 3  # lives of notes alone are quicker: one in so many has PDFs and pictures too
WORKERS_EVERY = 4  # lives read in workers, as users do; the others in the process itself


@dataclass
class Findings:
    """What the trials came to.

    kills:   by deed and way
    at:      kills at boundaries, by name of the boundary
    spared:  runs that ended before their kill: looked at as well, and tried again
    wrong:   what did not hold, a line each, with the trial that shows it
    """

    trials: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    at: Counter[str] = field(default_factory=Counter)
    spared: int = 0
    seen_between: Counter[str] = field(default_factory=Counter)
    leftovers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Knowledge:
    """What undisturbed runs have shown: where a deed changes files, and how long it takes."""

    def __init__(self, watches: int) -> None:
        self._watches = watches
        self._boundaries: dict[str, list[tuple[Boundary, Boundary]]] = defaultdict(list)
        self._runs: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}

    def wants_more(self, deed: str) -> bool:
        """Say whether a deed should be watched once more before it is killed."""
        return self._runs[deed] < self._watches

    def learn(self, deed: str, found: list[tuple[Boundary, Boundary]], seconds: float) -> None:
        """Take over where a run changed files."""
        self._runs[deed] += 1
        self._boundaries[deed] += found
        self.seconds[deed] = min(seconds, self.seconds.get(deed, seconds))

    def draw(self, deed: str, dice: random.Random, *, after: bool) -> Boundary:
        """Return a boundary between two changes; ``after`` one, or before the next."""
        return dice.choice(self._boundaries[deed])[after]


class Life:
    """An index, its corpus, and a run undisturbed over the same files after every change."""

    def __init__(self, folder: Path, *, media: bool) -> None:
        self.folder = folder
        self.db = folder / "db"
        self.corpus = Corpus(folder / "docs", media=media)
        self.before: Holdings = NOTHING  # what is right now
        self.model = deeds.MODELS[0]
        self.tagged: tuple[Holdings, str] | None = None

    def undisturbed(self, model: str, *, anew: bool = False) -> Holdings:
        """Index the corpus into a folder that nothing is killed in; return what that holds.

        That index is of as many runs as there were changes, or of one, made ``anew``.
        """
        calm = self.folder / f"calm-{model}"
        if anew:
            shutil.rmtree(calm, ignore_errors=True)
        holdings: Holdings = Fork(_index_and_look, calm, self.corpus.folder, model).result()
        return holdings


@dataclass(frozen=True, slots=True)
class Task:
    """What is done to which index, and what must come of it.

    between: the states a reader may see after a kill; with ``mixed`` each document may be
             as in any of them, else all are as in one. Without any there may be no index
    """

    kind: str
    deed: Deed
    db: Path
    docs: Path
    between: tuple[Holdings, ...]
    after: Holdings
    mixed: bool = False


def main() -> None:
    """Kill as often as asked, print what came of it, write it down."""
    parser = report.parser(__doc__ or "", "kill")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=2, help="At most so many kills a trial.")
    parser.add_argument("--enough", type=int, help="Stop after so many kills.")
    parser.add_argument("--minutes", type=float, help="Stop after so many minutes.")
    parser.add_argument("--only", type=int, help="Run the life of this trial, up to it, alone.")
    parser.add_argument("--sum", type=Path, nargs="+", help="Add up these results instead.")
    asked = parser.parse_args()
    if asked.sum:
        told = added_up([json.loads(path.read_text()) for path in asked.sum])
        asked.out.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
        print(show(told, told["wall_s"]))
        return
    here, began = report.machine(), time.monotonic()
    with tempfile.TemporaryDirectory(dir=asked.scratch) as scratch:
        findings = trials(
            Path(scratch),
            asked.trials,
            asked.seed,
            only=asked.only,
            kills=asked.kills,
            enough=asked.enough or sys.maxsize,
            until=began + (asked.minutes or 1e9) * 60,
            tell=print,
        )
    told = summary(findings)
    report.write(asked.out, here, began, {"seed": asked.seed, **told})
    print(show(told, time.monotonic() - began))
    raise SystemExit(1 if findings.wrong else 0)


def trials(
    scratch: Path,
    num_trials: int,
    seed: int,
    *,
    only: int | None = None,
    kills: int = 2,
    enough: int = sys.maxsize,
    until: float = float("inf"),
    tell: Callable[..., None] | None = None,
) -> Findings:
    """Run them, life after life, and return what was found.

    ``enough`` kills, or ``until`` of `time.monotonic`, end it early.
    """
    preload()
    findings, knowledge = Findings(), Knowledge(2 if num_trials >= 100 else 1)
    first = 0 if only is None else only // TRIALS_A_LIFE
    last = num_trials if only is None else only + 1
    for number in range(first * TRIALS_A_LIFE, last, TRIALS_A_LIFE):
        life_number = number // TRIALS_A_LIFE
        folder = scratch / f"life-{life_number}"
        life = Life(folder, media=life_number % MEDIA_EVERY == 0)
        deeds.read_here(life_number % WORKERS_EVERY != WORKERS_EVERY - 1)
        for trial in range(number, min(number + TRIALS_A_LIFE, last)):
            dice = random.Random(f"{seed}/{trial}")
            known = len(findings.wrong)
            try:
                one_trial(life, trial, dice, findings, knowledge, kills)
            except ChildFailed as error:
                findings.wrong.append(f"trial {trial}: {error}")
            if tell and len(findings.wrong) > known:
                tell("\n".join(findings.wrong[known:]), flush=True)
            if tell and (trial + 1) % 20 == 0:
                total = findings.kills.total()
                tell(f"{trial + 1} trials, {total} kills, {len(findings.wrong)} wrong", flush=True)
            if len(findings.wrong) > known:
                break  # a life that went wrong is over: the next begins anew
            if findings.kills.total() >= enough or time.monotonic() > until:
                break
        shutil.rmtree(folder, ignore_errors=True)
        if findings.kills.total() >= enough or time.monotonic() > until:
            break
    return findings


def one_trial(
    life: Life,
    trial: int,
    dice: random.Random,
    findings: Findings,
    knowledge: Knowledge,
    kills: int,
) -> None:
    """Change, kill, look, do again, look: what does not hold is added to the findings.

    A run that ended before its kill is looked at too, and then it is tried again. After a
    kill up to ``kills - 1`` re-runs are killed as well.
    """
    way = WAYS[trial % len(WAYS)]
    while True:
        known = len(findings.wrong)
        killed = _round(life, f"trial {trial}", way, dice, findings, knowledge, kills)
        if len(findings.wrong) > known:
            return
        if killed:
            findings.trials += 1
            return


def _round(
    life: Life,
    where: str,
    way: str,
    dice: random.Random,
    findings: Findings,
    knowledge: Knowledge,
    kills: int,
) -> bool:
    """Return whether there was a kill."""
    task = _task(life, dice)
    where += f" ({task.kind})"
    killed = False
    if knowledge.wants_more(task.kind):
        knowledge.learn(task.kind, *Fork(_watched, task.deed, task.db, task.docs).result())
    else:
        for number in range(kills):
            how = _kill(task, way, dice, findings, knowledge, again=number > 0)
            where += f", {how or 'not killed'}"
            killed = killed or bool(how)
            _look_between(task, where, findings)
            way = WAYS[(WAYS.index(way) + 1) % len(WAYS)]
            if not how or dice.random() * kills < 1:
                break
        Fork(_done, task.deed, task.db, task.docs).result()
    seen, problems = Fork(deeds.look_closely, task.db).result()
    wrong = differences(seen or NOTHING, task.after)
    wrong += [f"doctor: {sentence}" for sentence in problems]
    if seen and seen.leftovers:
        findings.leftovers[task.kind] += 1
    findings.wrong += [f"{where}: {one}" for one in wrong]
    return killed


def _task(life: Life, dice: random.Random) -> Task:
    """Draw what to do: mostly to index; and what else may be done to what holds something."""
    others = [name for name in deeds.available() if name != "index"]
    if life.tagged is None:
        others = [name for name in others if name != "restore"]
    apart = list(deeds.apart())
    draw = dice.random()
    if not life.before.documents or draw < 0.75 or not (others or apart):
        return _index(life, dice)
    if not others or (apart and draw > 0.93):
        return _apart(life, dice.choice(apart))
    name, deed, before, after = dice.choice(others), None, life.before, life.before
    if name == "rebuild":
        life.model = deeds.MODELS[1 - deeds.MODELS.index(life.model)]
        deed, after = deeds.rebuild_to(life.model), life.undisturbed(life.model)
        life.tagged = None  # what an older generation kept is not the new one's
    elif name == "tag":
        life.tagged = before, life.model
    elif name == "restore" and life.tagged is not None:
        after, life.model = life.tagged
    life.before = after
    deed = deed or deeds.available()[name]
    return Task(name, deed, life.db, life.corpus.folder, (before, after), after)


def _index(life: Life, dice: random.Random) -> Task:
    before = life.before
    life.corpus.change(dice, dice.randint(1, 5) if before.documents else 8)
    life.before = after = life.undisturbed(life.model, anew=dice.random() < ANEW)
    kind = "index" if before.documents else "index from nothing"
    between = (before, after) if before.documents else (after, NOTHING)
    return Task(kind, deeds.index, life.db, life.corpus.folder, between, after, mixed=True)


def _apart(life: Life, name: str) -> Task:
    """Make an index of its own, beside that of the life."""
    prepare, deed = deeds.apart()[name]
    db = life.folder / "apart"
    shutil.rmtree(db, ignore_errors=True)
    docs = Fork(prepare, db, life.db, life.folder / "aside").result()
    if name == "import":
        return Task(name, deed, db, docs, (life.before,), life.before)
    calm = life.folder / "calm-apart"
    shutil.rmtree(calm, ignore_errors=True)
    shutil.copytree(db, calm)
    Fork(deed, calm, docs).result()
    after = Fork(deeds.look, calm).result()
    return Task(name, deed, db, docs, (after,), after)


def _kill(
    task: Task,
    way: str,
    dice: random.Random,
    findings: Findings,
    knowledge: Knowledge,
    *,
    again: bool,
) -> str:
    """Do it and kill it; return how, or nothing where it ended before.

    ``again``: there is less to do, so that it is killed earlier.
    """
    kind = task.kind
    if way == "moment":  # of the whole run, or of what follows its first commit
        boundary = Boundary(FIRST_COMMIT, True) if dice.random() < 0.5 else None
        delay_s = dice.uniform(0.0, knowledge.seconds[kind] / (2 if boundary else 1))
    else:
        boundary = knowledge.draw(kind, dice, after=way == "boundary")
        boundary = replace(boundary, occurrence=1) if again else boundary
        delay_s = dice.uniform(0.0, INSIDE_S)
    how = f"{way} {boundary or ''}"
    if way != "boundary":
        how += f" + {delay_s * 1000:.1f} ms"
    child = Fork(_until_killed, task.deed, task.db, task.docs, boundary, way)
    if way != "boundary" and child.wait_for_word():
        time.sleep(delay_s)
        child.kill()
    lived, _ = child.outcome()
    left = wait_until_alone(child.pid)
    if left:
        findings.wrong.append(f"{kind}, {how}: processes {left} outlived it")
    if lived:
        findings.spared += 1
        return ""
    findings.kills[f"{kind}, {way}"] += 1
    if boundary and way != "moment":
        findings.at[f"{'before' if boundary.before else 'after'} {boundary.name}"] += 1
    return how


def _look_between(task: Task, where: str, findings: Findings) -> None:
    """Look as a reader does who comes between the kill and the re-run."""
    seen = Fork(deeds.look_if_there, task.db).result()
    first, *_ = task.between
    if seen is None:
        findings.seen_between["no index yet"] += 1
        if len(task.between) > 1 and NOTHING not in task.between:
            findings.wrong.append(f"{where}, a reader: the index is gone")
        return
    at_an_end = any(not differences(seen, state) for state in task.between)
    wrong = differences(seen, *task.between) if task.mixed else []
    if not task.mixed and not at_an_end:
        wrong = [f"neither before nor after: {one}" for one in differences(seen, first)]
    findings.seen_between["an end" if at_an_end else "between"] += 1
    findings.wrong += [f"{where}, a reader: {one}" for one in wrong]


# ---------------------------------------------------------------- in a child


def _done(deed: Deed, db: Path, docs: Path) -> None:
    deeds.hurry()
    deed(db, docs)


def _index_and_look(db: Path, docs: Path, model: str) -> Holdings:
    deeds.index(db, docs, model=model)
    return deeds.look(db)


def _watched(deed: Deed, db: Path, docs: Path) -> tuple[list[tuple[Boundary, Boundary]], float]:
    deeds.hurry()
    began = time.perf_counter()
    found = faults.find_boundaries(db)
    try:
        deed(db, docs)
    finally:
        faults.stop()
    return found, time.perf_counter() - began


def _until_killed(deed: Deed, db: Path, docs: Path, boundary: Boundary | None, way: str) -> None:
    deeds.hurry()
    if boundary is None:
        say_when()
    else:
        faults.die_at(boundary, None if way == "boundary" else say_when)
    deed(db, docs)


# ---------------------------------------------------------------- what is told


def summary(findings: Findings) -> dict[str, Any]:
    """Return the findings as JSON."""
    return {
        "trials": findings.trials,
        "kills": findings.kills.total(),
        "kills_by_deed_and_way": dict(sorted(findings.kills.items())),
        "boundaries_killed_at": len(findings.at),
        "kills_by_boundary": dict(sorted(findings.at.items())),
        "runs_that_ended_before_their_kill": findings.spared,
        "readers_between_saw": dict(findings.seen_between),
        "ends_with_rows_nobody_counts": dict(findings.leftovers),
        "wrong": findings.wrong,
    }


def added_up(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return several runs, of seeds of their own, as one; sums may be among them."""
    told: dict[str, Any] = {"seeds": [], "machines": [], "wrong": []}
    for run in runs:
        told["seeds"] += run["seeds"] if "seeds" in run else [run["seed"]]
        told["machines"] += (
            run["machines"] if "machines" in run else [run["machine"] | {"wall_s": run["wall_s"]}]
        )
        for name, value in run.items():
            if isinstance(value, dict) and name != "machine":
                told[name] = dict(sorted((Counter(told.get(name, {})) + Counter(value)).items()))
            elif isinstance(value, int | float) and name != "seed":
                told[name] = round(told.get(name, 0) + value, 1)
        told["wrong"] += run["wrong"]
    told["boundaries_killed_at"] = len(told["kills_by_boundary"])
    return told


def show(told: dict[str, Any], wall_s: float) -> str:
    """Return a table of them."""
    rows = [(what, count) for what, count in told["kills_by_deed_and_way"].items()]
    rows += [
        ("all kills", told["kills"]),
        ("boundaries, different ones", told["boundaries_killed_at"]),
        ("wrong", len(told["wrong"])),
    ]
    return report.table(("kill -9", "trials"), rows) + f"\n{wall_s:.0f} s"


if __name__ == "__main__":
    main()
