"""What an MP4 or MOV says about itself, checked before a decoder believes it.

decord makes a table with a row for each frame that the header claims; a header
that claims a billion ends the whole process with SIGABRT, which nothing in
Python can catch. The boxes are walked here with bounds on everything.
"""

from collections.abc import Iterator
from pathlib import Path

_MAX_HOURS = 100
_MAX_MOOV_BYTES = 256 * 2**20
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def complaint(path: Path, max_frame_pixels: int) -> str:
    """Return why the header cannot be true, as a short clause; empty where it may be.

    Files of other containers, and those whose index is elsewhere or missing, pass: the
    decoder reports the latter well. Checks frame count, duration and frame size.
    """
    with open(path, "rb") as file:
        if _is_mpeg_stream(file.read(5)):
            # The decoder gives frames of other times than those asked for, and says nothing.
            return "it is an MPEG stream, which is not decoded reliably; convert it to MP4"
    size = path.stat().st_size
    moov = _moov(path, size)
    if moov is None:
        return ""
    tracks = [_first_leaves(body) for kind, body in _boxes(moov) if kind == b"trak"]
    films = [track for track in tracks if track.get(b"hdlr", b"")[8:12] == b"vide"]
    if tracks and not films:
        return "it has sound but no pictures"
    for track in films:
        if reason := _track_complaint(track, size, max_frame_pixels):
            return reason
    return ""


def _is_mpeg_stream(head: bytes) -> bool:
    """Tell a transport stream, with time codes or without, and a program stream."""
    return head[:1] == b"G" or head[4:] == b"G" or head[:4] == b"\x00\x00\x01\xba"


def _track_complaint(track: dict[bytes, bytes], size: int, max_frame_pixels: int) -> str:
    frames = max(_frames_by_time(track.get(b"stts", b"")), _number(track.get(b"stsz", b""), 8, 4))
    # A frame takes at least a byte. Repeats of one frame are made with durations, not entries.
    if frames > size:
        return f"its header claims {frames} frames in {size} bytes"
    scale, ticks, unknown = _media_time(track.get(b"mdhd", b""))
    if scale == 0:
        return "its header has no time scale"
    if ticks != unknown and ticks / scale > _MAX_HOURS * 3600:
        return f"its header claims {ticks / scale / 3600:.0f} hours"
    entry = track.get(b"stsd", b"")
    width, height = _number(entry, 40, 2), _number(entry, 42, 2)
    if width * height > max_frame_pixels:
        return f"its frames are {width} x {height}, over {max_frame_pixels / 1e6:g} megapixels"
    return ""


def _media_time(mdhd: bytes) -> tuple[int, int, int]:
    """Return ticks a second, the duration in ticks, and the duration that means unknown."""
    if mdhd[:1] == b"\x01":  # version 1 has 64-bit times
        return _number(mdhd, 20, 4), _number(mdhd, 24, 8), 2**64 - 1
    return _number(mdhd, 12, 4), _number(mdhd, 16, 4), 2**32 - 1


def _moov(path: Path, size: int) -> bytes | None:
    """Return the body of the box that holds the index, None where there is none to check."""
    with open(path, "rb") as file:
        at = 0
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length = _number(head, 0, 4)
            body = 16 if length == 1 else 8
            length = _number(head, 8, 8) if length == 1 else length or size - at
            if length < body:
                return None
            if head[4:8] == b"moov":
                file.seek(at + body)
                return file.read(min(length - body, _MAX_MOOV_BYTES))
            at += length
    return None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        length = _number(data, at, 4)
        if length < 8:
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + length]
        at += length


def _leaves(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    for kind, body in _boxes(data):
        if kind in _CONTAINERS:
            yield from _leaves(body)
        else:
            yield kind, body


def _first_leaves(track: bytes) -> dict[bytes, bytes]:
    """Return boxes by type; QuickTime has a second ``hdlr`` that speaks of other things."""
    found: dict[bytes, bytes] = {}
    for kind, body in _leaves(track):
        found.setdefault(kind, body)
    return found


def _frames_by_time(stts: bytes) -> int:
    """Add up the run lengths of the time table; its count of runs may lie as well."""
    runs = min(_number(stts, 4, 4), (len(stts) - 8) // 8)
    return sum(_number(stts, 8 + 8 * run, 4) for run in range(runs))


def _number(data: bytes, at: int, width: int) -> int:
    return int.from_bytes(data[at : at + width], "big")
