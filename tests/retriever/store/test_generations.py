"""An index that is made anew as a whole: the old answers until the new one is whole."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from toy_store import SPACE, put, thumbnail

from mmsearch.errors import SpaceMismatch, StoreDamaged
from mmsearch.retriever.store.generations import next_generation, take_over, unfinished
from mmsearch.retriever.store.store import Store
from mmsearch.values import Space


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An index of one document, ``/old.pdf``."""
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        put(writer, "/old.pdf", ["one"])
    return store


def filled(store: Store, path: str, space: Space = SPACE) -> str:
    """Make the next data folder and put a document in it; return its name."""
    name = next_generation(store.path, store.header)
    with Store.create(store.path / name, space).writing() as writer:
        put(writer, path, ["one"])
    return name


def switch(store: Store, name: str, space: Space = SPACE) -> None:
    take_over(store.path, replace(store.header, data=name, space=space))


def age(path: Path, *, hours: float) -> None:
    long_ago = time.time() - hours * 3_600
    os.utime(path, (long_ago, long_ago))


def paths(store: Store) -> list[str]:
    return [document.path for document in store.documents()]


def test_a_folder_being_filled_is_not_seen_until_it_takes_over(store: Store) -> None:
    before = paths(store)
    name = filled(store, "/new.pdf")
    meanwhile = paths(store)

    switch(store, name)

    assert (before, meanwhile, paths(store)) == (["/old.pdf"], ["/old.pdf"], ["/new.pdf"])
    assert paths(Store.open(store.path)) == ["/new.pdf"]
    [segment] = store.segments_of("/new.pdf")
    assert store.thumbnail(segment.segment_id) == thumbnail("/new.pdf", 1, "one")


def test_a_folder_that_is_named_and_not_there_is_told_of_by_the_name_of_the_index(
    store: Store,
) -> None:
    switch(store, filled(store, "/new.pdf"))
    (store.path / "generation-1").rename(store.path / "elsewhere")

    with pytest.raises(StoreDamaged) as refused:
        Store.open(store.path)

    assert str(refused.value) == f"{store.path} cannot be opened: generation-1/tables is missing"


def test_what_is_committed_after_a_switch_lies_in_the_new_folder(store: Store) -> None:
    switch(store, filled(store, "/new.pdf"))

    with store.writing() as writer:
        put(writer, "/later.pdf", ["two"])

    assert paths(Store.open(store.path)) == ["/later.pdf", "/new.pdf"]
    assert store.check() == []


def test_a_reader_of_the_old_space_is_told_to_open_the_index_again(store: Store) -> None:
    other = replace(SPACE, model="other", weights_hash="1" * 16)
    switch(store, filled(store, "/new.pdf", other), other)

    with pytest.raises(SpaceMismatch) as refused:
        store.documents()
    with pytest.raises(SpaceMismatch), store.writing():
        pass

    assert "open it again" in refused.value.hint
    assert Store.open(store.path).space == other


def test_what_answered_before_is_removed_once_no_reader_can_be_in_it(store: Store) -> None:
    old = store.snapshot()
    switch(store, filled(store, "/new.pdf"))

    with store.writing():
        pass
    assert [one.path for one in old.segments_of("/old.pdf")] == ["/old.pdf"]

    age(store.path / "index.json", hours=1)
    with store.writing():
        pass
    there = {entry.name for entry in store.path.iterdir()}
    assert there == {"index.json", "write.lock", "generation-1"}

    switch(store, filled(store, "/newest.pdf"))
    with store.writing():
        pass
    assert (store.path / "generation-1").is_dir(), "it answered a moment ago"
    age(store.path / "index.json", hours=1)
    with store.writing():
        pass
    there = {entry.name for entry in store.path.iterdir()}
    assert there == {"index.json", "write.lock", "generation-2"}
    assert paths(store) == ["/newest.pdf"]


def test_a_stopped_rebuild_is_kept_for_a_week_and_half_a_folder_is_not(store: Store) -> None:
    rebuild = store.path / filled(store, "/new.pdf")
    half = store.path / next_generation(store.path, store.header)
    (half / "tables").mkdir(parents=True)

    with store.writing():
        pass
    assert unfinished(store.path, store.header) == [rebuild]
    assert not half.exists()

    age(rebuild / "write.lock", hours=8 * 24)
    with store.writing():
        pass
    assert not rebuild.exists()
    assert paths(store) == ["/old.pdf"]


def test_other_things_in_the_folder_of_an_index_are_left_alone(store: Store) -> None:
    (store.path / "notes.txt").write_text("mine")
    switch(store, filled(store, "/new.pdf"))
    age(store.path / "index.json", hours=1)

    with store.writing():
        pass

    assert (store.path / "notes.txt").read_text() == "mine"
    assert not (store.path / "tables").exists()
