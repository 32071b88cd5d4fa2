"""Contract 1: whatever moment the process dies, a re-run ends with exactly the right rows."""

import random
import subprocess
import sys
from pathlib import Path

import made_files
import psutil
import pytest
from conftest import WordEmbedder

from mmsearch import Engine
from mmsearch.upkeep import check

ROUNDS = 4
GRACE_S = 30.0
# Without a __main__ guard, as people write scripts.
INDEX = """
import sys
from conftest import WordEmbedder
from mmsearch import Engine
with Engine.open(sys.argv[1], create=True, model=WordEmbedder()) as engine:
    print("begun", flush=True)
    engine.index([sys.argv[2]], on_progress=print, ocr=False)
"""


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(60):
        (folder / f"note-{number:02}.md").write_text(f"The cat number {number}.")
        made_files.pdf(folder / f"page-{number:02}.pdf", f"Pump {number}.", f"Chart {number}.")
    return folder


def index_and_kill(db: Path, docs: Path, *, after_lines: int) -> list[psutil.Process]:
    """Kill -9 an index run once it has said so many lines; return the workers it had."""
    running = subprocess.Popen(
        [sys.executable, "-c", INDEX, str(db), str(docs)],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    with running.stdout as lines:
        for _ in zip(range(after_lines), lines, strict=False):
            pass
        workers = psutil.Process(running.pid).children(recursive=True)
        running.kill()
        lines.read()
    running.wait()
    return workers


def rows_of(engine: Engine) -> list[tuple[str, str, str]]:
    return sorted(
        (segment.path, str(segment.locator), segment.text)
        for document in engine._store.documents()
        for segment in engine._store.segments_of(document.path)
    )


def test_a_killed_run_is_resumed_to_exactly_the_right_rows(docs: Path, tmp_path: Path) -> None:
    dice = random.Random(7)
    for _ in range(ROUNDS):
        workers = index_and_kill(tmp_path / "killed", docs, after_lines=dice.randint(1, 150))
        psutil.wait_procs(workers, timeout=GRACE_S)
        assert not [worker for worker in workers if worker.is_running()]

    with (
        Engine.open(tmp_path / "killed", create=True, model=WordEmbedder()) as killed,
        Engine.open(tmp_path / "calm", create=True, model=WordEmbedder()) as calm,
    ):
        resumed = killed.index([docs], ocr=False)
        calm.index([docs], ocr=False)

        assert resumed.documents + resumed.skipped == 120
        assert rows_of(killed) == rows_of(calm)
        assert len(rows_of(killed)) == 180
        assert check(killed.path) == []


def test_a_killed_run_leaves_every_document_whole_or_absent(docs: Path, tmp_path: Path) -> None:
    index_and_kill(tmp_path / "db", docs, after_lines=10_000)

    with Engine.open(tmp_path / "db", model=WordEmbedder()) as engine:
        kept = engine._store.documents()
        assert kept, "the kill came before the first commit: nothing was tested"
        for document in kept:
            assert len(engine._store.segments_of(document.path)) == document.num_segments
        assert len(engine.query("cat pump chart", k=200)) == sum(one.num_segments for one in kept)
