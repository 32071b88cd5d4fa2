from pathlib import Path

import pytest
from made_files import RED, film, pdf, picture_of, sound
from PIL import Image

from mmsearch.errors import UnreadableFile
from mmsearch.indexers.readers import SUPPORTED_SUFFIXES, sniff
from mmsearch.values import Kind


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_pictures_are_known_whatever_their_name(tmp_path: Path, form: str) -> None:
    path = tmp_path / "picture.pdf"
    Image.new("RGB", (40, 30), "red").save(path, form)
    assert sniff(path) is Kind.IMAGE


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi", "ts"])
def test_films_are_known_whatever_their_name(tmp_path: Path, suffix: str) -> None:
    made = film(tmp_path / f"film.{suffix}", [(0.5, RED)])
    assert sniff(made.rename(tmp_path / "film.jpg")) is Kind.VIDEO


def test_a_looping_gif_is_a_film(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], loop=0)
    assert sniff(tmp_path / "a.gif") is Kind.VIDEO


def test_a_pdf_may_begin_with_something_else(tmp_path: Path) -> None:
    plain = pdf(tmp_path / "plain.bin", "words").read_bytes()
    (tmp_path / "late.pdf").write_bytes(b"Content-Type: application/pdf\r\n\r\n" + plain)
    assert sniff(tmp_path / "plain.bin") is Kind.PDF
    assert sniff(tmp_path / "late.pdf") is Kind.PDF


def test_notes_about_pdfs_are_text(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("Each of them begins with %PDF-1.4.")
    assert sniff(tmp_path / "notes.md") is Kind.TEXT


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_prose_is_text_in_any_usual_encoding(tmp_path: Path, codec: str) -> None:
    (tmp_path / "a.txt").write_bytes("Café au lait, déjà vu\n".encode(codec))
    assert sniff(tmp_path / "a.txt") is Kind.TEXT


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.py", b"print('hello')\n"),
        ("a.json", b"{}"),
        ("a.csv", b"a,b\n1,2\n"),
        ("a.srt", b"1\n00:00:01,000 --> 00:00:02,000\nhello\n"),
        ("page.pdf", b"<!doctype html><html><body>No such file</body></html>"),
        ("junk.txt", bytes(range(256)) * 4),
        ("junk.mp4", b"not a film at all"),
    ],
)
def test_what_no_reader_understands_is_none(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert sniff(tmp_path / name) is None


def test_music_is_not_ours(tmp_path: Path) -> None:
    assert sniff(sound(tmp_path / "a.m4a")) is None


def test_an_empty_file_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()
    with pytest.raises(UnreadableFile, match="it is empty"):
        sniff(tmp_path / "a.pdf")


def test_a_broken_link_a_folder_and_a_pipe_are_unreadable_and_do_not_hang(tmp_path: Path) -> None:
    import os

    (tmp_path / "link.pdf").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder.pdf").mkdir()
    os.mkfifo(tmp_path / "pipe.pdf")
    for name, reason in [("link", "no such file"), ("folder", "folder"), ("pipe", "regular file")]:
        with pytest.raises(UnreadableFile, match=reason):
            sniff(tmp_path / f"{name}.pdf")


def test_a_loop_of_links_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").symlink_to(tmp_path / "b.pdf")
    (tmp_path / "b.pdf").symlink_to(tmp_path / "a.pdf")
    with pytest.raises(UnreadableFile):
        sniff(tmp_path / "a.pdf")


def test_a_file_we_may_not_open_is_unreadable(tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", "words")
    path.chmod(0)
    try:
        path.read_bytes()
    except PermissionError:
        with pytest.raises(UnreadableFile, match="permission denied"):
            sniff(path)
    else:
        pytest.skip("this user may read everything")


def test_names_in_any_script_are_fine(tmp_path: Path) -> None:
    path = tmp_path / ("отчёт 报告 \U0001f600 " + "x" * 180 + ".jpg")
    picture_of("hello").save(path)
    assert sniff(path) is Kind.IMAGE


def test_supported_suffixes_name_what_readers_read() -> None:
    assert {".pdf", ".png", ".jpg", ".mp4", ".mkv", ".txt", ".md"} <= SUPPORTED_SUFFIXES
    assert not {".py", ".html", ".csv", ".srt", ".docx"} & SUPPORTED_SUFFIXES
