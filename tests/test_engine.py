"""What a library user sees: files in, hits out."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import made_files
import numpy as np
import psutil
import pytest
from conftest import WordEmbedder
from PIL import Image

from mmsearch import Engine, Hit, Item, Query, upkeep
from mmsearch.errors import (
    BadFilter,
    BadInput,
    EmptyQuery,
    ModelNotFound,
    NothingToIndex,
    SegmentNotFound,
    SpaceMismatch,
    StoreDamaged,
    StoreLocked,
    StoreNotFound,
    UnreadableFile,
)
from mmsearch.indexers.report import Progress
from mmsearch.values import Kind, stored_path

if TYPE_CHECKING:
    from mmsearch.values import Vectors

RED, GREEN, BLUE = made_files.RED, made_files.GREEN, made_files.BLUE


def paint(path: Path, colour: tuple[int, int, int]) -> Path:
    Image.new("RGB", (96, 64), colour).save(path)
    return path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each kind, made once."""
    folder = tmp_path_factory.mktemp("made") / "docs"
    folder.mkdir()
    made_files.pdf(folder / "report.pdf", "The pump and its chart.", "The museum of the town.")
    made_files.film(folder / "film.mp4", [(2.0, RED), (2.0, BLUE)])
    paint(folder / "red.png", RED)
    paint(folder / "green.png", GREEN)
    (folder / "note.md").write_text("# Pets\n\nThe dog does not like the cat.\n")
    return folder


@pytest.fixture
def docs(made: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "docs"))


@pytest.fixture
def engine(tmp_path: Path, embedder: WordEmbedder) -> Iterator[Engine]:
    with Engine.open(tmp_path / "db", create=True, model=embedder) as engine:
        yield engine


@pytest.fixture
def indexed(engine: Engine, docs: Path) -> Engine:
    engine.index([docs], ocr=False)
    return engine


def names(hits: list[Hit]) -> list[str]:
    return [f"{Path(hit.path).name} {hit.locator}".strip() for hit in hits]


# ---------------------------------------------------------------- index


def test_every_kind_of_file_becomes_segments(engine: Engine, docs: Path) -> None:
    heard: list[Progress] = []

    report = engine.index([docs], on_progress=heard.append, ocr=False)

    assert (report.documents, report.segments, report.failed) == (5, 7, ())
    assert heard[-1].documents == heard[-1].num_documents == 5
    assert set(report.seconds) == {"plan", "read", "embed", "commit", "refresh", "total"}
    assert engine.status().documents == {"image": 2, "pdf": 1, "text": 1, "video": 1}


def test_a_second_run_reads_nothing(indexed: Engine, docs: Path) -> None:
    report = indexed.index([docs], ocr=False)

    assert (report.documents, report.skipped) == (0, 5)
    assert indexed.status().segments == 7


def test_a_changed_file_is_replaced(indexed: Engine, docs: Path) -> None:
    (docs / "note.md").write_text("The museum is closed.")

    report = indexed.index([docs], ocr=False)

    assert (report.documents, report.skipped) == (1, 4)
    texts = [hit.text for hit in indexed.query(Query("museum", kinds=["text"]))]
    assert texts == ["The museum is closed."]


def test_a_film_is_read_again_when_its_subtitles_change(indexed: Engine, docs: Path) -> None:
    def words_of_the_film() -> set[str]:
        return {hit.text for hit in indexed.query(Query("cat", kinds=["video"]))}

    subtitles = docs / "film.srt"
    subtitles.write_text("1\n00:00:00,000 --> 00:00:01,500\nThe cat.\n")
    assert indexed.index([docs], ocr=False).documents == 1
    assert words_of_the_film() == {"The cat.", ""}

    subtitles.unlink()
    assert indexed.index([docs], ocr=False).documents == 1
    assert words_of_the_film() == {""}


