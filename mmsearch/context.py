"""What a generator is given to answer from: hits as text, pictures and citations.

    hits -> in the order of their rank, while the budget lasts -> ContextPart, ...

A page is worth showing and telling: a model that sees reads the chart, and the words say what
is too small to see. What does not fit the budget is cut (text) or left out (pictures).
Files are cited by their name: the folders they lie in are nobody's business who answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from mmsearch.values import Hit, Kind, given_id

if TYPE_CHECKING:
    from mmsearch.retriever.store.rows import StoredSegment

# In UTF-8: four letters of English, two of Russian, one character and a third of Chinese. A
# generator's own tokenizer is not known here.
BYTES_PER_TOKEN = 4
LEAST_TOKENS = 32  # of a text that is cut: less says nothing
LEAST_SHARE = 4  # a page in less than a quarter of its pixels cannot be read


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextPart:
    """One hit, made ready for a prompt.

    number:   what an answer cites it by, from 1
    citation: where it is, for people: ``report.pdf p.3``
    text:     its words, or as many of them as fit
    image:    WebP of the page, the picture or the middle of the clip; empty where there is
              none, or no room for it
    pixels:   of that image, width times height
    """

    number: int
    citation: str
    hit: Hit
    text: str
    image: bytes = b""
    pixels: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON, the image as a data: URI."""
        import base64

        told = {
            "number": self.number,
            "citation": self.citation,
            "segment_id": self.hit.segment_id,
            "path": self.hit.path,
            **self.hit.locator.as_dict(),
            "score": self.hit.score,
            "text": self.text,
        }
        if self.image:
            told["image"] = f"data:image/webp;base64,{base64.b64encode(self.image).decode()}"
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much a prompt has room for.

    max_tokens: of all texts together, counted as BYTES_PER_TOKEN bytes each
    max_pixels: of all pictures together
    image_pixels: of one picture, at most
    """

    max_tokens: int = 4_000
    max_pixels: int = 4_000_000
    image_pixels: int = 1_000_000

    def __post_init__(self) -> None:
        if min(self.max_tokens, self.max_pixels, self.image_pixels) < 0:
            raise ValueError(f"a budget cannot be negative: {self}")


def parts_of(
    hits: Sequence[Hit], picture: Callable[[Hit, int], bytes], budget: Budget
) -> list[ContextPart]:
    """Return the hits that fit, best first, as parts of a prompt.

    picture: returns WebP of a hit within so many pixels, empty where there is none
    """
    parts: list[ContextPart] = []
    tokens, pixels = budget.max_tokens, budget.max_pixels
    least = max(1, min(budget.image_pixels, budget.max_pixels) // LEAST_SHARE)
    for hit in hits:
        text = _cut(hit.text or hit.about, tokens)
        room = min(budget.image_pixels, pixels)
        image = picture(hit, room) if hit.kind is not Kind.TEXT and room >= least else b""
        if not text and not image:
            continue
        size = _size(image)
        tokens -= -(-len(_utf8(text)) // BYTES_PER_TOKEN)
        pixels -= size
        parts.append(
            ContextPart(
                number=len(parts) + 1,
                citation=cited(hit),
                hit=hit,
                text=text,
                image=image,
                pixels=size,
            )
        )
    return parts


def cited(hit: "Hit | StoredSegment") -> str:
    """Return how people name where something lies: ``report.pdf p.3``, ``talk.mp4 1:04-1:09``."""
    name = given_id(hit.path) or PurePosixPath(hit.path).name
    return f"{name} {hit.locator}".rstrip()


_LONGEST_WORD = 40  # characters; some scripts put no blanks between theirs


def _cut(text: str, tokens: int) -> str:
    """Return as much of a text as fits, to the end of a word."""
    room = tokens * BYTES_PER_TOKEN
    whole = _utf8(text)
    if len(whole) <= room:
        return text
    if tokens < LEAST_TOKENS:
        return ""
    cut = whole[: room - len(_utf8(_CUT_OFF))].decode(errors="ignore")
    blank = max(cut.rfind(" "), cut.rfind("\n"))
    if len(cut) - blank <= _LONGEST_WORD:
        cut = cut[: max(blank, 0)]
    return cut.rstrip() + _CUT_OFF if cut.strip() else ""


_CUT_OFF = "…"


def _utf8(text: str) -> bytes:
    return text.encode(errors="replace")


def _size(image: bytes) -> int:
    if not image:
        return 0
    import io

    from PIL import Image

    with Image.open(io.BytesIO(image)) as opened:
        return opened.width * opened.height
