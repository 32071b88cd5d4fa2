"""Eight readers against one writer: is every answer of one committed state, and how soon?

    python benchmarks/reliability/readers.py [--minutes 10] [--out RESULTS.json]

The writer replaces, adds and removes groups of three documents, refreshes and optimizes.
Each of its steps has a number, which its documents and one more, the clock, carry in every
text: so a reader sees at once which step an answer is of. Four readers are processes, four
are threads that share a store. Each look holds the whole of a snapshot together: a group is
of one step, every document has all of its pages, searching finds every row and no other,
vectors and thumbnails are those of their texts, and no reader goes back in time.

    stale     how long before a look began the oldest commit had returned that it missed
    delay     from the return of a commit to the end of the first look that shows it: with the
              pause between two looks, and waiting for a processor; not counted for commits
              that came while the reader held everything together and did not look
"""

import contextlib
import hashlib
import mmap
import random
import struct
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "benchmarks")) if path not in sys.path]

from mmsearch import Engine  # noqa: E402
from mmsearch.errors import SegmentNotFound  # noqa: E402
from mmsearch.retriever.store.store import (  # noqa: E402
    Row,
    Snapshot,
    Store,
    new_commit_id,
)
from mmsearch.values import (  # noqa: E402
    Document,
    Item,
    Kind,
    Locator,
    Role,
    Status,
    Text,
    TextOrigin,
    View,
    segment_id,
)
from reliability import report  # noqa: E402
from reliability.forks import Fork, preload, say_when  # noqa: E402
from reliability.world import HashEmbedder  # noqa: E402

if TYPE_CHECKING:
    from mmsearch.values import Vectors

NUM_GROUPS, A_GROUP = 40, 3
CLOCK = "/docs/clock.pdf"
MOST_STEPS = 200_000
PAUSE_S = 0.05  # of a reader between two looks, and of the writer between two steps
DEEP_EVERY = 4  # looks: one holds everything together, the others ask for the clock alone
MEMORY_EVERY_S = 5.0


@dataclass
class Looks:
    """What one reader saw; times in seconds, memory in MiB with its time."""

    num_looks: int = 0
    num_deep: int = 0
    delays: list[float] = field(default_factory=list)
    stale: list[float] = field(default_factory=list)
    looks_s: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    steps: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass
class Written:
    """What the writer did."""

    did: Counter[str] = field(default_factory=Counter)
    steps_s: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)