def test_a_remedy_can_be_typed_whatever_the_folder_is_called(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound) as missing:
        Engine.open(tmp_path / "my index")
    (tmp_path / "my index").mkdir()
    (tmp_path / "my index" / "index.json").write_text("x")
    with pytest.raises(StoreDamaged) as damaged:
        Engine.open(tmp_path / "my index")

    for refused in (missing, damaged):
        assert f"--db '{tmp_path}/my index'" in refused.value.hint


def test_an_empty_folder_removes_nothing_before_it_is_said_so(indexed: Engine, docs: Path) -> None:
    away = docs.rename(docs.with_name("the disk"))
    docs.mkdir()  # the mount point of a disk that is not mounted
    held = indexed.documents([docs])
    assert held

    with pytest.raises(
        NothingToIndex, match=f"it is empty.*knows {len(held)} documents"
    ) as refused:
        indexed.index([away, docs], ocr=False)
    with pytest.raises(NothingToIndex, match="it is empty"):
        Engine.preview([docs], db=indexed.path)

    assert indexed.documents([docs]) == held
    assert f"mmsearch remove {docs} --db {indexed.path}" in refused.value.hint
    assert indexed.remove([docs]) == len(held)
    assert indexed.index([away, docs], ocr=False).removed == 0


def test_a_deleted_file_is_removed(indexed: Engine, docs: Path) -> None:
    (docs / "red.png").unlink()

    assert indexed.index([docs], ocr=False).removed == 1
    assert not any(hit.path.endswith("red.png") for hit in indexed.query("red", k=50))


def test_bad_files_are_named_and_harm_no_other(engine: Engine, docs: Path) -> None:
    (docs / "empty.pdf").touch()
    (docs / "page.pdf").write_text("<!doctype html><title>not a pdf</title>")
    (docs / "torn.png").write_bytes((docs / "red.png").read_bytes()[:40])
    made_files.pdf(docs / "locked.pdf", "secret", encryption=4, user_pw="x", owner_pw="y")

    report = engine.index([docs], ocr=False)

    assert report.documents == 5
    assert {Path(failure.path).name for failure in report.failed} == {
        "empty.pdf",
        "page.pdf",
        "locked.pdf",
        "torn.png",
    }
    assert all(failure.reason for failure in report.failed)
    assert len(engine.status().failed) == 4


def test_failed_files_are_tried_again_when_asked_or_changed(engine: Engine, docs: Path) -> None:
    torn = docs / "torn.png"
    torn.write_bytes((docs / "red.png").read_bytes()[:40])
    engine.index([docs], ocr=False)

    assert len(engine.index([docs], ocr=False).failed_before) == 1
    assert len(engine.index([docs], ocr=False, retry_failed=True).failed) == 1
    shutil.copy(docs / "red.png", torn)
    assert engine.index([docs], ocr=False).documents == 1
    assert engine.status().failed == ()


def test_a_document_without_a_vector_fails_alone(engine: Engine, docs: Path) -> None:
    (docs / "bad.md").write_text("This is poison for the model.")

    report = engine.index([docs], ocr=False)

    assert report.documents == 5
    [failure] = report.failed
    assert failure.path.endswith("bad.md")
    assert "NaN" in failure.reason


def test_a_long_document_fails_whole_when_an_early_page_has_no_vector(
    engine: Engine, docs: Path
) -> None:
    pages = ["This page is poison .", *(f"The cat on page {number}." for number in range(2, 41))]
    made_files.pdf(docs / "long.pdf", *pages)

    [failure] = engine.index([docs], ocr=False).failed

    assert failure.path.endswith("long.pdf")
    assert not any(hit.path.endswith("long.pdf") for hit in engine.query("cat", k=50))


def test_vectors_that_are_nan_fail_their_document_alone(tmp_path: Path, docs: Path) -> None:
    class Careless(WordEmbedder):
        """Returns NaN where it should have said so."""

        def _row(self, item: Item) -> "Vectors":
            return super()._row(item) * (np.nan if "dog" in item.text else 1)

    with Engine.open(tmp_path / "careless", create=True, model=Careless()) as engine:
        report = engine.index([docs], ocr=False)

    assert report.documents == 4
    assert [Path(failure.path).name for failure in report.failed] == ["note.md"]


