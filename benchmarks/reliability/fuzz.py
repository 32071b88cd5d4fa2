"""Damaged files through the real readers into a real index: does the engine survive them all?

    python benchmarks/reliability/fuzz.py [--files 5000] [--seed 0] [--out RESULTS.json]
    python benchmarks/reliability/fuzz.py --keep 137 --keep 1042 --scratch DIR   writes these

Files come in folders of 250, indexed one after the other into one index by one process with
one reader; each run also removes the files of the folder before. For each file the trial
knows what became of it, the seconds between the task and its end, and the most memory the
reader held. Limits are tighter than those that ship (see LIMITS), so that a hang costs
seconds. It is wrong where a file has no outcome, where a reader went past its limits, or
where a process, a file or an open descriptor is left over.
"""

import contextlib
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "benchmarks")) if path not in sys.path]

from mmsearch import Engine  # noqa: E402
from mmsearch.indexers.sandbox import ReadTask, Sandbox  # noqa: E402
from mmsearch.retriever.store.store import Store  # noqa: E402
from mmsearch.values import Document, ReadPolicy, Segment, Status, stored_path  # noqa: E402
from reliability import report  # noqa: E402
from reliability.mutants import KINDS, Mutant, Mutants  # noqa: E402
from reliability.world import HashEmbedder  # noqa: E402

CORPUS = ROOT / "sample_corpus" / "files"
A_FOLDER = 250
# What ships: an hour a document, a minute a step, 3 GiB. A hang shall cost the trial seconds.
LIMITS = ReadPolicy(
    ocr=False,
    max_pixels=64 * 64,
    max_frames=4,
    document_timeout_s=20.0,
    step_timeout_s=6.0,
    max_memory_bytes=2**30,
)
MORE_DESCRIPTORS = 40
GRACE_S = 6.0  # the sandbox waits five seconds for a reader that does not end itself
SAMPLE_EVERY_S = 0.02
MIB = 2**20


@dataclass
class Read:
    """What a reader spent on one file: seconds, and the most bytes it held meanwhile."""

    seconds: float = 0.0
    peak_bytes: int = 0


