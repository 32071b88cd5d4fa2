"""The media of a query, read exactly as documents are.

    Query -> images, film, page -> Segment, Segment, ...

The same readers in the same sandbox serve both sides, so that a picture that is
asked with and the same picture in the index become the same pixels and words.
"""

from pathlib import Path

from mmsearch.errors import BadInput, UnreadableFile
from mmsearch.indexers.sandbox import ReadTask, Sandbox
from mmsearch.values import Kind, Locator, Query, ReadPolicy, Segment


def read_query_media(query: Query, sandbox: Sandbox, policy: ReadPolicy) -> list[Segment]:
    """Return a segment for each picture, film and page of the query, in that order.

    Raises UnreadableFile for one that cannot be read, BadInput for a page that is
    not named as ``file.pdf#3``.
    """
    tasks = [_task(Path(image), Kind.IMAGE, policy) for image in query.images]
    if query.video is not None:
        tasks.append(_task(Path(query.video), Kind.VIDEO, policy))
    if query.page is not None:
        path, page = parse_page(query.page)
        tasks.append(_task(path, Kind.PDF, policy, page))
    return [segment for task in tasks for segment in sandbox.read_one(task)]


def parse_page(name: str) -> tuple[Path, int]:
    """Split ``report.pdf#3`` into its path and its 1-based page; raises BadInput."""
    path, mark, page = name.rpartition("#")
    if not mark or not path or not page.isdecimal() or int(page) < 1:
        error = BadInput(f"{name!r} does not name a page")
        error.hint = "write it as report.pdf#3, pages counting from 1"
        raise error
    return Path(path), int(page)


def _task(path: Path, kind: Kind, policy: ReadPolicy, page: int | None = None) -> ReadTask:
    if not path.is_file():
        reason = "it is no file that can be read" if path.exists() else "there is no such file"
        raise UnreadableFile(path, reason)
    only = Locator(page=page) if page else None
    return ReadTask(path, kind, policy, only=only, whole=page is None)
