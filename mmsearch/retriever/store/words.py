"""Full text: how words become terms, in the index and in a question alike.

    pump station       any of the words, in any form
    "pump station"     these words beside each other, and only segments that hold them
    pump*              every word that begins so

All other characters are plain: an asterisk or a quote that stands for nothing of that is
one between words. So are quotes in prose: a question that says more outside of its quotes
than inside quotes somebody, and asks for any of its words.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lancedb.index import FTS
    from lancedb.query import FullTextQuery

# How words become terms, in the full-text index and in `terms`: English stems, lower
# case, no accents, no stop words. Other languages keep their words whole.
ANALYZER: dict[str, Any] = {
    "base_tokenizer": "simple",
    "language": "English",
    "lower_case": True,
    "stem": True,
    "remove_stop_words": True,
    "ascii_folding": True,
    "max_token_length": 40,
}
TEXT_COLUMNS = ("text", "about")

# Words that are remembered, and their characters: what is longer is none.
MOST_KNOWN, LONGEST_KNOWN = 1 << 17, 100

_PHRASE = re.compile(r'"([^"]*)"|[“„]([^“”„]*)[”“]')
_PREFIX = re.compile(r"(?<![\w*])(\w{2,40})\*(?![\w*])")
# Between these no token reaches across, whatever the tokenizer makes of other characters.
_CHUNK = re.compile(r"[0-9A-Za-z\x80-\U0010ffff]+")
_MARK = "0q0q0q0"  # a token that stands for itself


@dataclass(frozen=True)
class Words:
    """What a person's words ask of the full text.

    plain:    the text with everything in it, any word of which is looked for
    phrases:  what stands in quotes and has to be there; none of those that hold no content
              words, and none at all in prose
    prefixes: beginnings of words, in lower case
    """

    plain: str
    phrases: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    @cached_property
    def terms(self) -> frozenset[str]:
        """What is looked for: terms, and prefixes with an asterisk behind them."""
        return frozenset(terms(self.plain)) | {f"{prefix}*" for prefix in self.prefixes}

    def held_by(self, texts: Sequence[str]) -> list[frozenset[str]]:
        """Return which of its terms each text holds."""
        held = _STEMS.held(self.terms, texts)
        if not self.prefixes:
            return held
        return [
            some.union(f"{p}*" for p in self.prefixes if any(word.startswith(p) for word in words))
            for some, words in zip(held, _WHOLE.distinct(texts), strict=True)
        ]


def asked_words(text: str) -> Words:
    """Return what ``text`` asks of the full text; whatever it holds, it means something."""
    plain = _PREFIX.sub(" ", text)
    quoted = [(phrase, len(terms(phrase))) for phrase in map("".join, _PHRASE.findall(text))]
    if quoted and 2 * sum(count for _, count in quoted) < len(terms(plain)):
        quoted = []  # prose
    prefixes = [folded for word in _PREFIX.findall(text) for folded in whole_words(word)]
    return Words(
        plain=plain,
        phrases=tuple(dict.fromkeys(phrase for phrase, count in quoted if count)),
        prefixes=tuple(dict.fromkeys(prefixes)),
    )


def words_index() -> "FTS":
    """Return how a column of words is indexed.

    The places of words, which phrases need, make the index of 200,000 pages of 80 words 24
    MB instead of 14, and its making 3.0 s instead of 2.1.
    """
    from lancedb.index import FTS

    return FTS(**ANALYZER, with_position=True)


def words_query(asked: Words, *, also: Iterable[str] = ()) -> "FullTextQuery":
    """Return what asks for rows with any word of ``asked`` in any of the TEXT_COLUMNS.

    ``also`` are the words that its prefixes stand for. Of its phrases a row has to hold
    every one.
    """
    from lancedb.query import (
        BooleanQuery,
        FullTextOperator,
        MultiMatchQuery,
        Occur,
        PhraseQuery,
    )

    text = " ".join([asked.plain, *also])
    some = MultiMatchQuery(
        text,
        list(TEXT_COLUMNS),
        # Equal, for BM25 already prefers a word of the few in ``about``.
        boosts=[1.0] * len(TEXT_COLUMNS),
        operator=FullTextOperator.OR,
    )
    if not asked.phrases:
        return some

    def beside(phrase: str, column: str) -> PhraseQuery:
        return PhraseQuery(phrase, column, slop=0, document_granularity=None)

    every = [
        BooleanQuery([(Occur.SHOULD, beside(phrase, column)) for column in TEXT_COLUMNS])
        for phrase in asked.phrases
    ]
    return BooleanQuery([*((Occur.MUST, phrase) for phrase in every), (Occur.SHOULD, some)])


def one_word(word: str, column: str) -> "FullTextQuery":
    """Return what asks one column for one word."""
    from lancedb.query import FullTextOperator, MultiMatchQuery

    return MultiMatchQuery(word, [column], boosts=[1.0], operator=FullTextOperator.OR)


def terms(text: str) -> list[str]:
    """Return the words of ``text`` as the full-text index knows them, stop words left out."""
    return _STEMS.read(text)


def whole_words(text: str) -> list[str]:
    """Return all words of ``text`` in lower case and without accents, endings left on."""
    return _WHOLE.read(text)


class _Reader:
    """Tokenizes many texts at once, and remembers: texts are made of the same words.

    A call of the tokenizer costs 20 us and a word in it 1 us, and a question looks at two
    hundred pages. Safe to use from many threads.
    """

    def __init__(self, analyzer: Mapping[str, Any]) -> None:
        self._analyzer = analyzer
        self._known: dict[str, tuple[str, ...]] = {}

    def read(self, text: str) -> list[str]:
        """Return the tokens of a text, in order."""
        chunks = _CHUNK.findall(text)
        known = self._knowing(set(chunks))
        return [token for chunk in chunks for token in known[chunk]]

    def distinct(self, texts: Iterable[str]) -> list[set[str]]:
        """Return the tokens of each text, each once."""
        chunks = [_chunks(text) for text in texts]
        known = self._knowing(set().union(*chunks))
        return [{token for chunk in some for token in known[chunk]} for some in chunks]

    def held(self, wanted: frozenset[str], texts: Iterable[str]) -> list[frozenset[str]]:
        """Return which of the wanted tokens each text has."""
        chunks = [_chunks(text) for text in texts]
        every = set().union(*chunks)
        known = self._knowing(every)
        forms = {chunk for chunk in every if not wanted.isdisjoint(known[chunk])}
        return [
            wanted.intersection(token for chunk in some & forms for token in known[chunk])
            for some in chunks
        ]

    def _knowing(self, chunks: set[str]) -> Mapping[str, tuple[str, ...]]:
        """Return a dictionary that has all of these chunks."""
        known = self._known
        new = chunks.difference(known)
        if not new:
            return known
        learned = self._learned(sorted(new))
        if len(known) > MOST_KNOWN:
            known = self._known = {chunk: known[chunk] for chunk in chunks - new}
        known.update(pair for pair in learned.items() if len(pair[0]) <= LONGEST_KNOWN)
        return {chunk: known[chunk] for chunk in chunks - new} | learned

    def _learned(self, chunks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        from lancedb import tokenize

        # One text of them all, with a mark between them; each by itself where a text has
        # the mark in it.
        text = f" {_MARK} ".join(chunks)
        tokens = [token.text for token in tokenize(text, **self._analyzer)]
        ends = [place for place, token in enumerate(tokens) if token == _MARK]
        if len(ends) != len(chunks) - 1:
            alone = (tokenize(chunk, **self._analyzer) for chunk in chunks)
            return {
                chunk: tuple(token.text for token in found)
                for chunk, found in zip(chunks, alone, strict=True)
            }
        starts = [0, *(end + 1 for end in ends)]
        return {
            chunk: tuple(tokens[start:end])
            for chunk, start, end in zip(chunks, starts, [*ends, len(tokens)], strict=True)
        }


def _chunks(text: str) -> set[str]:
    """Return what `_CHUNK` finds, each once; plain English in a third of the time."""
    if text.isascii():
        return set(text.translate(_SPACES).split())
    return set(_CHUNK.findall(text))


_SPACES = {code: " " for code in range(128) if not chr(code).isalnum()}
_STEMS = _Reader(ANALYZER)
_WHOLE = _Reader(ANALYZER | {"stem": False, "remove_stop_words": False})
