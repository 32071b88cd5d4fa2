"""The values that travel, and the public names."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

import mmsearch
from mmsearch import Item, Query
from mmsearch.values import (
    Frames,
    Hit,
    Image,
    Kind,
    Locator,
    Segment,
    Space,
    Text,
    View,
    segment_id,
    stored_path,
)

SPACE = Space(
    model="toy",
    weights_hash="ab",
    reasoner="none",
    effort=0,
    dim=4,
    prompt="",
    max_pixels=100,
    max_frames=8,
)


def test_the_public_names_are_these() -> None:
    assert mmsearch.__all__ == ["Engine", "Hit", "Item", "ModelSettings", "Query", "load_embedder"]
    assert all(getattr(mmsearch, name) for name in mmsearch.__all__)
    with pytest.raises(AttributeError):
        mmsearch.nothing  # noqa: B018


def test_importing_the_package_loads_no_heavy_library() -> None:
    script = "import sys, mmsearch; mmsearch.Query; print({'torch', 'numpy'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("locator", "shown"),
    [
        (Locator(), ""),
        (Locator(page=3), "p.3"),
        (Locator(start=4, end=9.6), "0:04-0:10"),
        (Locator(start=3600, end=3661), "1:00:00-1:01:01"),
        (Locator(char_start=120, char_end=300), "@120"),
    ],
)
def test_a_locator_reads_as_people_say_it(locator: Locator, shown: str) -> None:
    assert str(locator) == shown


@pytest.mark.parametrize("wrong", [{"page": 0}, {"start": 1.0}, {"char_end": 4}])
def test_half_a_place_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"page|span"):
        Locator(**wrong)


def test_an_item_takes_words_pictures_paths_and_arrays(tmp_path: Path) -> None:
    picture = pil.new("RGBA", (6, 4), "red")
    picture.save(tmp_path / "red.png")
    still, film = np.zeros((4, 6, 3), np.uint8), np.zeros((2, 4, 6, 3), np.uint8)

    item = Item(["words", picture, tmp_path / "red.png", still, film, Text("more")])

    assert [type(part) for part in item.parts] == [Text, Image, Image, Image, Frames, Text]
    assert item.text == "words\nmore"
    shown = item.parts[2]
    assert isinstance(shown, Image)
    assert shown.pixels[0, 0].tolist() == [255, 0, 0]


def test_a_picture_in_an_item_is_upright_and_on_white(tmp_path: Path) -> None:
    turned = pil.Exif()
    turned[0x0112] = 6  # the camera was held upright
    pil.new("RGB", (40, 20), "red").save(tmp_path / "turned.jpg", exif=turned)

    upright, clear = Item([tmp_path / "turned.jpg", pil.new("LA", (2, 2), (0, 0))]).parts

    assert isinstance(upright, Image)
    assert upright.pixels.shape == (40, 20, 3)
    assert isinstance(clear, Image)
    assert clear.pixels.min() == 255


def test_a_part_by_itself_is_an_item() -> None:
    assert Item("a red bus").parts == (Text("a red bus"),)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ([], ValueError),
        (None, TypeError),
        ([7], TypeError),
        ([np.zeros((4, 6, 3))], ValueError),
        ([np.zeros((4, 6), np.uint8)], ValueError),
        ([np.zeros((1, 4, 6, 4), np.uint8)], ValueError),
        ([np.zeros((0, 6, 3), np.uint8)], ValueError),
        ([np.zeros((0, 4, 6, 3), np.uint8)], ValueError),
    ],
)
def test_what_is_no_item_is_refused_at_the_door(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Item(wrong)


def test_a_segment_is_embedded_from_the_sides_it_has() -> None:
    pixels = np.zeros((1, 4, 4, 3), np.uint8)

    assert list(Segment(kind=Kind.TEXT, text="words").views()) == [View.TEXT]
    assert list(Segment(kind=Kind.IMAGE, pixels=pixels, text=" \n").views()) == [View.VISUAL]
    both = Segment(kind=Kind.VIDEO, pixels=np.concatenate([pixels, pixels]), text="words").views()
    assert [type(item.parts[0]) for item in both.values()] == [Frames, Text]


def test_a_space_is_another_when_anything_that_changes_a_vector_is() -> None:
    changed: dict[str, Any] = {
        "weights_hash": "cd",
        "effort": 1,
        "dim": 2,
        "max_pixels": 99,
        "prompt": "x",
    }

    spaces = {replace(SPACE, **{name: value}).id for name, value in changed.items()}

    assert len(spaces | {SPACE.id}) == len(changed) + 1
    assert replace(SPACE, model="another name").id == SPACE.id


def test_a_segment_keeps_its_id_and_shares_it_with_no_other() -> None:
    pages = [segment_id("/a.pdf", Locator(page=page)) for page in (1, 2)]

    assert segment_id("/a.pdf", Locator(page=1)) == pages[0]
    assert (
        len({*pages, segment_id("/b.pdf", Locator(page=1)), segment_id("/a.pdf", Locator())}) == 4
    )


def test_undecodable_bytes_in_a_path_are_escaped() -> None:
    assert stored_path(Path("caf\udce9.txt")) == "caf\\xe9.txt"


def test_a_query_says_what_was_asked_and_nothing_else() -> None:
    assert Query("cat", images=[Path("q.png")]).as_dict() == {"text": "cat", "images": ["q.png"]}


def test_a_hit_as_json_has_the_place_it_has() -> None:
    hit = Hit(
        rank=1,
        score=0.5,
        parts={"visual": 0.5},
        segment_id="ab",
        path="/film.mp4",
        kind=Kind.VIDEO,
        locator=Locator(start=1.0, end=2.0),
        text="",
    )

    assert hit.as_dict() == {
        "rank": 1,
        "id": "ab",
        "path": "/film.mp4",
        "kind": "video",
        "start": 1.0,
        "end": 2.0,
        "score": 0.5,
        "parts": {"visual": 0.5},
        "text": "",
    }
