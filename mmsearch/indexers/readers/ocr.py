"""The words in a picture, read by RapidOCR: offline, on one thread, without a word on stderr.

Tuned on 14 charts and 3 rendered pages (CPU seconds a picture, PP-OCRv6 small, one thread):
with its defaults 2.2; detection at the picture's own size instead of enlarged 1.1; crops
recognised one by one at their own width instead of padded to 320 px 0.8. All read every word
of the pages. Detection at 960 px costs 0.5 s where there is nothing to read; at 736 px it
would cost 0.4 s and lose a sixth of the words of a page in 7-point type.
"""

import functools
import logging
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from PIL.Image import Image

_Engine: TypeAlias = Any  # rapidocr is not typed

MAX_SIDE = 1600
"""Pixels; a larger picture is reduced to it before reading: 10-point text at 150 dpi fits."""

_DETECTION_SIDE = 960
_MIN_SIDE = 12  # pixels; less than the smallest legible line
_PARAMS = {
    "Global.log_level": "critical",
    "Global.use_cls": False,  # upside-down text: rare, and a third network for each line
    "Det.limit_type": "max",
    "Det.limit_side_len": _DETECTION_SIDE,
    "Rec.rec_img_shape": [3, 48, 96],  # the least width of a crop, after which it is padded
    "Rec.rec_batch_num": 1,  # a batch is padded to its widest line
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
}


def read_text(picture: "Image") -> str:
    """Return the lines that stand in an RGB picture, top to bottom, or an empty string."""
    import numpy as np
    from PIL import Image

    from mmsearch.indexers.readers.pictures import bounded_size

    if min(picture.size) < _MIN_SIDE:
        return ""
    size = bounded_size(*picture.size, MAX_SIDE)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    found = _engine()(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1]))  # it expects BGR
    lines = zip(found.txts or (), found.scores or (), strict=True)
    return "\n".join(line.strip() for line, score in lines if _is_legible(line, score))


def _is_legible(line: str, score: float) -> bool:
    # Dots of a scatter plot and leaves of a tree are read as single letters, without conviction.
    return score >= (0.6 if len(line.strip()) > 1 else 0.85)


@functools.cache
def _engine() -> _Engine:
    """Load the networks once a process, when the first picture is read."""
    from rapidocr import RapidOCR

    engine = RapidOCR(params=_PARAMS)
    logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)
    return engine
