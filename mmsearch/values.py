"""The values that travel through the engine, in the order they are made.

    path --reader--> Segment --views--> Item --embedder--> vector --search--> Hit

Every value is frozen and knows no stage: a stage hands on a new value and
never edits the one it was given. This module imports nothing of ours, and
numpy and pillow only where a value is made of pixels.
"""

import enum
import hashlib
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image as PILImage

    Pixels: TypeAlias = npt.NDArray[np.uint8]
    Vectors: TypeAlias = npt.NDArray[np.float32]
    # What a part may be made of.
    Given: TypeAlias = "Part | str | Path | PILImage | Pixels"


class Kind(enum.StrEnum):
    """What sort of document a segment was cut from."""

    PDF = "pdf"
    IMAGE = "image"
    VIDEO = "video"
    TEXT = "text"


class View(enum.StrEnum):
    """The sides from which a segment is embedded; each has its own vector.

    Pixels and words of one page are embedded apart, because a text query is
    systematically closer to words than to pixels: in one list every passage
    would stand before every photograph.
    """

    VISUAL = "visual"
    TEXT = "text"


class Backend(enum.StrEnum):
    """What answers which vectors are nearest; all keep the promise of `seams.VectorIndex`.

    auto:     faiss where its file lies beside the tables, else lance
    lance:    the tables themselves, on disk: every row below a size, an index above it
    faiss:    a file beside the tables, mapped into memory
    exact:    every row, from memory (or from that of a GPU)
    resident: exact while the index has at most 50,000 segments, auto when it has more: for a
              process that asks often
    """

    AUTO = "auto"
    LANCE = "lance"
    FAISS = "faiss"
    EXACT = "exact"
    RESIDENT = "resident"


class Role(enum.StrEnum):
    """On which side of a search an item stands; some models prompt them apart."""

    QUERY = "query"
    DOCUMENT = "document"


# ---------------------------------------------------------------- what an embedder takes


@dataclass(frozen=True, slots=True)
class Text:
    """A part made of words."""

    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A part made of pixels: uint8 RGB ``[height, width, 3]``."""

    pixels: "Pixels"

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or self.pixels.dtype != "uint8":
            raise ValueError(
                f"an image is uint8 [h, w, 3], got {self.pixels.dtype} {self.pixels.shape}"
            )
        _refuse_empty(self.pixels)


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """A part made of moments of a film: uint8 RGB ``[frames, height, width, 3]``."""

    pixels: "Pixels"

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.shape[3] != 3 or self.pixels.dtype != "uint8":
            raise ValueError(
                f"frames are uint8 [t, h, w, 3], got {self.pixels.dtype} {self.pixels.shape}"
            )
        _refuse_empty(self.pixels)


def _refuse_empty(pixels: "Pixels") -> None:
    if pixels.size == 0:
        raise ValueError(f"a part needs at least one pixel, got {pixels.shape}")


Part: TypeAlias = Text | Image | Frames


def as_part(value: "Given") -> Part:
    """Return ``value`` as a part: text, an image file, a picture, or an array of pixels.

    Raises TypeError for anything else, ValueError for an array of another shape.
    """
    if isinstance(value, Text | Image | Frames):
        return value
    if isinstance(value, str):
        return Text(value)
    import numpy as np
    from PIL import Image as pil

    if isinstance(value, Path):
        with pil.open(value) as picture:
            return Image(_upright_on_white(picture))
    if isinstance(value, np.ndarray):
        return Frames(value) if value.ndim == 4 else Image(value)
    if isinstance(value, pil.Image):
        return Image(_upright_on_white(value))
    raise TypeError(f"a part is text, an image, a path to one, or frames, not {type(value)}")


def _upright_on_white(picture: "PILImage") -> "Pixels":
    """Return a picture as readers see it: turned as its EXIF says, nothing transparent."""
    import numpy as np
    from PIL import ImageOps

    return np.asarray(on_white(ImageOps.exif_transpose(picture)))


def on_white(picture: "PILImage") -> "PILImage":
    """Return the picture in 8-bit RGB, what is transparent composited on white."""
    from PIL import Image as pil

    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layered = picture.convert("RGBA")
    white = pil.new("RGBA", layered.size, "white")
    return pil.alpha_composite(white, layered).convert("RGB")


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """What is embedded as one thing: a part, or several in reading order.

    See `as_part` for what a part may be. An item without parts is a ValueError.

    Examples:
        >>> Item("a red bus").parts
        (Text(text='a red bus'),)
        >>> [type(part).__name__ for part in Item([Path("q.png"), "at night"]).parts]
        ['Image', 'Text']
    """

    parts: tuple[Part, ...]

    def __init__(self, parts: "Given | Sequence[Given]") -> None:
        if isinstance(parts, str) or not isinstance(parts, Sequence):
            parts = [parts]
        object.__setattr__(self, "parts", tuple(as_part(part) for part in parts))
        if not self.parts:
            raise ValueError("an item needs at least one part")

    @property
    def text(self) -> str:
        """All its words, one part a line."""
        return "\n".join(part.text for part in self.parts if isinstance(part, Text))


# ---------------------------------------------------------------- what a reader makes


@dataclass(frozen=True, slots=True, kw_only=True)
class Locator:
    """Where a segment lies in its document.

    page:        1-based page of a PDF
    start, end:  seconds from the beginning of a film, ``[start, end)``
    char_start, char_end: characters of a text, ``[char_start, char_end)``
    """

    page: int | None = None
    start: float | None = None
    end: float | None = None
    char_start: int | None = None
    char_end: int | None = None

    def __post_init__(self) -> None:
        if self.page is not None and self.page < 1:
            raise ValueError(f"page counts from 1, got {self.page}")
        if (self.start is None) != (self.end is None):
            raise ValueError("a time span needs both start and end")
        if (self.char_start is None) != (self.char_end is None):
            raise ValueError("a character span needs both ends")

    def as_dict(self) -> dict[str, int | float]:
        """Return what is known of it: ``{"page": 3}``."""
        known = ((name, getattr(self, name)) for name in self.__slots__)
        return {name: value for name, value in known if value is not None}

    def __str__(self) -> str:
        """How people name it: ``p.3``, ``1:04-1:09``; empty for a whole picture."""
        if self.page is not None:
            return f"p.{self.page}"
        if self.start is not None and self.end is not None:
            return f"{_clock(self.start)}-{_clock(self.end)}"
        if self.char_start is not None:
            return f"@{self.char_start}"
        return ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class PlacedWord(NamedTuple):
    """A word and where it stands: shares of the page's width and height, from its top left."""

    text: str
    left: float
    top: float
    right: float
    bottom: float


