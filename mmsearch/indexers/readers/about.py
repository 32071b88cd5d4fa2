"""Words about a file that do not stand in it: its name, and what a camera wrote down."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Exif

_MAX_CHARS = 500  # of one metadata field: producers put whole licences into them

_DESCRIPTION, _MAKE, _MODEL, _DATE, _ARTIST = 0x010E, 0x010F, 0x0110, 0x0132, 0x013B
_EXIF_IFD, _GPS_IFD, _TAKEN = 0x8769, 0x8825, 0x9003


def name_words(path: Path) -> str:
    """Return the file's stem as words: ``sales-by_region2024.png`` -> ``sales by region 2024``."""
    spaced = re.sub(r"[\W_]+", " ", path.stem)
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[^\W\d])(?=\d{4})", " ", spaced)
    return spaced.strip()


def join(*fields: object) -> str:
    """Return the fields that say something, each once, one a line."""
    words = (clean(field) for field in fields)
    return "\n".join(dict.fromkeys(word for word in words if word))


def clean(field: object) -> str:
    """Return a metadata field as one short line, without control characters."""
    if isinstance(field, bytes):
        field = field.decode("utf-8", "replace")
    text = str(field) if field is not None else ""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:_MAX_CHARS]


def exif_words(exif: "Exif") -> str:
    """Return description, artist, camera, date and place, as far as they are there."""
    camera = " ".join(dict.fromkeys(f"{clean(exif.get(_MAKE))} {clean(exif.get(_MODEL))}".split()))
    taken = clean(exif.get_ifd(_EXIF_IFD).get(_TAKEN) or exif.get(_DATE))
    date, _, clock = taken.partition(" ")
    place = _place(dict(exif.get_ifd(_GPS_IFD)))
    return join(
        exif.get(_DESCRIPTION),
        exif.get(_ARTIST),
        camera,
        f"{date.replace(':', '-')} {clock}",
        place,
    )


def _place(gps: dict[int, object]) -> str:
    try:
        north, east = _degrees(gps[2]), _degrees(gps[4])
    except (KeyError, TypeError, ValueError, ZeroDivisionError, IndexError):
        return ""  # no position, or one that makes no sense: nothing to say
    south, west = clean(gps.get(1)).upper() == "S", clean(gps.get(3)).upper() == "W"
    if not (0 <= north <= 90 and 0 <= east <= 180):
        return ""
    return f"{north:.4f}° {'S' if south else 'N'}, {east:.4f}° {'W' if west else 'E'}"


def _degrees(parts: object) -> float:
    if not isinstance(parts, tuple):
        raise TypeError("degrees, minutes and seconds are a tuple")
    degrees, minutes, seconds = (float(part) for part in parts)
    return degrees + minutes / 60 + seconds / 3600
