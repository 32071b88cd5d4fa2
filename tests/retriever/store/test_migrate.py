"""An index made by an older mmsearch answers as it did, after the first writer came by."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_fixture import answers

from mmsearch.errors import StoreDamaged, StoreOutdated
from mmsearch.indexers.discover import Source
from mmsearch.indexers.plan import make_plan
from mmsearch.retriever.store.store import SCHEMA_VERSION, Store
from mmsearch.upkeep import optimize
from mmsearch.values import Status, View

FIXTURES = Path(__file__).parents[2] / "fixtures"
OLD = sorted(FIXTURES.glob("index-schema-*.tar.xz"))
KILLED_AT = Path(__file__).with_name("killed_at.py")


@pytest.fixture(params=OLD, ids=lambda path: path.name.split(".")[0])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Any]:
    """An index as an older mmsearch left it, and what it answered."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    said = request.param.with_name(request.param.name.replace(".tar.xz", ".json"))
    return tmp_path / "db", json.loads(said.read_text())


def assert_as_before(store: Store, before: Any) -> None:
    now = json.loads(json.dumps(answers(store)))
    for what in ("space", "documents", "segments", "matching"):
        assert now[what] == before[what]
    for question, neighbours in before["nearest"].items():
        found = dict(now["nearest"][question])
        near = {one: cosine for one, cosine in neighbours if cosine > 0.1}  # the rest is noise
        assert {one: found.get(one) for one in near} == pytest.approx(near, abs=1e-3)
    assert store.check() == []


def test_every_earlier_schema_has_a_fixture() -> None:
    there = {path.name for path in OLD}

    for version in range(1, SCHEMA_VERSION):
        assert f"index-schema-{version}.tar.xz" in there, "see CONTRIBUTING.md"


def test_the_first_writer_brings_an_index_up_to_date(old: tuple[Path, Any]) -> None:
    path, before = old
    with Store.open(path).writing():
        pass

    store = Store.open(path)

    assert store.header.schema_version == SCHEMA_VERSION
    assert_as_before(store, before)


def test_until_then_a_reader_is_told_what_to_type(old: tuple[Path, Any]) -> None:
    path, _ = old
    files = sorted(str(file) for file in path.rglob("*"))

    store = Store.open(path)
    with pytest.raises(StoreOutdated, match="older mmsearch") as refused:
        store.documents()

    assert refused.value.hint == f"mmsearch optimize --db {path}"
    assert sorted(str(file) for file in path.rglob("*")) == files, "reading changes nothing"
    optimize(path)
    assert store.documents()


def test_its_files_need_not_be_read_again(old: tuple[Path, Any]) -> None:
    path, _ = old
    with Store.open(path).writing():
        pass
    manifest = {document.path: document for document in Store.open(path).documents()}
    files = [Source(Path(one.path), one.size, one.mtime_ns) for one in manifest.values()]

    plan = make_plan(files, manifest, [])

    failed = [one for one in manifest.values() if one.status is Status.FAILED]
    assert (len(plan.read), plan.unchanged) == (0, len(manifest) - len(failed))
    assert list(plan.failed_before) == failed


def test_rows_say_when_their_file_was_changed(old: tuple[Path, Any]) -> None:
    path, _ = old
    with Store.open(path).writing():
        pass
    store = Store.open(path)

    for document in store.documents():
        for segment in store.segments_of(document.path):
            assert int(segment.modified.timestamp()) == document.mtime_ns // 10**9


def test_vectors_are_those_of_before_in_half_precision(old: tuple[Path, Any]) -> None:
    import lancedb

    path, _ = old
    inner = lancedb.connect(path / "tables").open_table("segments")
    before = {row["segment_id"]: row for row in inner.to_arrow().to_pylist()}
    with Store.open(path).writing():
        pass

    store = Store.open(path)

    assert before
    for segment_id, row in before.items():
        kept = store.vectors(segment_id)
        for view, column in ((View.VISUAL, "visual_vector"), (View.TEXT, "text_vector")):
            if row[column] is None:
                assert view not in kept
            else:
                expected = np.asarray(row[column], np.float16).astype(np.float32)
                assert np.array_equal(kept[view], expected)


@pytest.mark.parametrize(
    "step", ["create_tables", "add_batches", "take_over", "write_header", "open_tables"]
)
def test_killed_at_any_step_it_is_the_old_index_or_the_new(
    step: str, old: tuple[Path, Any]
) -> None:
    path, before = old
    done = subprocess.run(
        [sys.executable, str(KILLED_AT), str(path), step], capture_output=True, text=True
    )
    assert done.returncode == -9, done.stderr

    store = Store.open(path)
    if store.header.schema_version < SCHEMA_VERSION:
        with pytest.raises(StoreOutdated):
            store.snapshot()
    else:
        assert_as_before(store, before)  # before any writer has swept
    with store.writing():
        pass

    assert_as_before(Store.open(path), before)
    folders = {entry.name for entry in path.iterdir() if entry.name.startswith("generation-")}
    assert folders == {Store.open(path).header.data}, "what was half filled is gone"


def test_an_old_index_that_cannot_be_read_stays_as_it_is(old: tuple[Path, Any]) -> None:
    path, _ = old
    for file in (path / "tables" / "segments.lance" / "data").iterdir():
        file.write_bytes(b"torn")

    with pytest.raises(StoreDamaged), Store.open(path).writing():
        pass

    assert Store.open(path).header.schema_version < SCHEMA_VERSION
    assert not list(path.glob("generation-*"))
