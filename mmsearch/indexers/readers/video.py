"""Films: one segment a clip, a clip being a shot or a piece of a long one.

    film -> sampled frames -> shots -> clips -> frames of a clip, its words, its times

The film is decoded once, in order, and no more than one clip's frames are held.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mmsearch.errors import UnreadableFile
from mmsearch.indexers.readers import about, headers, ocr, subtitles
from mmsearch.indexers.readers.pictures import bounded_size, fit, fitted_size, look, thumbnail
from mmsearch.indexers.readers.shots import MIN_SHOT_S, CutDetector
from mmsearch.values import Kind, Locator, ReadPolicy, Segment, TextOrigin

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from mmsearch.values import Pixels

    Seconds: TypeAlias = npt.NDArray[np.float64]

_VideoReader: TypeAlias = Any  # decord is not typed

_OCR_SIDE = 768  # pixels: burnt-in text is made for small screens, and each clip costs a reading
_MIN_WIDTH = 160  # decord 3.4 takes frames 48, 96 or 144 pixels wide for RGBA and garbles them
_RATE, _LONG_RATE = 4.0, 2.0  # frames sampled a second, up to a minute and beyond
_MINUTE_S = 60.0
# Decoding every frame costs about 3 CPU seconds a minute at 720p, key frames alone 0.2.
_KEYS_ONLY_FROM_S = 300.0
_MAX_KEY_GAP_S = 15.0  # on average; sparser key frames would miss most shots
_MAX_FRAME_S = 60.0  # that a frame stands on average; beyond, the header's times are no times
_MIN_KEY_GAP_S = 0.5  # in some films every frame is a key frame


@dataclass(frozen=True, slots=True)
class _Sample:
    """A decoded frame and the second at which it is shown."""

    time: float
    frame: "Pixels"


@dataclass(frozen=True, slots=True)
class _Clip:
    """Seconds ``[start, end)`` and the samples inside, at least one."""

    start: float
    end: float
    samples: list[_Sample]


def read(path: Path, policy: ReadPolicy) -> Iterator[Segment]:
    """Yield the clips in order; they cover the film from 0 to its end without gaps.

    At most ``policy.max_clips`` of them. Raises UnreadableFile where the header cannot be
    true, or there is no picture to decode.
    """
    film = _Film(path, policy, side=_OCR_SIDE if policy.ocr else None)
    cues = subtitles.beside(path, policy.max_text_bytes)
    for number, clip in enumerate(_clips(film, policy.max_clip_s)):
        if number == policy.max_clips:
            return
        yield _segment(path, clip, cues, policy)


def read_whole(path: Path, policy: ReadPolicy, *, only: Locator | None = None) -> Segment:
    """Return the film, or a span of it, as one segment with frames spread over all of that."""
    film = _Film(path, policy, side=_OCR_SIDE if policy.ocr else None)
    start = (only.start or 0.0) if only else 0.0
    end = min(only.end or film.end, film.end) if only else film.end
    if start >= end:
        raise UnreadableFile(path, f"it ends at {film.end:.1f} s, before {start:.1f} s")
    parts = policy.max_frames
    wanted = [start + (end - start) * (part + 0.5) / parts for part in range(parts)]
    indices = dict.fromkeys(film.nearest(time) for time in wanted)
    clip = _Clip(start, end, [film.sample(index) for index in indices])
    return _segment(path, clip, subtitles.beside(path, policy.max_text_bytes), policy)


def seconds(path: Path, policy: ReadPolicy) -> float:
    """Return how long a film is. Raises UnreadableFile as `read` does."""
    return _Film(path, policy, side=None).end


def _segment(path: Path, clip: _Clip, cues: list[subtitles.Cue], policy: ReadPolicy) -> Segment:
    import numpy as np
    from PIL import Image

    chosen = _spread(clip, policy.max_frames)
    middle = Image.fromarray(chosen[len(chosen) // 2].frame)
    spoken = subtitles.within(cues, clip.start, clip.end)
    seen = ocr.read_text(middle) if policy.ocr else ""
    origin = TextOrigin.OCR if seen else TextOrigin.NONE
    frames = [fit(Image.fromarray(sample.frame), policy.max_pixels) for sample in chosen]
    return Segment(
        kind=Kind.VIDEO,
        locator=Locator(start=round(clip.start, 3), end=round(clip.end, 3)),
        text="\n".join(filter(None, (spoken, seen))),
        text_origin=TextOrigin.SUBTITLES if spoken else origin,
        about=about.name_words(path),
        pixels=np.stack(frames),
        thumbnail=thumbnail(middle),
        look=look(frames[0]),
        awaits_ocr=not policy.ocr,
    )


def _spread(clip: _Clip, max_frames: int) -> list[_Sample]:
    """Return up to ``max_frames`` samples, each nearest to the middle of an equal part."""
    parts = min(max_frames, len(clip.samples))
    length = clip.end - clip.start
    chosen: dict[float, _Sample] = {}
    for part in range(parts):
        wanted = clip.start + length * (part + 0.5) / parts
        best = min(clip.samples, key=lambda sample: abs(sample.time - wanted))
        chosen.setdefault(best.time, best)
    return list(chosen.values())


# ---------------------------------------------------------------- shots and clips


def _clips(film: "_Film", max_clip_s: float) -> Iterator[_Clip]:
    """Cut where the picture changes, and wherever a clip would get too long."""
    cuts = CutDetector()
    start, held = 0.0, list[_Sample]()
    for sample, began, hinted in film.samples():
        is_cut = cuts.is_cut(sample.frame, hinted=hinted)
        room = began - start >= MIN_SHOT_S and film.end - began >= MIN_SHOT_S
        if is_cut and room:
            yield from _pieces(start, began, held, max_clip_s)
            start, held = began, []
        while sample.time - start > max_clip_s + MIN_SHOT_S:
            # A second of delay: what is left over is then long enough to be a clip itself.
            end = start + max_clip_s
            yield from _pieces(start, end, held, max_clip_s)
            start, held = end, [kept for kept in held if kept.time >= end] or held[-1:]
        held.append(sample)
    yield from _pieces(start, film.end, held, max_clip_s)


def _pieces(start: float, end: float, held: list[_Sample], max_clip_s: float) -> Iterator[_Clip]:
    """Yield ``[start, end)`` in equal pieces no longer than a clip may be."""
    # The margin keeps 10.0000001 s, a sum of frame times, in one piece.
    num = max(1, math.ceil((end - start) / max_clip_s - 1e-6))
    for piece in range(num):
        first = start + (end - start) * piece / num
        last = end if piece == num - 1 else start + (end - start) * (piece + 1) / num
        inside = [sample for sample in held if first <= sample.time < last]
        if not inside:  # key frames can lie further apart: the last one before still shows
            inside = [sample for sample in held if sample.time < last][-1:] or held[:1]
        yield _Clip(first, last, inside)


# ---------------------------------------------------------------- frames


class _Film:
    """One decoder over one film: frames by index, seconds counted from the first frame."""

    def __init__(self, path: Path, policy: ReadPolicy, *, side: int | None) -> None:
        import decord

        if reason := headers.complaint(path, policy.max_decoded_pixels):
            raise UnreadableFile(path, reason)
        decord.logging.set_level(decord.logging.QUIET)
        try:
            probe = decord.VideoReader(str(path), num_threads=1)
            height, width = probe.next().shape[:2]
        except _decode_errors() as error:
            reason = "it is damaged, cut short, or has no pictures to decode"
            raise UnreadableFile(path, reason) from error
        if width * height > policy.max_decoded_pixels:
            raise UnreadableFile(path, f"its frames are {width} x {height}, too large to decode")
        size = fitted_size(width, height, policy.max_pixels)
        if side is not None:  # large enough to read, and for the model
            size = max(size, bounded_size(width, height, side))
        # Reduced inside the decoder: half the memory, and no full frame crosses over.
        self._size = size
        decoded = (max(size[0], _MIN_WIDTH), max(1, round(size[1] * max(1, _MIN_WIDTH / size[0]))))
        self._reader: _VideoReader = probe
        if decoded != (width, height):
            self._reader = decord.VideoReader(
                str(path), num_threads=1, width=decoded[0], height=decoded[1]
            )
        self._path = path
        self.times, self.end = _times(self._reader)
        if self.end / len(self.times) > _MAX_FRAME_S:
            frames, hours = len(self.times), self.end / 3600
            raise UnreadableFile(path, f"its header spreads {frames} frames over {hours:.0f} hours")

    def nearest(self, time: float) -> int:
        """Return the index of the frame that is shown at ``time``."""
        import numpy as np

        return max(0, int(np.searchsorted(self.times, time, side="right")) - 1)

    def sample(self, index: int) -> _Sample:
        """Decode one frame; cheap when indices ascend."""
        import numpy as np
        from PIL import Image

        time = float(self.times[index])
        try:
            frame = self._reader[index].asnumpy()
        except _decode_errors() as error:
            reason = f"it is damaged or cut short: nothing can be decoded at {time:.1f} s"
            raise UnreadableFile(self._path, reason) from error
        if frame.shape[1::-1] != self._size:
            small = Image.fromarray(frame).resize(self._size, Image.Resampling.BILINEAR)
            frame = np.asarray(small)
        return _Sample(time, frame)

    def samples(self) -> Iterator[tuple[_Sample, float, bool]]:
        """Yield sampled frames in order, each with what is known about a cut before it.

        That is when a shot that begins with it would have begun: at the key frame since
        the sample before, because encoders put one at a cut, else half-way between the
        two; and whether that key frame came out of turn, which hints at a cut.
        """
        keys = sorted(int(key) for key in self._reader.get_key_indices())
        keys_only = self.end > _KEYS_ONLY_FROM_S and self.end <= _MAX_KEY_GAP_S * len(keys)
        unforced = set() if keys_only else _unforced(keys)
        previous = 0
        for index in self._thinned(keys) if keys_only else self._at_steady_rate():
            sample = self.sample(index)
            since = keys[bisect_right(keys, previous) : bisect_right(keys, index)]
            halfway = (sample.time + float(self.times[previous])) / 2
            began = float(self.times[since[0]]) if since else halfway
            yield sample, began, not unforced.isdisjoint(since)
            previous = index

    def _at_steady_rate(self) -> list[int]:
        rate = _RATE if self.end <= _MINUTE_S else _LONG_RATE
        num = max(1, math.ceil(self.end * rate))
        return sorted({self.nearest(step / rate) for step in range(num)})

    def _thinned(self, keys: list[int]) -> list[int]:
        chosen: list[int] = []
        for key in keys:
            if not chosen or self.times[key] - self.times[chosen[-1]] >= _MIN_KEY_GAP_S:
                chosen.append(key)
        return chosen


def _times(reader: _VideoReader) -> "tuple[Seconds, float]":
    """Return the second at which each frame is shown, from 0, and when the last one ends."""
    import numpy as np

    fps = float(reader.get_avg_fps())
    frame_s = 1 / fps if math.isfinite(fps) and fps > 0 else 0.04
    shown = np.asarray(reader.get_frame_timestamp(np.arange(len(reader))), dtype=np.float64)
    times = np.maximum.accumulate(shown[:, 0] - shown[0, 0])
    if not np.isfinite(shown).all() or abs(shown[0, 0]) > 1e9 or (len(times) > 1 and not times[-1]):
        times = (
            np.arange(len(reader), dtype=np.float64) * frame_s
        )  # AVI keeps no times with its frames
        return times, float(times[-1] + frame_s)
    return times, float(max(shown[-1, 1] - shown[0, 0], times[-1] + min(frame_s, 1.0)))


def _decode_errors() -> tuple[type[Exception], ...]:
    import decord

    return (RuntimeError, AssertionError, StopIteration, decord.DECORDError)


def _unforced(keys: list[int]) -> set[int]:
    """Return the key frames that do not come at a distance which occurs again and again.

    Encoders force a key frame after so many frames; the others stand where the picture
    changed.
    """
    gaps = [after - before for before, after in pairwise(keys)]
    usual = {gap for gap, count in Counter(gaps).items() if count > 1}
    return {key for key, gap in zip(keys[1:], gaps, strict=True) if gap not in usual}
