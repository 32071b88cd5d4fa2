import contextlib
import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from made_files import picture_of, png_bomb
from PIL import Image

from mmsearch.errors import UnreadableFile
from mmsearch.indexers.readers import read
from mmsearch.values import Kind, ReadPolicy, Segment, TextOrigin

if TYPE_CHECKING:
    from mmsearch.values import Pixels

SILENT = ReadPolicy(ocr=False)


def read_image(path: Path, policy: ReadPolicy = SILENT) -> Segment:
    (only,) = read(path, Kind.IMAGE, policy)
    return only


def pixels_of(segment: Segment) -> "Pixels":
    assert segment.pixels is not None
    return segment.pixels[0]


def mean_colour(picture: Image.Image, path: Path, form: str = "PNG") -> list[int]:
    picture.save(path, form)
    return [round(value) for value in pixels_of(read_image(path)).mean(axis=(0, 1))]


def test_pixels_stay_within_the_budget_and_keep_the_aspect(tmp_path: Path) -> None:
    Image.new("RGB", (1600, 900), "red").save(tmp_path / "a.png")
    height, width = pixels_of(read_image(tmp_path / "a.png")).shape[:2]
    assert 0.98 * 448 * 448 < width * height <= 448 * 448
    assert width / height == pytest.approx(1600 / 900, rel=0.01)


def test_a_small_picture_is_not_enlarged(tmp_path: Path) -> None:
    Image.new("RGB", (100, 50), "red").save(tmp_path / "a.png")
    assert pixels_of(read_image(tmp_path / "a.png")).shape == (50, 100, 3)


def test_a_sliver_is_padded_in_white_to_the_least_side(tmp_path: Path) -> None:
    Image.new("RGB", (300, 2), "black").save(tmp_path / "a.png")
    pixels = pixels_of(read_image(tmp_path / "a.png"))
    assert pixels.shape == (28, 300, 3)
    assert pixels[0].min() == 255
    assert pixels[13:15].max() == 0


@pytest.mark.parametrize("size", [(20_000, 3), (3, 20_000), (1, 1), (7, 5000)])
def test_padding_stays_within_the_budget(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, "black").save(tmp_path / "a.png")
    height, width = pixels_of(read_image(tmp_path / "a.png")).shape[:2]
    assert height * width <= 448 * 448
    assert min(height, width) >= 28


def test_the_thumbnail_is_a_webp_of_256_pixels(tmp_path: Path) -> None:
    Image.new("RGB", (1000, 500), "red").save(tmp_path / "a.png")
    thumbnail = Image.open(io.BytesIO(read_image(tmp_path / "a.png").thumbnail))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (256, 128))


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (200, 100), "blue")
    picture.paste("red", (0, 0, 100, 100))  # the left half; upright, it is the top
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    pixels = pixels_of(read_image(tmp_path / "a.jpg"))
    assert pixels.shape == (200, 100, 3)
    assert pixels[20, 50, 0] > 200 > 50 > pixels[180, 50, 0]


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert mean_colour(Image.new("RGBA", (40, 40), (255, 0, 0, 0)), path) == [255, 255, 255]
    assert mean_colour(Image.new("RGBA", (40, 40), (255, 0, 0, 255)), path) == [255, 0, 0]
    assert mean_colour(Image.new("LA", (40, 40), (0, 0)), path) == [255, 255, 255]


def test_a_transparent_palette_is_on_white(tmp_path: Path) -> None:
    palette = Image.new("P", (40, 40), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.save(tmp_path / "a.png", transparency=1)
    assert pixels_of(read_image(tmp_path / "a.png")).min() == 255


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    form = "TIFF" if mode == "CMYK" else "PNG"
    picture = Image.new("RGB", (40, 40), "white").convert(mode)
    assert mean_colour(picture, tmp_path / "a", form) == [255, 255, 255]


def test_a_dim_16_bit_scan_uses_the_whole_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 4095, 64 * 64).astype(np.uint16).reshape(64, 64)  # a 12-bit sensor
    Image.fromarray(ramp).save(tmp_path / "a.png")
    pixels = pixels_of(read_image(tmp_path / "a.png"))
    assert pixels.min() == 0
    assert pixels.max() == 255


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert pixels_of(read_image(tmp_path / "a.gif"))[0, 0].tolist() == [255, 0, 0]


