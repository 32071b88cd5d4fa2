"""The rows of a file as bytes, found again by their place, whatever the file was.

    JSONL, a JSON array, Parquet -> Lines: (number, offset, size) of every row, and its bytes

JSONL is read where it lies. A JSON array and Parquet are written once, row by row, into a
temporary file that nobody else sees, so that every row has a place there too: none of them
is ever whole in memory.
"""

import codecs
import json
import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from mmsearch.errors import BadTrainingFile

MAX_LINE = 16 * 2**20  # bytes of a row; none that anybody wrote is near it
READ_AHEAD = 2**20


class Line(NamedTuple):
    """Where a row is: its number counted from 1, its first byte, its bytes; -1 is too long."""

    number: int
    offset: int
    size: int


class Lines:
    """The rows of one file; several threads may read at once.

    Raises BadTrainingFile for a file that cannot be opened, is a folder, or is not text.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.is_dir():
                raise BadTrainingFile(path, "it is a folder", hint="name a file in it")
            if path.exists() and not path.is_file():
                raise BadTrainingFile(path, "it is not a regular file")
            with path.open("rb") as file:
                self._start = self._look(file)
                is_array = self._starts_array(file)
            if path.suffix == ".parquet":
                self._file = _spooled(path, _parquet_rows(path))
            elif is_array:
                self._file = _spooled(path, _array_rows(path))
            else:
                self._file = path.open("rb")
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
            reason = getattr(error, "strerror", None) or str(error)
            hint = "name a file that is there and that you may read"
            raise BadTrainingFile(path, reason[:1].lower() + reason[1:], hint=hint) from error
        # Rows are read as long as anybody holds them, so nobody else can say when to close.
        weakref.finalize(self, self._file.close)

    def __iter__(self) -> Iterator[Line]:
        """Yield where each row is, in order; empty lines count and are not yielded."""
        self._file.seek(self._start)
        offset, number = self._start, 0
        while True:
            line = self._file.readline(MAX_LINE)
            if not line:
                return
            number += 1
            start, offset = offset, offset + len(line)
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                while (rest := self._file.readline(READ_AHEAD)) and not rest.endswith(b"\n"):
                    offset += len(rest)
                offset += len(rest)
                yield Line(number, start, -1)
            elif line.strip():
                yield Line(number, start, len(line))

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes of a row."""
        return os.pread(self._file.fileno(), size, offset)

    def _look(self, file: IO[bytes]) -> int:
        """Return where the first row begins, behind a mark of UTF-8."""
        head = file.read(4)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise BadTrainingFile(self.path, "it is UTF-16", hint="save it as UTF-8")
        if head.startswith(b"\x1f\x8b"):
            raise BadTrainingFile(self.path, "it is packed", hint=f"gunzip {self.path}")
        return len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0

    def _starts_array(self, file: IO[bytes]) -> bool:
        file.seek(self._start)
        while byte := file.read(1):
            if not byte.isspace():
                return byte == b"["
        return False


def _spooled(path: Path, rows: Iterator[object]) -> IO[bytes]:
    spool = tempfile.TemporaryFile(prefix="mmsearch-")  # noqa: SIM115  closed with its owner
    try:
        for row in rows:
            spool.write(json.dumps(row, default=str).encode() + b"\n")
        spool.flush()
    except BaseException as error:
        spool.close()
        if not isinstance(error, OSError):
            raise
        raise BadTrainingFile(
            path,
            f"its rows could not be put into {tempfile.gettempdir()}: {error.strerror}",
            hint="make room there, or set TMPDIR",
        ) from error
    return spool


def _parquet_rows(path: Path) -> Iterator[object]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1_024):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise BadTrainingFile(path, f"it is not Parquet: {str(error).splitlines()[0]}") from error


def _array_rows(path: Path) -> Iterator[object]:
    """Yield the entries of a JSON array without ever holding more than some of them."""
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8") as file:
        text, at, number = file.read(READ_AHEAD), 0, 0
        at = text.index("[") + 1
        while True:
            while True:
                while at < len(text) and (text[at].isspace() or text[at] == ","):
                    at += 1
                if at < len(text) and text[at] == "]":
                    return
                try:
                    row, end = decoder.raw_decode(text, at)
                    break
                except (json.JSONDecodeError, RecursionError) as error:
                    more = file.read(max(READ_AHEAD, len(text) - at))
                    if not more or len(text) - at > MAX_LINE:
                        reason = f"the entry after {number} of its array is not JSON"
                        raise BadTrainingFile(path, reason) from error
                    text, at = text[at:] + more, 0
            number += 1
            yield row
            at = end
