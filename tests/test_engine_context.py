"""What a generator is given: pictures made anew, texts, and citations, within a budget."""

import io
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import made_files
import numpy as np
import pytest
from conftest import WORDS, WordEmbedder
from made_files import mupdf
from PIL import Image

from mmsearch import Engine, Item, Query
from mmsearch.context import BYTES_PER_TOKEN, Budget, ContextPart, parts_of
from mmsearch.errors import EmptyQuery, SegmentNotFound, UnreadableFile
from mmsearch.values import Hit, Kind, Locator, Role

if TYPE_CHECKING:
    from mmsearch.values import Vectors

RED, BLUE = made_files.RED, made_files.BLUE


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "docs"
    folder.mkdir()
    made_files.pdf(folder / "report.pdf", "The pump and its chart.", "The museum of the town.")
    made_files.film(folder / "film.mp4", [(2.0, RED), (2.0, BLUE)])
    Image.new("RGB", (960, 640), RED).save(folder / "red.png")
    (folder / "note.md").write_text("The dog does not like the cat.\n")
    return folder


@pytest.fixture(scope="module")
def engine(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One index for all tests that only look at it."""
    db = tmp_path_factory.mktemp("index") / "db"
    with Engine.open(db, create=True, model=WordEmbedder()) as engine:
        engine.index([made], ocr=False)
        yield engine


def best(engine: Engine, query: Query | str) -> Hit:
    return engine.query(query, k=1)[0]


def opened(webp: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(webp))
    assert picture.format == "WEBP"
    return picture.convert("RGB")


# ---------------------------------------------------------------- pictures


def test_a_page_is_rendered_larger_than_the_model_sees_it(engine: Engine) -> None:
    page = best(engine, "pump chart")

    picture = opened(engine.picture(page.segment_id, max_pixels=500_000))

    assert engine.space.max_pixels < 0.95 * 500_000 < picture.width * picture.height <= 500_000
    assert np.asarray(picture).std() > 0, "there are words on it"


def test_a_picture_keeps_its_size_where_that_is_within_the_limit(engine: Engine) -> None:
    red = best(engine, Query("red", kinds=["image"]))

    assert opened(engine.picture(red.segment_id)).size == (960, 640)
    assert opened(engine.picture(red.segment_id, max_pixels=960 * 640 // 4)).size == (480, 320)


def test_a_clip_shows_its_own_middle(engine: Engine) -> None:
    clips = engine.query(Query("film", kinds=["video"]), k=2)

    for clip in clips:
        colour = np.asarray(opened(engine.picture(clip.segment_id))).reshape(-1, 3).mean(0)
        told = RED if clip.start == 0 else BLUE
        assert abs(colour - told).max() < 40, (clip.start, colour)
    assert len({clip.start for clip in clips}) == 2


def test_a_text_has_no_picture(engine: Engine) -> None:
    note = best(engine, Query("dog", kinds=["text"]))

    assert engine.picture(note.segment_id) == b""


def test_what_has_no_picture_any_more_says_why(made: Path, tmp_path: Path) -> None:
    docs = Path(shutil.copytree(made, tmp_path / "docs"))
    with Engine.open(tmp_path / "db", create=True, model=WordEmbedder()) as engine:
        engine.index([docs], ocr=False)
        page, red = best(engine, "museum"), best(engine, Query("red", kinds=["image"]))

        made_files.pdf(docs / "report.pdf", "The pump alone.")
        with pytest.raises(UnreadableFile, match="it has 1 pages, so no page 2"):
            engine.picture(page.segment_id)
        (docs / "red.png").unlink()
        with pytest.raises(UnreadableFile, match="there is no such file any more"):
            engine.picture(red.segment_id)
        with pytest.raises(SegmentNotFound):
            engine.picture("0" * 16)
        with pytest.raises(ValueError, match="at least one pixel"):
            engine.picture(red.segment_id, max_pixels=0)

        # and a context goes on with the words, without a picture
        part = engine.context("museum", k=1)[0]
        assert (part.citation, part.image, part.pixels) == ("report.pdf p.2", b"", 0)
        assert part.text == "The museum of the town."


def test_a_file_with_undecodable_bytes_in_its_name_is_shown(tmp_path: Path) -> None:
    name = b"caf\xe9.png"
    docs = tmp_path / "docs"
    docs.mkdir()
    Image.new("RGB", (40, 40), RED).save(docs / "red.png")
    (docs / "red.png").rename(docs / name.decode(errors="surrogateescape"))
    with Engine.open(tmp_path / "db", create=True, model=WordEmbedder()) as engine:
        engine.index([docs], ocr=False)

        assert opened(engine.picture(best(engine, "red").segment_id)).size == (40, 40)


def test_a_picture_longer_than_a_webp_may_be_is_made_smaller(tmp_path: Path) -> None:
    Image.new("RGB", (20_000, 50), RED).save(tmp_path / "band.png")
    with Engine.open(tmp_path / "db", create=True, model=WordEmbedder()) as engine:
        engine.index([tmp_path / "band.png"], ocr=False)

        assert opened(engine.picture(best(engine, "band").segment_id)).size == (16_383, 41)


# ---------------------------------------------------------------- where words stand


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("crop", [None, (40, 60, 460, 560)], ids=["whole", "cropped"])
def test_words_stand_where_they_are_seen(
    turn: int, crop: tuple[int, int, int, int] | None, tmp_path: Path
) -> None:
    with mupdf.open() as document:
        page = document.new_page(width=500, height=700)
        page.insert_text((120, 200), "museum", fontsize=40)
        page.set_rotation(turn)
        if crop:
            page.set_cropbox(mupdf.Rect(crop))
        document.save(tmp_path / "one.pdf")
    with Engine.open(tmp_path / "db", create=True, model=WordEmbedder()) as engine:
        engine.index([tmp_path / "one.pdf"], ocr=False)
        page_id = best(engine, "museum").segment_id
        [word] = engine.words_on(page_id)
        ink = np.asarray(opened(engine.picture(page_id)).convert("L")) < 128

    down, across = np.nonzero(ink.any(axis=1))[0], np.nonzero(ink.any(axis=0))[0]
    height, width = ink.shape
    seen = (across[0] / width, down[0] / height, across[-1] / width, down[-1] / height)
    box = (word.left, word.top, word.right, word.bottom)
    assert word.text == "museum"
    # The box is that of the line: letters without ascenders leave the upper half of it free.
    assert all(a - 0.01 <= b for a, b in zip(box[:2], seen[:2], strict=True)), (box, seen)
    assert all(a + 0.01 >= b for a, b in zip(box[2:], seen[2:], strict=True)), (box, seen)
    assert (box[2] - box[0]) * (box[3] - box[1]) < 4 * (seen[2] - seen[0]) * (seen[3] - seen[1])


def test_what_is_no_page_with_a_text_layer_has_no_words_on_it(
    engine: Engine, made: Path, tmp_path: Path
) -> None:
    for kind in ("image", "video", "text"):
        [hit] = engine.query(Query("dog", kinds=[kind]), k=1)
        assert engine.words_on(hit.segment_id) == []
    with pytest.raises(SegmentNotFound):
        engine.words_on("0" * 16)

    scan = made_files.scanned_pdf(tmp_path / "scan.pdf", "Annual revenue")
    with Engine.open(tmp_path / "db", create=True, model=WordEmbedder()) as other:
        other.index([scan], ocr=False)
        hit = best(other, "scan")
        assert other.words_on(hit.segment_id) == []
        scan.unlink()
        with pytest.raises(UnreadableFile, match="no such file any more"):
            other.words_on(hit.segment_id)


# ---------------------------------------------------------------- context


def test_each_hit_becomes_text_picture_and_citation(engine: Engine) -> None:
    parts = engine.context("the pump and the museum", k=4)

    by_name = {part.citation: part for part in parts}
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    page = by_name["report.pdf p.1"]
    assert page.text == "The pump and its chart."
    assert page.pixels == opened(page.image).width * opened(page.image).height > 0
    assert page.hit.path.endswith("/report.pdf"), "the file itself is named in the hit"


def test_a_passage_is_cited_with_its_place_and_has_no_picture(engine: Engine) -> None:
    [part] = engine.context(Query("dog cat", kinds=["text"]), k=1)

    assert (part.citation, part.image) == ("note.md @0", b"")


def test_a_context_of_nothing_is_an_empty_query(engine: Engine) -> None:
    with pytest.raises(EmptyQuery):
        engine.context("  ")


def test_a_part_as_json_carries_its_picture_as_a_data_uri(engine: Engine) -> None:
    part = engine.context("pump chart", k=1)[0]

    told = part.as_dict()

    assert told["image"].startswith("data:image/webp;base64,UklGR")  # RIFF
    assert (told["page"], told["number"], told["citation"]) == (1, 1, "report.pdf p.1")
    assert told["segment_id"] == part.hit.segment_id


# ---------------------------------------------------------------- the budget, on paper


def hit(number: int, text: str, *, kind: Kind = Kind.PDF, about: str = "") -> Hit:
    return Hit(
        rank=number,
        score=1 / number,
        parts={},
        segment_id=f"{number:016x}",
        path=f"/secret/folder/{number}.pdf",
        kind=kind,
        locator=Locator(page=number),
        text=text,
        about=about,
    )


def webp(side: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side)).save(out, "WEBP")
    return out.getvalue()


def told(parts: list[ContextPart]) -> list[tuple[str, int]]:
    return [(part.text, part.pixels) for part in parts]


def test_pictures_are_given_while_there_are_pixels_for_them() -> None:
    asked: list[int] = []

    def picture(hit: Hit, room: int) -> bytes:
        asked.append(room)
        return webp(min(100, math.isqrt(room)))

    budget = Budget(max_pixels=25_000, image_pixels=12_000)
    parts = parts_of([hit(n, "words") for n in (1, 2, 3, 4)], picture, budget)

    assert told(parts) == [("words", 10_000), ("words", 10_000), ("words", 4_900), ("words", 0)]
    assert asked == [12_000, 12_000, 5_000], "what is left shows nothing"


def test_what_is_left_for_a_last_picture_is_no_use_below_a_quarter() -> None:
    def filling(hit: Hit, room: int) -> bytes:
        return webp(math.isqrt(room))

    budget = Budget(max_pixels=22_400, image_pixels=10_000)
    parts = parts_of([hit(n, "words") for n in (1, 2, 3)], filling, budget)

    assert [part.pixels for part in parts] == [10_000, 10_000, 0]


def test_a_small_budget_still_has_room_for_one_picture() -> None:
    parts = parts_of([hit(1, "words")], lambda *_: webp(50), Budget(max_pixels=2_500))

    assert [part.pixels for part in parts] == [2_500]


def test_without_pixels_no_picture_is_made() -> None:
    def never(hit: Hit, room: int) -> bytes:
        raise AssertionError("a picture was made")

    for budget in (Budget(max_pixels=0), Budget(image_pixels=0)):
        assert [part.image for part in parts_of([hit(1, "words")], never, budget)] == [b""]


@pytest.mark.parametrize("text", ["", "Cat. "], ids=["no words", "words"])
def test_a_hit_with_nothing_left_to_say_is_left_out(text: str) -> None:
    texts = ["dog " * 100, text * 100, "chart"]
    hits = [hit(n, text, kind=Kind.TEXT) for n, text in enumerate(texts, start=1)]

    parts = parts_of(hits, lambda *_: b"", Budget(max_tokens=110))

    assert [(part.number, part.hit.rank) for part in parts] == [(1, 1), (2, 3)]


def test_a_text_is_cut_after_a_word_and_says_so() -> None:
    [part] = parts_of([hit(1, "pump museum " * 100)], lambda *_: b"", Budget(max_tokens=40))

    assert part.text.endswith(("pump…", "museum…"))
    assert 40 * BYTES_PER_TOKEN - 12 < len(part.text.encode()) <= 40 * BYTES_PER_TOKEN


def test_a_script_without_blanks_is_cut_where_the_room_ends() -> None:
    text = "序言 " + "泵站的年度报告" * 200

    [part] = parts_of([hit(1, text)], lambda *_: b"", Budget(max_tokens=300))

    # three bytes a character, three more for the mark
    assert len(part.text) == 300 * BYTES_PER_TOKEN // 3
    assert text.startswith(part.text[:-1])


def test_blanks_alone_are_no_text() -> None:
    assert parts_of([hit(1, " " * 1_000)], lambda *_: b"", Budget(max_tokens=100)) == []


def test_a_hit_without_words_is_told_by_what_is_about_it() -> None:
    [part] = parts_of([hit(1, "", about="the red bus")], lambda *_: b"", Budget())

    assert part.text == "the red bus"


def test_a_citation_names_no_folder() -> None:
    [part] = parts_of([hit(1, "words")], lambda *_: b"", Budget())

    assert part.citation == "1.pdf p.1"


def test_a_budget_is_not_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        Budget(max_tokens=-1)


# ---------------------------------------------------------------- vectors


def test_queries_and_documents_become_unit_rows(engine: Engine) -> None:
    picture = Item([np.full((8, 8, 3), 255, dtype=np.uint8), "a dog"])

    rows = engine.embed_documents(["the cat", picture])

    assert rows.shape == (2, engine.space.dim)
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)
    assert rows[0].argmax() == WORDS.index("cat")
    assert np.array_equal(engine.embed_queries(["the cat"]), rows[:1])


def test_no_items_are_no_rows(engine: Engine) -> None:
    assert engine.embed_queries([]).shape == (0, engine.space.dim)
    assert engine.embed_documents([]).shape == (0, engine.space.dim)


def test_the_roles_reach_the_model(engine: Engine, tmp_path: Path) -> None:
    class Telling(WordEmbedder):
        def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
            asked.append(str(role))
            return super().embed(items, role=role)

    asked: list[str] = []
    with Engine.open(tmp_path / "db", create=True, model=Telling()) as telling:
        telling.embed_queries(["cat"])
        telling.embed_documents(["cat"])

    assert asked == ["query", "document"]
