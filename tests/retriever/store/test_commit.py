"""The commit protocol: a document is in the index whole or not at all, whatever happens."""

import os
import threading
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lancedb
import numpy as np
import pytest
from full_disk import largest_file
from lancedb.table import LanceTable
from toy_store import (
    SPACE,
    a_document,
    a_row,
    contents,
    media_files,
    num_rows,
    pages,
    put,
    thumbnail,
)

from mmsearch.errors import BadVectors, StoreError, StoreLocked
from mmsearch.retriever.store import durable
from mmsearch.retriever.store.media import Media
from mmsearch.retriever.store.store import Store
from mmsearch.retriever.store.tables import Table
from mmsearch.values import Document, Kind, Locator, Status, View, segment_id

if TYPE_CHECKING:
    from mmsearch.values import Vectors


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "db", SPACE)


def test_a_new_version_replaces_the_old_one_and_its_thumbnails(store: Store) -> None:
    with store.writing() as writer:
        put(writer, "/a.pdf", ["old one", "old two", "old three"])
        put(writer, "/b.pdf", ["other"])
        new = put(writer, "/a.pdf", ["new one"])

        assert contents(store) == {"/a.pdf": ["new one"], "/b.pdf": ["other"]}

    assert contents(store) == {"/a.pdf": ["new one"], "/b.pdf": ["other"]}
    assert num_rows(store) == 2, "superseded rows are gone when the writer is done"
    assert len(media_files(store)) == 2
    assert store.snapshot().manifest.pack(new.commit_id) in media_files(store)


def test_a_batch_replaces_and_adds_at_once(store: Store) -> None:
    with store.writing() as writer:
        put(writer, "/a.pdf", ["old"])
        versions = store.snapshot().version
        batch = [(a_document(p), pages(p, [f"new {p}"])) for p in ("/a.pdf", "/b.pdf", "/c.pdf")]
        writer.commit_all(batch)

        assert store.snapshot().version == versions + 1
        packs = {store.snapshot().manifest.pack(d.commit_id) for d in store.documents()}
        assert len(packs) == 1, "a batch has one file of thumbnails"
    assert contents(store) == {p: [f"new {p}"] for p in ("/a.pdf", "/b.pdf", "/c.pdf")}


def test_a_document_that_fails_later_loses_its_segments(store: Store) -> None:
    with store.writing() as writer:
        put(writer, "/a.pdf", ["one", "two"])
        writer.commit(a_document("/a.pdf", status=Status.FAILED, error="truncated"), [])

    assert contents(store) == {"/a.pdf": []}
    assert [d.status for d in store.documents()] == [Status.FAILED]
    assert num_rows(store) == 0
    assert media_files(store) == []


def test_touch_changes_size_and_time_and_nothing_else(store: Store) -> None:
    with store.writing() as writer:
        put(writer, "/a.pdf", ["one"])
        [before] = store.documents()
        writer.touch([replace(before, size=11, mtime_ns=99)])

    assert store.documents() == [replace(before, size=11, mtime_ns=99)]
    assert contents(store) == {"/a.pdf": ["one"]}


def test_touching_another_version_than_the_kept_one_is_refused(store: Store) -> None:
    with store.writing() as writer:
        old = put(writer, "/a.pdf", ["one"])
        put(writer, "/a.pdf", ["two"])
        with pytest.raises(ValueError, match=r"/a\.pdf"):
            writer.touch([old])
        with pytest.raises(ValueError, match=r"/never\.pdf"):
            writer.touch([a_document("/never.pdf")])


def test_remove_takes_rows_and_thumbnails_and_counts_what_was_there(store: Store) -> None:
    with store.writing() as writer:
        put(writer, "/a.pdf", ["one"])
        put(writer, "/it's.pdf", ["two"])

        assert writer.remove(["/it's.pdf", "/it's.pdf", "/never.pdf"]) == 1
    assert contents(store) == {"/a.pdf": ["one"]}
    assert num_rows(store) == 1
    assert len(media_files(store)) == 1


def test_refresh_changes_no_answer(store: Store) -> None:
    with store.writing() as writer:
        for number in range(12):
            put(writer, f"/{number % 5}.pdf", [f"text {number}", "pages"])
        texts, words = contents(store), store.matching("text page", k=20)
        writer.refresh()

        assert contents(store) == texts
        again = store.matching("text page", k=20)
        assert {one.segment_id for one in again} == {one.segment_id for one in words}
        assert len(again) == 10