class TextOrigin(enum.StrEnum):
    """Where the words of a segment come from."""

    NONE = ""
    LAYER = "layer"
    OCR = "ocr"
    SUBTITLES = "subtitles"
    FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """The unit of retrieval: a page, a picture, a clip, a passage.

    text:       the words in it (text layer, OCR, subtitles, passage)
    about:      words about it, searched but never embedded (file name, title, EXIF)
    pixels:     uint8 RGB ``[frames, height, width, 3]``, already within the pixel
                budget of `ReadPolicy`; one frame for a page or a picture; None for text
    thumbnail:  a small WebP for people, empty for text
    look:       what it looks like in 64 bits (a difference hash): near-duplicates differ in
                few of them; None for text, and for pixels that are all alike
    awaits_ocr: there may be words in its picture, and `ReadPolicy` said not to read them
    """

    kind: Kind
    locator: Locator = field(default_factory=Locator)
    text: str = ""
    text_origin: TextOrigin = TextOrigin.NONE
    about: str = ""
    pixels: "Pixels | None" = None
    thumbnail: bytes = b""
    look: int | None = None
    awaits_ocr: bool = False

    @property
    def num_words(self) -> int:
        """Words in it; decides how far its pixels are trusted (see search.fusion)."""
        return len(self.text.split())

    def views(self) -> dict[View, Item]:
        """Return the items it is embedded as, one for each side it has."""
        items: dict[View, Item] = {}
        if self.pixels is not None:
            pixels = Image(self.pixels[0]) if len(self.pixels) == 1 else Frames(self.pixels)
            items[View.VISUAL] = Item([pixels])
        if self.text.strip():
            items[View.TEXT] = Item([self.text])
        return items


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPolicy:
    """What readers hand on, and the limits that keep one file from harming the rest.

    ocr:              read the words in pictures, scanned pages and films
    max_pixels:       pixels of one picture, page or frame handed on (the model's budget)
    max_frames:       frames sampled uniformly inside one clip
    max_clip_s:       seconds of one clip; a longer shot is cut
    passage_words:    words of one passage of text, about
    max_decoded_pixels, max_pages, max_clips, max_text_bytes: beyond them a file is refused
                      (pictures) or read up to there (the rest)
    document_timeout_s, step_timeout_s: wall seconds for a whole file, and between two
                      segments of it; the worker that exceeds either is killed
    max_memory_bytes: address space a worker may add to what it has when it starts
    """

    ocr: bool = True
    max_pixels: int = 448 * 448
    max_frames: int = 8
    max_clip_s: float = 10.0
    passage_words: int = 180
    max_decoded_pixels: int = 120_000_000
    max_pages: int = 10_000
    max_clips: int = 2_000
    max_text_bytes: int = 64 * 2**20
    document_timeout_s: float = 3_600.0
    step_timeout_s: float = 60.0
    max_memory_bytes: int = 3 * 2**30


# ---------------------------------------------------------------- what a store keeps


