"""Subtitles that lie beside a film, in SubRip (.srt) or WebVTT (.vtt)."""

import html
import os
import re
from dataclasses import dataclass
from pathlib import Path

from mmsearch.indexers.readers.text import decode

SUFFIXES = (".srt", ".vtt")
_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}")
_TAG = re.compile(r"<[^<>\n]{0,200}>|\{\\[^{}\n]{0,200}\}")


@dataclass(frozen=True, slots=True)
class Cue:
    """Words shown over the seconds ``[start, end)`` of a film."""

    start: float
    end: float
    text: str


def beside(film: Path, max_bytes: int) -> list[Cue]:
    """Return the cues of the subtitles that belong to ``film``; none where there are none.

    ``talk.srt`` or ``talk.vtt`` belongs to ``talk.mp4``; else ``talk.en.srt``, else the
    first other language by name. What cannot be read counts as absent.
    """
    try:
        names = [entry.name for entry in os.scandir(film.parent) if entry.is_file()]
        ours = [name for name in names if _language(film, name) is not None]
        if not ours:
            return []
        ranks = {"": 0, "en": 1}
        best = min(ours, key=lambda name: (ranks.get(_language(film, name) or "", 2), name))
        with open(film.parent / best, "rb") as file:
            return parse(decode(file.read(max_bytes)))
    except OSError:
        return []


def _language(film: Path, name: str) -> str | None:
    """Return the language in a subtitle file's name, None where it is not of this film."""
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in SUFFIXES:
        return None
    if stem == film.stem:
        return ""
    before, _, language = stem.rpartition(".")
    return language.lower() if before == film.stem else None


def parse(text: str) -> list[Cue]:
    """Return the cues in order of time; markup, numbers, notes and styles are left out."""
    cues: list[Cue] = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.split("\n")
        for at, line in enumerate(lines):
            if timing := _TIMING.match(line):
                start, end = _seconds(timing.groups()[:4]), _seconds(timing.groups()[4:])
                words = " ".join(html.unescape(_TAG.sub("", "\n".join(lines[at + 1 :]))).split())
                if words and end > start:
                    cues.append(Cue(start, end, words))
                break
    return sorted(cues, key=lambda cue: cue.start)


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = (part or "0" for part in parts)
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")


def within(cues: list[Cue], start: float, end: float) -> str:
    """Return the words shown in ``[start, end)``, one cue a line, repeated ones once."""
    shown = (cue.text for cue in cues if cue.start < end and cue.end > start)
    return "\n".join(dict.fromkeys(shown))
