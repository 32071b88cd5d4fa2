"""Nothing that is held out is trained on, and no row is the answer to itself."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil

from mmsearch.retriever.training import guard as guards
from mmsearch.retriever.training.examples import Example, Media, Side
from mmsearch.retriever.training.guard import (
    HELD_OUT_LOOK,
    HELD_OUT_MEDIA,
    HELD_OUT_WORDS,
    SAME_MEDIA,
    Guard,
)
from mmsearch.retriever.training.records import Rows, listed_rows
from mmsearch.retriever.training.toy import toy_examples

Draw = Callable[..., Media]
PASSAGE = "the tide rises twice a day because the moon pulls at the sea below it"


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Draw a picture of soft blobs into a file: ``draw("a.png", seed=1)``."""

    def drawn(name: str, *, seed: int, size: int = 96, quality: int = 90) -> Media:
        coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
        picture = pil.fromarray(coarse).resize((size, size), pil.Resampling.BICUBIC)
        packed = io.BytesIO()
        picture.save(packed, "PNG" if name.endswith("png") else "JPEG", quality=quality)
        path = tmp_path / name
        path.write_bytes(packed.getvalue())
        return Media(path)

    return drawn


def pair(query: object, positive: object, *negatives: object, row: str = "") -> Example:
    def side(value: object) -> Side:
        return value if isinstance(value, Side) else Side((value,))  # type: ignore[arg-type]

    return Example(side(query), side(positive), tuple(map(side, negatives)), "a", row)


def cleaned(guard: Guard, *examples: Example) -> dict[str, str]:
    """Return why rows are left out, by name; the others are kept in order."""
    rows = listed_rows(examples)
    kept, left = guard.clean(rows)
    reasons = {bad.row: bad.reason for bad in left}
    assert [kept[i].row for i in range(len(kept))] == [
        one.row for one in examples if one.row not in reasons
    ]
    return reasons


def holding(*examples: Example, looks: bool = True) -> Guard:
    guard = Guard(looks=looks)
    guard.hold_out(listed_rows(examples))
    return guard


def test_a_query_that_shows_its_positive_is_left_out(draw: Draw, tmp_path: Path) -> None:
    one, other = draw("one.png", seed=1), draw("other.png", seed=2)
    copy = Media(tmp_path / "copy.png")
    copy.path.write_bytes(one.path.read_bytes())
    link = Media(tmp_path / "link.png")
    link.path.symlink_to(one.path)

    assert cleaned(
        Guard(),
        pair(one, other, row="two pictures"),
        pair(one, one, row="itself"),
        pair(one, copy, row="a copy"),
        pair(one, link, row="a link"),
        pair(Side((one, "but smaller")), Side((other, copy)), row="one of several"),
        pair("words", one, one, row="a negative that is its positive"),
        pair(Media(tmp_path / "none.png"), Media(tmp_path / "none.png"), row="missing"),
    ) == dict.fromkeys(("itself", "a copy", "a link", "one of several"), SAME_MEDIA)


def test_pages_and_spans_of_one_file_are_not_one_another(draw: Draw) -> None:
    path = draw("file.png", seed=1).path

    assert cleaned(
        Guard(),
        pair(Media(path, page=1), Media(path, page=2), row="pages"),
        pair(Media(path, start=0.0, end=1.0), Media(path, start=1.0, end=2.0), row="spans"),
        pair(Media(path, page=3), Media(path, page=3), row="one page"),
    ) == {"one page": SAME_MEDIA}


def test_held_out_pictures_are_left_out_by_their_bytes(draw: Draw, tmp_path: Path) -> None:
    held, other = draw("held.png", seed=1), draw("other.png", seed=2)
    (tmp_path / "ü copy.png").write_bytes(held.path.read_bytes())
    copy = Media(tmp_path / "ü copy.png")

    assert cleaned(
        holding(pair("words", held), looks=False),
        pair("words", other, row="other"),
        pair("a", copy, row="positive"),
        pair(copy, "a", row="query"),
        pair("a", "b", copy, row="negative"),
    ) == dict.fromkeys(("positive", "query", "negative"), HELD_OUT_MEDIA)


