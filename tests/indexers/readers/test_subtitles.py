from pathlib import Path

import pytest

from mmsearch.indexers.readers.subtitles import Cue, beside, parse, within

SRT = """\ufeff1
00:00:01,000 --> 00:00:02,500
Hello <i>there</i>,
{\\an8}General &amp; friends

2
01:02:03,040 --> 01:02:04,5
Late words
"""
VTT = """WEBVTT - a title

NOTE nobody reads this

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.500 align:start position:0%
<v Ann>Hello</v> there

01:02:03.040 --> 01:02:04.500
Late words
"""


def test_subrip_is_parsed() -> None:
    assert parse(SRT) == [
        Cue(1.0, 2.5, "Hello there, General & friends"),
        Cue(3723.04, 3724.5, "Late words"),
    ]


def test_webvtt_is_parsed() -> None:
    assert parse(VTT) == [Cue(1.0, 2.5, "Hello there"), Cue(3723.04, 3724.5, "Late words")]


def test_line_ends_of_windows_are_fine() -> None:
    assert parse(SRT.replace("\n", "\r\n")) == parse(SRT)


def test_cues_without_words_or_time_are_left_out() -> None:
    assert parse("00:01.000 --> 00:02.000\n<i></i>\n\n00:05.000 --> 00:04.000\nback\n") == []


def test_words_are_those_shown_in_the_span_each_once() -> None:
    cues = [Cue(0, 1, "a"), Cue(1, 2, "b"), Cue(2, 3, "b"), Cue(3, 4, "c")]
    assert within(cues, 1, 3) == "b"
    assert within(cues, 0.5, 3.5) == "a\nb\nc"
    assert within(cues, 4, 5) == ""


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["talk.srt", "talk.en.srt", "talk.de.srt"], "talk.srt"),
        (["talk.en.srt", "talk.de.srt"], "talk.en.srt"),
        (["talk.fr.vtt", "talk.de.vtt"], "talk.de.vtt"),
        (["talk.VTT"], "talk.VTT"),
        (["other.srt", "talk2.srt", "talk.txt", "talk.mp4.bak"], None),
    ],
)
def test_the_films_own_subtitles_are_chosen(
    tmp_path: Path, names: list[str], chosen: str | None
) -> None:
    for name in names:
        (tmp_path / name).write_text(f"00:01.000 --> 00:02.000\n{name}\n")
    assert [cue.text for cue in beside(tmp_path / "talk.mp4", 1000)] == ([chosen] if chosen else [])
