"""The files beside the tables: a cache that is never wrong, whatever becomes of it."""

import json
import os
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import pytest
from toy_store import SPACE, a_document, a_row, put, unit

from mmsearch.errors import MissingExtra, StoreError
from mmsearch.retriever.search import backends
from mmsearch.retriever.search.backends import faiss_files, faiss_scanner
from mmsearch.retriever.search.backends.answers import CopiedIndex
from mmsearch.retriever.store.store import Store, Writer
from mmsearch.values import Locator, View

if TYPE_CHECKING:
    from mmsearch.values import Vectors


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        add(writer, range(8))
    return store


def add(writer: Writer, numbers: Iterable[int], pages: int = 5) -> None:
    for number in numbers:
        path = f"/{number}.pdf"
        rows = [
            a_row(path, Locator(page=page), vectors=dict.fromkeys(View, direction(number, page)))
            for page in range(1, pages + 1)
        ]
        writer.commit(a_document(path), rows)


def direction(number: int, page: int) -> "Vectors":
    return unit(*np.random.default_rng([number, page]).standard_normal(4))


def answers(store: Store, backend: str = "auto") -> list[str]:
    """The nearest to several questions, some of them filtered."""
    index = backends.choose(backend, device="cpu").of(store.snapshot())
    return [
        one.segment_id
        for view in View
        for question in range(5)
        for where in (None, "page > 2")
        for one in index.nearest(view, direction(question, 99), k=7, where=where)
    ]


def is_used(store: Store) -> bool:
    index = backends.choose("auto").of(store.snapshot())
    return isinstance(index, CopiedIndex) and all(index.is_copied(view) for view in View)


def test_it_is_used_where_it_lies_and_gone_when_it_is_removed(store: Store) -> None:
    assert not backends.exists(store.home)
    assert not is_used(store)

    seen: list[tuple[int, int]] = []
    backends.build(store.snapshot(), store.home, lambda done, total: seen.append((done, total)))

    assert seen[-1] == (80, 80)  # 40 rows, two views
    assert backends.exists(store.home)
    assert is_used(store)
    assert answers(store) == answers(store, "exact")
    assert backends.problems(store.snapshot(), store.home) == []
    assert backends.remove(store.home)
    assert not backends.remove(store.home)
    assert not (store.home / "faiss").exists()
    assert not is_used(store)


def test_asked_for_by_name_it_has_to_be_there(store: Store) -> None:
    with pytest.raises(StoreError, match="no faiss file") as refused:
        backends.choose("faiss").of(store.snapshot())
    assert refused.value.hint == f"mmsearch optimize --faiss --db {store.path}"


def test_what_was_opened_answers_later_states_too(store: Store) -> None:
    backends.build(store.snapshot(), store.home)
    chosen = backends.choose("faiss")
    for change in range(3):
        with store.writing() as writer:
            add(writer, [1, 20 + change], pages=3)  # one replaced, one new
            writer.remove([f"/{2 + change}.pdf"])
        index = chosen.of(store.snapshot())
        assert isinstance(index, CopiedIndex)
        assert index.is_copied(View.TEXT)
        found = index.nearest(View.TEXT, direction(20 + change, 2), k=100)
        exact = backends.choose("exact", device="cpu").of(store.snapshot())
        expected = exact.nearest(View.TEXT, direction(20 + change, 2), k=100)
        assert [one.segment_id for one in found] == [one.segment_id for one in expected]


