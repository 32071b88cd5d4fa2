"""What a request brings: looked at before a decoder is, kept apart, and gone afterwards."""

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import WordEmbedder
from made_files import pdf
from toy_server import data_uri, png

from mmsearch.engine import Engine
from mmsearch.errors import BadUpload, NotAllowed, TooLarge
from mmsearch.serving.parts import Upload, Uploads, plain_reason, real_path
from mmsearch.serving.settings import Limits, Settings
from mmsearch.values import Image, Kind, Text

PICTURE = {"type": "image_url", "image_url": {"url": data_uri(png())}}


def uploads(**settings: Any) -> Uploads:
    limits = Limits(**settings.pop("limits", {}))
    return Uploads(Settings(limits=limits, **settings))


def test_words_and_pictures_come_in_the_order_given() -> None:
    with uploads() as taken:
        first, second, third = taken.parts(["a", PICTURE, {"type": "text", "text": "b"}])

    assert (first, third) == ("a", "b")
    assert isinstance(second, Upload)
    assert second.kind is Kind.IMAGE


def test_what_was_written_is_for_us_alone_and_gone_afterwards() -> None:
    with uploads() as taken:
        [upload] = taken.parts([PICTURE])
        assert isinstance(upload, Upload)
        assert upload.path.read_bytes() == png()
        assert upload.path.parent.stat().st_mode & 0o777 == 0o700

    assert not upload.path.parent.exists()


def test_an_item_is_decoded_in_a_worker_with_the_pixels_of_the_index(tmp_path: Path) -> None:
    with (
        Engine.open(tmp_path / "db", create=True, model=WordEmbedder()) as engine,
        uploads() as taken,
    ):
        item = taken.item(taken.parts([{**PICTURE}, "red"]), engine)

    image, words = item.parts
    assert isinstance(image, Image)
    assert image.pixels.shape[0] * image.pixels.shape[1] <= WordEmbedder().space.max_pixels
    assert words == Text("red")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"#EXTM3U\nfile:///etc/passwd", "it is no picture that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "it is no picture that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is no picture that can be read"),
        (b"%PDF-1.7\n", "it is no picture, but a PDF"),
        (b"", "it is empty"),
    ],
)
def test_what_a_decoder_would_follow_elsewhere_never_reaches_one(content: bytes, said: str) -> None:
    part = {"type": "image_url", "image_url": {"url": data_uri(content, "image/png")}}

    with uploads() as taken, pytest.raises(BadUpload, match=said):
        taken.parts([part])


@pytest.mark.parametrize(
    "part",
    [
        7,
        None,
        ["a"],
        {},
        {"type": []},
        {"type": "audio_url"},
        {"type": "text"},
        {"type": "text", "text": 7},
        {"type": "image_url"},
        {"type": "image_url", "image_url": 7},
        {"type": "image_url", "image_url": {"url": "relative.png"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": {"url": "data:image/png,abc"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64"}},
        {"type": "document_url", "document_url": {"url": data_uri(b"%PDF-1"), "page": 0}},
        {"type": "document_url", "document_url": {"url": data_uri(b"%PDF-1"), "page": True}},
        {"type": "document_url", "document_url": {"url": data_uri(b"%PDF-1"), "page": "1"}},
    ],
)
def test_what_is_no_part_is_named_by_its_place(part: object) -> None:
    with uploads() as taken, pytest.raises(BadUpload, match=r"^input\[1\]: "):
        taken.parts(["a", part])


def test_there_is_a_limit_to_everything() -> None:
    with uploads(limits={"max_parts": 2}) as taken, pytest.raises(TooLarge, match="2 parts"):
        taken.parts(["a"] * 3)
    with uploads(limits={"max_media": 1}) as taken, pytest.raises(TooLarge, match="1 pictures"):
        taken.parts([PICTURE, PICTURE])
    with uploads(limits={"max_text_chars": 3}) as taken, pytest.raises(TooLarge, match="3 char"):
        taken.parts(["abcd"])
    small = {"max_body_bytes": len(png()) * 2 - 1}
    with uploads(limits=small) as taken, pytest.raises(TooLarge, match="limit of"):
        taken.parts([PICTURE, PICTURE])


