"""What an index is: a folder that says whose vectors it holds, and nothing by accident."""

import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_store import SPACE, a_document, a_row, put, unit

from mmsearch.errors import SegmentNotFound, SpaceMismatch, StoreDamaged, StoreNotFound
from mmsearch.retriever.store import tables
from mmsearch.retriever.store.store import SCHEMA_VERSION, Store
from mmsearch.values import Kind, Locator, Status, TextOrigin, View, segment_id


def changed_header(store: Store, **fields: object) -> None:
    path = store.path / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_opening_what_is_not_there_is_refused_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound):
        Store.open(tmp_path / "nowhere")

    assert list(tmp_path.iterdir()) == []
    assert not Store.exists(tmp_path)


def test_a_new_index_is_empty_and_remembers_its_space(tmp_path: Path) -> None:
    Store.create(tmp_path / "a" / "db", SPACE)

    store = Store.open(tmp_path / "a" / "db")

    assert store.space == SPACE
    assert store.documents() == []
    assert store.counts().num_segments == 0
    assert store.nearest(View.VISUAL, unit(1), k=3) == []
    assert store.matching("anything", k=3) == []
    assert store.check() == []


def test_creating_an_index_again_opens_it_with_what_it_holds(tmp_path: Path) -> None:
    with Store.create(tmp_path / "db", SPACE).writing() as writer:
        put(writer, "/a.pdf", ["one"])

    assert [d.path for d in Store.create(tmp_path / "db", SPACE).documents()] == ["/a.pdf"]


