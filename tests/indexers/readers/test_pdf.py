from dataclasses import replace
from pathlib import Path

import pytest
from made_files import mupdf, pdf, scanned_pdf

from mmsearch.errors import UnreadableFile
from mmsearch.indexers.readers import read
from mmsearch.values import Kind, Locator, ReadPolicy, Segment, TextOrigin

SILENT = ReadPolicy(ocr=False)


def pages(path: Path, policy: ReadPolicy = SILENT, page: int | None = None) -> list[Segment]:
    return list(read(path, Kind.PDF, policy, only=Locator(page=page) if page else None))


def shape(segment: Segment) -> tuple[int, ...]:
    assert segment.pixels is not None
    return segment.pixels.shape


def test_each_page_is_a_segment_in_order(tmp_path: Path) -> None:
    found = pages(pdf(tmp_path / "a.pdf", "first page", "second page", "third page"))
    assert [(str(one.locator), one.text) for one in found] == [
        ("p.1", "first page"),
        ("p.2", "second page"),
        ("p.3", "third page"),
    ]
    assert {one.text_origin for one in found} == {TextOrigin.LAYER}


def test_one_page_may_be_asked_for(tmp_path: Path) -> None:
    (only,) = pages(pdf(tmp_path / "a.pdf", "first", "second", "third"), page=2)
    assert (only.locator, only.text) == (Locator(page=2), "second")


def test_a_page_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="it has 2 pages, so no page 3"):
        pages(pdf(tmp_path / "a.pdf", "first", "second"), page=3)


def test_pages_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    reading = read(pdf(tmp_path / "a.pdf", *["words"] * 500), Kind.PDF, SILENT)
    assert next(reading).locator == Locator(page=1)
    reading.close()  # type: ignore[attr-defined]


