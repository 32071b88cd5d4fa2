"""From what a person asks with to the items that are embedded and the words looked up.

    Query + its media as segments -> Composition -> (embedder) -> Question

Pixels and words together are one item, compared with pixels; words alone are another,
compared with words. The person's own words are what the full text is asked for; where
there are none, the words that stand in the media are.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmsearch.values import Item, Kind, Query, Segment, View

# A query page has hundreds of words: beyond these full text gains nothing and costs time.
MAX_WORDS = 64
_SIGNS = re.compile(r'["“”„*]')


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Composition:
    """What is to be embedded for a query.

    visual:     compared with visual vectors; ``visual_side`` says what it was made of
    text:       compared with text vectors, the same item as ``visual`` where nothing is
                shown; None where there are no words
    words:      looked up in the full text
    negative:   what is not wanted
    has_pixels: a picture or a film was shown. A page does not count, unless it has no
                words: it is judged as pages in the index are, by what it says
    """

    visual: Item
    visual_side: View
    text: Item | None
    words: str
    negative: tuple[Item, ...]
    has_pixels: bool


def compose(query: Query, media: Sequence[Segment]) -> Composition:
    """Return how a query that is not empty is embedded.

    Raises ValueError where neither the query nor its media hold anything.
    """
    own = [printable(query.text)] if query.text.strip() else []
    read = [segment.text for segment in media if segment.text.strip()]
    shown = [
        part
        for segment in media
        for view, item in segment.views().items()
        for part in item.parts
        if view is View.VISUAL
    ]
    texts = own + read
    text = Item(texts) if texts else None
    return Composition(
        visual=text if text and not shown else Item([*shown, *own]),
        visual_side=View.VISUAL if shown else View.TEXT,
        text=text,
        words=" ".join(" ".join(own or map(_plain, read)).split()[:MAX_WORDS]),
        negative=tuple(Item([printable(text)]) for text in query.negative if text.strip()),
        has_pixels=any(one.kind is not Kind.PDF or not one.text.strip() for one in media),
    )


def _plain(text: str) -> str:
    """Return the words of a page without the signs that mean something in a person's."""
    return _SIGNS.sub(" ", text)


def printable(text: str) -> str:
    """Return ``text`` as UTF-8 can say it: bytes that no terminal decoded become ``?``."""
    return text.encode("utf-8", "replace").decode()
