"""Does the server stay up, right and flat: hours of traffic, damaged uploads, hostile clients.

    python benchmarks/serve_soak.py                                30 minutes, 2,000 uploads
    python benchmarks/serve_soak.py --minutes 0.5 --uploads 50     a look
    python benchmarks/serve_soak.py --only traffic --minutes 30

traffic: clients ask for a little of everything (see `serve_speed.traffic`), some leave before
         they are answered, while files are indexed over HTTP, changed and removed
uploads: files damaged in every way that is known (`reliability.mutants`), as forms and as
         data: URIs; each has to be answered, and never with 5xx
hostile: half bodies, huge heads, bombs of JSON, hundreds of connections that say nothing

Each part has a server of its own. It is wrong where an answer is, where the server is gone or
says that it failed, or where memory grew, the server's or that of its largest worker: the mean of
the last fifth of the time over that of the second by more than 5 % and 24 MiB; or open files by
more than 150. That is looked at from ten minutes or 500 uploads on (before, a server still warms
up). Ends with 1 then. Everything is loopback, and bounded.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "benchmarks")) if path not in sys.path]

from reliability.mutants import Mutants  # noqa: E402
from serve_speed import document, hostile, traffic  # noqa: E402
from serve_speed.running import MMSEARCH, Server, running, serving  # noqa: E402
from serve_speed.wire import Reply, Wire  # noqa: E402

CORPUS = ROOT / "sample_corpus" / "files"
PARTS = ("traffic", "uploads", "hostile")
CLIENTS = 4
# Vectors that are remembered would fill 64 MiB in about the time of a soak: growth that is meant.
SMALL_CACHE = ("--cache", "4")
PAUSE_S = 0.15  # a client's, between two requests: a soak and no siege
GROWTH, SPARE_MIB, SPARE_DESCRIPTORS = 1.05, 24.0, 150
SETTLED_MINUTES, SETTLED_UPLOADS = 10, 500
ANSWER_S = 150.0
_FIELD_OF = {"pdf": "page", "mp4": "video", "mkv": "video", "srt": "video"}
_PART_OF = {"page": "document_url", "video": "video_url", "image": "image_url"}
_MOST_WRONG = 20  # are kept word for word


@dataclass
class Findings:
    """What a part came to; memory is sampled as time goes on."""

    wrong: list[str] = field(default_factory=list)
    num_wrong: int = 0
    grew: list[str] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: Counter[str] = field(default_factory=Counter)
    server_mib: list[float] = field(default_factory=list)
    worker_mib: list[float] = field(default_factory=list)
    all_mib: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)

    def complain(self, sentence: str) -> None:
        """Keep what is wrong: all of it counted, the first of it word for word."""
        self.num_wrong += 1
        if len(self.wrong) < _MOST_WRONG:
            self.wrong.append(sentence)
            print(f"wrong: {sentence}", file=sys.stderr, flush=True)

    def sample(self, server: Server) -> None:
        """Look at the server's memory, descriptors and processes."""
        self.server_mib.append(server.own_memory_mib())
        self.worker_mib.append(server.largest_worker_mib())
        self.all_mib.append(server.memory_mib())
        self.descriptors.append(server.num_descriptors())
        self.processes.append(server.num_processes())

    def check_growth(self, name: str, samples: Sequence[float]) -> None:
        """Complain where the last fifth holds more than the second by too much."""
        early, late = _fifth(samples, 1), _fifth(samples, 4)
        if late > early * GROWTH and late > early + SPARE_MIB:
            self.grew.append(f"{name} grew from {early:.0f} to {late:.0f} MiB")

    def check_descriptors(self) -> None:
        """Complain where many more files are open in the last fifth than in the second."""
        early, late = _fifth(self.descriptors, 1), _fifth(self.descriptors, 4)
        if late > early + SPARE_DESCRIPTORS:
            self.grew.append(f"files that are open grew from {early:.0f} to {late:.0f}")

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "num_wrong": self.num_wrong,
            "wrong": self.wrong,
            "grew": self.grew,
            "statuses": dict(sorted(self.statuses.items())),
            "server_mib": _memory(self.server_mib),
            "worker_mib": _memory(self.worker_mib),
            "all_mib": _memory(self.all_mib),
            "descriptors": [self.descriptors[0], max(self.descriptors), self.descriptors[-1]],
            "processes": [self.processes[0], max(self.processes), self.processes[-1]],
        }