def test_pages_beyond_the_limit_are_left_out(tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", *["words"] * 5)
    assert len(pages(path, replace(SILENT, max_pages=3))) == 3


def test_the_picture_of_a_page_is_within_the_budget(tmp_path: Path) -> None:
    (only,) = pages(pdf(tmp_path / "a.pdf", "words"))
    frames, height, width, channels = shape(only)
    assert (frames, channels) == (1, 3)
    assert 0.98 * 448 * 448 < height * width <= 448 * 448
    assert width / height == pytest.approx(595 / 842, rel=0.01)


@pytest.mark.parametrize(
    "size", [(14_400, 14_400), (14_400, 20), (3, 14_400), (0.5, 0.5), (1e6, 1e6), (100, 100)]
)
def test_pages_of_any_size_are_within_the_limits(tmp_path: Path, size: tuple[float, float]) -> None:
    with mupdf.open() as document:
        document.new_page(width=size[0], height=size[1])
        document.save(tmp_path / "a.pdf")
    for policy in (SILENT, ReadPolicy()):
        (only,) = pages(tmp_path / "a.pdf", policy)
        _, height, width, _ = shape(only)
        assert height * width <= 448 * 448
        assert min(height, width) >= 28


def test_words_on_a_page_of_200_inches_are_read(tmp_path: Path) -> None:
    with mupdf.open() as document:
        page = document.new_page(width=14_400, height=14_400)
        page.insert_text((200, 7000), "a very large poster indeed", fontsize=900)
        document.save(tmp_path / "a.pdf")
    (only,) = pages(tmp_path / "a.pdf")
    assert only.text == "a very large poster indeed"


def test_a_scanned_page_is_read_from_its_picture(tmp_path: Path) -> None:
    path = scanned_pdf(tmp_path / "a.pdf", "Annual revenue of the\nnorthern region 2024")
    (only,) = pages(path, ReadPolicy())
    assert only.text == "Annual revenue of the\nnorthern region 2024"
    assert only.text_origin is TextOrigin.OCR


def test_a_scanned_page_has_no_words_without_ocr(tmp_path: Path) -> None:
    (only,) = pages(scanned_pdf(tmp_path / "a.pdf", "Annual revenue"), SILENT)
    assert (only.text, only.text_origin) == ("", TextOrigin.NONE)


def test_a_rotated_scan_is_read_upright(tmp_path: Path) -> None:
    from made_files import picture_of

    sideways = picture_of("Annual revenue of the\nnorthern region", size=(1240, 700), points=36)
    sideways.rotate(90, expand=True).save(tmp_path / "scan.png")  # lies on its left side
    with mupdf.open() as document:
        page = document.new_page(width=336, height=595)
        page.insert_image(page.rect, filename=tmp_path / "scan.png")
        page.set_rotation(90)  # and the page says so
        document.save(tmp_path / "a.pdf")
    (only,) = pages(tmp_path / "a.pdf", ReadPolicy())
    assert only.text == "Annual revenue of the\nnorthern region"
    assert shape(only)[2] > shape(only)[1]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_rotated_page_is_shown_upright_with_its_words_in_order(
    tmp_path: Path, degrees: int
) -> None:
    with mupdf.open(pdf(tmp_path / "plain.pdf", "first line\nsecond line")) as document:
        document[0].set_rotation(degrees)
        document.save(tmp_path / "a.pdf")
    (only,) = pages(tmp_path / "a.pdf")
    assert only.text.split() == ["first", "line", "second", "line"]
    _, height, width, _ = shape(only)
    assert (width > height) == (degrees != 180)


def test_a_layer_of_garbage_is_replaced_by_what_can_be_seen(tmp_path: Path) -> None:
    path = scanned_pdf(tmp_path / "scan.pdf", "Annual revenue of the\nnorthern region")
    with mupdf.open(path) as document:
        page = document[0]
        page.insert_font(fontname="F0", fontbuffer=mupdf.Font("helv").buffer)
        page.insert_text((5, 20), "invisible words of a scanner", fontname="F0", render_mode=3)
        for number in range(1, document.xref_length()):
            if "ToUnicode" in document.xref_object(number):  # the map that old producers forgot
                document.xref_set_key(number, "ToUnicode", "null")
        document.save(tmp_path / "a.pdf")
    (layer,) = pages(tmp_path / "a.pdf", SILENT)
    assert layer.text
    assert "words" not in layer.text
    (only,) = pages(tmp_path / "a.pdf", ReadPolicy())
    assert only.text == "Annual revenue of the\nnorthern region"


def test_a_good_layer_is_not_read_again_from_the_picture(tmp_path: Path) -> None:
    (only,) = pages(pdf(tmp_path / "a.pdf", "five words stand right here"), ReadPolicy())
    assert only.text_origin is TextOrigin.LAYER


def test_words_broken_at_line_ends_are_joined(tmp_path: Path) -> None:
    (only,) = pages(pdf(tmp_path / "a.pdf", "a hyphen-\nated word, 2020-\n2024, Rhine-\nRuhr"))
    assert only.text.split() == ["a", "hyphenated", "word,", "2020-", "2024,", "Rhine-", "Ruhr"]


def test_an_empty_page_is_a_segment_without_words(tmp_path: Path) -> None:
    (only,) = pages(pdf(tmp_path / "a.pdf", ""), ReadPolicy())
    assert (only.text, only.text_origin) == ("", TextOrigin.NONE)


def test_about_tells_the_name_the_title_and_the_label(tmp_path: Path) -> None:
    with mupdf.open(pdf(tmp_path / "plain.pdf", "one", "two")) as document:
        document.set_metadata({"title": "Annual Report", "author": "Ada L."})
        document.set_page_labels([{"startpage": 0, "style": "r", "firstpagenum": 4}])
        document.save(tmp_path / "acme_report-2023.pdf")
    found = pages(tmp_path / "acme_report-2023.pdf")
    assert found[1].about.split("\n") == ["acme report 2023", "Annual Report", "Ada L.", "page v"]


def test_an_encrypted_file_is_named_as_such(tmp_path: Path) -> None:
    path = pdf(
        tmp_path / "a.pdf",
        "secret",
        encryption=mupdf.PDF_ENCRYPT_AES_256,
        user_pw="a",
        owner_pw="b",
    )
    with pytest.raises(UnreadableFile, match=r"it is encrypted \(password needed\)"):
        pages(path)


def test_a_file_that_only_its_owner_may_change_is_read(tmp_path: Path) -> None:
    path = pdf(
        tmp_path / "a.pdf", "public words", encryption=mupdf.PDF_ENCRYPT_AES_256, owner_pw="b"
    )
    assert pages(path)[0].text == "public words"


def test_html_named_pdf_is_no_pdf(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("<!doctype html><html><body><p>Not found</p></body></html>")
    with pytest.raises(UnreadableFile, match="not a PDF"):
        pages(tmp_path / "a.pdf")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_file_that_is_cut_short_is_unreadable(tmp_path: Path, share: float) -> None:
    path = pdf(tmp_path / "a.pdf", *["words of a page " * 20] * 20)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UnreadableFile):
        pages(path)


def test_a_damaged_table_of_contents_is_mended(tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", "first", "second")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"startxref", b"startxxxx"))
    assert [one.text for one in pages(path)] == ["first", "second"]


def test_a_damaged_file_says_nothing_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7\n" + b"nonsense " * 100)
    with pytest.raises(UnreadableFile):
        pages(tmp_path / "a.pdf")
    assert capfd.readouterr() == ("", "")


def test_a_scan_with_a_line_stamped_on_it_is_still_read(tmp_path: Path) -> None:
    stamp = "Downloaded from the archive on 12 March 2024 by a guest"
    path = scanned_pdf(tmp_path / "a.pdf", "The harbour was\nclosed for a week", stamp=stamp)

    [page] = read(path, Kind.PDF, ReadPolicy())

    assert page.text_origin is TextOrigin.OCR
    assert "harbour" in page.text