def test_refresh_waits_adds_and_makes_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_files, "CATCH_UP_ROWS", 4)
    monkeypatch.setattr(faiss_scanner, "EXACT_ROWS", 10)
    monkeypatch.setattr(faiss_scanner, "FEWEST_LISTS", 8)
    backends.build(store.snapshot(), store.home)
    first = token(store)
    trained = []
    train = faiss_scanner.train_index

    def counted(*args: Any) -> Any:
        trained.append(args)
        return train(*args)

    monkeypatch.setattr(faiss_files, "train_index", counted)
    assert not backends.refresh(store.snapshot(), store.home)

    with store.writing() as writer:
        add(writer, [30], pages=3)
    assert not backends.refresh(store.snapshot(), store.home), "three new rows are too few"
    assert token(store) == first
    with store.writing() as writer:
        add(writer, [31], pages=5)
    assert backends.keep_fresh(store), "eight are added"
    assert token(store) != first
    assert not trained
    assert num_rows(store) == 48
    assert answers(store) == answers(store, "exact")
    with store.writing() as writer:
        add(writer, range(40, 44), pages=5)
    assert backends.keep_fresh(store), "twenty of 68 are more than a quarter"
    assert len(trained) == 2, "once a view"
    assert num_rows(store) == 68
    with store.writing() as writer:
        writer.remove([f"/{number}.pdf" for number in range(4)])
    assert backends.keep_fresh(store), "twenty dead ones are too"
    assert num_rows(store) == 48
    assert answers(store) == answers(store, "exact")
    assert len(list((store.home / "faiss").iterdir())) == 9  # 2 x 4 and the lock


def test_rows_that_only_a_tag_keeps_are_not_new(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be made anew by every run, and before long be used by none."""
    monkeypatch.setattr(faiss_files, "CATCH_UP_ROWS", 4)
    with store.writing() as writer:
        writer.tag("then")
        writer.remove([document.path for document in store.documents()])
        add(writer, range(50, 53))
    backends.build(store.snapshot(), store.home)
    first = token(store)
    assert store.snapshot().table.count() > 2 * num_rows(store)

    assert not backends.keep_fresh(store)
    assert token(store) == first
    monkeypatch.setattr("mmsearch.retriever.search.backends.answers.MOST_NEW_ROWS", 3)
    with store.writing() as writer:
        add(writer, [60], pages=3)
    assert is_used(store)


def token(store: Store) -> str:
    return described(store)["token"]


def num_rows(store: Store) -> int:
    return described(store)["num_rows"]


def described(store: Store) -> dict[str, Any]:
    signed = json.loads((store.home / "faiss" / "text.json").read_text())
    return json.loads(signed["description"])


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0x10
    path.write_bytes(content)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "cut": cut,
    "flipped": flip,
    "zeroed": zero,
    "emptied": lambda path: path.write_bytes(b""),
    "words": lambda path: path.write_text('{"description": "[]", "checksum": 1}'),
}


@pytest.mark.parametrize("file", ["text.json", "text-*.index", "text-*.rows", "text-*.commits"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_noticed_and_not_used(store: Store, file: str, damage: str) -> None:
    backends.build(store.snapshot(), store.home)
    expected = answers(store, "exact")
    [path] = (store.home / "faiss").glob(file)

    DAMAGE[damage](path)

    assert not is_used(store)
    assert answers(store) == expected
    if not (file == "text.json" and damage == "removed"):  # as if it had never been made
        [problem] = backends.problems(store.snapshot(), store.home)
        assert "text vectors" in problem.sentence
        assert "optimize --faiss" in problem.remedy
    backends.refresh(store.snapshot(), store.home)
    assert is_used(store)
    assert backends.problems(store.snapshot(), store.home) == []


def test_files_of_another_index_are_not_used(store: Store, tmp_path: Path) -> None:
    other = Store.create(tmp_path / "other", SPACE)
    with other.writing() as writer:
        add(writer, range(50, 90))
    backends.build(other.snapshot(), other.home)
    shutil.copytree(other.home / "faiss", store.home / "faiss")

    assert answers(store) == answers(store, "exact")
    assert backends.refresh(store.snapshot(), store.home)
    assert num_rows(store) == 40
    assert is_used(store)


def test_files_of_another_version_are_not_used(store: Store) -> None:
    backends.build(store.snapshot(), store.home)
    content = json.dumps(described(store) | {"format": faiss_files.FORMAT + 1})
    signed = {"checksum": zlib.crc32(content.encode()), "description": content}
    (store.home / "faiss" / "text.json").write_text(json.dumps(signed))

    assert not is_used(store)
    [problem] = backends.problems(store.snapshot(), store.home)
    assert "another version" in problem.sentence


def test_doctor_sees_a_vector_that_is_not_the_tables(store: Store) -> None:
    """Whoever changes a number and every checksum is still told that it is wrong."""
    snapshot = store.snapshot()
    backends.build(snapshot, store.home)
    rows, index = faiss_scanner.train_index(snapshot, View.TEXT, 4)
    assert isinstance(index, faiss.IndexScalarQuantizer)
    faiss_scanner.kept_vectors(index, len(rows))[7] = 0.5
    faiss_files._write(store.home, View.TEXT, rows, index)

    [problem] = backends.problems(snapshot, store.home)

    assert "other vectors" in problem.sentence


FULL = """
import resource, signal, sys
from pathlib import Path
from mmsearch.errors import StoreError
from mmsearch.retriever.search import backends
from mmsearch.retriever.store.store import Store

store = Store.open(Path(sys.argv[1]))
snapshot = store.snapshot()
backends.choose("faiss").of(snapshot)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)  # as a full disk does
try:
    backends.build(snapshot, store.home)