def main() -> None:
    """Soak as long as asked, print what was found, write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--uploads", type=int, default=2000)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/serve-soak.json")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "serving.md")
    asked = parser.parse_args()
    parts = asked.only or PARTS
    results = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    here = document.machine()
    results |= {
        "machine": here,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seed": asked.seed,
    }
    found: dict[str, Findings] = {}
    with tempfile.TemporaryDirectory() as scratch:
        db, root = lay_out(Path(scratch))
        for part in parts:
            told: dict[str, Any] = {}
            if part == "traffic":
                one, told = soak(db, root, minutes=asked.minutes, seed=asked.seed)
            elif part == "uploads":
                one, told = upload(db, Path(scratch), num=asked.uploads, seed=asked.seed)
            else:
                one = attack(db)
            found[part] = one
            results[part] = one.as_dict() | told | {"commit": here["commit"]}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(results, indent=1) + "\n")
    document.write(asked.docs, soak=results)
    for name in found:
        told = {key: value for key, value in results[name].items() if key != "asked"}
        print(json.dumps({name: told}))
    raise SystemExit(1 if any(one.num_wrong or one.grew for one in found.values()) else 0)


def lay_out(scratch: Path) -> tuple[Path, Path]:
    """Copy the corpus to where it lasts, make room for what comes and goes, index it."""
    root = scratch / "root"
    shutil.copytree(CORPUS, root / "lasting")
    (root / "passing").mkdir()
    (root / "passing" / "first.md").write_text("the first of those that pass\n")
    db = scratch / "db"
    command = [*MMSEARCH, "index", str(root), "--db", str(db), "--no-ocr"]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return db, root


# ---------------------------------------------------------------- traffic while index runs


def soak(db: Path, root: Path, *, minutes: float, seed: int) -> tuple[Findings, dict[str, Any]]:
    """Ask for a little of everything for so long, while files come and go."""
    findings = Findings()
    with running(serving(db, "--root", str(root), *SMALL_CACHE)) as server:
        jobs = asyncio.run(soak_all(server, root, minutes * 60, seed, findings))
        findings.statuses["left"] += 0
        if not server.is_alive():
            findings.complain("the server is gone")
        _read_log(server, findings)
    if minutes >= SETTLED_MINUTES:
        findings.check_growth("the server", findings.server_mib)
        findings.check_growth("its largest worker", findings.worker_mib)
        findings.check_descriptors()
    asked = {
        name: {
            "requests": len(seconds),
            "p50_ms": round(_share(seconds, 0.5) * 1000, 1),
            "p99_ms": round(_share(seconds, 0.99) * 1000, 1),
        }
        for name, seconds in findings.seconds.items()
    }
    return findings, {
        "minutes": minutes,
        "clients": CLIENTS,
        "jobs": jobs,
        "requests": sum(one["requests"] for one in asked.values()),
        "asked": asked,
    }


async def soak_all(
    server: Server, root: Path, seconds: float, seed: int, findings: Findings
) -> int:
    """Ask, leave, index and watch for so many seconds; return how many jobs there were."""
    wire = await Wire.open(server.host, server.port)
    world = await traffic.World.of(wire, CORPUS / "images")
    await wire.close()
    end = time.monotonic() + seconds
    findings.sample(server)
    watching = asyncio.ensure_future(_watch(server, findings, max(0.5, min(5.0, seconds / 100))))
    dice = random.Random(f"{seed}/files")
    indexing = asyncio.ensure_future(_indexer(server, root, dice, end, findings))
    await asyncio.gather(
        *(_client(server, world, f"{seed}/{n}", end, findings) for n in range(CLIENTS)),
        _leaver(server, world, f"{seed}/leaver", end, findings),
    )
    jobs = await indexing
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    findings.sample(server)
    return jobs


async def _watch(server: Server, findings: Findings, every_s: float) -> None:
    while True:
        findings.sample(server)
        await asyncio.sleep(every_s)


async def _client(
    server: Server, world: traffic.World, name: str, end: float, findings: Findings
) -> None:
    """Ask, wait a little, ask again, as long as there is time."""
    dice = random.Random(name)
    wire = await Wire.open(server.host, server.port)
    while time.monotonic() < end:
        about, ask = traffic.draw(dice)
        began = time.perf_counter()
        try:
            reply = await asyncio.wait_for(ask(wire, world, dice), ANSWER_S)
        except (TimeoutError, OSError) as error:
            findings.complain(f"{about}: {type(error).__name__} {error}")
            await wire.close()
            wire = await Wire.open(server.host, server.port)
            continue
        findings.seconds[about].append(time.perf_counter() - began)
        findings.statuses[str(reply.status)] += 1
        if traffic.is_wrong(reply):
            findings.complain(f"{about}: {reply.status} {reply.body[:300]!r}")
        await asyncio.sleep(dice.random() * 2 * PAUSE_S)
    await wire.close()


async def _leaver(
    server: Server, world: traffic.World, name: str, end: float, findings: Findings
) -> None:
    """Hang up before the answer is there, again and again."""
    dice = random.Random(name)
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            await traffic.leave(await Wire.open(server.host, server.port), world, dice)
            findings.statuses["left"] += 1
        await asyncio.sleep(dice.random() * 8 * PAUSE_S)


async def _indexer(
    server: Server, root: Path, dice: random.Random, end: float, findings: Findings
) -> int:
    """Write, change and delete files, have them indexed over HTTP; return how many jobs."""
    wire = await Wire.open(server.host, server.port)
    jobs = 0
    while time.monotonic() < end:
        change(root / "passing", dice, jobs)
        begun = [await wire.post("/v1/index", {"paths": [str(root / "passing")], "ocr": False})]
        if jobs % 5 == 4:  # its file stays, so that the next job brings it back
            path = dice.choice(sorted((root / "passing").iterdir()))
            document_id = hashlib.blake2b(str(path).encode(), digest_size=8).hexdigest()
            await _finished(wire, begun[0], findings)
            begun.append(await wire.ask("DELETE", f"/v1/documents/{document_id}"))
        for reply in begun:
            jobs += 1
            findings.statuses[f"job {await _finished(wire, reply, findings)}"] += 1
        await asyncio.sleep(dice.random() * 20 * PAUSE_S)
    await wire.close()
    return jobs


async def _finished(wire: Wire, begun: Reply, findings: Findings) -> str:
    """Return how a job ended: ``done``; its events are listened to until then."""
    if begun.status != 202:
        findings.complain(f"job: {begun.status} {begun.body[:300]!r}")
        return "refused"
    job = begun.json()["job"]
    events = await asyncio.wait_for(wire.ask("GET", f"/v1/jobs/{job}/events"), ANSWER_S)
    if events.status != 200 or b"event: end" not in events.body:
        findings.complain(f"events: {events.status} {events.body[-300:]!r}")
    reply = await wire.ask("GET", f"/v1/jobs/{job}")
    told = reply.json()
    if reply.status != 200 or told["status"] != "done":
        findings.complain(f"job ended as {told}")
    return str(told.get("status"))


def change(folder: Path, dice: random.Random, turn: int) -> None:
    """Write a few files, change one, delete one; never more than two dozen lie there."""
    there = sorted(folder.iterdir())
    for path in dice.sample(there, min(len(there), max(1, len(there) - 20))):
        path.unlink()
    for number in range(dice.randrange(1, 4)):
        name = f"{turn:05}-{number}"
        if dice.random() < 0.3:
            source = dice.choice(sorted((CORPUS / "images").rglob("*.*")))
            shutil.copy(source, folder / f"{name}{source.suffix}")
        else:
            (folder / f"{name}.md").write_text(f"Note {name}: {dice.random()} of the pump.\n")
    if kept := sorted(folder.glob("*.md")):
        dice.choice(kept).write_text(f"Changed in turn {turn}: {dice.random()}\n")


# ---------------------------------------------------------------- damaged uploads


def upload(db: Path, scratch: Path, *, num: int, seed: int) -> tuple[Findings, dict[str, Any]]:
    """Send damaged files as queries and as inputs to embed, four at a time."""
    findings = Findings()
    with running(serving(db)) as server:
        slowest = asyncio.run(upload_all(server, scratch / "mutants", num, seed, findings))
        _read_log(server, findings)
    if num >= SETTLED_UPLOADS:
        findings.check_growth("the server", findings.server_mib)
    return findings, {"files": num, "slowest": slowest}


async def upload_all(
    server: Server, folder: Path, num: int, seed: int, findings: Findings
) -> list[tuple[float, str]]:
    """Make and send that many files; return the slowest, in seconds and by name."""
    folder.mkdir()
    mutants = Mutants(CORPUS, seed)
    numbers = iter(range(num))
    spent: list[tuple[float, str]] = []
    findings.sample(server)

    async def send() -> None:
        wire = await Wire.open(server.host, server.port)
        model = await traffic.model_of(wire)
        for number in numbers:
            made = mutants.make(number, folder)
            name = f"{number} {made.kind} {made.damage}"
            content = made.path.read_bytes()
            for path in folder.glob(f"{number:05}.*"):
                path.unlink()
            began = time.perf_counter()
            try:
                sending = _sent(wire, model, content, made.kind, number)
                reply = await asyncio.wait_for(sending, ANSWER_S)
            except (TimeoutError, OSError) as error:
                findings.complain(f"{name}: {type(error).__name__} {error}")
                await wire.close()
                wire = await Wire.open(server.host, server.port)
                continue
            spent.append((round(time.perf_counter() - began, 2), name))
            findings.statuses[str(reply.status)] += 1
            if reply.status >= 500 or reply.status in (401, 403, 404, 405, 429):
                findings.complain(f"{name}: {reply.status} {reply.body[:300]!r}")
            elif reply.status != 200 and not _says_no_more_than_ours(reply):
                findings.complain(f"{name}: it says {reply.body[:300]!r}")
            if number % 10 == 0:
                findings.sample(server)
        await wire.close()

    await asyncio.gather(*(send() for _ in range(CLIENTS)))
    wire = await Wire.open(server.host, server.port)
    reply = await wire.post("/v1/search", {"query": "the pump"})
    if reply.status != 200 or not reply.json()["hits"]:
        findings.complain(f"afterwards: {reply.status} {reply.body[:300]!r}")
    await wire.close()
    findings.sample(server)
    return sorted(spent)[-5:]


async def _sent(wire: Wire, model: str, content: bytes, kind: str, number: int) -> Reply:
    """Send a file as a query's form, or every other time as an input to embed."""
    name = _FIELD_OF.get(kind, "image")
    if (number // 8) % 2 == 0:
        body, headers = traffic.form(name, content, ocr="false")
        return await wire.ask("POST", "/v1/search", body, headers)
    uri = "data:application/octet-stream;base64," + base64.b64encode(content).decode()
    part = {"type": _PART_OF[name], _PART_OF[name]: {"url": uri}}
    return await wire.post("/v1/embeddings", {"model": model, "input": [[part]]})


def _says_no_more_than_ours(reply: Reply) -> bool:
    """Say whether a refusal is JSON of our shape that names no place on this machine."""
    try:
        message = str(reply.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return False
    return not any(sign in message for sign in ("/tmp", "Traceback", "0x", str(ROOT)))


# ---------------------------------------------------------------- hostile clients


def attack(db: Path) -> Findings:
    """Send what no client sends; after each, the server has to be well."""
    findings = Findings()
    with running(serving(db)) as server:
        asyncio.run(attack_all(server, list(hostile.ACTS), findings))
        _read_log(server, findings)
    return findings


async def attack_all(server: Server, names: Sequence[str], findings: Findings) -> None:
    """Do these acts one after the other, and look after each whether the server is well."""
    findings.sample(server)
    for name in names:
        said = await hostile.ACTS[name](server.host, server.port)
        findings.statuses[f"{name}: {said}"] += 1
        if said.startswith("5"):
            findings.complain(f"{name}: {said}")
        try:
            wire = await Wire.open(server.host, server.port)
            reply = await asyncio.wait_for(wire.post("/v1/search", {"query": "the pump"}), 30.0)
            await wire.close()
            if reply.status != 200:
                findings.complain(f"after {name}: {reply.status}")
        except (TimeoutError, OSError) as error:
            findings.complain(f"after {name}: {type(error).__name__} {error}")
        findings.sample(server)


# ---------------------------------------------------------------- what is made of samples


def _read_log(server: Server, findings: Findings) -> None:
    """Complain of what the server itself says failed."""
    said = server.log.read_text(errors="replace")
    for line in said.splitlines():
        if " ERROR " in line or "Traceback" in line:
            findings.complain(f"the log: {line[:300]}")


def _fifth(samples: Sequence[float], which: int) -> float:
    return _part(samples, which, 5)


def _part(samples: Sequence[float], which: int, of: int) -> float:
    """Return the mean of one of so many equal parts of the time."""
    size = len(samples) / of
    part = samples[int(which * size) : int((which + 1) * size)] or samples[-1:]
    return statistics.mean(part)


def _memory(samples: Sequence[float]) -> dict[str, float | list[float]]:
    return {
        "first": round(samples[0], 1),
        "early": round(_fifth(samples, 1), 1),
        "late": round(_fifth(samples, 4), 1),
        "peak": round(max(samples), 1),
        "twentieths": [round(_part(samples, which, 20), 1) for which in range(20)],
    }


def _share(seconds: Sequence[float], share: float) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


if __name__ == "__main__":
    main()
