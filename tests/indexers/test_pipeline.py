"""How sources become rows: in which calls, in which order, and what becomes of a run cut short."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import made_files
import psutil
import pytest
from conftest import POISON, WordEmbedder
from PIL import Image

from mmsearch import Engine, Item
from mmsearch.errors import StoreError
from mmsearch.indexers import pipeline
from mmsearch.indexers.channel import Channel
from mmsearch.indexers.content import content_hash
from mmsearch.indexers.rates import NAME, read_rates
from mmsearch.indexers.report import Progress
from mmsearch.retriever.store.store import Writer
from mmsearch.upkeep import check
from mmsearch.values import Document, Kind, Role, Status, View

if TYPE_CHECKING:
    from mmsearch.values import Vectors


class Listening(WordEmbedder):
    """Remembers the items of every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[Item]] = []

    def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        self.calls.append(list(items))
        return super().embed(items, role=role)

    @property
    def pictures(self) -> int:
        """How many pictures it was given."""
        return sum(not item.text for items in self.calls for item in items)


@pytest.fixture
def embedder() -> Listening:
    return Listening()


@pytest.fixture
def engine(tmp_path: Path, embedder: Listening) -> Iterator[Engine]:
    with Engine.open(tmp_path / "db", create=True, model=embedder) as engine:
        yield engine


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    return folder


def notes(folder: Path, num: int) -> None:
    for number in range(num):
        (folder / f"note-{number:03}.md").write_text(f"The cat number {number}.")


