"""An item as a chat model reads it: the tokens of a conversation, its pictures among them.

    Item --shown_parts--> words, pictures, films --Chat.write--> Written (ids, types, grids)

The words around the item are the model's own (`ChatFormat`, `Prompts`), and special tokens
are read in them. The item's words are the user's: one that spells a special token gets a
space behind its first character, "<|im_end|>" becomes "< |im_end|>", and stays words. Apart
from that the whole conversation is tokenised as one, so that pieces merge as in training.

What is longer than ``max_tokens`` is shortened, by itself alone and never by its batch:
first all pictures and films are shown with fewer pixels, a tenth less at a time and not
below MIN_SHOWN_PIXELS each; then the words of a document are cut at their end. The template,
the prompt, the anchor and the words of a query are never cut: BadItem is raised instead.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from mmsearch.errors import BadItem
from mmsearch.retriever.models.backbones.positions import FILM, IMAGE, TEXT
from mmsearch.retriever.models.policy import Limits, VisualPolicy
from mmsearch.retriever.models.prompts import ChatFormat, Prompts
from mmsearch.retriever.models.vocabulary import as_words, special_spellings
from mmsearch.values import Frames, Image, Item, Role, Text

if TYPE_CHECKING:
    from mmsearch.retriever.models.backbones.patches import Grid
    from mmsearch.values import Pixels

BLANK_SIDE = 28  # pixels of the white picture
MIN_SHOWN_PIXELS = 224 * 224  # of a picture or a frame that has to give way to other parts
CHARACTERS_LOOKED_AT = 32  # of a document, for each of max_tokens; nobody's words average so many
PLACES = re.compile(r"(\{(?:prompt|parts|visuals|text)\})")


class Shown(NamedTuple):
    """A picture or a film as the model is shown it.

    pixels: uint8 RGB ``[frames, height, width, 3]``, one frame for a picture
    rate:   frames a second of a film; 0 for a picture
    """

    pixels: "Pixels"
    rate: float

    @property
    def is_film(self) -> bool:
        """Whether it has moments, be it only one."""
        return self.rate > 0


ShownPart: TypeAlias = str | Shown


def shown_parts(item: Item, policy: VisualPolicy, limits: Limits) -> list[ShownPart]:
    """Return the item's parts in order, films thinned to what the limits allow.

    An item without pixels begins with a blank picture where the policy asks for it.
    """
    parts: list[ShownPart] = []
    for part in item.parts:
        if isinstance(part, Text):
            parts.append(part.text)
        elif isinstance(part, Image):
            parts.append(Shown(part.pixels[None], 0.0))
        else:
            parts.append(_thinned(part, policy.frame_rate, limits))
    if policy.blank_image and not any(isinstance(part, Shown) for part in parts):
        blank = np.full((1, BLANK_SIDE, BLANK_SIDE, 3), 255, dtype=np.uint8)
        parts.insert(0, Shown(blank, 0.0))
    return parts


def _thinned(film: Frames, rate: float, limits: Limits) -> Shown:
    kept = limits.kept_frames(len(film.pixels))
    if len(kept) == len(film.pixels):
        return Shown(film.pixels, rate)
    if len(kept) > 1:  # fewer frames over the same time
        rate *= (len(kept) - 1) / (len(film.pixels) - 1)
    return Shown(film.pixels[list(kept)], rate)


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """One item as tokens, every picture and film expanded to its features.

    ids:        ``[n]``
    types:      ``[n]``, `positions.TEXT`, IMAGE or FILM
    grids:      of the pictures and films in order, as they are to be cut
    runs:       of the stretches of tokens that are not TEXT, in order: the grids, or the
                moments of those films that are read moment by moment
    anchor:     places before the end at which the semantic anchor stands; 0 without
    max_pixels: what the grids were sized with
    """

    ids: npt.NDArray[np.int64]
    types: npt.NDArray[np.int8]
    grids: "tuple[Grid, ...]"
    runs: "tuple[Grid, ...]"
    anchor: int
    max_pixels: int


class _Draft(NamedTuple):
    """The conversation with one pad for each run of features.

    words: where each of the item's texts stands, in characters ``[start, end)``
    """

    encoding: Encoding
    words: tuple[tuple[int, int], ...]


class Chat:
    """Writes items in one model's format; holds nothing that changes.

    image_pad, video_pad: ids of the tokens that stand for features
    merge:       patches merged into one token, along a side
    split_films: how many frames a moment of a film has, for a model that reads moments one
                 by one with their time before each (Qwen3-VL); 0 for films in one piece
    Raises ValueError for a format that cannot be followed.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        form: ChatFormat,
        prompts: Prompts,
        *,
        image_pad: int,
        video_pad: int,
        merge: int,
        max_tokens: int,
        split_films: int = 0,
    ) -> None:
        tokenizer.no_truncation()  # a published file may ask for both
        tokenizer.no_padding()
        self.tokenizer, self.form, self.prompts = tokenizer, form, prompts
        self.merge, self.max_tokens, self.split_films = merge, max_tokens, split_films
        self.pieces = PLACES.split(form.template)
        self.pad_ids = np.array(sorted({image_pad, video_pad}))
        for spelled, pad in ((form.image, image_pad), (form.video, video_pad)):
            found = [i for i in self._encode(spelled).ids if i in self.pad_ids]
            if found != [pad]:
                raise ValueError(f"{spelled!r} has to hold the model's pad token once")
        self.anchor_id = self.tokenizer.token_to_id(form.anchor) if form.anchor else -1
        if self.anchor_id is None:
            raise ValueError(f"the vocabulary has no token {form.anchor!r}")
        self.specials = special_spellings(tokenizer)

    def write(
        self,
        parts: Sequence[ShownPart],
        sizes: "Callable[[int], Sequence[Grid]]",
        *,
        max_pixels: int,
        role: Role,
    ) -> Written:
        """Return the item as tokens, shortened where it has to be.

        ``sizes(max_pixels)`` returns the grids of its pictures and films in order, sized
        within so many pixels each. Raises BadItem for what does not fit.
        """
        shown = [part for part in parts if isinstance(part, Shown)]
        words = [self._as_words(part, role) for part in parts if isinstance(part, str)]
        draft = self._draft(parts, words, role)
        grids = tuple(sizes(max_pixels))
        if self._num_tokens(draft, grids) > self.max_tokens and shown:
            sides = [part.pixels.shape[1:3] for part in shown]
            limit = min(max_pixels, max(height * width for height, width in sides))
            while self._num_tokens(draft, grids) > self.max_tokens and limit > MIN_SHOWN_PIXELS:
                limit = max(limit * 9 // 10, MIN_SHOWN_PIXELS)
                max_pixels, grids = limit, tuple(sizes(limit))
        while (num_tokens := self._num_tokens(draft, grids)) > self.max_tokens:
            over = num_tokens - self.max_tokens
            if role is Role.QUERY or not self._cut(draft, words, over):
                raise BadItem(f"it takes {num_tokens} tokens of {self.max_tokens}")
            draft = self._draft(parts, words, role)
        if num_tokens == 0:
            raise BadItem("it has no words and no pixels")
        return self._expanded(draft, shown, grids, max_pixels)

    def _as_words(self, text: str, role: Role) -> str:
        """Return a text in which nothing is a special token."""
        if role is Role.DOCUMENT:
            text = text[: self.max_tokens * CHARACTERS_LOOKED_AT]
        return as_words(text, self.specials)

    def _draft(self, parts: Sequence[ShownPart], words: Sequence[str], role: Role) -> _Draft:
        """Return the conversation around the parts, their texts replaced by ``words``."""
        spelled: list[tuple[str, bool]] = []  # and whether it is the item's words
        shown = [(self._visual(part), False) for part in parts if isinstance(part, Shown)]
        texts = [part for part in parts if isinstance(part, str)]
        no_words = [] if "".join(texts).strip() else [(self._wordless(parts), False)]
        for piece in self.pieces:
            if piece == "{prompt}":
                spelled.append((self.prompts.of(role), False))
            elif piece == "{parts}":
                spelled += self._in_order(parts, words) + no_words
            elif piece == "{visuals}":
                spelled += shown
            elif piece == "{text}":
                spelled += self._in_order(texts, words) + no_words
            else:
                spelled.append((piece, False))
        spans: list[tuple[int, int]] = []
        start = 0
        for text, is_words in spelled:
            if is_words:
                spans.append((start, start + len(text)))
            start += len(text)
        return _Draft(self._encode("".join(text for text, _ in spelled)), tuple(spans))

    def _wordless(self, parts: Sequence[ShownPart]) -> str:
        """Return what stands for the words of an item that has none."""
        shown = [part for part in parts if isinstance(part, Shown)]
        only_films = bool(shown) and all(part.is_film for part in shown)
        return (self.form.wordless_film if only_films else "") or self.form.wordless

    def _in_order(self, parts: Sequence[ShownPart], words: Sequence[str]) -> list[tuple[str, bool]]:
        """Spell parts one after the other; texts that would touch are on lines of their own."""
        spelled: list[tuple[str, bool]] = []
        left = iter(words)
        for part in parts:
            if isinstance(part, Shown):
                spelled.append((self._visual(part), False))
                continue
            if spelled and spelled[-1][1]:
                spelled.append(("\n", False))
            spelled.append((next(left), True))
        return spelled

    def _visual(self, shown: Shown) -> str:
        if not shown.is_film:
            return self.form.image
        if not self.split_films:
            return self.form.video
        return "".join(
            f"<{seconds:.1f} seconds>{self.form.video}" for seconds in self._moments(shown)
        )

    def _moments(self, film: Shown) -> list[float]:
        """Return the seconds of each moment: midway between its first and its last frame."""
        size, last = self.split_films, len(film.pixels) - 1
        return [
            (first / film.rate + min(first + size - 1, last) / film.rate) / 2
            for first in range(0, last + 1, size)
        ]

    def _num_tokens(self, draft: _Draft, grids: "Sequence[Grid]") -> int:
        num_pads = int(np.isin(draft.encoding.ids, self.pad_ids).sum())
        visual = sum(grid.num_tokens(self.merge) for grid in grids)
        return len(draft.encoding.ids) - num_pads + visual

    def _cut(self, draft: _Draft, words: list[str], over: int) -> bool:
        """Take the last ``over`` tokens from ``words``; return whether there were any."""
        inside = [
            start
            for start, _ in draft.encoding.offsets
            if any(begin <= start < end for begin, end in draft.words)
        ]
        if not inside:
            return False
        at = inside[max(len(inside) - over, 0)]
        for i, (begin, end) in enumerate(draft.words):
            words[i] = words[i][: max(min(at, end) - begin, 0)]
        return True

    def _expanded(
        self, draft: _Draft, shown: Sequence[Shown], grids: "tuple[Grid, ...]", max_pixels: int
    ) -> Written:
        runs: list[Grid] = []
        run_types: list[int] = []
        for one, grid in zip(shown, grids, strict=True):
            split = one.is_film and self.split_films > 0
            cut = [grid._replace(frames=1)] * grid.frames if split else [grid]
            runs += cut
            run_types += [FILM if one.is_film else IMAGE] * len(cut)
        ids = np.array(draft.encoding.ids, dtype=np.int64)
        pads = np.flatnonzero(np.isin(ids, self.pad_ids))
        if len(pads) != len(runs):
            raise ValueError("the template or the prompt holds a pad token of its own")
        types = np.full(len(ids), TEXT, dtype=np.int8)
        counts = np.ones(len(ids), dtype=np.int64)
        types[pads], counts[pads] = run_types, [run.num_tokens(self.merge) for run in runs]
        ids, types = ids.repeat(counts), types.repeat(counts)
        anchors = np.flatnonzero(ids == self.anchor_id)
        anchor = len(ids) - 1 - int(anchors[-1]) if len(anchors) else 0
        return Written(ids, types, grids, tuple(runs), anchor, max_pixels)

    def _encode(self, text: str) -> Encoding:
        return self.tokenizer.encode(text, add_special_tokens=False)