def num_files(store: Store) -> int:
    segments = lancedb.connect(store.path / "tables").open_table("segments")
    stats: Any = segments.stats()  # a dict, whatever its annotation says
    return stats["fragment_stats"]["num_fragments"]


def test_a_long_run_merges_its_small_files_while_it_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsearch.retriever.store.writer.TIDY_AFTER", 4)
    with store.writing() as writer:
        for number in range(20):
            put(writer, f"/{number}.pdf", ["text"])
    assert num_files(store) <= 20 - 3, "four at least were merged before the writer was done"
    assert len(contents(store)) == 20

    with store.writing() as writer:
        writer.refresh()
    assert num_files(store) == 1
    assert len(contents(store)) == 20


def test_a_file_that_another_thread_is_writing_is_not_taken_for_a_torn_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    being_written = store.path / "tables/segments.lance/data/.tmpHalf"
    add = LanceTable.add

    def beside_a_merge(self: LanceTable, rows: Any) -> object:
        if self.name == "segments":
            being_written.parent.mkdir(exist_ok=True)
            being_written.write_bytes(b"some rows")
        return add(self, rows)

    monkeypatch.setattr(LanceTable, "add", beside_a_merge)
    with store.writing() as writer:
        put(writer, "/a.pdf", ["text"])

    assert contents(store) == {"/a.pdf": ["text"]}
    assert being_written.read_bytes() == b"some rows"