def test_addresses_are_not_fetched_unless_that_was_allowed() -> None:
    part = {"type": "image_url", "image_url": {"url": "HTTP://example.org/a.png"}}
    asked = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return png()

    with uploads() as taken, pytest.raises(NotAllowed, match="fetches no addresses"):
        taken.parts([part])
    with Uploads(Settings(allow_url_fetch=True), fetch=fetch) as taken:
        taken.parts([part])
    assert asked == ["HTTP://example.org/a.png"]


def test_a_text_of_half_a_character_is_mended() -> None:
    with uploads() as taken:
        assert taken.parts("caf\ud800") == ["caf?"]


def test_what_cannot_be_decoded_is_said_without_path_or_decoder(tmp_path: Path) -> None:
    broken = png()[:45] + b"\xff" * 40
    part = {"type": "image_url", "image_url": {"url": data_uri(broken)}}
    with (
        Engine.open(tmp_path / "db", create=True, model=WordEmbedder()) as engine,
        uploads() as taken,
        pytest.raises(BadUpload) as refused,
    ):
        taken.item(taken.parts([part]), engine)

    assert str(refused.value) == "input[0]: it is damaged"


def test_a_page_of_a_pdf_is_one_of_its_pictures(tmp_path: Path) -> None:
    content = pdf(tmp_path / "two.pdf", "one", "two").read_bytes()

    def page(number: int) -> dict[str, Any]:
        return {"type": "document_url", "document_url": {"url": data_uri(content), "page": number}}

    with Engine.open(tmp_path / "db", create=True, model=WordEmbedder()) as engine:
        with uploads() as taken:
            [part] = taken.item(taken.parts([page(2)]), engine).parts
            assert isinstance(part, Image)
        with uploads() as taken, pytest.raises(BadUpload, match=r"2 pages, so no page 3"):
            taken.item(taken.parts([page(3)]), engine)


# ---------------------------------------------------------------- paths of this machine


def test_a_path_is_confined_to_the_roots_once_links_are_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "inside-out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.png").write_bytes(png())
    (inside / "link.png").symlink_to(outside / "a.png")
    (inside / "loop").symlink_to(inside / "loop")

    def found(path: object) -> Path:
        return real_path(str(path), (inside,), name="path")

    assert found(inside / "a.png") == inside / "a.png"
    assert found(inside / "sub" / ".." / "a.png") == inside / "a.png"
    refused = [
        outside / "a.png",
        inside / "link.png",
        inside / ".." / "inside-out" / "a.png",
        "/etc/passwd",
        "a.png",
        "",
        "a\0b",
        str(inside / "a.png") + "\0",
        "/" + "x/" * 5000,
    ]
    said = set()
    for path in refused:
        with pytest.raises(NotAllowed) as error:
            found(path)
        said.add(str(error.value))
    assert len(said) == 1, "nothing is told of what there is elsewhere"


def test_without_roots_no_path_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())

    with uploads() as taken, pytest.raises(NotAllowed):
        taken.from_path(str(tmp_path / "a.png"), Kind.IMAGE, name="images[0]")


def test_a_pipe_under_a_root_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")

    with (
        uploads(roots=(tmp_path,)) as taken,
        pytest.raises(BadUpload, match="not a regular file"),
    ):
        taken.from_path(str(tmp_path / "a.png"), Kind.IMAGE, name="images[0]")


# ---------------------------------------------------------------- reasons


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("it is empty", "it is empty"),
        ("its picture is 40000 x 40000, over 120 megapixels",) * 2,
        ("it took longer than 60 s for one page",) * 2,
        ("it is damaged (cannot open /etc/passwd)", "it is damaged"),
        ("it is damaged or cut short: nothing can be decoded at 1.0 s", "it is damaged"),
        ("the reader crashed (signal SIGSEGV)", "reading it failed"),
        ("libfoo: at 0x7f0011223344", "it cannot be read"),
        ("it is empty\nlibfoo", "it cannot be read"),
    ],
)
def test_a_decoders_words_are_never_told(reason: str, told: str) -> None:
    assert plain_reason(reason) == told


def test_every_reason_that_readers_give_has_words_of_ours() -> None:
    """Each sentence in the readers' own code, but those that quote somebody, is told as it is."""
    import re

    import mmsearch.indexers.readers as readers

    folder = Path(readers.__file__).parent
    sentences = {
        sentence
        for file in folder.glob("*.py")
        for sentence in re.findall(r'UnreadableFile\(\w+, "([^"{]+)"\)', file.read_text())
    }

    assert len(sentences) > 8
    assert {plain_reason(one) for one in sentences} == sentences
