"""What a file is, by its first bytes: its name is only asked where bytes cannot tell."""

import os
import stat
from pathlib import Path

from mmsearch.errors import UnreadableFile
from mmsearch.values import Kind

TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown", ".rst"})
"""Files of words. Source code, tables and markup are text too, but not prose: not ours."""

SUPPORTED_SUFFIXES = (
    TEXT_SUFFIXES
    | {".pdf"}
    | {".png", ".jpg", ".jpeg", ".jpe", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".jp2"}
    | {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"}
    | {".flv", ".wmv", ".3gp"}
)
"""Names that promise a document: one whose bytes say otherwise failed, others are not ours."""

_HEAD_BYTES = 4096
_IMAGES = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"II*\x00",
    b"MM\x00*",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n",
)
_VIDEOS = (
    b"\x1aE\xdf\xa3",  # Matroska, WebM
    b"FLV\x01",
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"0&\xb2u\x8ef\xcf\x11",  # ASF
)
_STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")
_AUDIO_BRANDS = (b"M4A ", b"M4B ", b"M4P ")


def sniff(path: Path) -> Kind | None:
    """Return what the file is by its content, or None where no reader understands it.

    Reads at most 4 KiB and never waits on a pipe or a device. Raises UnreadableFile
    when it is empty, cannot be opened, or is no regular file.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            folder = stat.S_ISDIR(found.st_mode)
            raise UnreadableFile(path, "it is a folder" if folder else "it is not a regular file")
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UnreadableFile(path, reason) from error
    if not head:
        raise UnreadableFile(path, "it is empty")
    return _by_magic(head) or _by_name(head, path.suffix.lower())


def _by_magic(head: bytes) -> Kind | None:
    if head.startswith(b"%PDF-"):
        return Kind.PDF
    if head.startswith(_IMAGES) or _is_bmp(head):
        return Kind.IMAGE
    if head.startswith((b"GIF87a", b"GIF89a")):
        # The looping extension stands before the first frame of every animated GIF in use;
        # counting frames would mean reading the whole file.
        return Kind.VIDEO if b"NETSCAPE2.0" in head[:2048] else Kind.IMAGE
    if head.startswith(_VIDEOS):
        return Kind.VIDEO
    if head[:4] == b"RIFF":
        return {b"WEBP": Kind.IMAGE, b"AVI ": Kind.VIDEO}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _by_brand(head)
    if head[4:8] in (b"moov", b"mdat", b"wide") and head[:2] in (b"\x00\x00", b"\x00\x01"):
        return Kind.VIDEO  # QuickTime from before ftyp
    if len(head) > 376 and all(head[at] == 0x47 for at in (0, 188, 376)):
        return Kind.VIDEO  # MPEG transport stream: a sync byte every 188
    if len(head) > 388 and all(head[at] == 0x47 for at in (4, 196, 388)):
        return Kind.VIDEO  # the same with time codes, from camcorders
    return None


def _by_brand(head: bytes) -> Kind | None:
    brand = head[8:12]
    if brand in _AUDIO_BRANDS:
        return None
    if brand not in _STILL_BRANDS:
        return Kind.VIDEO
    from PIL import features  # what this pillow was built with decides

    size = int.from_bytes(head[:4], "big")
    return Kind.IMAGE if b"avi" in head[8:size] and features.check("avif") else None


def _is_bmp(head: bytes) -> bool:
    # "BM" alone begins many a text; the reserved bytes and the header's size do not.
    sizes = (12, 40, 52, 56, 64, 108, 124)
    return (
        head[:2] == b"BM"
        and head[6:10] == bytes(4)
        and int.from_bytes(head[14:18], "little") in sizes
    )


def _by_name(head: bytes, suffix: str) -> Kind | None:
    if suffix in TEXT_SUFFIXES:
        return Kind.TEXT if looks_like_text(head) else None
    # Some producers put mail headers or a banner before the PDF; viewers search 1 KiB for it.
    return Kind.PDF if b"%PDF-" in head[:1024] else None


def looks_like_text(head: bytes) -> bool:
    """Tell text from binary junk by its control characters, which prose has not."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or utf16_without_mark(head):
        return True
    controls = sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head)
    return b"\x00" not in head and controls <= len(head) // 100


def utf16_without_mark(head: bytes) -> str:
    """Return the codec of UTF-16 text that lacks its byte order mark, or an empty string.

    In Western text every other byte of it is zero, and no other is.
    """
    even, odd = head[0:200:2], head[1:200:2]
    for codec, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if len(head) >= 8 and zeros.count(0) > 0.7 * len(zeros) and others.count(0) == 0:
            return codec
    return ""