except StoreError as error:
    print(error, "|", error.hint)
"""


@pytest.mark.parametrize("room", [0, 300, 700])
def test_a_full_disk_is_one_sentence_and_the_old_files_stay(store: Store, room: int) -> None:
    """Full before the first byte, within the index, and within its rows."""
    backends.build(store.snapshot(), store.home)
    before = sorted((store.home / "faiss").iterdir())

    command = [sys.executable, "-c", FULL, str(store.path), str(room)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"cannot write {store.home / 'faiss'}: ")
    assert "the index answers without it" in ended.stdout
    assert sorted((store.home / "faiss").iterdir()) == before
    assert is_used(store)


def test_faiss_that_cannot_be_loaded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    backends.build(store.snapshot(), store.home)
    monkeypatch.setitem(sys.modules, "faiss", None)  # as if it were not installed

    with pytest.raises(MissingExtra, match="faiss"):
        backends.choose("faiss")
    assert answers(store, "auto") == answers(store, "exact")
    assert not backends.keep_fresh(store)


def test_a_reader_goes_on_while_its_files_are_replaced_and_removed(store: Store) -> None:
    backends.build(store.snapshot(), store.home)
    index = backends.choose("faiss").of(store.snapshot())
    before = index.nearest(View.VISUAL, direction(3, 3), k=9)

    backends.build(store.snapshot(), store.home)
    backends.remove(store.home)

    assert index.nearest(View.VISUAL, direction(3, 3), k=9) == before


def test_several_may_build_at_once(store: Store) -> None:
    failed: list[BaseException] = []

    def build() -> None:
        try:
            backends.build(store.snapshot(), store.home)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failed
    assert is_used(store)
    assert backends.problems(store.snapshot(), store.home) == []
    assert len(list((store.home / "faiss").iterdir())) == 9


KILLED = """
import os, sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from mmsearch.retriever.search import backends
from mmsearch.retriever.search.backends import faiss_files
from mmsearch.retriever.store.store import Store, Writer

store = Store.open(Path(sys.argv[1]))
faiss_files.write_file = lambda *args: os._exit(9)
backends.build(store.snapshot(), store.home)
"""


def test_a_killed_build_leaves_the_old_files_in_use_and_is_swept(store: Store) -> None:
    backends.build(store.snapshot(), store.home)
    first = token(store)

    ended = subprocess.run([sys.executable, "-c", KILLED, str(store.path)], check=False)

    assert ended.returncode == 9
    assert len(list((store.home / "faiss").iterdir())) == 12, "three files that nothing names"
    assert token(store) == first
    assert is_used(store)
    backends.build(store.snapshot(), store.home)
    assert len(list((store.home / "faiss").iterdir())) == 9


def test_an_index_without_segments_has_an_accelerator_too(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "db", SPACE)
    backends.build(store.snapshot(), store.home)

    assert is_used(store)
    assert answers(store) == []
    with store.writing() as writer:
        put(writer, "/a.pdf", ["one", "two"])
    assert answers(store) == answers(store, "exact") != []
