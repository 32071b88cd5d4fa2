"""A writer killed at any moment, and readers that look while it writes."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
from restless_writer import version_pages
from toy_store import SPACE, put, thumbnail, unit

from mmsearch.errors import StoreLocked
from mmsearch.retriever.store.store import Store
from mmsearch.values import View

ROUNDS = 5
LIMIT_S = 60.0  # of a reader that waits for the writer


@contextmanager
def restless(folder: Path, seed: int) -> Iterator["subprocess.Popen[str]"]:
    """A writer at work; killed without warning when the with ends."""
    script = Path(__file__).with_name("restless_writer.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder), str(seed)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline(), "it died before it could write"
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def versions(store: Store) -> dict[str, int | None]:
    """The version of every document a reader sees, each found whole; None for a failed one."""
    snapshot = store.snapshot()
    found = snapshot.nearest(View.VISUAL, unit(1), k=1_000)
    by_path: dict[str, list[str]] = {document.path: [] for document in snapshot.documents}
    for segment in snapshot.segments([neighbour.segment_id for neighbour in found]):
        by_path[segment.path].append(segment.text)
    seen: dict[str, int | None] = {}
    for path, texts in by_path.items():
        seen[path] = int(texts[0].split()[1]) if texts else None
        assert texts == version_pages(path, seen[path] or 0) or not texts
        assert [s.text for s in snapshot.segments_of(path)] == texts
    assert len(snapshot.matching("version", k=1_000)) == len(found)
    return seen


def after(state: dict[str, int | None], line: dict[str, object]) -> dict[str, int | None]:
    """What the documents are once that step of the writer is done."""
    what = line.get("begin") or line.get("done")
    paths, version = line["paths"], line["version"]
    assert isinstance(paths, list)
    assert isinstance(version, int)
    if what == "commit":
        return state | dict.fromkeys(paths, version)
    if what == "fail":
        return state | dict.fromkeys(paths, None)
    if what == "remove":
        return {path: kept for path, kept in state.items() if path not in paths}
    return state


def num_different(states: list[dict[str, int | None]]) -> int:
    return len({tuple(sorted(state.items(), key=str)) for state in states})


def killed_after(
    num_steps: int, process: "subprocess.Popen[str]", moment: random.Random
) -> list[dict[str, object]]:
    """Kill it in the step that follows so many, or just after; return what it had said.

    Steps are counted and timed here, so a slow machine kills at the same places as a fast one.
    """
    assert process.stdout is not None
    began = time.monotonic()
    said = [json.loads(line) for line in islice(process.stdout, 2 * num_steps + 1)]  # one begun
    a_step = (time.monotonic() - began) / max(1, num_steps)
    time.sleep(moment.uniform(0.0, 1.5) * a_step)
    process.send_signal(signal.SIGKILL)
    return said + [json.loads(line) for line in process.stdout if line.endswith("\n")]


def test_killed_at_any_moment_every_step_was_done_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    moment = random.Random(7)
    state: dict[str, int | None] = {}
    num_steps = 0
    for seed in range(ROUNDS):
        with restless(store.path, seed) as process:
            said = killed_after(seed, process, moment)
        for line in said:
            if "done" in line:
                state = after(state, line)
                num_steps += 1
        possible = [state]
        if said and "begin" in said[-1]:
            possible.append(after(state, said[-1]))

        seen = versions(store)

        assert seen in possible, f"round {seed}: done means durable, and nothing is half done"
        state = seen
        assert store.check() == []
        with Store.open(store.path).writing():
            pass  # at once: the lock died with its holder, and what it left is swept
        assert versions(store) == state
        whole = store.snapshot()
        assert whole.table.count() == whole.manifest.num_segments
        packs = {whole.manifest.pack(commit_id) for commit_id in whole.live}
        assert {path.stem for path in store.path.glob("media/*/*")} == packs
        for segment in whole.segments_of(next(iter(state), "")):
            shown = thumbnail(segment.path, segment.locator.page or 0, segment.text)
            assert store.thumbnail(segment.segment_id) == shown
    assert num_steps > ROUNDS, "the writer got somewhere"


def test_readers_see_whole_documents_while_another_process_replaces_them(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        put(writer, "/docs/a.pdf", version_pages("/docs/a.pdf", 0))
    states: list[dict[str, int | None]] = []
    with restless(store.path, seed=1) as process:
        began = time.monotonic()
        while time.monotonic() < began + (2.0 if num_different(states) > 3 else LIMIT_S):
            states.append(versions(store))
            if len(states) == 3:
                with pytest.raises(StoreLocked, match=f"process {process.pid} "), store.writing():
                    pass
    assert num_different(states) > 3
