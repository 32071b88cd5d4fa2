"""A running server of an index, asked through the socket in the folder of the index.

    Query -> JSON over <index>/serve.sock -> Answer, or None where there is none to be had

The command line asks here first: the server has the model in memory, so that an answer
costs milliseconds and not the seconds that loading one takes. Whatever is in the way (no
server, one of another version, one that is busy, one that refuses) is None and never an
error: the caller then does the work itself, and meets the same error where there is one.
Nothing is imported before there is a socket to talk to.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch import __version__
from mmsearch.values import Hit, Kind, Locator, Query

if TYPE_CHECKING:
    from http.client import HTTPConnection

SOCKET_NAME = "serve.sock"  # in the folder of an index
_GREETING_S = 1.0  # a server that is alive says so at once, however much it computes
_ANSWER_S = 60.0  # beyond it a model of one's own is likely to be quicker
_LONGEST_ADDRESS = 100  # bytes; 108 with the closing zero on Linux, 104 on macOS
_MOST_MEDIA_BYTES = 40 * 2**20  # as base64 still below what a server takes by default


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server found: hits, the id of their space, and how long the search took."""

    hits: list[Hit]
    space: str
    took_ms: float


def query(
    db: Path, asked: Query, *, k: int, group: bool, collapse: bool, ocr: bool
) -> Answer | None:
    """Return what a running server of the index at ``db`` answers, or None."""
    if asked.is_empty or not _is_ours(db / SOCKET_NAME):
        return None
    wanted = search_body(asked, k=k, group=group, collapse=collapse, ocr=ocr)
    try:
        wanted |= _media(asked)
    except (OSError, ValueError):
        return None
    return _ask(db, "/v1/search", wanted)


def search_body(
    asked: Query, *, k: int, group: bool, collapse: bool, ocr: bool
) -> dict[str, object]:
    """Return what /v1/search is to be sent for a query, but for its media."""
    return {
        "query": asked.text,
        "negative": list(asked.negative),
        "where": asked.where,
        "kinds": None if asked.kinds is None else [str(kind) for kind in asked.kinds],
        "path": asked.path,
        "min_score": asked.min_score,
        "k": k,
        "group": group,
        "collapse": collapse,
        "ocr": ocr,
    }


def similar(db: Path, segment_id: str, *, k: int) -> Answer | None:
    """Return the segments most like one, by a running server of the index, or None."""
    return _ask(db, "/v1/similar", {"segment": segment_id, "k": k})


def is_answered(db: Path) -> bool:
    """Say whether a server runs on the index that speaks as we do."""
    if not _is_ours(db / SOCKET_NAME):
        return False
    from http.client import HTTPException

    try:
        with _Talk(db) as server:
            return server.greets()
    except (OSError, HTTPException, LookupError, TypeError, ValueError):
        return False


def _ask(db: Path, path: str, wanted: Mapping[str, object]) -> Answer | None:
    if not _is_ours(db / SOCKET_NAME):
        return None
    import json
    from http.client import HTTPException

    given = {name: value for name, value in wanted.items() if value is not None}
    try:
        with _Talk(db) as server:
            if not server.greets():
                return None
            told = server.say("POST", path, json.dumps(given), within_s=_ANSWER_S)
            return Answer(
                hits=[_hit(one) for one in told["hits"]],
                space=str(told["space"]),
                took_ms=float(told["took_ms"]),
            )
    except (OSError, HTTPException, LookupError, TypeError, ValueError):
        return None


def _media(asked: Query) -> dict[str, object]:
    """Return the media of a query as ``data:`` URIs.

    Raises OSError for what cannot be read, ValueError for what is too large or names no page.
    """
    page, _, number = (asked.page or "").rpartition("#")
    if asked.page and not page:
        raise ValueError("it names no page")
    paths = [*asked.images, *([asked.video] if asked.video else []), *([page] if page else [])]
    if not paths:
        return {}
    import base64

    if sum(os.stat(path).st_size for path in paths) > _MOST_MEDIA_BYTES:
        raise ValueError("too large to be sent")

    def uri(path: str | Path) -> str:
        return "data:;base64," + base64.b64encode(Path(path).read_bytes()).decode()

    media: dict[str, object] = {"images": [uri(path) for path in asked.images]}
    if asked.video:
        media["video"] = uri(asked.video)
    if page:
        media["page"] = f"{uri(page)}#{int(number)}"
    return media


def _is_ours(address: Path) -> bool:
    """Say whether there is a socket that somebody with our rights, and no other, made."""
    try:
        found = address.lstat()
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid()


def _hit(told: Mapping[str, Any]) -> Hit:
    places = ("page", "start", "end", "char_start", "char_end")
    return Hit(
        rank=told["rank"],
        score=told["score"],
        parts=told["parts"],
        segment_id=told["id"],
        path=told["path"],
        kind=Kind(told["kind"]),
        locator=Locator(**{name: told.get(name) for name in places}),
        text=told["text"],
        about=told["about"],
    )


class _Talk:
    """One connection to the server; it ends with the block, answered or not."""

    def __init__(self, db: Path) -> None:
        self._db = db
        self._connection: HTTPConnection | None = None

    def __enter__(self) -> "_Talk":
        import socket
        from http.client import HTTPConnection

        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(_GREETING_S)
        try:
            _connect(link, self._db)
        except BaseException:
            link.close()
            raise
        self._connection = HTTPConnection("localhost")
        self._connection.sock = link
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection:
            self._connection.close()

    def greets(self) -> bool:
        """Say whether the server is of our version; raises as `say` does."""
        told = self.say("GET", "/healthz", within_s=_GREETING_S)
        return bool(told["version"] == __version__)

    def say(self, method: str, path: str, body: str = "", *, within_s: float) -> dict[str, Any]:
        """Return the JSON object that the server answers; ValueError for a refusal.

        within_s: no read or write may take longer
        """
        import json

        connection = self._connection
        if connection is None or connection.sock is None:
            raise ConnectionError("the server has hung up")
        connection.sock.settimeout(within_s)
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request(method, path, body=body.encode() or None, headers=headers)
        with connection.getresponse() as response:
            answer = response.read()
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            return dict(json.loads(answer))


def _connect(link: Any, db: Path) -> None:  # noqa: ANN401  socket is imported where it is used
    """Connect to the socket in a folder, also where its path is longer than an address."""
    address = os.fsencode(db / SOCKET_NAME)
    if len(address) <= _LONGEST_ADDRESS:
        link.connect(address)
        return
    folder = os.open(db, os.O_RDONLY | os.O_DIRECTORY)
    try:
        link.connect(f"/proc/self/fd/{folder}/{SOCKET_NAME}")
    finally:
        os.close(folder)
