"""The tables of docs/serving.md, from the figures that were measured; the rest is left alone.

They stand between two comments; a page without these gets them at its end.
"""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_LIBRARIES = ("fastapi", "uvicorn", "torch", "lancedb", "typer", "pydantic")
_BEGIN, _END = "<!-- {}: made by {} -->", "<!-- end of {} -->"
_NEW = "# Serving\n"
_BUSY = 0.75  # load of a core


def machine() -> dict[str, object]:
    """Return what a figure is measured on; call it before the load is our own."""
    names = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _LIBRARIES},
        "commit": names.stdout.strip() or "unknown",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def write(
    path: Path,
    *,
    speed: Mapping[str, Any] | None = None,
    soak: Mapping[str, Any] | None = None,
) -> None:
    """Put the tables that are given into the page, in place of those that are there."""
    text = path.read_text() if path.exists() else _NEW
    if speed:
        text = _put(text, "speed", "benchmarks/serve.py", _speed(speed))
    if soak:
        text = _put(text, "soak", "benchmarks/serve_soak.py", _soak(soak))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _put(text: str, name: str, script: str, lines: Sequence[str]) -> str:
    begin, end = _BEGIN.format(name, script), _END.format(name)
    block = "\n".join([begin, "", *lines, "", end])
    before, found, rest = text.partition(begin)
    if not found:
        return f"{text.rstrip()}\n\n{block}\n"
    return before + block + rest.partition(end)[2]


# Part, figure, what it is, what is promised of it, and how it is compared with that.
_ROWS = (
    ("start", "start_to_ready_s", "start to ready", 4.0, "<=", "s"),
    ("start", "start_processor_s", "of these, processor time", None, "", "s"),
    ("command_line", "warm_query_s", "`mmsearch query`, a server running", 0.4, "<=", "s"),
    ("command_line", "warm_query_processor_s", "of these, processor time", None, "", "s"),
    ("command_line", "cold_query_s", "`mmsearch query --no-server`", None, "", "s"),
    ("overhead", "engine_p50_ms", "text query, engine call, p50", None, "", "ms"),
    ("overhead", "http_p50_ms", "text query, over HTTP, p50", None, "", "ms"),
    ("overhead", "overhead_p50_ms", "what HTTP adds, p50", 3.0, "<=", "ms"),
    ("concurrency", "alone_per_s", "text queries, one at a time", None, "", "/s"),
    ("concurrency", "together_per_s", "text queries, 64 at once", None, "", "/s"),
    ("concurrency", "together_ratio", "64 at once against one", 2.5, ">=", "x"),
    ("concurrency", "alone_p99_ms", "one at a time, p99", None, "", "ms"),
    ("concurrency", "together_p50_ms", "64 at once, p50", None, "", "ms"),
    ("concurrency", "together_p99_ms", "64 at once, p99", None, "", "ms"),
    ("concurrency", "alone_processor_ms", "one at a time, processor time each", None, "", "ms"),
    ("concurrency", "together_processor_ms", "64 at once, processor time each", None, "", "ms"),
    ("concurrency", "dropped", "not answered, of all", 0, "<=", ""),
    ("encodings", "float_vectors_per_s", "vectors of 1536, JSON floats", None, "", "/s"),
    ("encodings", "base64_vectors_per_s", "vectors of 1536, base64", None, "", "/s"),
    ("encodings", "base64_ratio", "base64 against floats", 5.0, ">=", "x"),
)


def _speed(speed: Mapping[str, Any]) -> list[str]:
    rows = []
    for part, name, about, promised, how, unit in _ROWS:
        if part not in speed:
            continue
        value = speed[part]["figures"][name]
        promise = "" if promised is None else f"{how} {promised:g} {unit}".rstrip()
        kept = promised is None or (value <= promised if how == "<=" else value >= promised)
        told = f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
        rows.append([about, f"{told} {unit}".rstrip(), promise, "" if kept else "missed"])
    loads = sorted(speed[part]["machine"]["load_before"] for part in speed)
    last = max(speed.values(), key=lambda one: one["date"])
    here = last["machine"]
    lines = [
        f"Measured on {last['date']} at {here['commit']}: {here['cores']} cores "
        f"({here['processor']}), Python {here['python']}, fastapi {here['fastapi']}, "
        f"uvicorn {here['uvicorn']}, torch {here['torch']}; the default model, loopback, the "
        f"load generator on the same cores. Load before: {loads[-1]}.",
        "",
    ]
    if loads[-1] > _BUSY * here["cores"]:
        lines += [
            "**Other work shared the cores**: times are several times too long, and their "
            "differences mean little; ratios were measured in turns.",
            "",
        ]
    return lines + _table(("what", "measured", "promised", ""), rows)


_MEMORY = (
    ("server_mib", "server"),
    ("worker_mib", "its largest worker"),
    ("all_mib", "server and all workers"),
)


def _soak(soak: Mapping[str, Any]) -> list[str]:
    here = soak["machine"]
    lines = [
        f"Measured on {soak['date']}, on {here['cores']} cores, load before {here['load_before']}.",
    ]
    if traffic := soak.get("traffic"):
        lines += [
            "",
            f"At {traffic['commit']}: "
            f"{traffic['minutes']:g} minutes of mixed traffic by {traffic['clients']} clients "
            f"while files were indexed, changed and removed ({traffic['jobs']} jobs): "
            f"{traffic['requests']:,} requests, {traffic['num_wrong']} wrong answers.",
            "",
            *_table(
                ("what was asked", "requests", "p50 ms", "p99 ms"),
                [
                    [name, f"{one['requests']:,}", f"{one['p50_ms']:.0f}", f"{one['p99_ms']:.0f}"]
                    for name, one in sorted(traffic["asked"].items())
                ],
            ),
            "",
            *_table(
                ("memory, MiB", "second fifth", "last fifth", "highest"),
                [
                    [about, *(f"{traffic[name][key]:,.0f}" for key in ("early", "late", "peak"))]
                    for name, about in _MEMORY
                    if name in traffic
                ],
            ),
            *(["", f"**Not level**: {'; '.join(traffic['grew'])}."] if traffic["grew"] else []),
        ]
    if uploads := soak.get("uploads"):
        answers = ", ".join(f"{n:,} x {status}" for status, n in uploads["statuses"].items())
        lines += [
            "",
            f"At {uploads['commit']}: "
            f"{uploads['files']:,} damaged files sent to `/v1/search` and `/v1/embeddings`: "
            f"{answers}; {uploads['num_wrong']} wrong answers. Memory of the server's process "
            f"{uploads['server_mib']['early']:,.0f} MiB in the second fifth, "
            f"{uploads['server_mib']['late']:,.0f} MiB in the last.",
        ]
    if hostile := soak.get("hostile"):
        lines += [
            "",
            f"At {hostile['commit']}: "
            f"{len(hostile['statuses'])} things that no client sends (half bodies, huge heads, "
            "bombs of JSON and of pixels, hundreds of connections that say nothing): "
            f"{hostile['num_wrong']} wrong; the server is asked after each.",
        ]
    return lines


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    marks = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (head, marks, *rows)]