def test_globs_and_ocr_reach_the_readers(engine: Engine, docs: Path) -> None:
    made_files.picture_of("Rules of the museum").save(docs / "sign.png")

    assert engine.index([docs], include=["*.png"], exclude=["red*"], ocr=False).documents == 2
    assert engine.query("museum", k=1)[0].text == ""
    assert engine.index([docs], include=["sign.png"], again=True).documents == 1
    assert "museum" in engine.query("museum", k=1)[0].text


def test_a_touched_file_is_known_by_its_new_time(indexed: Engine, docs: Path) -> None:
    os.utime(docs / "note.md", ns=(1, 1))

    assert indexed.index([docs], ocr=False).skipped == 5
    [note] = [one for one in indexed._store.documents() if one.path.endswith("note.md")]
    assert note.mtime_ns == 1


def test_an_evaluation_leaves_the_querys_own_source_out(
    indexed: Engine, docs: Path, tmp_path: Path
) -> None:
    asked = {
        "id": "page",
        "kind": "page",
        "page": "docs/report.pdf#2",
        "relevant": [{"path": "docs/report.pdf", "page": 2}],
    }
    queries = tmp_path / "queries.jsonl"
    queries.write_text(json.dumps(asked))

    [judged] = indexed.evaluate(queries).queries

    assert judged.first_right is None
    assert judged.found


@pytest.mark.parametrize("content", [None, {"program.py": "print()"}])
def test_nothing_to_index_is_an_error(
    engine: Engine, tmp_path: Path, content: dict[str, str] | None
) -> None:
    folder = tmp_path / "other"
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)

    with pytest.raises(NothingToIndex):
        engine.index([folder])


