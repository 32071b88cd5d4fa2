import struct
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from made_files import BLUE, GREEN, RED, film, patched, sound

from mmsearch.errors import UnreadableFile
from mmsearch.indexers.readers import read, read_whole
from mmsearch.values import Kind, Locator, ReadPolicy, Segment, TextOrigin

SILENT = ReadPolicy(ocr=False)
THREE_SHOTS = [(3.0, RED), (2.5, GREEN), (4.5, BLUE)]


def clips(path: Path, policy: ReadPolicy = SILENT) -> list[Segment]:
    return list(read(path, Kind.VIDEO, policy))


def span(clip: Segment) -> tuple[float, float]:
    assert clip.locator.start is not None
    assert clip.locator.end is not None
    return clip.locator.start, clip.locator.end


def colours(clip: Segment) -> list[str]:
    """Name the colour at the lower right of every frame, where nothing moves."""
    assert clip.pixels is not None
    names = ("red", "green", "blue")
    return [names[int(frame[-5, -5].argmax())] for frame in clip.pixels]


def assert_covered(found: list[Segment], seconds: float, max_clip_s: float) -> None:
    spans = [span(clip) for clip in found]
    assert spans[0][0] == 0.0
    assert spans[-1][1] == pytest.approx(seconds, abs=0.05)
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert all(0 < end - start <= max_clip_s + 1e-3 for start, end in spans)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "avi"])
def test_cuts_are_found_where_they_are(tmp_path: Path, suffix: str) -> None:
    found = clips(film(tmp_path / f"a.{suffix}", THREE_SHOTS))
    assert [span(clip)[0] for clip in found] == pytest.approx([0.0, 3.0, 5.5], abs=0.13)
    assert_covered(found, 10.0, 10.0)


def test_an_mpeg_stream_is_refused_rather_than_misread(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="convert it to MP4"):
        clips(film(tmp_path / "a.ts", THREE_SHOTS))


def test_a_cut_is_exact_where_the_encoder_put_a_key_frame(tmp_path: Path) -> None:
    found = clips(film(tmp_path / "a.mp4", [(3.0, RED), (3.0, BLUE)], gop=24))
    assert [span(clip) for clip in found] == [(0.0, 3.0), (3.0, 6.0)]


def test_the_frames_of_a_clip_are_of_its_shot(tmp_path: Path) -> None:
    found = clips(film(tmp_path / "a.mp4", THREE_SHOTS))
    assert [set(colours(clip)) for clip in found] == [{"red"}, {"green"}, {"blue"}]


def test_a_cut_between_pictures_that_are_alike_is_found(tmp_path: Path) -> None:
    shots = [(3.0, (120, 60, 60)), (3.0, (60, 60, 120))]
    assert len(clips(film(tmp_path / "a.mp4", shots))) == 2


def test_a_slow_change_of_light_is_no_cut(tmp_path: Path) -> None:
    shots = [(0.25, (60 + 4 * step, 90 + 4 * step, 120)) for step in range(24)]
    assert len(clips(film(tmp_path / "a.mp4", shots))) == 1


def test_movement_is_no_cut(tmp_path: Path) -> None:
    assert len(clips(film(tmp_path / "a.mp4", [(8.0, RED)]))) == 1


def test_a_flash_is_no_shot(tmp_path: Path) -> None:
    found = clips(film(tmp_path / "a.mp4", [(4.0, RED), (0.3, GREEN), (4.0, RED)]))
    assert all(end - start >= 1.0 for start, end in map(span, found))


def test_a_long_shot_is_cut_into_clips(tmp_path: Path) -> None:
    policy = replace(SILENT, max_clip_s=3.0)
    found = clips(film(tmp_path / "a.mp4", [(10.5, RED)], fps=12), policy)
    assert_covered(found, 10.5, 3.0)
    assert len(found) == 4
    assert all(end - start >= 1.0 for start, end in map(span, found))


@pytest.mark.parametrize("max_clip_s", [0.7, 2.0, 4.4])
def test_clips_cover_the_film_without_gaps(tmp_path: Path, max_clip_s: float) -> None:
    found = clips(film(tmp_path / "a.mp4", THREE_SHOTS), replace(SILENT, max_clip_s=max_clip_s))
    assert_covered(found, 10.0, max_clip_s)


def test_a_long_film_is_read_at_its_key_frames(tmp_path: Path) -> None:
    shots = [(40.0, RED), (45.0, GREEN), (35.0, BLUE)] * 3
    path = film(tmp_path / "a.mp4", shots, fps=2, size=(96, 64), gop=10)
    found = clips(path)
    assert_covered(found, 360.0, 10.0)
    assert {40.0, 85.0, 120.0} <= {start for start, _ in map(span, found)}
    assert all(clip.pixels is not None and 1 <= len(clip.pixels) <= 3 for clip in found)


def test_frames_are_spread_over_the_clip_and_within_the_budget(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [(4.0, RED)], size=(640, 360))
    (only,) = clips(path, replace(SILENT, max_frames=5, max_pixels=20_000))
    assert only.pixels is not None
    frames, height, width, _ = only.pixels.shape
    assert frames == 5
    assert height * width <= 20_000
    assert width / height == pytest.approx(640 / 360, rel=0.03)
    # the square moves by 3 pixels a frame: its place tells the time, 0.4 s, 1.2 s, ...
    lefts = [int((frame[6, :, 1] > 150).argmax()) for frame in only.pixels]
    steps = [after - before for before, after in pairwise(lefts)]
    assert steps == pytest.approx([0.8 * 24 * 3 * width / 640] * 4, abs=6)