@dataclass
class Findings:
    """What the trial came to; ``main_mib`` is the memory of the engine's process by folder."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    slowest: dict[str, tuple[float, str]] = field(default_factory=dict)
    largest: dict[str, tuple[int, str]] = field(default_factory=dict)
    damages: Counter[str] = field(default_factory=Counter)
    descriptors: list[int] = field(default_factory=list)
    main_mib: list[float] = field(default_factory=list)
    reader_start_mib: float = 0.0
    segments: int = 0
    wrong: list[str] = field(default_factory=list)


def main() -> None:
    """Read as many files as asked, print what became of them, write it down."""
    parser = report.parser(__doc__ or "", "fuzz")
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--keep", type=int, action="append", help="Write this file and stop.")
    asked = parser.parse_args()
    if asked.keep:
        mutants = Mutants(CORPUS, asked.seed)
        for number in asked.keep:
            print(mutants.make(number, asked.scratch))
        return
    here, began = report.machine(), time.monotonic()
    with tempfile.TemporaryDirectory(dir=asked.scratch) as scratch:
        findings = fuzz(Path(scratch), asked.files, asked.seed, tell=True)
    told = summary(findings)
    limits = {"limits": asdict(LIMITS)}
    report.write(
        asked.out, here, began, {"seed": asked.seed, "files": asked.files, **limits, **told}
    )
    print(show(told))
    raise SystemExit(1 if findings.wrong else 0)


def fuzz(scratch: Path, num_files: int, seed: int, *, tell: bool = False) -> Findings:
    """Make, index and judge the files, folder after folder."""
    findings = Findings()
    mutants = Mutants(CORPUS, seed)
    temporary = scratch / "tmp"
    temporary.mkdir()
    db = scratch / "db"
    with _temporary_files_in(temporary), _Watch() as watch:
        _warm(db, scratch / "warm")
        for start in range(0, num_files, A_FOLDER):
            folder = scratch / "files"  # the same one: the next run removes these documents
            folder.mkdir()
            made = [mutants.make(n, folder) for n in range(start, min(start + A_FOLDER, num_files))]
            _index(db, folder, f"{start}", made, watch, findings)
            findings.wrong += [f"{start}: {name} was left" for name in os.listdir(temporary)]
            problems = Store.open(db).check()
            findings.wrong += [f"{start}: doctor: {problem.sentence}" for problem in problems]
            findings.descriptors.append(len(os.listdir("/proc/self/fd")))
            findings.main_mib.append(round(_memory(os.getpid(), "VmRSS") / MIB, 1))
            shutil.rmtree(folder)
            if tell:
                print(
                    f"{start + len(made)} files, {findings.main_mib[-1]:.0f} MiB, "
                    f"{len(findings.wrong)} wrong {findings.wrong[-3:]}",
                    flush=True,
                )
    findings.reader_start_mib = round(watch.start_bytes / MIB, 1)
    # Those that lancedb keeps open of an index are few, and as many after every folder.
    if findings.descriptors[-1] > findings.descriptors[0] + MORE_DESCRIPTORS:
        findings.wrong.append(f"descriptors are left open: {findings.descriptors}")
    return findings


def _warm(db: Path, folder: Path) -> None:
    """Index one note: what a process opens once for all is open from here on."""
    folder.mkdir()
    (folder / "note.txt").write_text("a lighthouse")
    with Engine.open(db, create=True, model=HashEmbedder()) as engine:
        engine.index([folder], num_workers=1)


def _index(
    db: Path, folder: Path, name: str, made: list[Mutant], watch: "_Watch", findings: Findings
) -> None:
    watch.reads.clear()
    try:
        with Engine.open(db, create=True, model=HashEmbedder()) as engine:
            engine._policy = lambda ocr: LIMITS  # type: ignore[method-assign]
            report = engine.index([folder], ocr=False, num_workers=1)
    except Exception as error:
        findings.wrong.append(f"{name}: the run ended with {error!r}")
        return
    findings.segments += report.segments
    num_files = len(list(folder.iterdir()))
    accounted = report.documents + len(report.failed) + report.unsupported
    if accounted != num_files:
        findings.wrong.append(f"{name}: {accounted} outcomes of {num_files} files")
    left = _children(os.getpid())
    findings.wrong += [f"{name}: process {pid} was left" for pid in left]
    documents = {document.path: document for document in Store.open(db).documents()}
    for mutant in made:
        _judge(mutant, documents.get(stored_path(mutant.path)), watch, findings)


def _judge(mutant: Mutant, document: Document | None, watch: "_Watch", findings: Findings) -> None:
    kind, name = mutant.kind, f"{mutant.path.name} ({mutant.damage})"
    findings.damages.update(set(mutant.damage.split("+")))
    if document is None:
        outcome = "no file of ours any more"
    elif document.status is Status.DONE:
        outcome = "ok"
    else:
        outcome = _reason(document.error)
        if not document.error:
            findings.wrong.append(f"{name} failed without a reason")
    findings.outcomes[kind][outcome] += 1
    read = watch.reads.get(str(mutant.path), Read())
    if (read.seconds, name) > findings.slowest.get(kind, (0.0, "")):
        findings.slowest[kind] = (read.seconds, name)
    if (read.peak_bytes, name) > findings.largest.get(kind, (0, "")):
        findings.largest[kind] = (read.peak_bytes, name)
    if read.seconds > LIMITS.document_timeout_s + GRACE_S:
        findings.wrong.append(f"{name} took {read.seconds:.1f} s")
    if read.peak_bytes > watch.start_bytes + LIMITS.max_memory_bytes:
        findings.wrong.append(f"{name} took {read.peak_bytes / MIB:.0f} MiB")


def _reason(error: str) -> str:
    """Return a reason without what is of one file alone."""
    reason = re.sub(r"\(signal \w+\)", lambda found: found[0].replace("(", "<"), error)
    reason = re.sub(r"['\"(].*", "", reason).replace("<", "(")
    return re.sub(r"\d+(\.\d+)?", "N", reason.partition(":")[0]).strip()


class _Watch:
    """Watches the one reader: how long each file took, and the most it held meanwhile."""

    def __init__(self) -> None:
        self.reads: dict[str, Read] = defaultdict(Read)
        self.start_bytes = 0
        self._current = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._read = Sandbox.read

    def __enter__(self) -> "_Watch":
        watch, read = self, self._read

        def watched(sandbox: Sandbox, tasks: Iterable[ReadTask]) -> Iterator[tuple[ReadTask, Any]]:
            began: dict[Path, float] = {}

            def drawn() -> Iterator[ReadTask]:
                for task in tasks:
                    began[task.path] = time.perf_counter()
                    watch._begin(task.path)
                    yield task

            for task, outcome in read(sandbox, drawn()):
                if not isinstance(outcome, Segment):
                    spent = time.perf_counter() - began.pop(task.path)
                    # A reader that is handed the next file ahead says what this one took.
                    watch.reads[str(task.path)].seconds = task.busy_s or spent
                    watch._look(str(task.path))
                yield task, outcome

        Sandbox.read = watched  # type: ignore[method-assign, assignment]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        Sandbox.read = self._read  # type: ignore[method-assign]
        self._stopped.set()
        self._thread.join()

    def _begin(self, path: Path) -> None:
        self._current = str(path)
        for pid in _children(os.getpid()):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/clear_refs", "w") as file:
                file.write("5")  # the peak counts from here
            if not self.start_bytes:
                self.start_bytes = _memory(pid, "VmHWM")

    def _look(self, path: str) -> None:
        read = self.reads[path]
        for pid in _children(os.getpid()):
            read.peak_bytes = max(read.peak_bytes, _memory(pid, "VmHWM"))

    def _sample(self) -> None:
        while not self._stopped.wait(SAMPLE_EVERY_S):
            if self._current:
                self._look(self._current)


def _children(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as file:
                found += [int(child) for child in file.read().split()]
    return found


def _memory(pid: int, name: str) -> int:
    """Return a line of /proc/PID/status in bytes, 0 where the process is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    try:
        yield
    finally:
        tempfile.tempdir = None
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


