"""The file of a document is opened only while it is what was indexed."""

from dataclasses import replace
from pathlib import Path

import pytest

from mmsearch.errors import UnreadableFile
from mmsearch.indexers.originals import open_original
from mmsearch.values import Document, Kind, Status


def document_of(path: Path) -> Document:
    state = path.stat()
    return Document(
        path=str(path),
        kind=Kind.TEXT,
        content_hash="",
        size=state.st_size,
        mtime_ns=state.st_mtime_ns,
        status=Status.DONE,
        commit_id="",
    )


def test_it_is_opened_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a note")

    with open_original(document_of(tmp_path / "notes.txt")) as file:
        assert file.read() == b"a note"


def test_a_document_of_another_kind_size_or_time_is_not(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a note")
    known = document_of(tmp_path / "notes.txt")

    for other in (
        replace(known, size=known.size + 1),
        replace(known, mtime_ns=known.mtime_ns + 1),
        replace(known, kind=Kind.PDF),
        replace(known, path=known.path + ".gone"),
    ):
        with pytest.raises(UnreadableFile):
            open_original(other)


def test_a_text_that_was_given_is_no_file_of_the_folder_we_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("a note")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UnreadableFile, match="no such file"):
        open_original(replace(document_of(tmp_path / "notes.txt"), path="notes.txt"))
