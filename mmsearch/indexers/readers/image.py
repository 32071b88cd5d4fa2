"""Pictures: one segment a file, with the words that stand in it."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.errors import UnreadableFile
from mmsearch.indexers.readers import about, ocr
from mmsearch.indexers.readers.pictures import fit, look, thumbnail
from mmsearch.values import Kind, ReadPolicy, Segment, TextOrigin, on_white

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image


def read(path: Path, policy: ReadPolicy) -> Iterator[Segment]:
    """Yield the picture, upright, in RGB, on white; of an animation its first frame."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures and odd metadata: judged below
        try:
            file = Image.open(path)
        except Image.DecompressionBombError:
            raise UnreadableFile(path, "its picture is too large to decode") from None
        except UnidentifiedImageError:
            raise UnreadableFile(path, "it is not a picture, or its header is damaged") from None
        with file:
            picture, words = _decode(path, file, policy)

    text = ocr.read_text(picture) if policy.ocr else ""
    pixels = fit(picture, policy.max_pixels)
    yield Segment(
        kind=Kind.IMAGE,
        text=text,
        text_origin=TextOrigin.OCR if text else TextOrigin.NONE,
        about=words,
        pixels=pixels[None],
        thumbnail=thumbnail(picture),
        look=look(pixels),
        awaits_ocr=not policy.ocr,
    )


def _decode(path: Path, file: "Image", policy: ReadPolicy) -> tuple["Image", str]:
    from PIL import ImageOps

    width, height = file.size
    # Before any pixel is decoded: a file of 100 bytes may ask for 100 GB.
    if width * height > policy.max_decoded_pixels:
        limit = policy.max_decoded_pixels / 1e6
        raise UnreadableFile(path, f"its picture is {width} x {height}, over {limit:g} megapixels")
    # JPEG decodes at 1/2, 1/4 or 1/8 for a fraction of the time; OCR's size is all we need.
    file.draft("RGB", (ocr.MAX_SIDE, ocr.MAX_SIDE))
    file.load()
    words = about.join(about.name_words(path), *_exif(file).splitlines())
    return to_rgb(ImageOps.exif_transpose(file)), words


def _exif(file: "Image") -> str:
    try:
        return about.exif_words(file.getexif())
    except Exception:  # broken EXIF is common and no reason to lose a picture
        return ""


def to_rgb(picture: "Image") -> "Image":
    """Return the picture in 8-bit RGB, what is transparent composited on white."""
    import numpy as np
    from PIL import Image

    if picture.mode.startswith("I") or picture.mode == "F":
        picture = Image.fromarray(_to_8_bits(np.asarray(picture, dtype=np.float64)))
    return on_white(picture)


def _to_8_bits(values: "npt.NDArray[np.float64]") -> "npt.NDArray[np.uint8]":
    """Bring a 16- or 32-bit greyscale into 0..255.

    Whole numbers up to 255 are taken as they are. Sensors, depth maps and fractions seldom
    use their range: the values that occur are spread over it, or a 12-bit scan would come
    out nearly black. A picture of one value is taken as a share of the range it is of.
    """
    import numpy as np

    finite = np.nan_to_num(values, posinf=0, neginf=0)
    low, high = finite.min(), finite.max()
    if low >= 0 and high <= 255 and np.array_equal(finite, np.rint(finite)):
        return finite.astype(np.uint8)
    if low == high:
        share = low / (1 if 0 <= high <= 1 else 65535)
        return np.full(finite.shape, round(255 * float(np.clip(share, 0, 1))), dtype=np.uint8)
    return ((finite - low) * (255 / max(high - low, 1e-9))).astype(np.uint8)
