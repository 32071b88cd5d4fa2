"""Texts that lie in no file: kept by ids of one's own, and by every contract of an index."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import POISON, WordEmbedder

from mmsearch import Engine, Query, upkeep
from mmsearch.context import Budget
from mmsearch.errors import BadVectors, StoreLocked
from mmsearch.retriever.store.store import Store
from mmsearch.values import given_id, given_path

ODD_IDS = ["../../etc/passwd", "a/b", "a//b", "50 %", "Ünïcode 泵", "text:1", "*?[x]'", "\udce9"]


@pytest.fixture
def engine(tmp_path: Path, embedder: WordEmbedder) -> Iterator[Engine]:
    with Engine.open(tmp_path / "db", create=True, model=embedder) as engine:
        yield engine


def found(engine: Engine, query: Query | str, *, k: int = 10) -> list[str | None]:
    return [given_id(hit.path) for hit in engine.query(query, k=k)]


def test_a_text_is_found_whole_by_its_id(engine: Engine) -> None:
    engine.add_texts({"1": "The cat sleeps.", "2": "The dog barks.\n\n" + "And barks. " * 400})

    hits = engine.query("dog", k=1)

    assert [given_id(hit.path) for hit in hits] == ["2"]
    assert hits[0].text.endswith("And barks. ")
    assert engine.status().documents == {"text": 2}
    assert upkeep.check(engine.path) == []


def test_adding_an_id_again_replaces_its_text_and_keeps_its_segment(engine: Engine) -> None:
    engine.add_texts({"1": "The cat.", "2": "The dog."})
    before = engine.query("cat", k=1)[0].segment_id

    engine.add_texts({"1": "The cat is not here."})

    assert [hit.text for hit in engine.query("cat", k=1)] == ["The cat is not here."]
    assert engine.query("cat", k=1)[0].segment_id == before
    assert engine.status().segments == 2


def test_what_is_about_a_text_is_searched_and_given_back(engine: Engine) -> None:
    engine.add_texts({"1": "The cat.", "2": "The dog."}, about={"2": '{"author": "Hokusai"}'})

    hit = engine.query("hokusai", k=1)[0]

    assert (given_id(hit.path), hit.about) == ("2", '{"author": "Hokusai"}')


@pytest.mark.parametrize("text_id", ODD_IDS)
def test_any_id_comes_back_and_is_one_name_without_a_slash(engine: Engine, text_id: str) -> None:
    engine.add_texts({text_id: "The cat."})

    assert found(engine, "cat") == [text_id]
    assert "/" not in engine.query("cat")[0].path
    assert engine.remove([given_path(text_id)]) == 1
    assert found(engine, "cat") == []


def test_a_path_of_a_file_is_no_given_text() -> None:
    assert given_id("/home/text:1") is None


def test_an_empty_id_is_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="id that is not empty"):
        engine.add_texts({"": "The cat."})


def test_a_text_of_blanks_is_kept_though_nothing_finds_it(engine: Engine) -> None:
    engine.add_texts({"1": " \n", "2": "The dog."})

    assert engine.status().segments == 2
    assert found(engine, "dog") == ["2"]
    assert upkeep.check(engine.path) == []


def test_no_texts_change_nothing(engine: Engine) -> None:
    engine.add_texts({})

    assert engine.status().segments == 0


def test_all_texts_are_kept_or_none(engine: Engine) -> None:
    engine.add_texts({"1": "The cat."})

    with pytest.raises(BadVectors):
        engine.add_texts({"1": "The dog.", "2": POISON})

    assert [hit.text for hit in engine.query("cat dog")] == ["The cat."]


def test_while_another_writes_nothing_is_added(engine: Engine) -> None:
    with Store.open(engine.path).writing(), pytest.raises(StoreLocked):
        engine.add_texts({"1": "The cat."})

    assert found(engine, "cat") == []


def test_files_and_texts_live_in_one_index(engine: Engine, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "note.md").write_text("The dog does not like the cat.")
    engine.add_texts({"1": "The cat."})

    assert engine.index([docs]).documents == 1
    assert engine.index([docs]).skipped == 1
    assert found(engine, "cat") == ["1", None]
    assert found(engine, Query("cat", path="text:*")) == ["1"]

    (docs / "note.md").write_text("The museum.")
    engine.index([docs])  # which knows nothing of texts, and so forgets none
    assert engine.remove([docs]) == 1
    assert found(engine, "cat") == ["1"]


def test_removing_the_root_of_all_folders_leaves_texts(engine: Engine) -> None:
    engine.add_texts({"1": "The cat."})

    assert engine.remove(["/"]) == 0


def test_a_context_cites_a_text_by_its_id_and_shows_nothing(engine: Engine) -> None:
    engine.add_texts({"faq/7": "The cat sleeps."})

    [part] = engine.context("cat", budget=Budget(max_tokens=100))

    assert (part.citation, part.text, part.image) == ("faq/7", "The cat sleeps.", b"")
    assert engine.picture(part.hit.segment_id) == b""


def test_a_rebuild_takes_texts_along(engine: Engine, tmp_path: Path) -> None:
    engine.add_texts({"1": "The cat.", "2": "The dog."}, about={"2": "Hokusai"})
    (tmp_path / "note.md").write_text("The museum.")
    engine.index([tmp_path / "note.md"])

    report = upkeep.rebuild(engine.path, model=WordEmbedder("others"))

    assert report.missing == ()
    with Engine.open(engine.path, model=WordEmbedder("others")) as rebuilt:
        assert found(rebuilt, "hokusai", k=1) == ["2"]
        assert sorted(map(str, found(rebuilt, "cat dog museum"))) == ["1", "2", "None"]
        assert upkeep.check(rebuilt.path) == []


def test_texts_alone_are_rebuilt(engine: Engine) -> None:
    engine.add_texts({"1": "The cat."})

    upkeep.rebuild(engine.path, model=WordEmbedder("others"))

    with Engine.open(engine.path, model=WordEmbedder("others")) as rebuilt:
        assert found(rebuilt, "cat") == ["1"]


def test_texts_are_exported_and_imported(engine: Engine, tmp_path: Path) -> None:
    engine.add_texts({"1": "The cat."})

    upkeep.export_index(engine.path, tmp_path / "out")
    upkeep.import_index(tmp_path / "out", tmp_path / "copy")

    with Engine.open(tmp_path / "copy", model=WordEmbedder()) as copy:
        assert found(copy, "cat") == ["1"]


_ADD_AND_DIE = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from conftest import WordEmbedder
from mmsearch import Engine
engine = Engine.open(sys.argv[2], model=WordEmbedder())
engine.add_texts({"1": "The cat."})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_added_is_there_after_a_kill(engine: Engine) -> None:
    tests = Path(__file__).parent

    died = subprocess.run(
        [sys.executable, "-c", _ADD_AND_DIE, str(tests), str(engine.path)],
        env={**os.environ, "PYTHONPATH": str(tests.parent)},
        check=False,
    )

    assert died.returncode == -signal.SIGKILL
    assert found(engine, "cat") == ["1"]
    engine.add_texts({"2": "The cat too."})
    assert sorted(map(str, found(engine, "cat"))) == ["1", "2"]
    assert upkeep.check(engine.path) == []
