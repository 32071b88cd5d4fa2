"""Encode scenes as H.264: a film is a list of scenes, joined by hard cuts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from materials import BOLD, font
from PIL import Image, ImageDraw

WIDE = (480, 270)
FPS = 12


@dataclass(frozen=True)
class Scene:
    """A stretch of film: how long, and the picture at ``t`` in [0, 1)."""

    seconds: float
    picture: Callable[[float], Image.Image]


def write_film(path: Path, scenes: list[Scene], *, fps: int = FPS, crf: int = 26) -> None:
    """Encode the scenes one after the other as an mp4 that any player shows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first = scenes[0].picture(0.0)
    with av.open(str(path), "w", options={"movflags": "+faststart", "fflags": "+bitexact"}) as out:
        stream = out.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuv420p"
        # One thread and no assembler: only so do the same frames give the same bytes.
        stream.options = {"crf": str(crf), "preset": "slow", "x264-params": "asm=0"}
        stream.codec_context.thread_count = 1
        for picture in _pictures(scenes, fps):
            frame = av.VideoFrame.from_ndarray(_yuv420(picture), format="yuv420p")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def _pictures(scenes: list[Scene], fps: int) -> Iterator[Image.Image]:
    for scene in scenes:
        count = round(scene.seconds * fps)
        for k in range(count):
            yield scene.picture(k / count)


def _yuv420(picture: Image.Image) -> np.ndarray:
    """Return the planes Y, U, V (BT.601, 16..235) below each other: uint8 [h * 3 / 2, w].

    By hand, because FFmpeg's own conversion rounds differently from run to run: which
    code it takes depends on where the frame happens to lie in memory.
    """
    red, green, blue = np.moveaxis(np.asarray(picture, np.float32) / 255, -1, 0)
    y = 16 + 65.481 * red + 128.553 * green + 24.966 * blue
    u = 128 - 37.797 * red - 74.203 * green + 112.0 * blue
    v = 128 + 112.0 * red - 93.786 * green - 18.214 * blue
    height, width = y.shape
    quarter = [
        plane.reshape(height // 2, 2, width // 2, 2).mean((1, 3)).reshape(-1) for plane in (u, v)
    ]
    planes = np.concatenate([y.reshape(-1), *quarter])
    return planes.round().astype(np.uint8).reshape(height * 3 // 2, width)


def pan(
    photo: Image.Image,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    size: tuple[int, int] = WIDE,
    caption: str = "",
) -> Callable[[float], Image.Image]:
    """Return a camera move over a photograph.

    ``start`` and ``end`` are (left, top, width) of the view as shares of the photograph's
    width and height; its height follows from the shape of the film.
    """

    def picture(t: float) -> Image.Image:
        left, top, width = (a + (b - a) * t for a, b in zip(start, end, strict=True))
        wide = width * photo.width
        tall = wide * size[1] / size[0]
        x = left * photo.width
        y = min(top * photo.height, photo.height - tall)
        view = photo.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + wide, y + tall))
        return with_caption(view, caption) if caption else view

    return picture


def with_caption(picture: Image.Image, words: str) -> Image.Image:
    """Burn words into the lower edge, white on black."""
    pen = ImageDraw.Draw(picture)
    width = pen.textlength(words, font=font(19, BOLD))
    x, y = picture.width / 2, picture.height - 28
    pen.rectangle((x - width / 2 - 10, y - 16, x + width / 2 + 10, y + 16), fill="black")
    pen.text((x, y), words, font=font(19, BOLD), fill="white", anchor="mm")
    return picture


def read_frames(path: Path) -> list[Image.Image]:
    """Return every frame of a film."""
    with av.open(str(path)) as film:
        return [frame.to_image() for frame in film.decode(video=0)]


def still(path: Path, second: float) -> Image.Image:
    """Return the frame shown at that second."""
    with av.open(str(path)) as film:
        for frame in film.decode(video=0):
            if frame.time >= second - 1e-6:
                return frame.to_image()
    raise ValueError(f"{path.name} ends before second {second}")