# ---------------------------------------------------------------- what is told


def summary(findings: Findings) -> dict[str, Any]:
    """Return the findings as JSON."""
    return {
        "by_kind": {
            kind: {
                "files": findings.outcomes[kind].total(),
                "ok": findings.outcomes[kind]["ok"],
                "slowest_s": round(findings.slowest.get(kind, (0.0, ""))[0], 2),
                "slowest": findings.slowest.get(kind, (0.0, ""))[1],
                "largest_mib": round(findings.largest.get(kind, (0, ""))[0] / MIB, 1),
                "largest": findings.largest.get(kind, (0, ""))[1],
                "outcomes": dict(findings.outcomes[kind].most_common()),
            }
            for kind in KINDS
        },
        "damages": dict(findings.damages.most_common()),
        "segments": findings.segments,
        "main_process_mib_by_folder": findings.main_mib,
        "descriptors_by_folder": findings.descriptors,
        "reader_at_its_start_mib": findings.reader_start_mib,
        "wrong": findings.wrong,
    }


def show(told: dict[str, Any]) -> str:
    """Return a table of them."""
    rows = [
        (
            kind,
            one["files"],
            one["ok"],
            one["files"] - one["ok"],
            f"{one['slowest_s']:.1f}",
            f"{one['largest_mib']:.0f}",
        )
        for kind, one in told["by_kind"].items()
    ]
    head = ("seed", "files", "ok", "failed", "slowest s", "largest MiB")
    memory = told["main_process_mib_by_folder"]
    return (
        report.table(head, rows)
        + f"\nengine: {memory[0]:.0f} MiB after the first folder, {memory[-1]:.0f} after the last"
        + f"\nwrong: {len(told['wrong'])}"
    )


if __name__ == "__main__":
    main()