class Shared:
    """When each step was done, for all processes: the number of the last one, and the times."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, 8 * (MOST_STEPS + 1))

    @property
    def last(self) -> int:
        """The last step that is done."""
        return int(struct.unpack_from("d", self._map, 0)[0])

    def done(self, step: int) -> None:
        """Note that a step is done now."""
        struct.pack_into("d", self._map, 8 * step, time.monotonic())
        struct.pack_into("d", self._map, 0, float(step))

    def when(self, step: int) -> float:
        """Return when a step was done, now for one that is visible before it returned."""
        return float(struct.unpack_from("d", self._map, 8 * step)[0]) or time.monotonic()


def main() -> None:
    """Let them at it for as long as asked, print what came of it, write it down."""
    parser = report.parser(__doc__ or "", "readers")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--threads", type=int, default=4)
    asked = parser.parse_args()
    here, began = report.machine(), time.monotonic()
    with tempfile.TemporaryDirectory(dir=asked.scratch) as scratch:
        told = run(
            Path(scratch), asked.minutes * 60, asked.processes, asked.threads, seed=asked.seed
        )
    report.write(asked.out, here, began, {"seed": asked.seed, "minutes": asked.minutes, **told})
    print(show(told))
    raise SystemExit(1 if told["wrong"] else 0)


def run(
    scratch: Path, seconds: float, num_processes: int, num_threads: int, *, seed: int
) -> dict[str, Any]:
    """Return what the readers saw and the writer did."""
    preload()
    shared = Shared()
    db = scratch / "db"
    writer = Fork(_write, db, shared, seconds, seed)
    if not writer.wait_for_word():
        writer.result()  # raises what went wrong
    readers = [Fork(_read, db, shared, seconds, 1, seed + n) for n in range(num_processes)]
    if num_threads:
        readers.append(Fork(_read, db, shared, seconds, num_threads, seed + 100))
    looks = [one for reader in readers for one in reader.result(seconds + 120)]
    written: Written = writer.result(seconds + 120)
    problems = Fork(_problems, db).result()
    return _summary(looks, written, problems, seconds)


# ---------------------------------------------------------------- what is written


def pages_of(path: str, step: int) -> list[str]:
    """Return the texts of a document as step ``step`` writes it."""
    group = path.split("/")[-2] if path != CLOCK else "clock"
    num_pages = 1 if path == CLOCK else 1 + step % 4
    return [f"step {step} {group} of {path} page {page}" for page in range(1, num_pages + 1)]


def paths_of(group: int) -> list[str]:
    """Return the documents of a group."""
    return [f"/docs/group{group}/{number}.pdf" for number in range(A_GROUP)]


def vector_of(text: str) -> "Vectors":
    """Return the one direction of a text."""
    return HashEmbedder().embed([Item(parts=(Text(text),))], role=Role.DOCUMENT)[0]


def _write(db: Path, shared: Shared, seconds: float, seed: int) -> Written:
    dice = random.Random(seed)
    written = Written()
    store = Store.create(db, HashEmbedder().space)
    until = float("inf")  # the seconds count from when every group is there
    there: set[int] = set()
    with store.writing() as writer:
        memory_at = 0.0
        for step in range(1, MOST_STEPS):
            began = time.monotonic()
            if began > until:
                break
            group = dice.randrange(NUM_GROUPS)
            what = dice.choices(("commit", "remove", "refresh", "optimize"), (100, 10, 2, 1))[0]
            if step <= NUM_GROUPS:
                what, group = "commit", step - 1
            documents = [CLOCK]
            if what == "commit":
                documents += paths_of(group)
                there.add(group)
            elif what == "remove" and len(there) > 5:
                writer.remove(paths_of(group))
                there.discard(group)
            elif what == "refresh":
                writer.refresh()
            elif what == "optimize":
                getattr(writer, "optimize", writer.refresh)()
            began = time.monotonic()
            writer.commit_all([_document(path, step) for path in documents])
            shared.done(step)
            written.steps_s.append(time.monotonic() - began)
            written.did[what] += 1
            if step == NUM_GROUPS:
                until = time.monotonic() + seconds
                say_when()
            if step >= NUM_GROUPS:
                time.sleep(dice.uniform(0.0, 2 * PAUSE_S))
            if time.monotonic() - memory_at > MEMORY_EVERY_S:
                memory_at = time.monotonic()
                written.memory.append((memory_at, _memory_mib()))
    return written


def _document(path: str, step: int) -> tuple[Document, list[Row]]:
    texts = pages_of(path, step)
    document = Document(
        path=path,
        kind=Kind.PDF,
        content_hash=hashlib.blake2b(texts[0].encode(), digest_size=16).hexdigest(),
        size=step,
        mtime_ns=step,
        status=Status.DONE,
        commit_id=new_commit_id(),
    )
    return document, [
        Row(
            segment_id=segment_id(path, Locator(page=page)),
            kind=Kind.PDF,
            locator=Locator(page=page),
            text=text,
            text_origin=TextOrigin.LAYER,
            about="",
            vectors={View.VISUAL: vector_of(text), View.TEXT: vector_of(text)},
            thumbnail=text.encode(),
        )
        for page, text in enumerate(texts, start=1)
    ]


# ---------------------------------------------------------------- what is read


def _read(db: Path, shared: Shared, seconds: float, num_threads: int, seed: int) -> list[Looks]:
    store = Store.open(db)
    engine = Engine.open(db, model=HashEmbedder())
    all_looks = [Looks() for _ in range(num_threads)]
    threads = [
        threading.Thread(target=_keep_looking, args=(store, engine, shared, seconds, seed + n, one))
        for n, one in enumerate(all_looks)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.close()
    return all_looks


def _keep_looking(
    store: Store, engine: Engine, shared: Shared, seconds: float, seed: int, looks: Looks
) -> None:
    dice = random.Random(seed)
    until = time.monotonic() + seconds
    seen, waiting, memory_at = 0, False, 0.0
    while (began := time.monotonic()) < until and len(looks.wrong) < 20:
        done = shared.last
        try:
            snapshot = store.snapshot()
            step = _clock(snapshot)
        except Exception as error:
            looks.wrong.append(f"a look ended with {error!r}")
            continue
        ended = time.monotonic()
        if step < seen:
            looks.wrong.append(f"back in time: step {step} after step {seen}")
        if step < done:
            looks.stale.append(began - shared.when(step + 1))
        if waiting:  # what came before the first look, or in a long one, was not waited for
            for new in range(seen + 1, step + 1):
                looks.delays.append(max(0.0, ended - shared.when(new)))
        seen, waiting = max(seen, step), True
        looks.looks_s.append(ended - began)
        looks.num_looks += 1
        if looks.num_looks % DEEP_EVERY == 0:
            looks.num_deep += 1
            waiting = False
            check = dice.choice((_whole, _whole, _searched))
            try:
                looks.wrong += check(snapshot, store, engine, step, dice)
            except Exception as error:
                looks.wrong.append(f"{check.__name__} ended with {error!r}")
        if ended - memory_at > MEMORY_EVERY_S:
            memory_at = ended
            looks.memory.append((ended, _memory_mib()))
        time.sleep(dice.uniform(0.0, 2 * PAUSE_S))
    looks.steps = seen


def _clock(snapshot: Snapshot) -> int:
    [text] = [segment.text for segment in snapshot.segments_of(CLOCK)]
    return int(text.split()[1])


def _whole(
    snapshot: Snapshot, store: Store, engine: Engine, clock: int, dice: random.Random
) -> list[str]:
    """Hold everything in a snapshot together."""
    import numpy as np

    wrong = []
    documents = {document.path: document for document in snapshot.documents}
    groups: dict[str, set[int]] = defaultdict(set)
    rows = snapshot.table.rows(["segment_id", "commit_id", "path", "page", "text"]).to_pylist()
    live = [row for row in rows if row["commit_id"] in snapshot.live]
    ids = [row["segment_id"] for row in live]
    texts: dict[str, dict[int, str]] = defaultdict(dict)
    for row in live:
        texts[row["path"]][row["page"]] = row["text"]
    for path, document in documents.items():
        step = document.size
        if [text for _, text in sorted(texts[path].items())] != pages_of(path, step):
            wrong.append(f"{path} of step {step} shows {texts[path]}")
        if path != CLOCK:
            groups[path.rpartition("/")[0]].add(step)
        if step > clock:
            wrong.append(f"{path} is of step {step}, in a state of step {clock}")
    for group, steps in groups.items():
        num_there = sum(path in documents for path in paths_of(int(group[len("/docs/group") :])))
        if len(steps) > 1 or num_there != A_GROUP:
            wrong.append(f"{group}: {num_there} documents of steps {sorted(steps)}")
    if len(set(ids)) != len(ids):
        wrong.append("a row is there twice")
    for view in View:
        near = snapshot.nearest(view, vector_of("anything"), k=len(ids) + 10)
        if sorted(one.segment_id for one in near) != sorted(ids):
            wrong.append(f"nearest({view}) finds {len(near)} rows of {len(ids)}")
    matching = snapshot.matching("step", k=len(ids) + 10)
    if sorted(one.segment_id for one in matching) != sorted(ids):
        wrong.append(f"matching finds {len(matching)} rows of {len(ids)}")
    some = dice.sample(ids, min(3, len(ids)))
    for segment in snapshot.segments(some):
        vectors = snapshot.vectors([segment.segment_id])[segment.segment_id]
        if set(vectors) != set(View):
            wrong.append(f"{segment.segment_id} has vectors {sorted(vectors)}")
        for vector in vectors.values():
            if float(np.dot(vector, vector_of(segment.text))) < 0.999:
                wrong.append(f"{segment.text} has another text's vector")
        with contextlib.suppress(SegmentNotFound):  # the store shows what is newest
            shown = store.thumbnail(segment.segment_id).decode()
            step, ending = int(shown.split()[1]), f"of {segment.path} page {segment.locator.page}"
            if not shown.endswith(ending) or step < int(segment.text.split()[1]):
                wrong.append(f"{segment.text} has the thumbnail {shown!r}")
    return wrong


def _searched(
    snapshot: Snapshot, store: Store, engine: Engine, clock: int, dice: random.Random
) -> list[str]:
    """Ask as people do: the hits of a group are of one step, and none is older than was seen."""
    group = dice.randrange(NUM_GROUPS)
    hits = engine.query(f"group{group}", k=50)
    steps: dict[str, set[int]] = defaultdict(set)
    for hit in hits:
        steps[hit.path.rpartition("/")[0]].add(int(hit.text.split()[1]))
    return [
        f"a query for group{group} shows {folder} of steps {sorted(some)}"
        for folder, some in steps.items()
        if len(some) > 1 and folder != "/docs"
    ]


def _problems(db: Path) -> list[str]:
    return [problem.sentence for problem in Store.open(db).check()]


def _memory_mib() -> float:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
    return 0.0


# ---------------------------------------------------------------- what is told


def _summary(
    looks: list[Looks], written: Written, problems: list[str], seconds: float
) -> dict[str, Any]:
    delays = sorted(delay for one in looks for delay in one.delays)
    stale = [late for one in looks for late in one.stale]
    spent = sorted(s for one in looks for s in one.looks_s)
    wrong = [sentence for one in looks for sentence in one.wrong]
    return {
        "readers": len(looks),
        "looks": sum(one.num_looks for one in looks),
        "looks_that_held_everything_together": sum(one.num_deep for one in looks),
        "steps_written": dict(written.did),
        "commit_ms": _percentiles(sorted(written.steps_s), 1000),
        "delay_ms": _percentiles(delays, 1000),
        "delays_over_a_second": sum(delay > 1.0 for delay in delays),
        "delays_measured": len(delays),
        "looks_that_missed_a_commit_done_before_them": len(stale),
        "stale_ms_max": round(max(stale, default=0.0) * 1000, 1),
        "look_ms": _percentiles(spent, 1000),
        "reader_memory_mib": [_slope(one.memory) for one in looks],
        "writer_memory_mib": _slope(written.memory),
        "wrong": wrong + [f"doctor: {one}" for one in problems],
    }


def _percentiles(values: list[float], factor: float) -> dict[str, float]:
    if not values:
        return {}
    last = len(values) - 1
    told = {"p50": values[last // 2], "p99": values[int(last * 0.99)], "max": values[last]}
    return {name: round(value * factor, 1) for name, value in told.items()}


def _slope(memory: list[tuple[float, float]]) -> dict[str, float]:
    """Return memory at the beginning, at the end, and its growth a minute in the second half."""
    if len(memory) < 6:
        return {"first": round(memory[0][1], 1), "last": round(memory[-1][1], 1)}
    import numpy as np

    half = memory[len(memory) // 2 :]
    times, sizes = zip(*half, strict=True)
    growth = np.polyfit(np.asarray(times) / 60, np.asarray(sizes), 1)[0]
    return {
        "first": round(memory[0][1], 1),
        "middle": round(half[0][1], 1),
        "last": round(memory[-1][1], 1),
        "growth_a_minute_in_second_half": round(float(growth), 2),
    }


def show(told: dict[str, Any]) -> str:
    """Return a table of them."""
    rows = [
        ("looks", told["looks"], ""),
        ("looks that held everything together", told["looks_that_held_everything_together"], ""),
        ("steps written", sum(told["steps_written"].values()), ""),
        *((f"{name}, {p}", value, "ms") for name in ("commit_ms", "delay_ms", "look_ms")
          for p, value in told[name].items()),
        ("delays over a second", told["delays_over_a_second"], f"of {told['delays_measured']}"),
        ("looks that missed a commit", told["looks_that_missed_a_commit_done_before_them"], ""),
        ("wrong", len(told["wrong"]), ""),
    ]  # fmt: skip
    memory = [*told["reader_memory_mib"], told["writer_memory_mib"]]
    lines = [" ".join(f"{name} {value:g}" for name, value in one.items()) for one in memory]
    return "\n".join(
        [report.table(("readers", "", ""), rows), "MiB: " + "; ".join(lines), *told["wrong"][:10]]
    )


if __name__ == "__main__":
    main()
