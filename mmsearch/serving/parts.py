"""What a request brings, made ready for the engine.

    "words", {"type": "text"}, {"type": "image_url"}, ... -> Uploads -> str | Upload -> Item, Query

Media come as ``data:`` URIs or as files of a form, are written to a private folder that is gone
when the request is answered, and are looked at (their first bytes, never their name or the type
they claim) before any decoder sees them: decoders that open other files by themselves, as for
play lists and PostScript, are never reached. Decoding is the engine's, in its workers.
"""

import base64
import binascii
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from mmsearch.engine import Engine
from mmsearch.errors import BadUpload, NotAllowed, TooLarge, UnreadableFile
from mmsearch.serving.settings import Settings
from mmsearch.values import Item, Kind

_TYPES = {
    "text": None,
    "image_url": Kind.IMAGE,
    "video_url": Kind.VIDEO,
    "document_url": Kind.PDF,
}
PART_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {"enum": list(_TYPES)},
        "text": {"type": "string"},
        **{
            name: {
                "type": "object",
                "required": ["url"],
                "properties": {"url": {"type": "string"}, "page": {"type": "integer"}},
            }
            for name in _TYPES
            if name != "text"
        },
    },
}
"""How the API describes a part."""

_NAMES = {Kind.IMAGE: "picture", Kind.VIDEO: "film", Kind.PDF: "PDF", Kind.TEXT: "text"}
_MAX_PAGE = 1_000_000
_MAX_HEAD_CHARS = 200  # of a data: URI, before its comma
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture, a film or a page that came with a request.

    name: where it stands in the request, for errors: ``images[1]``
    """

    path: Path
    kind: Kind
    name: str
    page: int = 1


class Uploads:
    """The media of one request, in a folder of their own; a context manager.

    fetch: returns the bytes behind an http(s) address; None where none may be fetched
    """

    def __init__(
        self, settings: Settings, *, fetch: "Callable[[str], bytes] | None" = None
    ) -> None:
        self._settings, self._limits = settings, settings.limits
        self._fetch = fetch
        if fetch is None and settings.allow_url_fetch:
            from mmsearch.serving import fetching

            self._fetch = partial(fetching.fetch, max_bytes=settings.limits.max_body_bytes)
        self._folder: Path | None = None
        self._kept: list[Upload] = []
        self._num_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    # ------------------------------------------------------------ what comes in

    def parts(self, content: object, *, name: str = "input") -> list[str | Upload]:
        """Return the words and media of one input: a text, or a list of texts and parts.

        Raises BadUpload, TooLarge, and NotAllowed for an address that may not be fetched.
        """
        if isinstance(content, str):
            return [self.text(content, name=name)]
        if isinstance(content, Mapping):
            content = [content]
        if not isinstance(content, Sequence) or isinstance(content, bytes):
            raise BadUpload(name, "it is neither text nor a list of parts")
        if len(content) > self._limits.max_parts:
            raise TooLarge(f"{name} with {len(content)} parts", f"{self._limits.max_parts} parts")
        return [self._part(part, f"{name}[{place}]") for place, part in enumerate(content)]

    def text(self, text: str, *, name: str) -> str:
        """Return a text as UTF-8 can say it; raises TooLarge."""
        if len(text) > self._limits.max_text_chars:
            raise TooLarge(f"{name}, a text,", f"{self._limits.max_text_chars} characters")
        return text.encode("utf-8", "replace").decode()

    def _part(self, part: object, name: str) -> str | Upload:
        if isinstance(part, str):
            return self.text(part, name=name)
        if not isinstance(part, Mapping):
            raise BadUpload(name, "a part is a text or an object with a type")
        said = part.get("type")
        if not isinstance(said, str) or said not in _TYPES:
            raise BadUpload(name, f"its type is none of {', '.join(_TYPES)}")
        kind, given = _TYPES[said], part.get(said)
        if kind is None:
            if not isinstance(given, str):
                raise BadUpload(name, "it has no text")
            return self.text(given, name=name)
        page: object = 1
        if isinstance(given, Mapping):
            page = given.get("page", 1)
            given = given.get("url")
        if not isinstance(given, str):
            raise BadUpload(name, f"it has no {said}.url")
        return self.from_uri(given, kind, name=name, page=page)

    def from_uri(self, uri: str, kind: Kind, *, name: str, page: object = 1) -> Upload:
        """Return the media of a ``data:`` URI, or of an address where these may be fetched.

        Raises BadUpload, TooLarge, NotAllowed.
        """
        scheme = uri[:8].lower()
        if scheme.startswith("data:"):
            self._make_room(name)
            return self.from_bytes(self._decoded(uri, name), kind, name=name, page=page)
        if scheme.startswith(("http:", "https:")):
            if self._fetch is None:
                raise NotAllowed(
                    name,
                    "this server fetches no addresses",
                    hint="send a data: URI, or start it with --allow-url-fetch",
                )
            self._make_room(name)
            return self.from_bytes(self._fetch(uri), kind, name=name, page=page)
        raise BadUpload(name, "it is no data: URI", hint="data:image/png;base64,...")

    def from_bytes(self, content: bytes, kind: Kind, *, name: str, page: object = 1) -> Upload:
        """Return media that were sent as they are; raises BadUpload, TooLarge."""
        self._make_room(name)
        self._count(len(content))
        path = self._new_path()
        path.write_bytes(content)
        return self._keep(path, kind, name, page)

    def from_file(self, file: IO[bytes], kind: Kind, *, name: str, page: object = 1) -> Upload:
        """Return a file of a form; raises BadUpload, TooLarge."""
        self._make_room(name)
        path = self._new_path()
        with path.open("wb") as out:
            while block := file.read(_COPY_BYTES):
                self._count(len(block))
                out.write(block)
        return self._keep(path, kind, name, page)

    def from_path(self, path: str, kind: Kind, *, name: str, page: object = 1) -> Upload:
        """Return a file of this machine, if it lies under one of the server's roots.

        Raises NotAllowed, whether or not there is such a file elsewhere; BadUpload.
        """
        self._make_room(name)
        return self._keep(real_path(path, self._settings.roots, name=name), kind, name, page)

    def _decoded(self, uri: str, name: str) -> bytes:
        head, comma, body = uri[:_MAX_HEAD_CHARS].partition(",")
        if not comma or not head.lower().rstrip().endswith(";base64"):
            hint = "data:image/png;base64,..."
            raise BadUpload(name, "it is no base64 data: URI", hint=hint)
        body = uri[len(head) + 1 :]
        # Before it is decoded: what is too large is not held twice.
        if len(body) // 4 * 3 > self._limits.max_body_bytes - self._num_bytes + 4:
            raise self._too_many_bytes()
        try:
            return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise BadUpload(name, "its base64 is broken") from None

    def _make_room(self, name: str) -> None:
        if len(self._kept) >= self._limits.max_media:
            raise TooLarge(name, f"{self._limits.max_media} pictures and films a request")

    def _count(self, num_bytes: int) -> None:
        self._num_bytes += num_bytes
        if self._num_bytes > self._limits.max_body_bytes:
            raise self._too_many_bytes()

    def _too_many_bytes(self) -> TooLarge:
        limit = f"{self._limits.max_body_bytes / 2**20:g} MiB"
        return TooLarge("what the request brings", limit)

    def _new_path(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="mmsearch-request-"))  # for us alone
        return self._folder / str(len(self._kept))

    def _keep(self, path: Path, kind: Kind, name: str, page: object) -> Upload:
        if not isinstance(page, int) or isinstance(page, bool) or not 1 <= page <= _MAX_PAGE:
            raise BadUpload(name, "its page is no number from 1")
        try:
            found = Engine.kind_of(path)
        except UnreadableFile as error:
            raise BadUpload(name, plain_reason(error.reason)) from None
        if found is not kind and not (kind is Kind.IMAGE and _is_gif(path)):
            other = f", but a {_NAMES[found]}" if found else " that can be read"
            raise BadUpload(name, f"it is no {_NAMES[kind]}{other}")
        upload = Upload(path, kind, name, page)
        self._kept.append(upload)
        return upload

    # ------------------------------------------------------------ what goes on

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Say of what cannot be read in here where it stands in the request, and no more."""
        try:
            yield
        except UnreadableFile as error:
            for upload in self._kept:
                if str(upload.path) == error.path:
                    raise BadUpload(upload.name, plain_reason(error.reason)) from None
            raise

    def item(self, parts: Sequence[str | Upload], engine: Engine) -> Item:
        """Return the parts of one input as what is embedded; raises BadUpload."""
        with self.named():
            return Item(
                [
                    engine.part_of(part.path, page=part.page) if isinstance(part, Upload) else part
                    for part in parts
                ]
            )


