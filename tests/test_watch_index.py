"""An index that follows its folder: files change, reports come."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import WordEmbedder

from mmsearch import Engine
from mmsearch.errors import NothingToIndex
from mmsearch.indexers.report import IndexReport


class Following:
    """An engine that watches a folder; `next` of it is the next report."""

    def __init__(
        self,
        engine: Engine,
        *paths: Path,
        sweep_every_s: float = 900.0,
        at_notice: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.engine = engine
        self.notices: list[str] = []
        self.at_notice = at_notice
        self.reports = engine.watch(
            paths,
            ocr=False,
            num_workers=1,
            settle_s=0.02,
            sweep_every_s=sweep_every_s,
            on_notice=self.hear,
        )

    def hear(self, notice: str) -> None:
        self.notices.append(notice)
        self.at_notice(notice)

    def __next__(self) -> IndexReport:
        return next(self.reports)

    def until(self, *names: str) -> None:
        """Take reports until the index holds exactly these files."""
        for _ in range(20):
            if self.names == set(names):
                return
            next(self)
        raise AssertionError(f"{names} never came, but {self.names}")

    @property
    def names(self) -> set[str]:
        documents = self.engine._store.documents()
        return {Path(one.path).name for one in documents if not one.error}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "cat.md").write_text("The cat.")
    return docs


@pytest.fixture
def engine(docs: Path, embedder: WordEmbedder) -> Iterator[Engine]:
    # Inside what is watched, where a person would have it: it must not wake itself.
    with Engine.open(docs / "db", create=True, model=embedder) as engine:
        yield engine


def test_an_index_follows_its_folder(engine: Engine, docs: Path) -> None:
    following = Following(engine, docs)
    assert next(following).documents == 1

    (docs / "dog.md").write_text("The dog.")
    report = next(following)
    assert (report.documents, report.removed) == (1, 0)
    assert following.names == {"cat.md", "dog.md"}

    (docs / "dog.md").rename(docs / "pump.md")
    following.until("cat.md", "pump.md")

    (docs / ".cat.md.part").write_text("The museum.")
    (docs / ".cat.md.part").replace(docs / "cat.md")
    next(following)
    assert engine.query("museum", k=1)[0].text == "The museum."

    shutil.copytree(docs, docs / "more", ignore=shutil.ignore_patterns("db"))
    while engine.status().segments < 4:
        next(following)
    shutil.rmtree(docs / "more")
    while engine.status().segments > 2:
        next(following)
    assert following.notices == []


def test_a_file_that_failed_is_read_again_when_it_changes(engine: Engine, docs: Path) -> None:
    (docs / "torn.pdf").write_text("nothing like a PDF")
    following = Following(engine, docs)
    assert [Path(one.path).name for one in next(following).failed] == ["torn.pdf"]

    (docs / "torn.pdf").unlink()
    next(following)
    (docs / "torn.pdf").write_text("still nothing like it")
    assert [Path(one.path).name for one in next(following).failed] == ["torn.pdf"]


def test_an_empty_folder_is_waited_for_and_a_missing_one_is_an_error(
    engine: Engine, docs: Path, tmp_path: Path
) -> None:
    (docs / "cat.md").unlink()
    following = Following(engine, docs)
    assert next(following).documents == 0

    (docs / "dog.md").write_text("The dog.")

    assert next(following).documents == 1
    with pytest.raises(NothingToIndex, match="no such path"):
        next(Following(engine, tmp_path / "gone"))


def test_a_watcher_waits_for_another_writer_and_says_so_once(
    engine: Engine, docs: Path, embedder: WordEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsearch.indexers.following._LOCK_POLL_S", 0.01)
    said = threading.Event()
    following = Following(engine, docs, at_notice=lambda _: said.set())
    locked = threading.Event()

    def write_until_it_is_said() -> None:
        with Engine.open(engine.path, model=embedder)._store.writing():
            locked.set()
            said.wait(10)
            time.sleep(0.1)  # several tries more

    thread = threading.Thread(target=write_until_it_is_said)
    thread.start()
    locked.wait(10)

    report = next(following)
    thread.join()

    assert report.documents == 1
    assert len(following.notices) == 1
    assert "waiting for it to finish" in following.notices[0]


def test_a_root_that_is_gone_keeps_what_the_index_holds(
    docs: Path, tmp_path: Path, embedder: WordEmbedder
) -> None:
    with Engine.open(tmp_path / "db", create=True, model=embedder) as engine:
        away = docs.with_name("away")

        def come_back(notice: str) -> None:
            if "is gone:" in notice:
                assert following.names == {"cat.md"}
                (away / "dog.md").write_text("The dog.")
                away.rename(docs)

        following = Following(engine, docs, at_notice=come_back)
        next(following)
        docs.rename(away)
        report = next(following)

        assert (report.documents, report.removed) == (1, 0)
        assert following.names == {"cat.md", "dog.md"}


def test_a_root_that_is_empty_at_a_look_keeps_what_the_index_holds(
    docs: Path, tmp_path: Path, embedder: WordEmbedder
) -> None:
    with Engine.open(tmp_path / "db", create=True, model=embedder) as engine:
        engine.index([docs], ocr=False, num_workers=1)
        away = docs.rename(docs.with_name("away"))
        docs.mkdir()  # the mount point of a disk that is not mounted
        following = Following(engine, docs, sweep_every_s=0.05)

        assert next(following).removed == 0
        assert following.names == {"cat.md"}
        assert [notice.split(":")[0] for notice in following.notices] == [f"{docs} is empty"]

        docs.rmdir()
        (away / "dog.md").write_text("The dog.")
        away.rename(docs)
        following.until("cat.md", "dog.md")


def test_a_watch_of_an_emptied_folder_goes_on_without_it(engine: Engine, docs: Path) -> None:
    following = Following(engine, docs)
    next(following)
    (docs / "cat.md").unlink()

    assert next(following).removed == 1
    assert not following.notices


def test_a_sweep_finds_what_the_system_did_not_tell(engine: Engine, docs: Path) -> None:
    following = Following(engine, docs, sweep_every_s=0.05)
    next(following)
    known = engine._store.documents()[0]

    # Committed by another process as it was at another time: no event will come.
    with engine._store.writing() as writer:
        writer.remove([known.path])

    assert next(following).documents == 1