def slow(embed: Any) -> Any:
    """The same, at the pace of a large model."""

    def slowly(items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        time.sleep(0.2)
        vectors: Vectors = embed(items, role=role)
        return vectors

    return slowly


def document(engine: Engine, name: str) -> Document:
    [found] = [one for one in engine._store.documents() if Path(one.path).name == name]
    return found


# ---------------------------------------------------------------- calls and commits


def test_documents_are_embedded_together_in_calls_as_large_as_wanted(
    engine: Engine, embedder: Listening, docs: Path
) -> None:
    notes(docs, 100)

    engine.index([docs], ocr=False)

    sizes = [len(items) for items in embedder.calls]
    assert sum(sizes) == 100
    assert max(sizes) == embedder.call_tokens == 24


def test_documents_are_committed_together(
    engine: Engine, embedder: Listening, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes(docs, 100)
    commits: list[int] = []
    commit_all = Writer.commit_all

    def counted(writer: Writer, batch: Sequence[Any]) -> None:
        commits.append(len(batch))
        commit_all(writer, batch)

    monkeypatch.setattr(Writer, "commit_all", counted)
    monkeypatch.setattr(pipeline, "_COMMIT_EVERY_S", 60.0)
    monkeypatch.setattr(embedder, "embed", slow(embedder.embed))
    engine.index([docs], ocr=False)

    assert sum(commits) == 100
    assert len(commits) == 2  # at once, so that something can be found, and at the end


def test_what_a_document_is_known_by_is_its_content(engine: Engine, docs: Path) -> None:
    notes(docs, 2)
    made_files.pdf(docs / "a.pdf", "The pump.")
    engine.index([docs], ocr=False)

    for one in engine._store.documents():
        assert one.content_hash == content_hash(Path(one.path))


def test_a_large_file_is_hashed_by_the_run_itself(
    engine: Engine, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_HASHED_HERE_BYTES", 10)
    notes(docs, 1)
    engine.index([docs], ocr=False)

    assert document(engine, "note-000.md").content_hash == content_hash(docs / "note-000.md")


def test_a_run_leaves_its_rates_and_a_broken_file_of_them_harms_nobody(
    engine: Engine, docs: Path
) -> None:
    notes(docs, 3)
    home = engine._store.home
    (home / NAME).write_text("{")

    engine.index([docs], ocr=False)

    rate = read_rates(home)[Kind.TEXT]
    assert (rate.documents, rate.segments) == (3, 3)
    assert rate.bytes_read == sum(path.stat().st_size for path in docs.iterdir())
    assert rate.bytes_stored > 3 * 2 * engine.space.dim


# ---------------------------------------------------------------- cut short


def test_a_disk_that_is_full_ends_every_thread_and_keeps_what_was_committed(
    engine: Engine, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes(docs, 60)
    children, threads = set(psutil.Process().children()), threading.active_count()
    commit_all = Writer.commit_all
    tries = 0

    def refusing(writer: Writer, batch: Sequence[Any]) -> None:
        nonlocal tries
        tries += 1
        if tries == 2:
            raise StoreError("no space left on device")
        commit_all(writer, batch)

    monkeypatch.setattr(Writer, "commit_all", refusing)
    monkeypatch.setattr(pipeline, "_COMMIT_EVERY_S", 0.0)
    with pytest.raises(StoreError, match="no space left"):
        engine.index([docs], ocr=False)

    kept = len(engine._store.documents())
    assert 0 < kept < 60
    assert threading.active_count() <= threads
    assert set(psutil.Process().children()) == children
    report = engine.index([docs], ocr=False)
    assert (report.documents, report.skipped) == (60 - kept, kept)


def test_an_embedder_that_breaks_ends_the_run_and_keeps_what_was_finished(
    engine: Engine, embedder: Listening, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes(docs, 100)
    embed = embedder.embed

    def breaking(items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        if sum(map(len, embedder.calls)) > 40:
            raise RuntimeError("the device fell off the bus")
        return embed(items, role=role)

    monkeypatch.setattr(embedder, "embed", breaking)
    with pytest.raises(RuntimeError, match="fell off the bus"):
        engine.index([docs], ocr=False)

    assert len(engine._store.documents()) == sum(map(len, embedder.calls))
    assert check(engine.path) == []


def test_readers_wait_for_a_slow_embedder(
    engine: Engine, embedder: Listening, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more is read ahead than the channel and the workers hold."""
    for number in range(40):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(docs / f"{number:02}.png")
    monkeypatch.setattr(pipeline, "_READ_AHEAD_BYTES", 5 * 64 * 64 * 3)
    most = 0
    put = Channel.put

    def watched(channel: Any, thing: Any, num_bytes: int = 0) -> None:
        nonlocal most
        put(channel, thing, num_bytes)
        if isinstance(thing, pipeline._Outcome):
            most = max(most, channel._num_bytes)

    monkeypatch.setattr(Channel, "put", watched)
    monkeypatch.setattr(embedder, "embed", slow(embedder.embed))

    assert engine.index([docs], ocr=False).documents == 40
    assert most <= 5 * 64 * 64 * 3


# ---------------------------------------------------------------- OCR, after everything else


@pytest.fixture
def signs(docs: Path) -> Path:
    """A sign, a photograph without words, and files whose words need no OCR."""
    made_files.picture_of("Rules of the museum").save(docs / "sign.png")
    Image.radial_gradient("L").convert("RGB").save(docs / "sun.png")
    made_files.pdf(docs / "report.pdf", "The pump and its chart, in five words and more.")
    (docs / "note.md").write_text("The dog.")
    return docs


def test_pictures_are_found_by_their_looks_before_their_words_are_read(
    engine: Engine, embedder: Listening, signs: Path
) -> None:
    before: dict[str, Document] = {}
    texts: list[str] = []

    def listen(progress: Progress) -> None:
        if progress.stage == "ocr" and not before:
            before.update({Path(one.path).name: one for one in engine._store.documents()})
            texts.extend(one.text for one in engine._store.segments_of(before["sign.png"].path))
            assert progress.num_documents == 2

    report = engine.index([signs], on_progress=listen)

    assert {name: one.awaits_ocr for name, one in before.items()} == {
        "sign.png": True,
        "sun.png": True,
        "report.pdf": False,
        "note.md": False,
    }
    assert texts == [""]
    assert (report.documents, report.segments, report.failed) == (4, 4, ())
    assert "museum" in engine.query("museum", k=1)[0].text
    assert not any(one.awaits_ocr for one in engine._store.documents())
    assert embedder.pictures == 3, "the looks of a picture were embedded twice"
    assert set(engine._store.vectors(engine.query("museum", k=1)[0].segment_id)) == set(View)
    # Nothing was found in it: only what the manifest says of it has changed.
    assert document(engine, "sun.png").commit_id == before["sun.png"].commit_id
    assert check(engine.path) == []
    assert engine.index([signs]).skipped == 4


def test_words_that_were_not_read_are_read_by_the_next_run_with_ocr(
    engine: Engine, signs: Path
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.stage == "ocr":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.index([signs], on_progress=interrupt)
    (signs / "sun.png").unlink()
    waiting = sum(one.awaits_ocr for one in engine._store.documents())

    without = engine.index([signs], ocr=False)
    assert (without.documents, without.skipped) == (0, 3)
    assert engine.query("museum", k=1)[0].text == ""
    resumed = engine.index([signs])

    assert waiting >= 1
    assert (resumed.documents, resumed.skipped) == (1, 2)
    assert "museum" in engine.query("museum", k=1)[0].text


def test_a_picture_whose_words_are_no_good_is_still_found_by_its_looks(
    engine: Engine, signs: Path
) -> None:
    made_files.picture_of(f"The {POISON} cabinet").save(signs / "sign.png")

    report = engine.index([signs])

    [failure] = report.failed
    assert Path(failure.path).name == "sign.png"
    assert failure.reason.startswith("no words were read in it: ")
    sign = document(engine, "sign.png")
    assert (sign.status, sign.num_segments, sign.awaits_ocr) == (Status.DONE, 1, False)
    assert (report.documents, report.segments) == (4, 4)
    assert check(engine.path) == []
    assert engine.index([signs]).skipped == 4


def test_a_run_without_ocr_leaves_nothing_to_be_read(engine: Engine, signs: Path) -> None:
    heard: list[str] = []

    engine.index([signs], ocr=False)
    engine.index([signs], on_progress=lambda progress: heard.append(progress.stage))

    assert heard == []
    assert not any(one.awaits_ocr for one in engine._store.documents())


def test_a_picture_that_changes_before_its_words_are_read_is_left_to_the_next_run(
    engine: Engine, signs: Path
) -> None:
    sign = signs / "sign.png"

    def change(progress: Progress) -> None:
        if progress.stage != "ocr" and progress.documents == progress.num_documents:
            made_files.picture_of("Closed for the winter").save(sign)

    engine.index([signs], on_progress=change)
    assert document(engine, "sign.png").awaits_ocr
    assert document(engine, "sign.png").content_hash != content_hash(sign)

    assert engine.index([signs]).documents == 1
    assert "winter" in engine.query("winter", k=1)[0].text
