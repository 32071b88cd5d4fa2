"""What a disk and a machine do to an index: read-only, moved, torn, killed, two writers."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from full_disk import largest_file
from toy_store import SPACE, contents, put

from mmsearch import upkeep
from mmsearch.errors import StoreDamaged, StoreError, StoreLocked, StoreNotFound
from mmsearch.retriever.store.store import Store

HOLDS = {"/a.pdf": ["one", "two"], "/b.pdf": ["island"]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        for path, texts in HOLDS.items():
            put(writer, path, texts)
    return store


def test_an_index_that_was_moved_while_closed_is_what_it_was(store: Store, tmp_path: Path) -> None:
    moved = store.path.rename(tmp_path / "moved")

    there = Store.open(moved)
    with there.writing() as writer:
        put(writer, "/c.pdf", ["new"])
    assert contents(there) == {**HOLDS, "/c.pdf": ["new"]}
    assert there.check() == []


def test_moved_away_while_open_it_says_so_and_makes_nothing_in_its_place(
    store: Store, tmp_path: Path
) -> None:
    def write() -> None:
        with store.writing() as writer:
            store.path.rename(tmp_path / "moved")
            put(writer, "/c.pdf", ["new"])

    with pytest.raises(StoreError, match=str(store.path)):
        write()
    with pytest.raises(StoreNotFound):
        store.snapshot()
    assert contents(Store.open(tmp_path / "moved")) == HOLDS


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes wherever it likes")
def test_a_read_only_index_answers_and_refuses_a_writer(store: Store) -> None:
    folders = [Path(parent) for parent, _, _ in os.walk(store.path)]
    for folder in folders:
        folder.chmod(0o555)
    (store.path / "write.lock").chmod(0o444)
    try:
        assert contents(Store.open(store.path)) == HOLDS
        with pytest.raises(StoreError, match="cannot write to"), store.writing():
            pass
    finally:
        for folder in folders:
            folder.chmod(0o755)


@pytest.mark.parametrize("column", ["text", "segment_id"])
def test_an_index_torn_by_a_power_cut_is_mended(store: Store, column: str) -> None:
    with store.writing() as writer:
        writer.refresh()  # now its rows are covered
    for file in store.path.glob("tables/segments.lance/_indices/*/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    torn = Store.open(store.path)
    assert any("cannot be read" in problem.sentence for problem in torn.check())
    with torn.writing() as writer:
        assert f"made the index {column}_idx anew" in writer.repair()
    assert contents(torn) == HOLDS
    assert len(torn.matching("islands", k=5)) == 1
    assert torn.check() == []


@pytest.mark.parametrize(
    "deed", ["refresh", "optimize", "collect_garbage", "repair", "tag", "untag", "restore"]
)
@pytest.mark.parametrize("num_bytes", [0, 700, 3_000])
def test_a_full_disk_stops_looking_after_an_index_and_loses_nothing(
    store: Store, deed: str, num_bytes: int
) -> None:
    with store.writing() as writer:
        writer.tag("old")
        put(writer, "/b.pdf", ["changed"])
    before = contents(store)

    def do() -> None:
        with store.writing() as writer:
            getattr(writer, deed)(
                *{"tag": ["new"], "untag": ["old"], "restore": ["old"]}.get(deed, [])
            )

    with largest_file(num_bytes):
        try:
            do()
        except StoreError as error:
            assert "cannot write to" in str(error)  # noqa: PT017
    assert contents(Store.open(store.path)) in ([before, HOLDS] if deed == "restore" else [before])
    assert store.check() == []
    if any(tag.name == "old" for tag in store.tags()):
        with store.writing() as writer:
            writer.restore("old")
        assert contents(store) == HOLDS
        assert store.check() == []


def test_of_two_writers_in_threads_one_is_refused(store: Store) -> None:
    inside, done, refused = threading.Event(), threading.Event(), []

    def first() -> None:
        with store.writing() as writer:
            inside.set()
            assert done.wait(60)
            put(writer, "/c.pdf", ["of the first"])

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(60)
    try:
        with Store.open(store.path).writing():
            pass
    except StoreLocked as error:
        refused.append(error)
    finally:
        done.set()
        thread.join()
    assert len(refused) == 1
    assert contents(store) == {**HOLDS, "/c.pdf": ["of the first"]}


def test_the_lock_of_a_killed_process_holds_nobody_up(store: Store) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mmsearch.retriever.store.lock import WriteLock\n"
        "with WriteLock(Path(sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(store.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(StoreLocked, match=f"process {holder.pid} "), store.writing():
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()

        with store.writing() as writer:
            put(writer, "/c.pdf", ["at once"])
    assert f'"pid": {holder.pid},' not in (store.path / "write.lock").read_text()
    assert contents(store) == {**HOLDS, "/c.pdf": ["at once"]}


def test_a_copy_of_an_index_is_one(store: Store, tmp_path: Path) -> None:
    copy = Store.open(shutil.copytree(store.path, tmp_path / "copy"))
    with copy.writing() as writer:
        writer.remove(["/a.pdf"])
    assert contents(copy) == {"/b.pdf": ["island"]}
    assert contents(store) == HOLDS


@pytest.mark.parametrize("look", [upkeep.check, upkeep.repair])
def test_doctor_does_not_send_to_doctor_where_it_cannot_help(
    tmp_path: Path, look: Callable[[Path], object]
) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "index.json").write_text("{")

    with pytest.raises(StoreDamaged) as failed:
        look(tmp_path / "db")

    assert "doctor" not in failed.value.hint
    assert "new folder" in failed.value.hint