def test_names_of_any_characters_are_indexed_and_found(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "Größe 図 [x] 'q' 100%"
    folder.mkdir()
    named = [folder / ("n" * 240 + ".md"), folder / "🐈‍⬛ \n.md"]
    named.append(Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.md")))
    for path in named:
        path.write_text("The cat.")

    assert engine.index([folder]).documents == 3
    assert {hit.path for hit in engine.query("cat")} == {stored_path(path) for path in named}
    assert engine.index([folder]).skipped == 3


def test_a_second_writer_is_refused_and_the_first_is_named(indexed: Engine, docs: Path) -> None:
    with indexed._store.writing(), pytest.raises(StoreLocked, match=str(os.getpid())):
        indexed.index([docs])


def test_an_interrupted_run_keeps_what_was_done_and_resumes(engine: Engine, docs: Path) -> None:
    for number in range(30):
        (docs / f"note-{number:02}.md").write_text(f"The cat number {number}.")
    before = set(psutil.Process().children(recursive=True))

    def interrupt(progress: Progress) -> None:
        if progress.documents == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.index([docs], on_progress=interrupt, ocr=False)

    assert set(psutil.Process().children(recursive=True)) <= before
    resumed = engine.index([docs], ocr=False)
    assert resumed.documents + resumed.skipped == 35
    assert engine.status().segments == 37
    assert upkeep.check(engine.path) == []


def test_preview_says_what_would_be_done_and_makes_nothing(docs: Path, tmp_path: Path) -> None:
    plan = Engine.preview([docs], db=tmp_path / "db")

    assert len(plan.read) == 5
    assert not (tmp_path / "db").exists()


# ---------------------------------------------------------------- open


def test_a_read_never_makes_an_index(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound):
        Engine.open(tmp_path / "nowhere")

    assert not (tmp_path / "nowhere").exists()


def test_an_index_can_be_looked_at_without_its_model(indexed: Engine) -> None:
    with Engine.open(indexed.path) as engine:
        assert engine.status().segments == 7
        assert upkeep.check(engine.path) == []
        with pytest.raises(ModelNotFound, match="words"):
            engine.query("cat")


def test_another_model_is_refused_before_any_query(indexed: Engine) -> None:
    with pytest.raises(SpaceMismatch, match=r"words.*other") as refused:
        Engine.open(indexed.path, model=WordEmbedder("other"))

    assert refused.value.exit_code == 4
    assert refused.value.hint


# ---------------------------------------------------------------- query


def test_words_find_the_page_that_says_them(indexed: Engine) -> None:
    [first, *_] = indexed.query(Query(text="museum"), k=10)

    assert names([first]) == ["report.pdf p.2"]
    assert (first.kind, first.page, first.rank) == (Kind.PDF, 2, 1)
    assert "museum" in first.text
    assert sum(first.parts.values()) == pytest.approx(first.score)


def test_a_picture_finds_the_picture_and_the_shot_like_it(indexed: Engine, tmp_path: Path) -> None:
    asked = paint(tmp_path / "asked.png", RED)

    hits = indexed.query(Query(images=[asked]), k=2)

    assert set(names(hits)) == {"red.png", "film.mp4 0:00-0:02"}
    clip = next(hit for hit in hits if hit.kind is Kind.VIDEO)
    assert clip.start == 0.0
    assert clip.end == pytest.approx(2.0, abs=0.3)


def test_a_picture_and_words_are_one_question(indexed: Engine, tmp_path: Path) -> None:
    asked = paint(tmp_path / "asked.png", RED)

    hits = indexed.query(Query("the museum", images=[asked]), k=4)

    assert {"red.png", "report.pdf p.2"} <= set(names(hits))


def test_a_film_finds_what_looks_like_it(indexed: Engine, tmp_path: Path) -> None:
    film = made_files.film(tmp_path / "asked.mp4", [(1.5, BLUE)])

    [first] = indexed.query(Query(video=film), k=1)

    assert names([first]) == ["film.mp4 0:02-0:04"]


def test_a_page_finds_itself_first(indexed: Engine, docs: Path) -> None:
    [first] = indexed.query(Query(page=f"{docs / 'report.pdf'}#2"), k=1)

    assert names([first]) == ["report.pdf p.2"]


def test_what_is_not_wanted_sinks(indexed: Engine) -> None:
    plain = names(indexed.query(Query("pump museum"), k=2))
    without = names(indexed.query(Query("pump museum", negative=["museum"]), k=2))

    assert set(plain) == {"report.pdf p.1", "report.pdf p.2"}
    assert without[0] == "report.pdf p.1"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"kinds": ["image"]}, {"red.png", "green.png"}),
        ({"kinds": [Kind.TEXT]}, {"note.md @0"}),
        ({"where": "page = 1"}, {"report.pdf p.1"}),
        ({"where": "start >= 1.5"}, {"film.mp4 0:02-0:04"}),
        ({"path": "docs/*.png"}, {"red.png", "green.png"}),
        ({"path": "nothing/*"}, set()),
    ],
)
def test_filters_leave_only_what_fits(
    indexed: Engine, limits: dict[str, object], expected: set[str]
) -> None:
    hits = indexed.query(Query("pump", **limits), k=50)  # type: ignore[arg-type]

    assert set(names(hits)) == expected


def test_only_hits_above_the_least_score_are_returned(indexed: Engine) -> None:
    everything = indexed.query("museum", k=50)
    cut = everything[0].score

    assert names(indexed.query(Query("museum", min_score=cut), k=50)) == names(everything[:1])


def test_grouped_hits_name_each_document_once(indexed: Engine) -> None:
    paths = [hit.path for hit in indexed.query("pump museum", k=50, group=True)]

    assert len(paths) == len(set(paths)) == 5


