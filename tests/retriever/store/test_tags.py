"""Tags: a state that was named comes back whole, whatever happened since."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from toy_store import SPACE, a_document, contents, media_files, num_rows, pages, put

from mmsearch.errors import StoreError
from mmsearch.retriever.store import durable, tables, tags
from mmsearch.retriever.store.store import Store

OLD = {"/a.pdf": ["one", "two"], "/b.pdf": ["three"]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two documents in one batch, tagged; then one is replaced, one removed, one added."""
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        writer.commit_all([(a_document(path), pages(path, texts)) for path, texts in OLD.items()])
        writer.tag("old")
    with store.writing() as writer:
        put(writer, "/a.pdf", ["changed"])
        put(writer, "/c.pdf", ["new"])
        writer.remove(["/b.pdf"])
    return store


def test_a_tag_brings_back_every_document_row_and_thumbnail_of_then(store: Store) -> None:
    assert contents(store) == {"/a.pdf": ["changed"], "/c.pdf": ["new"]}

    with store.writing() as writer:
        assert writer.restore("old") == 2

    assert contents(store) == OLD
    assert store.check() == []
    assert num_rows(store) == 3
    assert len(media_files(store)) == 1
    assert [(tag.name, tag.num_documents) for tag in store.tags()] == [("old", 2)]


def test_what_a_tag_needs_outlives_optimize_gc_and_repair(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "KEEP_VERSIONS", timedelta(milliseconds=1))
    with store.writing() as writer:
        writer.optimize()
        writer.collect_garbage()
        assert writer.repair() == []
        assert contents(store) == {"/a.pdf": ["changed"], "/c.pdf": ["new"]}
        writer.restore("old")

    assert contents(store) == OLD
    assert store.check() == []


def test_without_its_tag_nothing_of_it_is_kept(store: Store) -> None:
    assert num_rows(store) == 2 + 3
    with store.writing() as writer:
        writer.untag("old")

        assert store.tags() == []
    assert num_rows(store) == 2
    assert len(media_files(store)) == 2
    assert contents(store) == {"/a.pdf": ["changed"], "/c.pdf": ["new"]}


def test_an_empty_index_can_be_come_back_to(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        writer.tag("empty")
        put(writer, "/a.pdf", ["one"])
        assert writer.restore("empty") == 0
    assert contents(store) == {}
    assert num_rows(store) == 0


def test_names_that_are_none_or_taken_or_unknown_are_refused(store: Store) -> None:
    with store.writing() as writer:
        for name in ("", "../up", ".hidden", "a b", "x" * 65):
            with pytest.raises(StoreError, match="cannot name a tag"):
                writer.tag(name)
        with pytest.raises(StoreError, match="already"):
            writer.tag("old")
        for unknown in (writer.restore, writer.untag):
            with pytest.raises(StoreError, match="there is no tag other"):
                unknown("other")


def test_while_a_tag_is_torn_nothing_is_removed_and_doctor_names_it(store: Store) -> None:
    [path] = store.path.glob("tags/*")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])

    [problem] = store.check()
    assert "the tag cannot be read" in problem.sentence
    assert problem.remedy == f"mmsearch tag delete old --db {store.path}"
    with store.writing() as writer:
        writer.remove(["/c.pdf"])
        writer.collect_garbage()
    assert num_rows(store) == 5

    with store.writing() as writer:
        writer.untag("old")
    assert num_rows(store) == 1
    assert contents(store) == {"/a.pdf": ["changed"]}
    assert store.check() == []


def test_a_pack_that_is_mostly_dead_is_written_anew_for_documents_and_tags(
    tmp_path: Path,
) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    paths = [f"/{number}.pdf" for number in range(8)]
    with store.writing() as writer:
        writer.commit_all([(a_document(path), pages(path, [path])) for path in paths])
        writer.remove(paths[2:])
        writer.tag("two")
        writer.remove(paths[1:2])
        [before] = media_files(store)

        writer.collect_garbage()

        [after] = media_files(store)
        assert after != before
        assert contents(store) == {paths[0]: [paths[0]]}
        assert store.check() == []
        writer.restore("two")
    assert contents(store) == {path: [path] for path in paths[:2]}
    assert store.check() == []


class PowerCut(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("deed", ["tag", "restore", "untag", "collect_garbage"])
def test_cut_off_at_any_write_to_the_disk_it_is_done_or_not_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str
) -> None:
    made = Store.create(tmp_path / "made", SPACE)
    with made.writing() as writer:
        batch = [(a_document(path), pages(path, texts)) for path, texts in OLD.items()]
        writer.commit_all([*batch, (a_document("/x.pdf"), pages("/x.pdf", ["x"] * 4))])
        writer.remove(["/x.pdf"])  # most of the pack is dead
        writer.tag("old")
        put(writer, "/b.pdf", ["changed"])
    before = contents(made)
    monkeypatch.setattr(durable, "WRITTEN_BACK_S", 0.0)  # what is copied is on the disk
    flush, cut_at = durable.flush, 1
    outcomes: list[str] = []
    while not outcomes or outcomes[-1] != "finished":
        store = Store.open(shutil.copytree(made.path, tmp_path / str(cut_at)))
        left = cut_at

        def cut(path: Path) -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                raise PowerCut
            flush(path)

        monkeypatch.setattr(durable, "flush", cut)
        monkeypatch.setattr(tags, "flush", cut)
        try:
            with store.writing() as writer:
                getattr(writer, deed)(*{"tag": ["new"], "collect_garbage": []}.get(deed, ["old"]))
            outcomes.append("finished")
        except PowerCut:
            outcomes.append("cut")
        monkeypatch.undo()

        store = Store.open(store.path)
        seen = contents(store)
        assert seen in ([before, OLD] if deed == "restore" else [before])
        with store.writing() as writer:
            assert contents(store) == seen
            assert store.check() == []
            if any(tag.name == "old" for tag in store.tags()):
                writer.restore("old")
                assert contents(store) == OLD
                assert store.check() == []
        cut_at += 1 + cut_at // 4  # each of the first writes, then some of the others
    assert outcomes[0] == "cut"
