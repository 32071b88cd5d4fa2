"""Doctor: damage is found and named, and mending leaves an index that is whole."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lancedb
import pytest
from toy_store import SPACE, a_document, pages, put, unit

from mmsearch.retriever.store.store import Store
from mmsearch.values import View

if TYPE_CHECKING:
    from lancedb.table import Table


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        put(writer, "/a.pdf", ["one", "two"])
        put(writer, "/b.pdf", ["island"])
    return store


def table(store: Store, name: str) -> "Table":
    return lancedb.connect(store.path / "tables").open_table(name)


def mended(store: Store) -> list[str]:
    with store.writing() as writer:
        return writer.repair()


def lost_rows(store: Store) -> None:
    table(store, "segments").delete("path = '/a.pdf' AND page = 2")


def doubled_rows(store: Store) -> None:
    segments = table(store, "segments")
    segments.add(segments.search().where("path = '/a.pdf'").to_arrow())


def crooked_vector(store: Store) -> None:
    segments = table(store, "segments")
    rows: list[dict[str, Any]] = segments.search().where("path = '/a.pdf'").to_list()
    for row in rows:
        row["visual_vector"] = [3.0, 0.0, 0.0, 0.0]
    segments.delete("path = '/a.pdf'")
    segments.add(rows)


def pack_of(store: Store, path: str) -> Path:
    [document] = store.documents(path)
    pack = store.snapshot().manifest.pack(document.commit_id)
    return next(store.path.glob(f"media/*/{pack}.arrow"))


def lost_thumbnails(store: Store) -> None:
    pack_of(store, "/a.pdf").unlink()


def torn_thumbnails(store: Store) -> None:
    path = pack_of(store, "/a.pdf")
    path.write_bytes(path.read_bytes()[:100])


def doubled_document(store: Store) -> None:
    documents = table(store, "documents")
    documents.add(documents.search().where("path = '/a.pdf'").to_arrow())


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lost_rows, "has 1 segments, not 2"),
        (doubled_rows, "kept twice"),
        (crooked_vector, "2 vectors not finite and of unit length"),
        (lost_thumbnails, "lost its thumbnails"),
        (torn_thumbnails, "unreadable thumbnails"),
        (doubled_document, "in the manifest 2 times"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_document_that_is_not_whole_is_named_and_forgotten(
    store: Store, damage: Any, named: str
) -> None:
    damage(store)

    problems = store.check()

    assert {problem.path for problem in problems} == {"/a.pdf"}
    assert named in problems[0].sentence
    assert "mmsearch doctor --fix" in problems[0].remedy
    assert mended(store) == ["forgot /a.pdf, which was not whole: index it again"]
    assert store.check() == []
    assert [document.path for document in store.documents()] == ["/b.pdf"]
    assert store.snapshot().table.count() == 1
    with store.writing() as writer:
        put(writer, "/a.pdf", ["one", "two"])
    assert store.check() == []


def test_a_missing_full_text_index_is_made_anew(store: Store) -> None:
    table(store, "segments").drop_index("text_idx")

    [problem] = store.check()

    assert "full-text index over text is missing" in problem.sentence
    assert mended(store) == ["made the full-text index over text anew"]
    assert store.check() == []
    assert len(store.matching("islands", k=5)) == 1


def test_a_table_that_lost_its_files_is_damage_that_has_no_mending(store: Store) -> None:
    shutil.rmtree(store.path / "tables" / "segments.lance" / "data")

    [problem] = Store.open(store.path).check()

    assert "cannot be opened" in problem.sentence
    assert "into a new folder" in problem.remedy


def test_rows_of_a_running_writer_are_not_wrong(store: Store) -> None:
    with store.writing() as writer:
        put(writer, "/a.pdf", ["a new version, its old rows still there"])
        assert store.snapshot().table.count() == 4

        assert store.check() == []
        assert Store.open(store.path).check() == []


def test_mending_what_is_whole_does_nothing(store: Store) -> None:
    with store.writing() as writer:
        writer.commit(a_document("/c.pdf"), pages("/c.pdf", ["three"]))

        assert writer.repair() == []
    assert len(store.nearest(View.VISUAL, unit(1), k=10)) == 4