def test_held_out_pictures_are_left_out_by_their_look(draw: Draw) -> None:
    held, other = draw("held.png", seed=1), draw("other.png", seed=2)
    again = draw("again.jpg", seed=1, size=60, quality=50)
    rows = (pair("a", again, row="again"), pair("b", other, row="other"))

    assert cleaned(holding(pair("words", held)), *rows) == {"again": HELD_OUT_LOOK}
    assert cleaned(holding(pair("words", held), looks=False), *rows) == {}


def test_looks_are_compared_across_many_rows(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "COMPARED", 3)  # so that several rounds are needed
    held = draw("held.png", seed=1)
    rows = [pair("a", draw(f"{i}.png", seed=10 + i), row=str(i)) for i in range(8)]
    rows.insert(4, pair("a", draw("again.jpg", seed=1, size=70), row="again"))
    rows.append(pair("b", rows[4].positive, row="again again"))

    assert cleaned(holding(pair("words", held)), *rows) == dict.fromkeys(
        ("again", "again again"), HELD_OUT_LOOK
    )


def test_every_picture_is_opened_once_for_its_look(draw: Draw) -> None:
    from mmsearch.retriever.training.loading import open_still
    from mmsearch.values import Frames, Image

    opened: list[str] = []

    def opener(media: Media) -> Image | Frames:
        opened.append(media.path.name)
        return open_still(media)

    held, one = draw("held.png", seed=1), draw("one.png", seed=2)
    guard = Guard(opener)
    guard.hold_out(listed_rows([pair("a", held), pair("b", held)]))
    cleaned(guard, pair("a", one, row="1"), pair("b", one, row="2"))

    assert opened == ["held.png", "one.png"]


def test_a_held_out_passage_or_pair_is_left_out_and_a_short_answer_is_not(draw: Draw) -> None:
    held, picture = draw("held.png", seed=1), draw("one.png", seed=2)
    guard = holding(pair("what pulls the sea?", PASSAGE), pair(held, "yes"), pair("one", "two"))

    assert cleaned(
        guard,
        pair("another question", PASSAGE.upper(), row="passage"),
        pair(PASSAGE, picture, row="passage as a query"),
        pair("One", " two", row="pair"),
        pair("one", "three", row="half of a pair"),
        pair(picture, "yes", row="the same answer"),
        pair(Side((picture, PASSAGE)), "no", row="words beside a picture"),
    ) == dict.fromkeys(("passage", "passage as a query", "pair"), HELD_OUT_WORDS)


def test_what_was_left_out_is_counted(draw: Draw) -> None:
    one = draw("one.png", seed=1)
    guard = holding(pair("a", draw("held.png", seed=2)))

    cleaned(guard, pair(one, one, row="1"), pair(one, one, row="2"), pair("a", one, row="3"))

    assert guard.counts == {SAME_MEDIA: 2}


def test_drawings_at_hand_are_guarded_by_their_keys() -> None:
    examples = toy_examples(6, seed=0)
    rows: Rows = listed_rows(examples)
    guard = Guard(looks=False)
    guard.hold_out(rows.select([1, 4]))

    kept, left = guard.clean(rows)

    assert [bad.row for bad in left] == ["toy:2", "toy:5"]
    assert len(kept) == 4


def test_without_anything_held_out_no_file_is_read(draw: Draw, tmp_path: Path) -> None:
    def opener(media: Media) -> None:
        raise AssertionError(media)

    rows = listed_rows([pair("a", Media(tmp_path / "none.png")), pair("b", draw("b.png", seed=0))])
    kept, left = Guard(opener).clean(rows)  # type: ignore[arg-type]

    assert kept is rows
    assert left == []


def test_a_large_film_is_told_by_its_beginning_middle_and_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "READ", 4)
    content = bytes(range(100))
    (tmp_path / "one.mp4").write_bytes(content)
    for place in (0, 50, 99):
        changed = bytearray(content)
        changed[place] = 200
        (tmp_path / f"{place}.mp4").write_bytes(changed)
    one = Media(tmp_path / "one.mp4")

    assert cleaned(
        Guard(),
        pair(one, one, row="itself"),
        *(pair(one, Media(tmp_path / f"{i}.mp4"), row=str(i)) for i in (0, 50, 99)),
    ) == {"itself": SAME_MEDIA}
