"""What the sample corpus promises: enough of every kind, small, lawful, honestly judged."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent / "sample_corpus"
FILES = ROOT / "files"
KINDS = (
    "text-page",
    "text-chart",
    "text-photo",
    "text-video",
    "text-passage",
    "image",
    "image-text",
    "video-frame",
    "page",
    "no-answer",
)


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def files_of(*suffixes: str) -> list[Path]:
    return [path for path in files_in(FILES) if path.suffix in suffixes]


def open_pdf(path: Path) -> Any:
    import pymupdf

    untyped: Any = pymupdf
    return untyped.open(path)


@cache
def num_pages(path: Path) -> int:
    with open_pdf(path) as document:
        return len(document)


@cache
def seconds(path: Path) -> float:
    import decord

    film = decord.VideoReader(str(path))
    return float(len(film) / film.get_avg_fps())


def queries() -> list[dict[str, Any]]:
    lines = (ROOT / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def of_id(query: Mapping[str, Any]) -> str:
    return str(query["id"])


every_query = pytest.mark.parametrize("query", queries(), ids=of_id)


# ------------------------------------------------------------ the documents


def test_at_least_six_pdfs_hold_forty_pages() -> None:
    pdfs = files_of(".pdf")
    assert len(pdfs) >= 6
    assert sum(map(num_pages, pdfs)) >= 40


def test_at_least_thirty_pictures_open_as_what_their_names_say() -> None:
    formats = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}
    pictures = files_of(*formats)
    assert len(pictures) >= 30
    for path in pictures:
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == formats[path.suffix], path.name


@pytest.mark.parametrize(
    ("folder", "least"),
    [("charts", 8), ("diagrams", 6), ("screenshots", 6), ("photos", 8), ("signs", 6)],
)
def test_pictures_are_of_every_sort(folder: str, least: int) -> None:
    assert len(files_in(FILES / "images" / folder)) >= least


def test_some_photographs_say_when_and_where_they_were_taken() -> None:
    dates, places = [], []
    for path in files_in(FILES / "images" / "photos"):
        with Image.open(path) as picture:
            exif = picture.getexif()
            dates += [exif[0x132]] if 0x132 in exif else []
            places += [exif.get_ifd(0x8825)] if exif.get_ifd(0x8825) else []
    assert len(dates) >= 3
    assert places
    assert all({1, 2, 3, 4} <= set(place) for place in places)


def test_at_least_six_films_are_h264_of_5_to_30_seconds_and_at_most_640_wide() -> None:
    import decord

    films = files_of(".mp4")
    assert len(films) >= 6
    for path in films:
        assert b"avc1" in path.read_bytes(), path.name  # the sample entry of H.264
        assert 5 <= seconds(path) <= 30, path.name
        assert decord.VideoReader(str(path))[0].shape[1] <= 640, path.name


def test_every_film_cuts_hard_between_scenes() -> None:
    import decord
    import numpy as np

    for path in files_of(".mp4"):
        film = decord.VideoReader(str(path), width=64, height=36)
        frames = film.get_batch(range(len(film))).asnumpy().astype(np.float32)
        blocks = frames.reshape(-1, 9, 4, 16, 4, 3).mean((2, 4))  # fine texture averages out
        jumps = np.abs(np.diff(blocks, axis=0)).mean((1, 2, 3))
        assert (jumps > 5 * np.median(jumps) + 5).sum() >= 2, path.name


def test_subtitles_of_both_formats_lie_beside_a_film() -> None:
    for suffix in (".srt", ".vtt"):
        beside = files_of(suffix)
        assert beside
        assert all(path.with_suffix(".mp4").is_file() for path in beside)


def test_at_least_four_texts_are_long_enough_for_several_passages() -> None:
    texts = files_of(".md", ".txt")
    long = [path for path in texts if len(path.read_text(encoding="utf-8").split()) >= 300]
    assert len(texts) >= 4
    assert len(long) >= 4


def test_the_scan_has_no_text_layer() -> None:
    (scan,) = files_in(FILES / "scans")
    with open_pdf(scan) as document:
        assert 2 <= len(document) <= 4
        for page in document:
            assert page.get_text().strip() == ""
            assert len(page.get_images()) == 1


def test_every_page_of_the_other_pdfs_has_words() -> None:
    for path in files_of(".pdf"):
        if path.parent.name != "scans":
            with open_pdf(path) as document:
                assert all(len(page.get_text().split()) >= 8 for page in document), path.name


def test_one_pdf_has_pages_turned_by_a_quarter() -> None:
    with open_pdf(FILES / "reports" / "port-ansel-tides-2025.pdf") as document:
        assert [page.rotation for page in document] == [0, 90, 90, 90]


def test_one_pdf_is_in_spanish() -> None:
    with open_pdf(FILES / "guides" / "guia-sierra-de-altamira.pdf") as document:
        words = Counter(" ".join(page.get_text() for page in document).lower().split())
    assert len(words) > 300
    assert words["de"] > 20 > words["the"]


def test_everything_together_is_smaller_than_20_mb() -> None:
    built = files_in(FILES) + files_in(ROOT / "queries")
    assert sum(path.stat().st_size for path in built) < 20e6


def test_sources_name_every_file() -> None:
    rows = (ROOT / "SOURCES.md").read_text(encoding="utf-8").splitlines()
    named = [name for row in rows if row.startswith("|") for name in re.findall(r"`([^`]+)`", row)]
    for path in files_in(FILES) + files_in(ROOT / "queries"):
        name = path.relative_to(ROOT).as_posix()
        assert any(fnmatch(name, pattern) for pattern in named), name


def test_sources_name_nothing_that_is_not_there() -> None:
    text = (ROOT / "SOURCES.md").read_text(encoding="utf-8")
    for pattern in re.findall(r"`((?:files|queries)/[^`]+)`", text):
        assert list(ROOT.glob(pattern)), pattern


# ------------------------------------------------------------ the queries


def test_at_least_sixty_queries_have_ids_of_their_own() -> None:
    ids = [query["id"] for query in queries()]
    assert len(ids) >= 60
    assert len(set(ids)) == len(ids)


def test_every_kind_has_at_least_eight_queries_and_there_is_no_other_kind() -> None:
    counts = Counter(query["kind"] for query in queries())
    assert set(counts) == set(KINDS)
    assert min(counts.values()) >= 8


@every_query
def test_a_query_has_only_known_fields_and_asks_something(query: dict[str, Any]) -> None:
    assert set(query) <= {"id", "kind", "text", "images", "video", "page", "relevant", "note"}
    assert any(query.get(part) for part in ("text", "images", "video", "page"))


@every_query
def test_a_query_asks_with_what_its_kind_says(query: dict[str, Any]) -> None:
    asked = {part for part in ("text", "images", "video", "page") if query.get(part)}
    expected = {
        "image": [{"images"}],
        "image-text": [{"images", "text"}],
        "video-frame": [{"images"}, {"video"}],
        "page": [{"page"}],
    }
    if query["kind"].startswith("text-"):
        assert asked == {"text"}
    elif query["kind"] in expected:
        assert asked in expected[query["kind"]]


@every_query
def test_only_no_answer_queries_have_nothing_relevant(query: dict[str, Any]) -> None:
    assert (query["kind"] == "no-answer") == (not query["relevant"])


@every_query
def test_every_relevant_place_exists(query: dict[str, Any]) -> None:
    for place in query["relevant"]:
        path = ROOT / place["path"]
        assert path.is_file()
        assert path.is_relative_to(FILES)
        match path.suffix:
            case ".pdf":
                assert 1 <= place["page"] <= num_pages(path)
            case ".mp4":
                assert 0 <= place["start"] < place["end"] <= seconds(path) + 0.05
            case _:
                assert set(place) == {"path"}


@every_query
def test_what_a_query_shows_exists_and_is_not_itself_an_answer(query: dict[str, Any]) -> None:
    shown = [*query.get("images", []), *([query["video"]] if "video" in query else [])]
    for name in shown:
        assert (ROOT / name).is_file()
        assert (ROOT / name).is_relative_to(ROOT / "queries")
    if "page" in query:
        name, _, number = query["page"].partition("#")
        assert 1 <= int(number) <= num_pages(ROOT / name)
        assert {"path": name, "page": int(number)} not in query["relevant"]


def test_no_query_picture_is_a_copy_of_a_document() -> None:
    documents = {path.read_bytes() for path in files_in(FILES)}
    assert not [path for path in files_in(ROOT / "queries") if path.read_bytes() in documents]


def test_every_query_picture_is_asked_with() -> None:
    asked = {
        name.partition("#")[0]
        for query in queries()
        for name in [*query.get("images", []), query.get("video", ""), query.get("page", "")]
    }
    for path in files_in(ROOT / "queries"):
        assert path.relative_to(ROOT).as_posix() in asked
