"""What crosses between the sandbox and its workers.

    sandbox --ReadTask, taken, taken, ...--> worker --[segments, ending], ...--> sandbox

Tasks are pickled: they come from us. What comes back is JSON and raw bytes and is
never unpickled: a file that takes over a decoder shall not take over the run. Pixels
do not pass through the socket, which would hand them over in some dozen pieces: the worker
writes them into one of the `SLOTS` of an unnamed file in memory, the sandbox reads them from
there and says that they are taken.
"""

import contextlib
import json
import os
import pickle
import tempfile
from collections import deque
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mmsearch.values import Kind, Locator, ReadPolicy, Segment, TextOrigin

SLOTS = 2  # segments whose pixels may be under way
_SLOT_BYTES = 1 << 32  # apart; what is not written takes no memory
_HEADER_BYTES = 4
_TAKEN = b""


@dataclass(frozen=True, slots=True)
class ReadTask:
    """One file to read.

    kind:         what it is; None lets the worker look
    only:         keep to one page of a PDF, or with ``whole`` to a span of a film
    whole:        a film as one segment, for queries
    count:        one segment whose text says how many there are, about
    placed:       one segment whose text says which words stand where on the page of ``only``
    content_hash: empty where it is to be taken too: then the task that ends has it
    busy_s:       of a task that ended: seconds that its worker spent on it
    """

    path: Path
    kind: Kind | None
    policy: ReadPolicy
    only: Locator | None = None
    whole: bool = False
    count: bool = False
    placed: bool = False
    content_hash: str | None = None
    busy_s: float = 0.0


def make_slots() -> int:
    """Return the descriptor of a file for pixels that nobody else can open."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("mmsearch-pixels", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:  # macOS
        return os.dup(file.fileno())


# ---------------------------------------------------------------- the worker's side


class Outbox:
    """Where a worker puts what it has read; small segments travel together.

    Tasks that come in while it waits for a slot are kept for `next_task`.
    """

    def __init__(self, connection: Connection, slots: int) -> None:
        self._connection, self._slots = connection, slots
        self._headers: list[dict[str, Any]] = []
        self._blobs: list[bytes] = []
        self._num_bytes = 0
        self._under_way = self._next_slot = 0
        self._tasks: deque[ReadTask] = deque()

    def next_task(self) -> ReadTask:
        """Wait for a task. Raises EOFError when there will be none."""
        while not self._tasks:
            self._hear()
        return self._tasks.popleft()

    def add(self, segment: Segment, *, busy_s: float) -> None:
        """Put a segment; waits while nobody takes those before."""
        at = None
        if segment.pixels is not None:
            if self._under_way == SLOTS:
                self.send(busy_s=busy_s)
            while self._under_way == SLOTS:
                self._hear()
            at = self._next_slot * _SLOT_BYTES
            _write(self._slots, segment.pixels.data.cast("B"), at)
            self._next_slot = (self._next_slot + 1) % SLOTS
            self._under_way += 1
        self._headers.append(_header(segment, at))
        self._blobs.append(segment.thumbnail)
        self._num_bytes += len(segment.thumbnail) + len(segment.text)

    @property
    def num_bytes(self) -> int:
        """What waits to be sent, about; pixels do not count."""
        return self._num_bytes

    def send(self, *, busy_s: float, ending: dict[str, Any] | None = None) -> None:
        """Send what was put, the seconds spent on its file so far, and how that ended."""
        message = {"segments": self._headers, "busy_s": busy_s, "ending": ending}
        header = json.dumps(message).encode()
        length = len(header).to_bytes(_HEADER_BYTES, "little")
        self._connection.send_bytes(b"".join((length, header, *self._blobs)))
        self._headers, self._blobs, self._num_bytes = [], [], 0

    def _hear(self) -> None:
        message = self._connection.recv_bytes()
        if message == _TAKEN:
            self._under_way -= 1
        else:
            self._tasks.append(pickle.loads(message))


def _header(segment: Segment, at: int | None) -> dict[str, Any]:
    return {
        "kind": segment.kind,
        "locator": asdict(segment.locator),
        "text": segment.text,
        "text_origin": segment.text_origin,
        "about": segment.about,
        "shape": None if segment.pixels is None else segment.pixels.shape,
        "at": at,
        "thumbnail": len(segment.thumbnail),
        "look": segment.look,
        "awaits_ocr": segment.awaits_ocr,
    }


def _write(file: int, content: memoryview, at: int) -> None:
    while content:
        written = os.pwrite(file, content, at)
        content, at = content[written:], at + written


# ---------------------------------------------------------------- the sandbox's side


def send_task(connection: Connection, task: ReadTask) -> None:
    """Hand a task over. Raises OSError where the other end is gone."""
    connection.send_bytes(pickle.dumps(task))


def receive(connection: Connection, slots: int) -> dict[str, Any]:
    """Return the next message, its ``segments`` made again.

    Raises EOFError or OSError where the other end is gone.
    """
    content = memoryview(connection.recv_bytes())
    end = _HEADER_BYTES + int.from_bytes(content[:_HEADER_BYTES], "little")
    message: dict[str, Any] = json.loads(bytes(content[_HEADER_BYTES:end]))
    segments = []
    for header in message["segments"]:
        thumbnail = bytes(content[end : end + header["thumbnail"]])
        end += header["thumbnail"]
        segments.append(_segment(header, thumbnail, slots))
        if header["at"] is not None:
            with contextlib.suppress(OSError):  # it died: the next message will not come
                connection.send_bytes(_TAKEN)
    message["segments"] = segments
    return message


def _segment(header: dict[str, Any], thumbnail: bytes, slots: int) -> Segment:
    pixels = None
    if header["shape"] is not None:
        import numpy as np

        pixels = np.empty(header["shape"], np.uint8)  # torch wants one that may be written to
        _read(slots, pixels.data.cast("B"), header["at"])
    return Segment(
        kind=Kind(header["kind"]),
        locator=Locator(**header["locator"]),
        text=header["text"],
        text_origin=TextOrigin(header["text_origin"]),
        about=header["about"],
        pixels=pixels,
        thumbnail=thumbnail,
        look=header["look"],
        awaits_ocr=header["awaits_ocr"],
    )


def _read(file: int, content: memoryview, at: int) -> None:
    while content:
        if hasattr(os, "preadv"):
            num_bytes = os.preadv(file, [content], at)
        else:  # macOS
            chunk = os.pread(file, len(content), at)
            num_bytes = len(chunk)
            content[:num_bytes] = chunk
        if not num_bytes:
            raise EOFError("the pixels are not where they should be")
        content, at = content[num_bytes:], at + num_bytes