class Status(enum.StrEnum):
    """What became of a source."""

    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A source that was read: one row of the manifest, and its commit point.

    path:          absolute, posix
    content_hash:  blake2b of its bytes, 32 hex digits; empty when it could not be read
    commit_id:     names the rows and the media file that this version of it owns
    error:         why it failed; empty when it did not
    awaits_ocr:    it can be found by its looks, and the words in its pictures are still to
                   be read
    """

    path: str
    kind: Kind | None
    content_hash: str
    size: int
    mtime_ns: int
    status: Status
    commit_id: str
    num_segments: int = 0
    error: str = ""
    awaits_ocr: bool = False


def stored_path(path: Path) -> str:
    """Return a path as the manifest writes it: posix, undecodable bytes escaped."""
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


_GIVEN = "text:"


def given_path(text_id: str) -> str:
    """Return the path of a text that was given and lies in no file: no file is ever called so.

    It is one name without a slash, whatever the id holds.
    """
    return _GIVEN + urllib.parse.quote(text_id, safe=" ", errors="surrogatepass")


def given_id(path: str) -> str | None:
    """Return the id of a text that was given, by its path; None for a file."""
    if not path.startswith(_GIVEN):
        return None
    return urllib.parse.unquote(path[len(_GIVEN) :], errors="surrogatepass")


def segment_id(path: str, locator: Locator) -> str:
    """Return the id of a segment, 16 hex digits; re-indexing its file keeps it."""
    where = json.dumps([path, *asdict(locator).values()])
    return hashlib.blake2b(where.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The identity of an embedding space; vectors of different spaces are never compared.

    All fields but ``model`` (the name for people) count towards ``id``.
    """

    model: str
    weights_hash: str
    reasoner: str
    effort: int
    dim: int
    prompt: str
    max_pixels: int
    max_frames: int

    @property
    def id(self) -> str:
        """16 hex digits of SHA-256 over everything that changes a vector."""
        fields = {name: value for name, value in asdict(self).items() if name != "model"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.model} ({self.reasoner}, effort {self.effort}, {self.dim}-d, {self.id})"

    def difference(self, other: "Space") -> str:
        """Say how it differs from another: ``effort 8, not 4``; empty where they are one."""
        words = ["other weights"] if self.weights_hash != other.weights_hash else []
        for name, shown in (
            ("reasoner", "reasoner {}"),
            ("effort", "effort {}"),
            ("dim", "{} dimensions"),
            ("max_pixels", "pictures of up to {} pixels"),
            ("max_frames", "films of up to {} frames"),
        ):
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                words.append(f"{shown.format(mine)}, not {its}")
        words += ["other prompts"] if self.prompt != other.prompt else []
        return "; ".join(words)


# ---------------------------------------------------------------- what a person asks and gets


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for: words, pictures, a film, a page, or several at once.

    images:    paths of pictures
    video:     path of a film, taken as a whole
    page:      ``"report.pdf#3"``
    negative:  words of what is not wanted
    where:     SQL over path, kind, page, start, end, num_words, modified (times in UTC)
    kinds:     only these kinds
    path:      only documents whose path matches this glob
    min_score: only hits that score at least this, in [0, 1]

    Examples:
        >>> Query("the same at night", images=["q.png"], kinds=["image", "video"]).as_dict()
        {'text': 'the same at night', 'images': ['q.png'], 'kinds': ['image', 'video']}
        >>> Query().is_empty
        True
    """

    text: str = ""
    images: Sequence[str | Path] = ()
    video: str | Path | None = None
    page: str | None = None
    negative: Sequence[str] = ()
    where: str | None = None
    kinds: Sequence[Kind | str] | None = None
    path: str | None = None
    min_score: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to look for."""
        return not (self.text.strip() or self.images or self.video or self.page)

    def as_dict(self) -> dict[str, Any]:
        """Return what was asked as JSON, without what was not."""
        fields = {
            "text": self.text,
            "images": [str(image) for image in self.images],
            "video": str(self.video) if self.video else None,
            "page": self.page,
            "negative": list(self.negative),
            "where": self.where,
            "kinds": [str(kind) for kind in self.kinds or ()],
            "path": self.path,
            "min_score": self.min_score,
        }
        return {name: value for name, value in fields.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One ranked answer.

    score:  in [0, 1], the sum of ``parts``; see search.fusion for how it comes about
    parts:  what each list gave: ``visual``, ``text`` (vectors) and ``words`` (full text)
    """

    rank: int
    score: float
    parts: Mapping[str, float]
    segment_id: str
    path: str
    kind: Kind
    locator: Locator
    text: str
    about: str = ""

    @property
    def page(self) -> int | None:
        """1-based page of a PDF."""
        return self.locator.page

    @property
    def start(self) -> float | None:
        """Second where the clip begins."""
        return self.locator.start

    @property
    def end(self) -> float | None:
        """Second where the clip ends, exclusive."""
        return self.locator.end

    def as_dict(self) -> dict[str, Any]:
        """Return it as the JSON object of ``mmsearch query --json``."""
        return {
            "rank": self.rank,
            "id": self.segment_id,
            "path": self.path,
            "kind": str(self.kind),
            **self.locator.as_dict(),
            "score": round(self.score, 6),
            "parts": {name: round(value, 6) for name, value in self.parts.items()},
            "text": self.text,
        }