def test_an_index_of_another_space_is_refused(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    other = replace(SPACE, effort=4)

    with pytest.raises(SpaceMismatch):
        store.check_space(other)
    with pytest.raises(SpaceMismatch):
        Store.create(tmp_path / "db", other)


def test_another_name_for_the_same_model_is_the_same_space(tmp_path: Path) -> None:
    Store.create(tmp_path / "db", SPACE).check_space(replace(SPACE, model="by another name"))


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")

    with pytest.raises(StoreDamaged, match=r"thesis\.tex"):
        Store.create(tmp_path, SPACE)

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_killed_create_left_is_taken_over(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    (store.path / "index.json").rename(store.path / ".index.json.123.tmp")

    assert Store.create(tmp_path / "db", SPACE).documents() == []


def test_documents_that_lost_their_header_are_not_built_upon(
    tmp_path: Path,
) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        put(writer, "/a.pdf", ["one"])
    header = (store.path / "index.json").read_bytes()
    (store.path / "index.json").unlink()

    with pytest.raises(StoreDamaged, match=r"index\.json is lost"):
        Store.create(store.path, SPACE)

    (store.path / "index.json").write_bytes(header)
    assert [document.path for document in Store.open(store.path).documents()] == ["/a.pdf"]


def test_an_index_of_a_newer_schema_is_refused_by_name_of_its_maker(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    changed_header(store, schema_version=SCHEMA_VERSION + 1, mmsearch_version="9.1")

    with pytest.raises(StoreDamaged, match=r"mmsearch 9\.1"):
        Store.open(store.path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": 0}', '"1"'])
def test_a_broken_header_is_damage_not_a_crash(tmp_path: Path, content: str) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    (store.path / "index.json").write_text(content)

    with pytest.raises(StoreDamaged):
        Store.open(store.path)


def test_lost_tables_are_damage_and_are_not_made_anew(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    (store.path / "tables").rename(tmp_path / "elsewhere")

    with pytest.raises(StoreDamaged):
        Store.open(store.path)
    assert not (store.path / "tables").exists()


def test_a_torn_table_is_damage(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    for path in (store.path / "tables" / "segments.lance" / "_versions").iterdir():
        path.write_bytes(b"torn")

    with pytest.raises(StoreDamaged):
        Store.open(store.path)


def test_a_segment_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    clip = Locator(start=1.5, end=4.25)
    row = a_row(
        "/v.mp4",
        clip,
        kind=Kind.VIDEO,
        text="two  words",
        about="v.mp4",
        vectors={View.VISUAL: unit(3, 4), View.TEXT: unit(0, 1)},
        thumbnail=b"\x00webp",
    )
    with store.writing() as writer:
        writer.commit(a_document("/v.mp4", kind=Kind.VIDEO), [row])

    [segment] = store.segments([row.segment_id])

    assert (segment.path, segment.kind, segment.locator) == ("/v.mp4", Kind.VIDEO, clip)
    assert (segment.text, segment.about, segment.num_words) == ("two  words", "v.mp4", 2)
    assert segment.text_origin is TextOrigin.LAYER
    assert segment.views == {View.VISUAL, View.TEXT}
    vectors = store.vectors(row.segment_id)
    np.testing.assert_allclose(vectors[View.VISUAL], [0.6, 0.8, 0, 0], atol=3e-4)
    np.testing.assert_allclose(vectors[View.TEXT], [0, 1, 0, 0], atol=1e-7)
    assert store.thumbnail(row.segment_id) == b"\x00webp"


def test_segments_come_in_the_order_asked_and_unknown_ones_are_left_out(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        put(writer, "/a.pdf", ["one", "two", "three"])
    first, second, third = (segment_id("/a.pdf", Locator(page=n)) for n in (1, 2, 3))

    found = store.segments([third, "f" * 16, first])

    assert [segment.text for segment in found] == ["three", "one"]
    assert [segment.text for segment in store.segments_of("/a.pdf")] == ["one", "two", "three"]
    assert store.segments([]) == []
    assert second not in [segment.segment_id for segment in found]


def test_an_unknown_segment_has_neither_thumbnail_nor_vectors(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)

    with pytest.raises(SegmentNotFound):
        store.thumbnail("no'such")
    with pytest.raises(SegmentNotFound):
        store.vectors("no'such")


def test_a_segment_without_a_thumbnail_has_an_empty_one(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    row = a_row("/a.txt", Locator(char_start=0, char_end=5), kind=Kind.TEXT)
    with store.writing() as writer:
        writer.commit(a_document("/a.txt", kind=Kind.TEXT), [row])

    assert store.thumbnail(row.segment_id) == b""
    assert not list(store.path.glob("media/*/*"))


def test_counts_tell_done_from_failed_and_kinds_apart(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        put(writer, "/a.pdf", ["one", "two"])
        put(writer, "/b.pdf", ["one"])
        failed = a_document("/c.pdf", status=Status.FAILED, error="it is encrypted")
        unknown = a_document("/d", kind=None, status=Status.FAILED, error="no permission")
        writer.commit_all([(failed, []), (unknown, [])])

    counts = store.counts()

    assert counts.documents == {Kind.PDF: 2}
    assert counts.failed == {Kind.PDF: 1, None: 1}
    assert counts.segments == {Kind.PDF: 3}
    files = [file for file in (tmp_path / "db").rglob("*") if file.is_file()]
    assert counts.num_bytes == sum(file.stat().st_size for file in files) > 1_000
    assert [d.error for d in store.documents("/c.pdf")] == ["it is encrypted"]


def test_counting_bears_folders_that_come_and_go(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    least = store.counts().num_bytes
    is_over = threading.Event()

    def come_and_go() -> None:
        folder = tmp_path / "db" / "tables" / "passing"
        while not is_over.is_set():
            folder.mkdir()
            (folder / "file").write_bytes(b"x")
            shutil.rmtree(folder)

    passing = threading.Thread(target=come_and_go)
    passing.start()
    try:
        counted = {store.counts().num_bytes for _ in range(500)}
    finally:
        is_over.set()
        passing.join()

    assert counted <= {least, least + 1}


def test_lance_is_told_before_it_loads_that_input_needs_no_core_of_its_own(tmp_path: Path) -> None:
    Store.create(tmp_path / "db", SPACE)
    look = """
import os, pathlib, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "lancedb":
            print(os.environ.get("LANCE_IO_CORE_RESERVATION"))
sys.meta_path.insert(0, Finder())
from mmsearch.retriever.store.store import Store
Store.open(pathlib.Path(sys.argv[1])).counts()
"""
    done = subprocess.run(
        [sys.executable, "-c", look, str(tmp_path / "db")],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "0\n"


def test_paths_and_words_that_are_not_utf8_are_kept_escaped(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    path = "/docs/caf\udce9's.pdf"
    with store.writing() as writer:
        put(writer, path, ["torn \ud800 word"])
        put(writer, path, ["torn \ud800 again"])

    [document] = store.documents()

    assert document.path == "/docs/caf\\xe9's.pdf"
    assert [segment.text for segment in store.segments_of(path)] == ["torn \\ud800 again"]
    with store.writing() as writer:
        assert writer.remove([path]) == 1


def test_an_open_store_sees_what_another_handle_commits(tmp_path: Path) -> None:
    reader = Store.create(tmp_path / "db", SPACE)
    assert reader.documents() == []

    with Store.open(tmp_path / "db").writing() as writer:
        put(writer, "/a.pdf", ["one"])

        assert [d.num_segments for d in reader.documents()] == [1]
        assert len(reader.nearest(View.VISUAL, unit(1), k=5)) == 1


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts files in /proc")
def test_a_process_that_lives_long_keeps_few_files_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_VERSIONS_REMEMBERED", 4)
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        for number in range(40):
            put(writer, f"first-{number}.pdf", [f"page number{number} of the first"] * 3)
        writer.refresh()
    num_open = []
    for turn in range(12):
        with store.writing() as writer:
            put(writer, f"{turn}.pdf", [f"page of turn{turn}"])
            writer.refresh()
        [found] = store.matching(f"turn{turn}", k=3)
        assert found.segment_id
        num_open.append(len(list(Path("/proc/self/fd").iterdir())))

    assert max(num_open[6:]) <= max(num_open[:6])
