"""``rebuild``: the same files through another model, while the index goes on answering."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import made_files
import pytest
from conftest import WordEmbedder

from mmsearch import Engine, ModelSettings
from mmsearch.errors import FilesGone, SpaceMismatch, StoreLocked
from mmsearch.retriever.models.tiny import write_random_checkpoint
from mmsearch.upkeep import check, rebuild

OTHER = WordEmbedder("other")
# Kills itself once the new data folder holds a document, or, told so, when the disk is full.
REBUILD = """
import os, resource, signal, sys, time
from pathlib import Path
from conftest import WordEmbedder
from mmsearch.retriever.store.store import Store
from mmsearch.upkeep import rebuild

def hear(progress):
    time.sleep(0.03)
    new = Path(sys.argv[1], "generation-1")
    if sys.argv[2] == "kill" and Store.exists(new) and Store.open(new).documents():
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    if sys.argv[2] == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))
    rebuild(sys.argv[1], model=WordEmbedder("other"), ocr=False, num_workers=1, on_progress=hear)
"""


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    made_files.pdf(folder / "pump.pdf", "Pump one.", "Chart two.")
    (folder / "cat.md").write_text("The cat.")
    (folder / "naïve dog.md").write_text("A dog.")
    return folder


@pytest.fixture
def db(docs: Path, tmp_path: Path) -> Path:
    with Engine.open(tmp_path / "db", create=True, model=WordEmbedder()) as engine:
        engine.index([docs], ocr=False, num_workers=1)
    return tmp_path / "db"


def rows_of(engine: Engine) -> list[tuple[str, str, str]]:
    return sorted(
        (segment.path, str(segment.locator), segment.text)
        for document in engine._store.documents()
        for segment in engine._store.segments_of(document.path)
    )


def in_another_process(db: Path, how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", REBUILD, str(db), how],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )


def test_the_same_documents_are_found_in_the_new_space(db: Path) -> None:
    with Engine.open(db, model=WordEmbedder()) as engine:
        rows = rows_of(engine)

    report = rebuild(db, model=OTHER, ocr=False, num_workers=1)

    assert report.space == OTHER.space
    assert report.run is not None
    assert (report.run.documents, report.missing) == (3, ())
    with Engine.open(db, model=OTHER) as engine:
        assert rows_of(engine) == rows
        assert check(engine.path) == []
        assert [Path(hit.path).name for hit in engine.query("cat", k=1)] == ["cat.md"]
        assert engine.index([db.parent / "docs"], ocr=False, num_workers=1).documents == 0, (
            "all are known"
        )


def test_the_old_space_answers_until_the_new_one_is_whole(db: Path) -> None:
    with Engine.open(db, model=WordEmbedder()) as engine:
        heard = []

        rebuild(
            db,
            model=OTHER,
            ocr=False,
            num_workers=1,
            on_progress=lambda _: heard.append(engine.query("cat", k=1)[0].path),
        )

        assert {Path(path).name for path in heard} == {"cat.md"}
        with pytest.raises(SpaceMismatch, match="other"):
            engine.query("cat")
    with pytest.raises(SpaceMismatch):
        Engine.open(db, model=WordEmbedder())


def test_nobody_else_writes_meanwhile(db: Path) -> None:
    with Engine.open(db, model=WordEmbedder()) as engine:
        refused = []

        def write(_: object) -> None:
            with pytest.raises(StoreLocked):
                engine.index([db.parent / "docs"], ocr=False, num_workers=1)
            refused.append(True)

        rebuild(db, model=OTHER, ocr=False, on_progress=write)

    assert refused


def test_a_killed_rebuild_goes_on_where_it_was(docs: Path, db: Path) -> None:
    for number in range(60):
        (docs / f"note-{number}.md").write_text(f"The pump number {number}.")
    with Engine.open(db, model=WordEmbedder()) as engine:
        engine.index([docs], ocr=False, num_workers=1)
        rows = rows_of(engine)

    killed = in_another_process(db, "kill")

    assert killed.returncode == -9, killed.stderr
    with Engine.open(db, model=WordEmbedder()) as engine:
        assert rows_of(engine) == rows, "the old index is as it was"
        engine.index([docs], ocr=False, num_workers=1)  # a writer in between takes nothing away
    report = rebuild(db, model=OTHER, ocr=False, num_workers=1)
    assert report.run is not None
    assert report.run.skipped > 0
    assert report.run.documents + report.run.skipped == 63
    with Engine.open(db, model=OTHER) as engine:
        assert rows_of(engine) == rows
        assert check(engine.path) == []


def test_another_model_begins_anew(db: Path) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(db, model=OTHER, ocr=False, on_progress=interrupt)
    assert Engine.open(db / "generation-1").space == OTHER.space

    report = rebuild(db, model=WordEmbedder("third"), ocr=False, num_workers=1)

    assert report.run is not None
    assert (report.run.documents, report.run.skipped) == (3, 0)
    with Engine.open(db) as engine:
        assert engine.space.model == "third"
        assert check(engine.path) == []
        assert len(rows_of(engine)) == 4


def test_a_full_disk_leaves_the_old_index_as_it_was(db: Path) -> None:
    done = in_another_process(db, "full")

    assert "mmsearch.errors.Store" in done.stderr
    with Engine.open(db, model=WordEmbedder()) as engine:
        assert len(rows_of(engine)) == 4
        assert check(engine.path) == []
        assert [Path(hit.path).name for hit in engine.query("cat", k=1)] == ["cat.md"]
    assert rebuild(db, model=OTHER, ocr=False, num_workers=1).space == OTHER.space
    with Engine.open(db, model=OTHER) as engine:
        assert len(rows_of(engine)) == 4
        assert check(engine.path) == []


def test_files_that_are_gone_are_forgotten_only_when_that_is_said(docs: Path, db: Path) -> None:
    (docs / "cat.md").unlink()

    with pytest.raises(FilesGone, match=r"1 of the 3 files .* are gone: .*cat\.md"):
        rebuild(db, model=OTHER, ocr=False, num_workers=1)
    with Engine.open(db, model=WordEmbedder()) as engine:
        assert len(rows_of(engine)) == 4
    report = rebuild(db, model=OTHER, ocr=False, forget_missing=True, num_workers=1)

    assert report.missing == (f"{docs}/cat.md",)
    with Engine.open(db, model=OTHER) as engine:
        assert {Path(path).name for path, *_ in rows_of(engine)} == {"pump.pdf", "naïve dog.md"}


def test_where_every_file_is_gone_nothing_is_rebuilt(docs: Path, db: Path) -> None:
    docs.rename(docs.with_name("unmounted"))

    with pytest.raises(FilesGone, match="3 of the 3 files"):
        rebuild(db, model=OTHER, ocr=False, forget_missing=True, num_workers=1)

    with Engine.open(db, model=WordEmbedder()) as engine:
        assert len(rows_of(engine)) == 4


def test_names_that_are_no_text_are_found_again(docs: Path, db: Path) -> None:
    Path(os.fsdecode(os.fsencode(docs) + b"/caf\xe9.md")).write_text("A museum.")
    with Engine.open(db, model=WordEmbedder()) as engine:
        engine.index([docs], ocr=False, num_workers=1)
        rows = rows_of(engine)

    assert rebuild(db, model=OTHER, ocr=False, num_workers=1).missing == ()

    with Engine.open(db, model=OTHER) as engine:
        assert rows_of(engine) == rows


def test_an_index_of_that_space_already_is_left_alone(db: Path) -> None:
    before = sorted(db.rglob("*"))

    assert rebuild(db, model=WordEmbedder(), ocr=False, num_workers=1).run is None

    assert sorted(db.rglob("*")) == before


def test_other_settings_of_the_same_model(docs: Path, tmp_path: Path) -> None:
    db = tmp_path / "tiny"
    write_random_checkpoint(tmp_path / "model")
    with Engine.open(db, create=True, model=tmp_path / "model") as engine:
        engine.index([docs / "cat.md"], ocr=False, num_workers=1)
        made_with = engine.space
    assert made_with.dim > 8

    with pytest.raises(SpaceMismatch) as refused:
        Engine.open(db, settings=ModelSettings(dims=8))
    report = rebuild(db, settings=ModelSettings(dims=8), ocr=False, num_workers=1)

    assert refused.value.hint.endswith(f"mmsearch rebuild --dims 8 --db {db}")
    assert report.space == replace(made_with, dim=8)
    with Engine.open(db) as engine:
        assert engine.space.dim == 8
        assert len(engine.query("cat")) == 1


def test_another_model_is_refused_with_the_command_that_would_take_it(db: Path) -> None:
    with pytest.raises(SpaceMismatch) as refused:
        Engine.open(db, model=OTHER)

    assert refused.value.hint.endswith(f"mmsearch rebuild --model other --db {db}")
