"""Files damaged in every way that is known: bytes, lengths, numbers, cuts, splices, names.

    Mutants(folder of seeds, dice).make(number, folder) -> Mutant

Seeds are files of the sample corpus and small ones made here. The same number of the same
seed is the same file.
"""

import io
import random
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from reliability.world import sentence, write_pdf

KINDS = ("pdf", "png", "jpg", "webp", "gif", "mp4", "mkv", "srt")
_EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_LONGEST = 2 * 2**20  # bytes of a file that was made longer
# Where numbers that decoders believe lie: before or behind these.
_MARKS = {
    "pdf": (b"/Length", b"/Count", b"/Width", b"/Height", b"/Kids", b"xref", b"/MediaBox", b"/W"),
    "png": (b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"iCCP", b"IEND"),
    "jpg": (b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xda", b"\xff\xdb", b"\xff\xe1"),
    "webp": (b"RIFF", b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM"),
    "gif": (b"GIF8", b"\x21\xf9", b"\x2c", b"\x21\xff"),
    "mp4": (b"moov", b"mvhd", b"stsz", b"stco", b"stsc", b"stts", b"avcC", b"mdhd", b"tkhd"),
    "mkv": (b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b", b"\x1f\x43\xb6\x75", b"\x1c\x53\xbb\x6b"),
    "srt": (b"-->", b":", b","),
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """A damaged file: of which kind its seed was, what was done to it, where it lies."""

    kind: str
    damage: str
    path: Path


class Mutants:
    """Makes them from seeds; a mutant is named by its number."""

    def __init__(self, corpus: Path, seed: int) -> None:
        self._seed = seed
        self._seeds = _seeds(corpus)
        self._film = min(self._seeds["mp4"], key=len)

    def make(self, number: int, folder: Path) -> Mutant:
        """Write mutant ``number`` into ``folder``; subtitles get a whole film beside them."""
        dice = random.Random(f"{self._seed}/{number}")
        kind = KINDS[number % len(KINDS)]
        content = dice.choice(self._seeds[kind])
        damages = [dice.choice(_DAMAGES) for _ in range(dice.choice((1, 1, 1, 2, 3)))]
        for _, damage in damages:
            content = damage(content, kind, dice, self._seeds)
        if kind == "png" and dice.random() < 0.5:  # or no decoder looks behind the checksum
            content = _checksums_mended(content)
        names = "+".join(name for name, _ in damages)
        suffix = kind
        if kind != "srt" and dice.random() < 0.06:
            suffix = dice.choice([other for other in (*KINDS[:-1], "txt", "avi") if other != kind])
            names += "+suffix"
        path = folder / f"{number:05}.{suffix}"
        path.write_bytes(content)
        if kind == "srt":
            path.with_suffix(".mp4").write_bytes(self._film)
            path = path.with_suffix(".mp4")
        return Mutant(kind, names, path)


def _flip(content: bytes, kind: str, dice: random.Random, seeds: "_Seeds") -> bytes:
    changed = bytearray(content)
    for _ in range(dice.choice((1, 3, 10, 100))):
        if changed:
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _flip_head(content: bytes, kind: str, dice: random.Random, seeds: "_Seeds") -> bytes:
    head = bytearray(content[:512])
    for _ in range(dice.choice((1, 2, 5))):
        if head:
            head[dice.randrange(len(head))] = dice.randrange(256)
    return bytes(head) + content[512:]


def _cut(content: bytes, kind: str, dice: random.Random, seeds: "_Seeds") -> bytes:
    return content[: dice.randrange(len(content) + 1)]


def _cut_out(content: bytes, kind: str, dice: random.Random, seeds: "_Seeds") -> bytes:
    start, end = sorted(dice.randrange(len(content) + 1) for _ in range(2))
    return content[:start] + content[end:]


def _splice(content: bytes, kind: str, dice: random.Random, seeds: "_Seeds") -> bytes:
    other = dice.choice(seeds[kind if dice.random() < 0.7 else dice.choice(KINDS)])
    return content[: dice.randrange(len(content) + 1)] + other[dice.randrange(len(other)) :]


def _repeat(content: bytes, kind: str, dice: random.Random, seeds: "_Seeds") -> bytes:
    if not content:
        return content
    start = dice.randrange(len(content))
    block = content[start : start + dice.choice((1, 16, 512, 8192))]
    times = min(dice.choice((2, 10, 1000, 50_000)), _LONGEST // len(block))
    return content[:start] + block * times + content[start:]


def _noise(content: bytes, kind: str, dice: random.Random, seeds: "_Seeds") -> bytes:
    start = dice.randrange(len(content) + 1)
    block = dice.choice((dice.randbytes, bytes))(dice.choice((1, 64, 4096)))
    return content[:start] + block + content[start + dice.choice((0, len(block))) :]


def _number(content: bytes, kind: str, dice: random.Random, seeds: "_Seeds") -> bytes:
    """Write an extreme number beside a mark that decoders take numbers from."""
    marks = [
        found.start() for mark in _MARKS[kind] for found in re.finditer(re.escape(mark), content)
    ]
    at = dice.choice(marks) if marks else dice.randrange(len(content) + 1)
    at = max(0, at + dice.choice((-4, -2, 2, 4, 8, 12, 16)))
    width, order = dice.choice("BHI"), dice.choice("<>")
    size = struct.calcsize(width)
    value = dice.choice(_EXTREMES) & (256**size - 1)
    return content[:at] + struct.pack(order + width, value) + content[at + size :]


def _digits(content: bytes, kind: str, dice: random.Random, seeds: "_Seeds") -> bytes:
    """Replace a number that is written in digits (PDF, subtitles)."""
    found = list(re.finditer(rb"\d+", content[:200_000]))
    if not found:
        return _number(content, kind, dice, seeds)
    one = dice.choice(found)
    value = dice.choice((b"0", b"-1", b"99999999", b"4294967296", b"9" * 25, b"1e9", b""))
    return content[: one.start()] + value + content[one.end() :]


def _inside(content: bytes, kind: str, dice: random.Random, seeds: "_Seeds") -> bytes:
    """Change what is compressed in a PNG or a PDF, and compress it again."""
    begin, end = {"png": (b"IDAT", b"IEND"), "pdf": (b"stream\n", b"endstream")}.get(
        kind, (b"", b"")
    )
    start = content.find(begin) + len(begin)
    stop = content.find(end, start) - (8 if kind == "png" else 0)
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(content[start:stop], _LONGEST) if begin else b""
    except zlib.error:
        plain = b""
    if not plain:
        return _flip(content, kind, dice, seeds)
    packed = zlib.compress(
        dice.choice((_flip, _noise, _repeat, _cut, _digits))(plain, kind, dice, seeds)
    )
    if kind == "png":
        length = len(packed).to_bytes(4, "big")
        return content[: start - 8] + length + b"IDAT" + packed + bytes(4) + content[stop:]
    return content[:start] + packed + content[stop:]


_Seeds = dict[str, list[bytes]]
_Damage = Callable[[bytes, str, random.Random, _Seeds], bytes]
_DAMAGES: Sequence[tuple[str, _Damage]] = (
    ("flip", _flip),
    ("flip-head", _flip_head),
    ("cut", _cut),
    ("cut-out", _cut_out),
    ("splice", _splice),
    ("repeat", _repeat),
    ("noise", _noise),
    ("number", _number),
    ("number", _number),
    ("digits", _digits),
    ("inside", _inside),
)


def _checksums_mended(content: bytes) -> bytes:
    """Return a PNG whose chunks have the checksums of what is in them."""
    changed, at = bytearray(content), 8
    while at + 12 <= len(changed):
        length = int.from_bytes(changed[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(changed):
            break
        changed[end : end + 4] = zlib.crc32(bytes(changed[at + 4 : end])).to_bytes(4, "big")
        at = end + 4
    return bytes(changed)


# ---------------------------------------------------------------- seeds


def _seeds(corpus: Path) -> _Seeds:
    seeds: _Seeds = {kind: [] for kind in KINDS}
    for path in sorted(corpus.rglob("*")):
        kind = path.suffix[1:].lower()
        if kind in seeds and path.stat().st_size < 300_000:
            seeds[kind].append(path.read_bytes())
    pictures = [_opened(content) for content in (*seeds["png"][:6], *seeds["jpg"][:6])]
    seeds["gif"] += [_saved(pictures[n : n + 3], "GIF") for n in range(0, len(pictures), 3)]
    seeds["webp"] += [_saved(pictures[:3], "WEBP"), _saved(pictures[3:4], "WEBP")]
    films = [_film(seconds) for seconds in (1, 3)]
    # Cut films of the corpus take a second each to decode: small ones are drawn more often.
    seeds["mp4"] = [*films, *films, *seeds["mp4"][:3]]
    seeds["mkv"] = [_remuxed(content, "matroska") for content in seeds["mp4"]]
    seeds["srt"] += [_subtitles(number) for number in (3, 40)]
    return seeds | {"pdf": [*seeds["pdf"], _pdf(), _pdf()]}


def _opened(content: bytes) -> Any:  # noqa: ANN401
    from PIL import Image

    return Image.open(io.BytesIO(content)).convert("RGB").resize((160, 120))


def _saved(pictures: Sequence[Any], form: str) -> bytes:
    first, *others = pictures
    out = io.BytesIO()
    first.save(out, form, save_all=bool(others), append_images=others, duration=80)
    return out.getvalue()


def _pdf() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.pdf"
        write_pdf(path, [sentence(random.Random(page), f"page {page}") for page in range(3)])
        return path.read_bytes()


def _film(seconds: int) -> bytes:
    import av
    import numpy as np

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(seconds * 12):
            frame = np.full(
                (64, 96, 3), (number * 7 % 256, 90, 200 if number < 12 else 20), np.uint8
            )
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def _remuxed(content: bytes, form: str) -> bytes:
    import av

    out = io.BytesIO()
    source: Any
    with av.open(io.BytesIO(content)) as source, av.open(out, "w", format=form) as target:
        theirs = source.streams.video[0]
        ours = target.add_stream_from_template(theirs)
        for packet in source.demux(theirs):
            if packet.dts is not None:
                packet.stream = ours
                packet.time_base = packet.time_base or Fraction(1, 1000)
                target.mux(packet)
    return out.getvalue()


def _subtitles(number: int) -> bytes:
    lines = []
    for at in range(number):
        lines.append(f"{at + 1}\n00:00:{at % 60:02},000 --> 00:00:{at % 60:02},900\nLine {at}.\n")
    return "\n".join(lines).encode()