def real_path(path: str, roots: Sequence[Path], *, name: str) -> Path:
    """Return where a path leads once all links are followed, if that is under one of ``roots``.

    Raises NotAllowed otherwise, in the same words whether or not there is anything.
    """
    if path and "\0" not in path and os.path.isabs(path):
        with contextlib.suppress(OSError, ValueError):  # too long, or links that lead in a circle
            found = Path(os.path.realpath(path))
            if is_within(found, roots):
                return found
    raise NotAllowed(
        name,
        "it is not an absolute path under a folder that this server may read",
        hint="start it with --root FOLDER" if not roots else "",
    )


def is_within(path: Path, roots: Sequence[Path]) -> bool:
    """Say whether a path without links is one of these folders, or lies in one."""
    return any(path.is_relative_to(os.path.realpath(root)) for root in roots)


_DAMAGED = re.compile(r"it is damaged\b.*", re.DOTALL)
_OURS = re.compile(
    r"it is (?:empty|a folder|not a regular file|not a picture, or its header is damaged"
    r"|not a PDF, or damaged beyond repair|not a PDF, whatever its name says"
    r"|encrypted \(password needed\)|cut short \(its end is missing\)"
    r"|no PDF, image, video or text file|no picture, film or PDF|not text, whatever its name says"
    r"|an MPEG stream, which is not decoded reliably; convert it to MP4)"
    r"|it has (?:no pages|\d{1,9} pages, so no page \d{1,9}|sound but no pictures)"
    r"|it holds nothing but blanks"
    r"|its picture is (?:too large to decode|\d+ x \d+, over [\d.e+]+ megapixels)"
    r"|its frames are \d+ x \d+, (?:too large to decode|over [\d.e+]+ megapixels)"
    r"|it took longer than [\d.e+]+ s(?: for one [a-z]+)?"
    r"|it needs more than [\d.]+ GiB of memory"
    r"|there is no (?:such file|picture|p\.\d+|[\d:]+-[\d:]+)(?: in it)?(?: any more)?"
    r"|it cannot be opened any more|it is not what was indexed any more"
    r"|no such file or directory|permission denied"
)


def plain_reason(reason: str) -> str:
    """Return why a file cannot be read in words of ours; a decoder's are left out."""
    if not reason or _OURS.fullmatch(reason):
        return reason
    if reason.startswith("the reader crashed"):
        return "reading it failed"
    return "it is damaged" if _DAMAGED.fullmatch(reason) else "it cannot be read"


def _is_gif(path: Path) -> bool:
    """Say whether a file is a GIF: an animation is a film, and its first frame a picture."""
    with path.open("rb") as file:
        return file.read(6) in (b"GIF87a", b"GIF89a")
