"""The file that a document was made from, opened only while it is still that one.

    Document -> file open for reading

Whoever may write to an indexed folder could put a link to any file of this machine where a
document was, and have it read out by someone who may read that: so what is opened has to have
the size, the time and the kind that the index knows.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from mmsearch.errors import UnreadableFile
from mmsearch.indexers.discover import Source, files_of
from mmsearch.indexers.readers import sniff
from mmsearch.values import Document, Kind


def open_original(document: Document) -> BinaryIO:
    """Open the file of a document. Raises UnreadableFile where it is gone or another one."""
    source = None
    if document.path.startswith("/"):  # else it is a text that was given, and no file
        [(_, source)] = files_of([document.path])
    if source is None:
        raise UnreadableFile(document.path, "there is no such file any more")
    try:
        # Never waiting: what is a pipe by now would keep us for ever.
        fd = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise UnreadableFile(document.path, "it cannot be opened any more") from error
    file = os.fdopen(fd, "rb")
    try:
        if not _is_the_one(file, source, document):
            raise UnreadableFile(document.path, "it is not what was indexed any more")
    except BaseException:
        file.close()
        raise
    return file


def _is_the_one(file: BinaryIO, source: Source, document: Document) -> bool:
    """Judge by the open file: its name may lead elsewhere already."""
    state = os.fstat(file.fileno())
    if not stat.S_ISREG(state.st_mode):
        return False
    if (source.size, source.mtime_ns) != (document.size, document.mtime_ns):
        return False
    if document.kind is Kind.VIDEO:  # of a film the index knows the sum with its subtitles
        is_same = state.st_size <= document.size and state.st_mtime_ns <= document.mtime_ns
    else:
        is_same = (state.st_size, state.st_mtime_ns) == (document.size, document.mtime_ns)
    return is_same and (document.kind is Kind.TEXT or _kind(file) is document.kind)


def _kind(file: BinaryIO) -> Kind | None:
    try:
        return sniff(Path(f"/dev/fd/{file.fileno()}"))
    except UnreadableFile:
        return None