def test_the_version_that_readers_had_when_it_was_replaced_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index of yesterday: its last version is a day old, and was the newest until just now."""
    now = datetime.now()
    ages = {1: timedelta(days=3), 2: timedelta(days=1), 3: timedelta(seconds=1)}
    made = [{"version": one, "timestamp": now - age} for one, age in ages.items()]
    kept = []

    def spied(self: LanceTable, *, cleanup_older_than: timedelta | None = None, **_: bool) -> None:
        if cleanup_older_than is not None:
            kept.append([one for one, age in ages.items() if age < cleanup_older_than])

    monkeypatch.setattr(LanceTable, "list_versions", lambda _: made)
    monkeypatch.setattr(LanceTable, "optimize", spied)
    with store.writing() as writer:
        writer.optimize()

    assert kept == [[2, 3], [2, 3]], "of both tables"


def test_rows_replaced_while_files_are_merged_are_dropped_after_that(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsearch.retriever.store.writer.TIDY_AFTER", 4)
    tidy, may_go_on = Table.tidy, threading.Event()

    def held_up(self: Table, **how: bool) -> None:
        if threading.current_thread() is not threading.main_thread():
            assert may_go_on.wait(60)
        tidy(self, **how)

    monkeypatch.setattr(Table, "tidy", held_up)
    with store.writing() as writer:
        for number in range(4):
            put(writer, f"/{number}.pdf", ["text"])
        writer.remove(["/0.pdf"])
        put(writer, "/1.pdf", ["replaced"])
        assert num_rows(store) == 5, "nothing was dropped"
        may_go_on.set()

    assert contents(store) == {"/1.pdf": ["replaced"], "/2.pdf": ["text"], "/3.pdf": ["text"]}
    assert num_rows(store) == 3


@pytest.mark.parametrize("raised", [StoreError("no space left"), ZeroDivisionError("of ours")])
def test_what_goes_wrong_beside_a_run_ends_the_run(
    store: Store, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    monkeypatch.setattr("mmsearch.retriever.store.writer.TIDY_AFTER", 4)

    def refused(self: Table, **_: bool) -> None:
        if self.name == "segments":
            raise raised

    monkeypatch.setattr(Table, "tidy", refused)

    def run() -> None:
        with store.writing() as writer:
            for number in range(5):
                put(writer, f"/{number}.pdf", ["text"])

    with pytest.raises(StoreError, match=str(raised)):
        run()
    monkeypatch.undo()
    with store.writing() as writer:
        put(writer, "/9.pdf", ["text"])
    assert len(contents(store)) in (5, 6)


def test_an_interrupted_run_leaves_nothing_at_work(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsearch.retriever.store.writer.TIDY_AFTER", 4)
    tidy, ended = Table.tidy, []

    def slow(self: Table, **how: bool) -> None:
        time.sleep(0.1)
        tidy(self, **how)
        ended.append(self.name)

    monkeypatch.setattr(Table, "tidy", slow)

    def run() -> None:
        with store.writing() as writer:
            for number in range(4):
                put(writer, f"/{number}.pdf", ["text"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert set(ended) == {"documents", "segments"}, "before the next writer may begin"
    assert len(contents(store)) == 4


def test_a_long_run_of_replacements_does_not_pile_up_old_rows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsearch.retriever.store.writer.DROP_AFTER", 3)
    with store.writing() as writer:
        for version in range(10):
            put(writer, "/a.pdf", [f"version {version}"])

            assert num_rows(store) <= 1 + 3
            assert len(media_files(store)) <= 1 + 3


@pytest.mark.parametrize(
    "vector",
    [
        np.array([np.nan, 0, 0, 0], dtype=np.float32),
        np.array([np.inf, 0, 0, 0], dtype=np.float32),
        np.zeros(4, dtype=np.float32),
        np.array([2, 0, 0, 0], dtype=np.float32),
        np.ones(3, dtype=np.float32),
        np.ones((1, 4), dtype=np.float32),
    ],
    ids=["nan", "infinite", "zero", "long", "short", "matrix"],
)
def test_vectors_that_cannot_be_compared_are_refused_and_nothing_is_kept(
    store: Store, vector: "Vectors"
) -> None:
    row = a_row("/a.pdf", Locator(page=1), vectors={View.VISUAL: vector}, thumbnail=b"x")
    with store.writing() as writer:
        with pytest.raises(BadVectors):
            writer.commit(a_document("/a.pdf"), [row])

        assert store.documents() == []
        assert media_files(store) == []


def test_what_no_caller_may_mean_is_refused(store: Store) -> None:
    page = pages("/a.pdf", ["one"])
    with store.writing() as writer:
        done = put(writer, "/b.pdf", ["one"])
        for batch in (
            [(a_document("/a.pdf"), page), (a_document("/a.pdf"), [])],
            [(a_document("/a.pdf"), page * 2)],
            [(a_document("/a.pdf", status=Status.FAILED), page)],
            [(replace(a_document("/a.pdf"), commit_id=done.commit_id), page)],
            [(replace(a_document("/a.pdf"), commit_id="../../etc"), page)],
        ):
            with pytest.raises(ValueError, match=r"."):
                writer.commit_all(batch)
        writer.commit_all([])
    assert contents(store) == {"/b.pdf": ["one"]}


# ---------------------------------------------------------------- when it goes wrong


class PowerCut(BaseException):
    """The process ends here."""


def test_cut_off_at_any_write_to_the_disk_a_batch_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {"/a.pdf": ["old one", "old two"], "/b.pdf": ["other"]}
    new = {"/a.pdf": ["new one"], "/b.pdf": ["other"], "/c.pdf": ["added"]}
    flush, cut_at = durable.flush, 0
    outcomes: list[str] = []
    while not outcomes or outcomes[-1] != "finished":
        cut_at += 1
        store = Store.create(tmp_path / str(cut_at), SPACE)
        with store.writing() as writer:
            for path, texts in old.items():
                put(writer, path, texts)
        left = cut_at

        def cut(path: Path) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise PowerCut
            flush(path)

        monkeypatch.setattr(durable, "flush", cut)
        try:
            with store.writing() as writer:
                writer.commit_all([(a_document(p), pages(p, new[p])) for p in ("/a.pdf", "/c.pdf")])
            outcomes.append("finished")
        except PowerCut:
            outcomes.append("old" if contents(store) == old else "new")
        monkeypatch.setattr(durable, "flush", flush)

        expected = old if outcomes[-1] == "old" else new
        again = Store.open(store.path)
        assert contents(again) == expected
        with again.writing():
            pass
        assert contents(again) == expected
        assert num_rows(again) == sum(map(len, expected.values())), "what was left is swept"
        packs = {again.snapshot().manifest.pack(d.commit_id) for d in again.documents()}
        assert set(media_files(again)) == packs
        assert again.check() == []
    assert outcomes == sorted(outcomes, key=["old", "new", "finished"].index), outcomes
    assert {"old", "new"} < set(outcomes), "the manifest row alone decides"


def test_a_replacement_in_the_midst_of_taking_a_snapshot_is_seen_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.writing() as writer:
        put(writer, "/a.pdf", ["old one", "old two"])
    reader, pin, waiting = Store.open(store.path), Table.at, ["new"]

    def replaced_just_now(self: Table, version: int | None = None) -> Table:
        if self.name == "segments" and waiting:  # the manifest has been read by now
            texts = [waiting.pop()]
            with store.writing() as writer:
                put(writer, "/a.pdf", texts)
        return pin(self, version)

    monkeypatch.setattr(Table, "at", replaced_just_now)

    assert contents(reader) == {"/a.pdf": ["new"]}


def test_a_thumbnail_is_found_although_its_document_is_replaced_just_now(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.writing() as writer:
        put(writer, "/a.pdf", ["old"])
    reader, read, waiting = Store.open(store.path), Media.thumbnail, ["new"]

    def replaced_just_now(self: Media, pack: str, segment_id: str) -> bytes:
        if waiting:  # the row has been read by now
            texts = [waiting.pop()]
            with store.writing() as writer:
                put(writer, "/a.pdf", texts)
        return read(self, pack, segment_id)

    monkeypatch.setattr(Media, "thumbnail", replaced_just_now)

    shown = reader.thumbnail(segment_id("/a.pdf", Locator(page=1)))

    assert shown == thumbnail("/a.pdf", 1, "new")


@pytest.mark.parametrize("what", ["thumbnails", "rows"])
def test_a_full_disk_is_a_clear_error_and_nothing_of_the_batch_is_seen(
    store: Store, what: str
) -> None:
    rng = np.random.default_rng(0)
    noise = rng.bytes(60_000)
    with store.writing() as writer:
        put(writer, "/a.pdf", ["one"])
        row = a_row(
            "/b.pdf",
            Locator(page=1),
            text=noise.hex() if what == "rows" else "",
            thumbnail=noise if what == "thumbnails" else b"",
        )
        with largest_file(20_000), pytest.raises(StoreError, match="too large"):
            writer.commit(a_document("/b.pdf"), [row])

        assert contents(store) == {"/a.pdf": ["one"]}
        put(writer, "/b.pdf", ["smaller"])
    assert contents(store) == {"/a.pdf": ["one"], "/b.pdf": ["smaller"]}
    assert num_rows(store) == 2
    assert len(media_files(store)) == 2


def test_what_an_unfinished_commit_left_goes_with_its_writer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Table.add

    def refused(self: Table, rows: Any) -> None:
        if self.name == "documents":
            raise StoreError("no space left")
        add(self, rows)

    with store.writing() as writer:
        monkeypatch.setattr(Table, "add", refused)
        with pytest.raises(StoreError, match="no space left"):
            put(writer, "/a.pdf", ["one", "two"])
        monkeypatch.setattr(Table, "add", add)
        assert contents(store) == {}
        put(writer, "/b.pdf", ["three"])

    assert contents(store) == {"/b.pdf": ["three"]}
    assert num_rows(store) == 1
    assert len(media_files(store)) == 1


def test_what_a_killed_writer_had_no_time_to_flush_the_next_one_flushes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commit is seen and built upon: a power cut must not take it from under the next."""
    with monkeypatch.context() as killed:
        killed.setattr(durable.NewFiles, "flush", lambda _: None)
        with store.writing() as writer:
            put(writer, "/a.pdf", ["text"])
    files = {path for path in store.path.glob("tables/*/*/*") if path.is_file()}
    flushed, flush = set(), durable.flush

    def seen(path: Path) -> None:
        flushed.add(path)
        flush(path)

    monkeypatch.setattr(durable, "flush", seen)
    with Store.open(store.path).writing() as writer:
        put(writer, "/b.pdf", ["text"])

    hints = {path for path in files if path.suffix == ".json"}  # Lance's own, replaced each time
    assert files - hints <= flushed


def test_a_second_writer_is_refused_with_the_name_of_the_first(store: Store) -> None:
    with (
        store.writing(),
        pytest.raises(StoreLocked, match=f"process {os.getpid()} on .* since 20"),
        Store.open(store.path).writing(),
    ):
        pass

    with store.writing() as writer:
        put(writer, "/a.pdf", ["the lock is free again"])


def test_an_error_in_the_with_frees_the_lock(store: Store) -> None:
    def fails() -> None:
        with store.writing():
            raise RuntimeError("of the caller")

    with pytest.raises(RuntimeError, match="of the caller"):
        fails()
    with store.writing() as writer:
        put(writer, "/a.pdf", ["one"])


def test_documents_know_how_many_segments_they_have(store: Store) -> None:
    image = a_row("/b.png", Locator(), kind=Kind.IMAGE)
    with store.writing() as writer:
        put(writer, "/a.pdf", ["one", "two"])
        writer.commit(a_document("/b.png", kind=Kind.IMAGE), [image])

    found: list[Document] = store.documents()

    assert [(d.path, d.num_segments) for d in found] == [("/a.pdf", 2), ("/b.png", 1)]