@pytest.mark.parametrize("width", [32, 48, 96, 144, 160])
def test_small_films_keep_their_size_and_their_colours(tmp_path: Path, width: int) -> None:
    (only,) = clips(film(tmp_path / "a.mp4", [(1.0, RED)], size=(width, 120)))
    assert only.pixels is not None
    assert only.pixels.shape[1:] == (120, width, 3)
    assert only.pixels[0, -9, -5].tolist() == pytest.approx(RED, abs=12)


def test_a_still_film_has_one_clip_of_one_frame(tmp_path: Path) -> None:
    (only,) = clips(film(tmp_path / "a.mp4", [(0.04, RED)]))
    assert only.pixels is not None
    assert len(only.pixels) == 1


def test_a_film_is_read_as_one_segment_for_a_query(tmp_path: Path) -> None:
    whole = read_whole(film(tmp_path / "a.mp4", THREE_SHOTS), Kind.VIDEO, SILENT)
    assert span(whole) == pytest.approx((0.0, 10.0), abs=0.05)
    assert colours(whole) == ["red"] * 2 + ["green"] * 2 + ["blue"] * 4


def test_a_span_of_a_film_is_read_alone(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", THREE_SHOTS)
    part = read_whole(path, Kind.VIDEO, SILENT, only=Locator(start=2.0, end=4.0))
    assert span(part) == (2.0, 4.0)
    assert colours(part) == ["red"] * 4 + ["green"] * 4
    rest = read_whole(path, Kind.VIDEO, SILENT, only=Locator(start=6.0, end=60.0))
    assert span(rest) == pytest.approx((6.0, 10.0), abs=0.05)
    assert set(colours(rest)) == {"blue"}
    with pytest.raises(UnreadableFile, match=r"it ends at 10\.0 s, before 10\.5 s"):
        read_whole(path, Kind.VIDEO, SILENT, only=Locator(start=10.5, end=11.0))


def test_clips_beyond_the_limit_are_left_out(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", THREE_SHOTS)
    assert len(clips(path, replace(SILENT, max_clips=2))) == 2


def test_burnt_in_words_are_read(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [(2.0, BLUE)], size=(640, 360), text="Breaking news")
    (only,) = clips(path, ReadPolicy())
    assert "Breaking news" in only.text
    assert only.text_origin is TextOrigin.OCR


def test_subtitles_come_before_what_is_seen(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [(2.0, BLUE)], size=(640, 360), text="Breaking news")
    (tmp_path / "a.srt").write_text("1\n00:00:00,500 --> 00:00:01,500\nGood evening\n")
    (only,) = clips(path, ReadPolicy())
    assert only.text.split("\n")[0] == "Good evening"
    assert "Breaking news" in only.text
    assert only.text_origin is TextOrigin.SUBTITLES


def test_subtitles_go_with_the_clips_they_overlap(tmp_path: Path) -> None:
    (tmp_path / "a.vtt").write_text(
        "WEBVTT\n\n00:00.500 --> 00:01.000\nfirst\n\n00:02.500 --> 00:03.500\nacross\n\n"
        "00:09.000 --> 00:09.500\nlast\n"
    )
    found = clips(film(tmp_path / "a.mp4", THREE_SHOTS))
    assert [clip.text for clip in found] == ["first\nacross", "across", "last"]


def test_sound_alone_is_unreadable(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv"):
        with pytest.raises(UnreadableFile, match="no pictures"):
            clips(sound(tmp_path / name))


@pytest.mark.parametrize("faststart", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_film_that_is_cut_short_is_unreadable(
    tmp_path: Path, share: float, faststart: bool
) -> None:
    options = {"movflags": "faststart"} if faststart else {}
    path = film(tmp_path / "a.mp4", THREE_SHOTS, options=options)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UnreadableFile):
        clips(path)


def number(value: int) -> bytes:
    return struct.pack(">I", value)


@pytest.mark.parametrize(
    ("box", "at", "value", "reason"),
    [
        (b"stts", 8, number(3_600_000_000), "claims 3600000000 frames in"),
        (b"stsz", 8, number(3_600_000_000), "claims 3600000000 frames in"),
        (b"mdhd", 12, number(0), "no time scale"),
        (b"mdhd", 12, number(1) + number(2**31), "claims 596523 hours"),
        (b"stts", 12, number(2**31), "frames over"),
        (b"stsd", 40, b"\xff\xff\xff\xff", "65535 x 65535"),
    ],
)
def test_a_header_that_lies_is_refused(
    tmp_path: Path, box: bytes, at: int, value: bytes, reason: str
) -> None:
    path = patched(film(tmp_path / "a.mp4", [(2.0, RED)]), box, at, value)
    with pytest.raises(UnreadableFile, match=reason):
        clips(path)


def test_what_is_no_film_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\x00\x00\x00\x18ftypisom" + bytes(500))
    with pytest.raises(UnreadableFile, match="damaged"):
        clips(tmp_path / "a.mp4")