def test_a_long_document_crowds_no_other_out(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    made_files.pdf(folder / "long.pdf", *(f"The cat on page {n}." for n in range(250)))
    for number in range(3):
        (folder / f"{number}.md").write_text(f"Here the cat shares note {number} with a dog.")
    engine.index([folder], ocr=False)

    few = engine.query(Query("cat", min_score=0.1), k=4, group=True)
    many = engine.query(Query("cat"), k=40)

    assert len(few) == 4
    assert {hit.score for hit in many if hit.path == few[0].path} >= {few[0].score}


def test_the_same_question_gives_the_same_answer(indexed: Engine) -> None:
    assert indexed.query("pump", k=50) == indexed.query("pump", k=50)


def test_an_empty_index_has_no_hits(engine: Engine) -> None:
    assert engine.query("anything") == []


@pytest.mark.parametrize("empty", [Query(), Query("  \n "), "", Query(negative=["cat"])])
def test_an_empty_question_is_refused(indexed: Engine, empty: Query | str) -> None:
    with pytest.raises(EmptyQuery):
        indexed.query(empty)


def test_a_count_below_one_is_refused(indexed: Engine) -> None:
    with pytest.raises(ValueError, match="k counts from 1"):
        indexed.query("cat", k=0)


@pytest.mark.parametrize("where", ["colour = 'red'", "page = 1; drop table segments", "page ="])
def test_a_filter_that_is_none_is_refused(indexed: Engine, where: str) -> None:
    with pytest.raises(BadFilter):
        indexed.query(Query("cat", where=where))


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (Query(images=["nowhere.png"]), "no such file"),
        (Query(page="nowhere.pdf#1"), "no such file"),
        (Query(page="report.pdf"), "does not name a page"),
        (Query(page="report.pdf#0"), "does not name a page"),
    ],
)
def test_media_that_cannot_be_read_are_named(indexed: Engine, query: Query, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        indexed.query(query)


def test_a_page_beyond_the_last_is_named(indexed: Engine, docs: Path) -> None:
    with pytest.raises(UnreadableFile, match="page"):
        indexed.query(Query(page=f"{docs / 'report.pdf'}#9"))


# ---------------------------------------------------------------- look


def test_similar_leaves_the_segment_itself_out(indexed: Engine) -> None:
    [red] = indexed.query(Query("red", path="red.png"))

    similar = indexed.similar(red.segment_id, k=50)

    assert "red.png" not in names(similar)
    assert names(similar)[0] == "film.mp4 0:00-0:02"


def test_a_segment_can_be_shown_with_its_thumbnail(indexed: Engine) -> None:
    [page] = indexed.query("museum", k=1)

    shown = indexed.show(page.segment_id)

    assert shown.text == page.text
    assert indexed.thumbnail(page.segment_id)[8:12] == b"WEBP"


def test_an_unknown_segment_is_an_error(indexed: Engine) -> None:
    for look in (indexed.show, indexed.thumbnail, indexed.similar):
        with pytest.raises(SegmentNotFound):
            look("0" * 16)


def test_documents_are_removed_by_file_or_by_folder(indexed: Engine, docs: Path) -> None:
    assert indexed.remove([docs / "note.md"]) == 1
    assert indexed.remove([docs]) == 4
    assert indexed.remove([docs]) == 0
    assert indexed.query("cat") == []


def test_several_threads_may_ask_at_once(indexed: Engine, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    asked = [Query("museum"), Query(images=[paint(tmp_path / "asked.png", RED)])] * 4
    alone = [names(indexed.query(query, k=3)) for query in asked]

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda query: names(indexed.query(query, k=3)), asked))

    assert together == alone


def test_vectors_of_the_index_are_those_of_the_embedder(
    indexed: Engine, embedder: WordEmbedder
) -> None:
    [page] = indexed.query("museum", k=1)
    [expected] = embedder.embed([Item([page.text])])

    stored = indexed._store.vectors(page.segment_id)

    assert np.allclose(stored["text"], expected, atol=1e-6)  # type: ignore[index]
