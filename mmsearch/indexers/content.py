"""The content hash: what a file's bytes are known by.

path -> blake2b of its bytes, 32 hex digits
"""

import hashlib
from pathlib import Path

from mmsearch.errors import UnreadableFile

_CHUNK_BYTES = 1 << 20


def content_hash(path: Path) -> str:
    """Return blake2b of a file's bytes, 32 hex digits; raises UnreadableFile."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise UnreadableFile(path, (error.strerror or str(error)).lower()) from error
    return digest.hexdigest()


def hash_if_readable(path: Path) -> str:
    """Return `content_hash`, or an empty text for a file that cannot be read."""
    try:
        return content_hash(path)
    except UnreadableFile:
        return ""
