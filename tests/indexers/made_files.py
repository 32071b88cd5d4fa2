"""Files made for tests, good ones and bad ones; everything is drawn, nothing is stored."""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pymupdf
from PIL import Image, ImageDraw, ImageFont

mupdf: Any = pymupdf  # only half typed

RED, GREEN, BLUE = (200, 30, 30), (20, 160, 40), (30, 40, 190)
Colour = tuple[int, int, int]


def picture_of(text: str, *, size: tuple[int, int] = (640, 200), points: int = 28) -> Image.Image:
    """Return black words on white, large enough to be read."""
    picture = Image.new("RGB", size, "white")
    font = ImageFont.load_default(points)
    ImageDraw.Draw(picture).multiline_text((20, 20), text, fill="black", font=font)
    return picture


def pdf(path: Path, *pages: str, size: tuple[float, float] = (595, 842), **save: Any) -> Path:
    """Write a PDF with one page a text; ``save`` goes to pymupdf's save."""
    with mupdf.open() as document:
        for text in pages:
            page = document.new_page(width=size[0], height=size[1])
            page.insert_textbox((50, 50, size[0] - 50, size[1] - 50), text, fontsize=11)
        document.save(path, **save)
    return path


def a_few(folder: Path) -> Path:
    """Make a folder with a PDF of two pages, a red picture and a note."""
    folder.mkdir()
    pdf(folder / "report.pdf", "The pump and its chart.", "The museum of the town.")
    Image.new("RGB", (64, 64), RED).save(folder / "red bus.png")
    (folder / "note.md").write_text("The dog does not like the cat.\n")
    return folder


def scanned_pdf(path: Path, text: str, *, rotate: int = 0, stamp: str = "") -> Path:
    """Write a PDF whose only page is a picture of words, with a stamp in its text layer."""
    picture = io.BytesIO()
    picture_of(text, size=(1240, 700), points=36).save(picture, "PNG")
    with mupdf.open() as document:
        page = document.new_page(width=595, height=336)
        page.insert_image(page.rect, stream=picture.getvalue())
        page.insert_text((20, 325), stamp, fontsize=6)
        page.set_rotation(rotate)
        document.save(path)
    return path


def pdf_bomb(path: Path, *, levels: int = 10) -> Path:
    """Write a PDF of 2 kB that draws a form, which draws ten forms, which draw ten forms..."""
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R "
        "/Resources << /XObject << /F 5 0 R >> >> >>",
        _stream("", "/F Do"),
    ]
    for level in range(levels):
        below = f"/Resources << /XObject << /F {6 + level} 0 R >> >>"
        form = f"/Type /XObject /Subtype /Form /BBox [0 0 200 200] {below}"
        objects.append(_stream(form, " ".join(["/F Do"] * 10)))
    objects.append(_stream("/Type /XObject /Subtype /Form /BBox [0 0 9 9]", "0 0 9 9 re f"))
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    body += f"xref\n0 {size}\n0000000000 65535 f \n{table}".encode()
    body += (
        f"trailer << /Size {size} /Root 1 0 R >>\nstartxref\n{body.find(b'xref')}\n%%EOF".encode()
    )
    path.write_bytes(body)
    return path


def _stream(entries: str, content: str) -> str:
    return f"<< {entries} /Length {len(content)} >>\nstream\n{content}\nendstream"


def png_bomb(path: Path, side: int) -> Path:
    """Write a PNG of a few hundred bytes whose header promises ``side`` x ``side`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(64))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    return path


def film(
    path: Path,
    shots: Sequence[tuple[float, Colour]],
    *,
    fps: int = 24,
    size: tuple[int, int] = (320, 180),
    text: str = "",
    gop: int | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode a film in H.264: each shot (seconds, colour) with a square that moves through it."""
    width, height = size
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        if gop:
            stream.gop_size = gop
        for seconds, colour in shots:
            for number in range(round(seconds * fps)):
                picture = Image.new("RGB", size, colour)
                draw = ImageDraw.Draw(picture)
                left = number * 3 % max(width - 40, 1)
                draw.rectangle((left, 20, left + 30, 50), fill=tuple(255 - c for c in colour))
                if text:
                    font = ImageFont.load_default(height // 6)
                    draw.text((10, height * 2 // 3), text, fill="white", font=font)
                frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def sound(path: Path, *, seconds: float = 1.0) -> Path:
    """Encode a tone in AAC and no pictures."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=44100)
        times = np.arange(int(44100 * seconds)) / 44100
        wave = (np.sin(times * 2 * np.pi * 440) * 0.3).astype(np.float32)[None]
        frame: Any = av.AudioFrame.from_ndarray(wave, format="flt", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def patched(path: Path, box: bytes, at: int, value: bytes) -> Path:
    """Overwrite bytes of the first MP4 box of that type, ``at`` bytes into its body."""
    data = bytearray(path.read_bytes())
    start = data.index(box) + 4 + at
    data[start : start + len(value)] = value
    path.write_bytes(data)
    return path