def test_a_png_named_jpg_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.jpg", "PNG")
    assert pixels_of(read_image(tmp_path / "a.jpg"))[0, 0].tolist() == [255, 0, 0]


def test_words_in_a_picture_are_read(tmp_path: Path) -> None:
    picture_of("Quarterly revenue 2024\nNorthern region").save(tmp_path / "a.png")
    segment = read_image(tmp_path / "a.png", ReadPolicy())
    assert segment.text == "Quarterly revenue 2024\nNorthern region"
    assert segment.text_origin is TextOrigin.OCR


def test_words_are_left_alone_where_asked(tmp_path: Path) -> None:
    picture_of("Quarterly revenue").save(tmp_path / "a.png")
    segment = read_image(tmp_path / "a.png", SILENT)
    assert (segment.text, segment.text_origin) == ("", TextOrigin.NONE)


@pytest.mark.parametrize("size", [(300, 300), (3, 500), (1, 1)])
def test_a_picture_without_words_has_none(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, "teal").save(tmp_path / "a.png")
    segment = read_image(tmp_path / "a.png", ReadPolicy())
    assert (segment.text, segment.text_origin) == ("", TextOrigin.NONE)


def test_reading_words_says_nothing(tmp_path: Path) -> None:
    picture_of("Hello there").save(tmp_path / "a.png")
    code = (
        "import sys; from pathlib import Path\n"
        "from mmsearch.indexers.readers import read\n"
        "from mmsearch.values import Kind, ReadPolicy\n"
        "assert next(read(Path(sys.argv[1]), Kind.IMAGE, ReadPolicy())).text == 'Hello there'"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_about_tells_the_name_the_camera_the_date_and_the_place(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x010F], exif[0x0110] = "Harbour at dusk", "Canon", "Canon EOS R5"
    exif[0x0132] = "2024:05:17 19:03:22"
    exif.get_ifd(0x8825).update({1: "S", 2: (33.0, 51.0, 36.0), 3: "E", 4: (151.0, 12.0, 0.0)})
    Image.new("RGB", (60, 40)).save(tmp_path / "sydney-harbour_IMG2024.jpg", exif=exif)
    assert read_image(tmp_path / "sydney-harbour_IMG2024.jpg").about.split("\n") == [
        "sydney harbour IMG 2024",
        "Harbour at dusk",
        "Canon EOS R5",
        "2024-05-17 19:03:22",
        "33.8600° S, 151.2000° E",
    ]


def test_broken_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert read_image(tmp_path / "a.jpg").about == "a"


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    bomb = png_bomb(tmp_path / "a.png", side)
    assert bomb.stat().st_size < 1000
    with pytest.raises(UnreadableFile, match=r"over 120 megapixels|too large"):
        read_image(bomb)


def test_the_pixel_limit_is_the_policys(tmp_path: Path) -> None:
    Image.new("RGB", (100, 101)).save(tmp_path / "a.png")
    read_image(tmp_path / "a.png", replace(SILENT, max_decoded_pixels=10_100))
    with pytest.raises(UnreadableFile, match=re.escape("100 x 101")):
        read_image(tmp_path / "a.png", replace(SILENT, max_decoded_pixels=10_099))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_truncated_picture_is_unreadable(tmp_path: Path, form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a", form)
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableFile):
        read_image(tmp_path / "a")


def test_damaged_bytes_give_a_picture_or_unreadable_and_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"):
        picture_of("fuzz", size=(80, 60)).save(tmp_path / "a", form)
        whole = bytearray((tmp_path / "a").read_bytes())
        for _ in range(15):
            broken = whole.copy()
            for at in rng.integers(0, len(whole), 12):
                broken[at] = rng.integers(0, 256)
            (tmp_path / "a").write_bytes(broken)
            with contextlib.suppress(UnreadableFile):
                assert pixels_of(read_image(tmp_path / "a")).ndim == 3
