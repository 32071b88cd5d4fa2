"""What a picture looks like, in 64 bits."""

import io
from pathlib import Path

import made_files
import numpy as np
import pytest
from PIL import Image, ImageDraw

from mmsearch.indexers.readers import read
from mmsearch.indexers.readers.pictures import look
from mmsearch.values import Kind, ReadPolicy

POLICY = ReadPolicy(ocr=False)


def scene(seed: int) -> Image.Image:
    """A picture of forty blots of any colour."""
    dice = np.random.default_rng(seed)
    picture = Image.new("RGB", (640, 480), tuple(dice.integers(0, 256, 3)))
    draw = ImageDraw.Draw(picture)
    for _ in range(40):
        x, y = int(dice.integers(-60, 600)), int(dice.integers(-60, 440))
        width, height = dice.integers(20, 240, 2).tolist()
        draw.ellipse((x, y, x + width, y + height), fill=tuple(dice.integers(0, 256, 3)))
    return picture


def hashed(picture: Image.Image) -> int:
    found = look(np.asarray(picture.convert("RGB")))
    assert found is not None
    return found


def test_a_picture_compressed_anew_or_made_smaller_looks_like_itself() -> None:
    for seed in range(10):
        picture = scene(seed)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=60)
        assert (hashed(picture) ^ hashed(Image.open(buffer))).bit_count() <= 3
        assert (hashed(picture) ^ hashed(picture.resize((320, 240)))).bit_count() <= 3


def test_pictures_that_differ_look_different() -> None:
    looks = [hashed(scene(seed)) for seed in range(20)]

    near = min((a ^ b).bit_count() for n, a in enumerate(looks) for b in looks[:n])

    assert near > 10


@pytest.mark.parametrize("shade", [0, 255, 130])
def test_pictures_of_one_shade_have_no_look(shade: int) -> None:
    noise = np.random.default_rng(1).integers(-3, 4, (300, 200, 1))
    blank = (np.full((300, 200, 3), shade) + noise).clip(0, 255).astype(np.uint8)

    assert look(blank) is None


def test_a_blank_page_with_its_number_has_no_look() -> None:
    page = Image.new("RGB", (480, 640), "white")
    ImageDraw.Draw(page).rectangle((230, 600, 250, 620), fill="black")

    assert look(np.asarray(page)) is None


def test_each_bit_says_that_the_field_to_its_right_is_lighter() -> None:
    rising = np.repeat(np.linspace(0, 255, 9).astype(np.uint8), 10)
    rows = np.stack([rising if row < 40 else rising[::-1] for row in range(80)])
    picture = np.repeat(rows[:, :, None], 3, axis=2)

    assert look(picture) == 0xFFFFFFFF_00000000


def test_every_kind_but_text_has_a_look(tmp_path: Path) -> None:
    scene(1).save(tmp_path / "a.png")
    made_files.pdf(tmp_path / "a.pdf", "The pump and its chart. " * 80)
    made_files.film(tmp_path / "a.mp4", [(1.5, made_files.RED)])
    (tmp_path / "a.md").write_text("The cat.")

    def looks(name: str, kind: Kind) -> list[int | None]:
        return [segment.look for segment in read(tmp_path / name, kind, POLICY)]

    [of_file] = looks("a.png", Kind.IMAGE)
    assert of_file is not None
    assert (of_file ^ hashed(scene(1))).bit_count() <= 3
    assert looks("a.pdf", Kind.PDF)[0] is not None
    assert looks("a.mp4", Kind.VIDEO) == [None]  # a mark on one colour
    assert looks("a.md", Kind.TEXT) == [None]
