"""A question as search takes it: vectors, words and a filter; no files, no model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmsearch.values import View

if TYPE_CHECKING:
    from mmsearch.values import Vectors


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """What to look for, and where.

    visual, text:   the vectors ``[d]`` to compare with visual and with text vectors; None
                    where that side is not asked
    visual_side, text_side: what each was made of, which decides how its cosine is read
    words:          looked up in the full text; empty for none
    negative:       vectors ``[d]`` of texts that say what is not wanted
    where:          SQL over the filter columns; see `filters.filter_sql`
    min_score:      only hits that score at least this, in [0, 1]
    exclude_paths, exclude_segments: never among the hits
    has_pixels:     the question shows something: pixels then count as much as words
                    everywhere, also in segments full of words
    """

    visual: "Vectors | None" = None
    visual_side: View = View.TEXT
    text: "Vectors | None" = None
    text_side: View = View.TEXT
    words: str = ""
    negative: "tuple[Vectors, ...]" = ()
    where: str | None = None
    min_score: float = 0.0
    exclude_paths: frozenset[str] = frozenset()
    exclude_segments: frozenset[str] = frozenset()
    has_pixels: bool = False
