"""What crosses between the sandbox and its workers.

    sandbox --ReadTask--> worker --segment, segment, ..., ending--> sandbox

Tasks are pickled: they come from us. What comes back is JSON and raw bytes and is
never unpickled: a file that takes over a decoder shall not take over the run.
"""

import json
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mmsearch.values import Kind, Locator, ReadPolicy, Segment, TextOrigin


@dataclass(frozen=True, slots=True)
class ReadTask:
    """One file to read.

    kind:   what it is; None lets the worker look
    only:   keep to one page of a PDF, or with ``whole`` to a span of a film
    whole:  a film as one segment, for queries
    """

    path: Path
    kind: Kind | None
    policy: ReadPolicy
    only: Locator | None = None
    whole: bool = False


def send(connection: Connection, message: dict[str, Any]) -> None:
    """Send one message that is no segment."""
    connection.send_bytes(json.dumps(message).encode())


def send_segment(connection: Connection, segment: Segment, *, busy_s: float) -> None:
    """Send a segment and the seconds that were spent on its file so far."""
    pixels = segment.pixels
    header = {
        "kind": segment.kind,
        "locator": asdict(segment.locator),
        "text": segment.text,
        "text_origin": segment.text_origin,
        "about": segment.about,
        "shape": None if pixels is None else pixels.shape,
    }
    send(connection, {"segment": header, "busy_s": busy_s})
    connection.send_bytes(segment.thumbnail)
    if pixels is not None:
        connection.send_bytes(pixels.data.cast("B"))


def receive(connection: Connection) -> dict[str, Any]:
    """Return the next message, its ``segment`` made again.

    Raises EOFError or OSError where the other end is gone.
    """
    message: dict[str, Any] = json.loads(connection.recv_bytes())
    if "segment" in message:
        message["segment"] = _segment(connection, message["segment"])
    return message


def _segment(connection: Connection, header: dict[str, Any]) -> Segment:
    thumbnail = connection.recv_bytes()
    pixels = None
    if header["shape"] is not None:
        import numpy as np

        # Received in place: a clip is 5 MB, and torch wants an array that may be written to.
        pixels = np.empty(header["shape"], np.uint8)
        connection.recv_bytes_into(pixels.data.cast("B"))
    return Segment(
        kind=Kind(header["kind"]),
        locator=Locator(**header["locator"]),
        text=header["text"],
        text_origin=TextOrigin(header["text_origin"]),
        about=header["about"],
        pixels=pixels,
        thumbnail=thumbnail,
    )
