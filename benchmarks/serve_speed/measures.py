"""Each figure of the server's table, from outside: over loopback, as clients see it.

an index, a server of it -> figures by name; the name says the unit

What is compared is measured in turns, so that other work on the machine slows both alike.
"""

import asyncio
import base64
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch import Engine
from mmsearch.values import Backend
from serve_speed.running import MMSEARCH, ROOT, Server, running, serving
from serve_speed.wire import Wire

TOGETHER = 64
_WORDS = (
    "rain",
    "pump",
    "museum",
    "chart",
    "night",
    "battery",
    "district",
    "lemon",
    "rocket",
    "firewall",
    "river",
    "invoice",
    "kettle",
    "harbour",
    "traffic",
    "garden",
    "engine",
    "winter",
    "forest",
    "bridge",
)
Figures = dict[str, float | int]


def questions(begin: int) -> Iterator[str]:
    """Ask for ever without asking anything twice: what is remembered is not measured."""
    for number in count(begin):
        first, second, third = (_WORDS[number // 20**place % 20] for place in range(3))
        yield f"a {first} with a {second} and the {third} of {1900 + number}"


# ---------------------------------------------------------------- what HTTP adds


def overhead(db: Path, server: Server, *, rounds: int) -> Figures:
    """The engine's call in this process against the same over HTTP, in turns, k = 10.

    Both look for near vectors in memory, as a server does with an index that is small.
    """
    asked = questions(0)
    called: list[float] = []
    served: list[float] = []
    processor: dict[str, float] = {}

    async def ask() -> None:
        wire = await Wire.open(server.host, server.port)
        for number in range(rounds + 5):
            began = time.perf_counter()
            engine.query(next(asked))
            middle = time.perf_counter()
            reply = await wire.post("/v1/search", {"query": next(asked)})
            ended = time.perf_counter()
            if reply.status != 200:
                raise RuntimeError(f"status {reply.status}: {reply.body[:200]!r}")
            if number == 4:  # warm from here on
                processor["engine"], processor["server"] = time.process_time(), server.processor_s()
            elif number > 4:
                called.append(middle - began)
                served.append(ended - middle)
        processor["engine"] = time.process_time() - processor["engine"]
        processor["server"] = server.processor_s() - processor["server"]
        await wire.close()

    with Engine.open(db, backend=Backend.EXACT) as engine:
        engine.query(next(asked))
        asyncio.run(ask())
    return {
        "engine_p50_ms": _ms(called, 0.5),
        "http_p50_ms": _ms(served, 0.5),
        "overhead_p50_ms": _ms(served, 0.5) - _ms(called, 0.5),
        "engine_p95_ms": _ms(called, 0.95),
        "http_p95_ms": _ms(served, 0.95),
        "engine_processor_ms": processor["engine"] / rounds * 1000,  # the client's among it
        "http_processor_ms": processor["server"] / rounds * 1000,
    }


# ---------------------------------------------------------------- many at once


def concurrency(server: Server, *, each: int, rounds: int) -> Figures:
    """Text queries one at a time against 64 at once, in turns; medians over the rounds.

    ``dropped`` counts what was not answered with hits, of all.
    """
    asked = questions(100_000)
    alone: list[float] = []
    together: list[float] = []
    seconds: dict[int, list[float]] = {1: [], TOGETHER: []}
    processor: dict[int, float] = {1: 0.0, TOGETHER: 0.0}
    statuses: Counter[int] = Counter()
    for _ in range(rounds):
        for lines, speeds in ((1, alone), (TOGETHER, together)):
            num = each if lines == 1 else each * 4  # as many seconds, about
            before = server.processor_s()
            took, spent = asyncio.run(_ask_side_by_side(server, asked, lines, num, statuses))
            speeds.append(len(spent) / took)
            seconds[lines] += spent
            processor[lines] += server.processor_s() - before
    return {
        "alone_per_s": statistics.median(alone),
        "together_per_s": statistics.median(together),
        "together_ratio": statistics.median(
            one / other for one, other in zip(together, alone, strict=True)
        ),
        "alone_p50_ms": _ms(seconds[1], 0.5),
        "alone_p99_ms": _ms(seconds[1], 0.99),
        "together_p50_ms": _ms(seconds[TOGETHER], 0.5),
        "together_p99_ms": _ms(seconds[TOGETHER], 0.99),
        "together_max_ms": _ms(seconds[TOGETHER], 1.0),
        "alone_processor_ms": processor[1] / len(seconds[1]) * 1000,
        "together_processor_ms": processor[TOGETHER] / len(seconds[TOGETHER]) * 1000,
        "asked": statuses.total(),
        "dropped": statuses.total() - statuses[200],
    }


async def _ask_side_by_side(
    server: Server, asked: Iterator[str], lines: int, num: int, statuses: Counter[int]
) -> tuple[float, list[float]]:
    """Ask ``num`` questions over so many connections; return seconds in all, and of each."""
    left = iter(range(num))
    spent: list[float] = []

    async def ask(wire: Wire) -> None:
        for _ in left:
            began = time.perf_counter()
            reply = await wire.post("/v1/search", {"query": next(asked)})
            spent.append(time.perf_counter() - began)
            statuses[reply.status] += 1

    wires = [await Wire.open(server.host, server.port) for _ in range(lines)]
    began = time.perf_counter()
    await asyncio.gather(*(ask(wire) for wire in wires))
    took = time.perf_counter() - began
    for wire in wires:
        await wire.close()
    return took, spent


# ---------------------------------------------------------------- vectors as text and as bytes


def encodings(scratch: Path, *, inputs: int, rounds: int) -> Figures:
    """Vectors a second of 1536 dimensions, JSON floats against base64, in turns.

    Until they are an array in the client; the model costs nothing (see `wide`).
    """
    command = (sys.executable, str(Path(__file__).with_name("wide.py")), str(scratch / "wide"))
    with running(command) as server:
        spent = asyncio.run(_encode(server, inputs, rounds))
    per_s = {name: inputs / statistics.median(seconds) for name, seconds in spent.items()}
    return {
        "float_vectors_per_s": per_s["float"],
        "base64_vectors_per_s": per_s["base64"],
        "base64_ratio": per_s["base64"] / per_s["float"],
    }


async def _encode(server: Server, inputs: int, rounds: int) -> dict[str, list[float]]:
    wire = await Wire.open(server.host, server.port)
    model = (await wire.ask("GET", "/v1/models")).json()["data"][0]["id"]
    spent: dict[str, list[float]] = {"float": [], "base64": []}
    texts = [f"text {number}" for number in range(inputs)]
    for number in range(rounds + 1):
        arrays = []
        for encoding, read in (("float", _of_floats), ("base64", _of_base64)):
            began = time.perf_counter()
            reply = await wire.post(
                "/v1/embeddings",
                {"model": model, "input": texts, "encoding_format": encoding},
            )
            if reply.status != 200:
                raise RuntimeError(f"status {reply.status}: {reply.body[:200]!r}")
            arrays.append(read(reply.body))
            if number:
                spent[encoding].append(time.perf_counter() - began)
        if not np.allclose(arrays[0], arrays[1], atol=1e-6):
            raise RuntimeError("the two encodings are not of the same vectors")
    await wire.close()
    return spent


def _of_floats(body: bytes) -> "np.ndarray[Any, Any]":
    return np.array([one["embedding"] for one in json.loads(body)["data"]], dtype=np.float32)


def _of_base64(body: bytes) -> "np.ndarray[Any, Any]":
    rows = [base64.b64decode(one["embedding"]) for one in json.loads(body)["data"]]
    return np.frombuffer(b"".join(rows), dtype="<f4").reshape(len(rows), -1)


# ---------------------------------------------------------------- starting, and the command line


def start(db: Path, *, rounds: int) -> Figures:
    """Seconds from the start of a server's process to its model in memory."""
    seconds, processor = [], []
    for _ in range(rounds):
        with running(serving(db)) as server:
            seconds.append(server.ready_s)
            processor.append(server.processor_s())
    return {
        "start_to_ready_s": statistics.median(seconds),
        "start_to_ready_max_s": max(seconds),
        "start_processor_s": statistics.median(processor),
    }


def command_line(db: Path, *, rounds: int) -> Figures:
    """``mmsearch query`` in a new process, with a server running on the index and without."""
    ask = (*MMSEARCH, "query", "chart of water losses by district", "--db", str(db), "--json")
    ways = {
        "warm_query": ask,
        "cold_query": (*ask, "--no-server"),
        "bare_python": (sys.executable, "-c", "pass"),
    }
    wall: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    said: dict[str, str] = {}
    for number in range(rounds + 1):
        for name, command in ways.items():
            before, began = _children_s(), time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
            if number:
                wall[name].append(time.perf_counter() - began)
                processor[name].append(_children_s() - before)
            said[name] = done.stdout
    warm, cold = (json.loads(said[name])["hits"] for name in ("warm_query", "cold_query"))
    if [one["id"] for one in warm] != [one["id"] for one in cold]:
        raise RuntimeError("the server and the command line found different things")
    return {
        **{f"{name}_s": statistics.median(seconds) for name, seconds in wall.items()},
        **{
            f"{name}_processor_s": statistics.median(seconds) for name, seconds in processor.items()
        },
    }


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _ms(seconds: Sequence[float], share: float) -> float:
    """Return what that share of the waits is not longer than, in milliseconds."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000
