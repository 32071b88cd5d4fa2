"""``queries.jsonl``: questions whose answers are known, one JSON object a line.

    {"id", "kind", "text"?, "images"?: [...], "video"?, "page"?: "f.pdf#3",
     "relevant": [{"path", "page"?, "start"?, "end"?}], "note"?}

Paths are relative to the file. An empty ``relevant`` says that nothing answers it.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsearch.errors import BadQueryFile, UnreadableFile
from mmsearch.values import Query, stored_path

FIELDS = frozenset({"id", "kind", "text", "images", "video", "page", "relevant", "note"})
PLACE_FIELDS = frozenset({"path", "page", "start", "end"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an answer is: a document, one of its pages, or a span ``[start, end)`` of it.

    path:       absolute, as the manifest writes it
    page:       1-based
    start, end: seconds
    """

    path: str
    page: int | None = None
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownQuery:
    """A question and every place that answers it; its paths are absolute."""

    id: str
    kind: str
    text: str = ""
    images: tuple[Path, ...] = ()
    video: Path | None = None
    page: str | None = None
    relevant: tuple[Place, ...] = ()
    note: str = ""

    @property
    def query(self) -> Query:
        """The question as an engine takes it."""
        return Query(text=self.text, images=self.images, video=self.video, page=self.page)

    @property
    def page_place(self) -> Place | None:
        """The page that it shows, if it shows one."""
        if self.page is None:
            return None
        path, _, page = self.page.rpartition("#")
        return Place(path=stored_path(Path(path)), page=int(page))


def read_queries(path: Path) -> list[KnownQuery]:
    """Return the queries of a file in their order; empty lines are skipped.

    Raises BadQueryFile with the line number for the first line that is not as described,
    repeats an id or asks nothing; UnreadableFile where the file cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UnreadableFile(path, error.strerror or str(error)) from error
    queries: list[KnownQuery] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            query = _query(json.loads(line.decode("utf-8-sig")), path.parent)
        except ValueError as error:  # of JSON and UTF-8 too
            raise BadQueryFile(path, number, str(error)) from error
        if query.id in seen:
            raise BadQueryFile(path, number, f"id {query.id!r} is that of line {seen[query.id]}")
        seen[query.id] = number
        queries.append(query)
    if not queries:
        raise BadQueryFile(path, 1, "there is no query in the file")
    return queries


def _query(line: object, folder: Path) -> KnownQuery:
    fields = _object(line, "a line", FIELDS)
    for name in ("id", "kind", "relevant"):
        if name not in fields:
            raise ValueError(f"{name!r} is missing")
    images = _list(fields.get("images", []), "images")
    video = fields.get("video")
    places = [_place(place, folder) for place in _list(fields["relevant"], "relevant")]
    query = KnownQuery(
        id=_text(fields["id"], "id"),
        kind=_text(fields["kind"], "kind"),
        text=_text(fields["text"], "text") if "text" in fields else "",
        images=tuple(_file(image, "images", folder) for image in images),
        video=None if video is None else _file(video, "video", folder),
        page=None if fields.get("page") is None else _page(fields["page"], folder),
        relevant=tuple(dict.fromkeys(places)),
        note=_text(fields["note"], "note") if "note" in fields else "",
    )
    if query.query.is_empty:
        raise ValueError("it asks nothing: there is no text, images, video or page")
    return query


def _place(value: object, folder: Path) -> Place:
    fields = _object(value, "a place in 'relevant'", PLACE_FIELDS)
    if "path" not in fields:
        raise ValueError("a place in 'relevant' needs 'path'")
    page, start, end = (fields.get(name) for name in ("page", "start", "end"))
    if page is not None and (type(page) is not int or page < 1):
        raise ValueError(f"'page' counts from 1, got {page!r}")
    if (start is None) != (end is None):
        raise ValueError("a span needs both 'start' and 'end'")
    if page is not None and start is not None:
        raise ValueError("a place is a page or a span, not both")
    if start is not None and not (_is_time(start) and _is_time(end) and start <= end):
        raise ValueError(f"a span is seconds from 'start' to 'end', got {start!r} to {end!r}")
    path = stored_path(_file(fields["path"], "path", folder))
    return Place(path=path, page=page, start=start, end=end)


def _page(value: object, folder: Path) -> str:
    match = re.fullmatch(r"(.+)#([1-9]\d*)", _text(value, "page"))
    if match is None:
        raise ValueError(f"'page' is like 'report.pdf#3', got {value!r}")
    return f"{_file(match[1], 'page', folder)}#{match[2]}"


def _file(value: object, name: str, folder: Path) -> Path:
    return Path(os.path.abspath(folder / _text(value, name)))


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name!r} is a text that is not empty, got {value!r}")
    return value


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name!r} is a list, got {value!r}")
    return value


def _object(value: object, what: str, known: frozenset[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a JSON object, got {value!r}")
    unknown = sorted(value.keys() - known)
    if unknown:
        raise ValueError(
            f"{what} has no field {unknown[0]!r}; there are {', '.join(sorted(known))}"
        )
    return value


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
