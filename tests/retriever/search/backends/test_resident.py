"""Which back-end answers, as an index grows past what is kept in memory, and shrinks again."""

import gc
import weakref
from pathlib import Path

import pytest
from toy_store import SPACE, put, unit

from mmsearch.retriever.search import backends
from mmsearch.retriever.search.backends import choice
from mmsearch.retriever.store.store import Store
from mmsearch.status import status_of
from mmsearch.values import Backend, View

SMALL = ["a cat", "a dog"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An index of as many segments as may stay in memory."""
    monkeypatch.setattr(choice, "MOST_RESIDENT", len(SMALL))
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        put(writer, "/small.pdf", SMALL)
    return store


def add(store: Store, path: str, *texts: str) -> None:
    with store.writing() as writer:
        put(writer, path, texts)


def test_a_small_index_is_answered_from_memory_and_a_larger_one_by_its_tables(
    store: Store,
) -> None:
    resident = backends.choose("resident")
    small = store.snapshot()
    copied = resident.of(small)
    assert copied is not small, "a copy in memory"
    assert len(copied.nearest(View.VISUAL, unit(1), k=9)) == 2

    add(store, "/more.pdf", "a pump")

    large = store.snapshot()
    assert resident.of(large) is large
    with store.writing() as writer:
        writer.remove(["/more.pdf"])
    small = store.snapshot()
    again = resident.of(small)
    assert again is not small
    assert len(again.nearest(View.VISUAL, unit(1), k=9)) == 2


def test_what_was_held_in_memory_is_let_go_when_an_index_outgrows_it(store: Store) -> None:
    resident = backends.choose("resident")
    copied = weakref.ref(resident.of(store.snapshot()))

    add(store, "/more.pdf", "a pump")
    resident.of(store.snapshot())

    gc.collect()
    assert copied() is None


def test_a_large_index_is_answered_by_its_faiss_file_where_it_has_one(store: Store) -> None:
    pytest.importorskip("faiss", reason="needs mmsearch[faiss]")
    add(store, "/more.pdf", "a pump")
    backends.build(store.snapshot(), store.home)

    large = store.snapshot()
    assert backends.choose("resident").of(large) is not large
    assert status_of(store, Backend.RESIDENT).backend is Backend.FAISS


@pytest.mark.parametrize(
    ("asked", "small", "large"),
    [
        (Backend.RESIDENT, Backend.EXACT, Backend.LANCE),
        (Backend.AUTO, Backend.LANCE, Backend.LANCE),
        (Backend.EXACT, Backend.EXACT, Backend.EXACT),
    ],
)
def test_the_status_names_what_answers(
    store: Store, asked: Backend, small: Backend, large: Backend
) -> None:
    assert status_of(store, asked).backend is small
    add(store, "/more.pdf", "a pump")
    assert status_of(store, asked).backend is large
