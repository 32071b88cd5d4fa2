"""Full text: how words become terms, in the index and in a question alike.

    pump station       any of the words, in any form
    "pump station"     these words beside each other, and only segments that hold them
    pump*              every word that begins so

All other characters are plain: an asterisk or a quote that stands for nothing of that is
one between words.
"""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

    from lancedb.index import FTS
    from lancedb.query import FullTextQuery

    _Known = _lru_cache_wrapper[tuple[str, ...]]

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

LONGEST_KNOWN = 100  # characters; what is longer is no word, and not worth remembering

_PHRASE = re.compile(r'"([^"]*)"|[“„]([^“”„]*)[”“]')
_PREFIX = re.compile(r"(?<![\w*])(\w{2,40})\*(?![\w*])")
# Between these no token reaches across, whatever the tokenizer makes of other characters.
_CHUNK = re.compile(r"[0-9A-Za-z\x80-\U0010ffff]+")


@dataclass(frozen=True)
class Words:
    """What a person's words ask of the full text.

    plain:    the text with everything in it, any word of which is looked for
    phrases:  what stands in quotes, without those that hold no content words
    prefixes: beginnings of words, in lower case
    """

    plain: str
    phrases: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    @cached_property
    def terms(self) -> frozenset[str]:
        """What is looked for: terms, and prefixes with an asterisk behind them."""
        return frozenset(terms(self.plain)) | {f"{prefix}*" for prefix in self.prefixes}

    def held_by(self, text: str) -> frozenset[str]:
        """Return which of its terms a text holds."""
        held = self.terms & distinct_terms(text)
        if not self.prefixes:
            return held
        words = set(whole_words(text))
        begun = (p for p in self.prefixes if any(word.startswith(p) for word in words))
        return held.union(f"{prefix}*" for prefix in begun)


def asked_words(text: str) -> Words:
    """Return what ``text`` asks of the full text; whatever it holds, it means something."""
    quoted = ["".join(found) for found in _PHRASE.findall(text)]
    prefixes = [folded for word in _PREFIX.findall(text) for folded in whole_words(word)]
    return Words(
        plain=_PREFIX.sub(" ", text),
        phrases=tuple(dict.fromkeys(phrase for phrase in quoted if terms(phrase))),
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
    return [term for chunk in _CHUNK.findall(text) for term in _cached(_terms_of, chunk)]


def distinct_terms(text: str) -> set[str]:
    """Return the terms of ``text``, each once."""
    return {term for chunk in set(_CHUNK.findall(text)) for term in _cached(_terms_of, chunk)}


def whole_words(text: str) -> list[str]:
    """Return all words of ``text`` in lower case and without accents, endings left on."""
    return [word for chunk in _CHUNK.findall(text) for word in _cached(_words_of, chunk)]


def _cached(known: "_Known", chunk: str) -> tuple[str, ...]:
    return known(chunk) if len(chunk) <= LONGEST_KNOWN else known.__wrapped__(chunk)


# The tokenizer takes 0.12 ms for a page, and a question looks at two hundred; texts are
# made of the same words again and again.
@functools.lru_cache(maxsize=1 << 16)
def _terms_of(chunk: str) -> tuple[str, ...]:
    from lancedb import tokenize

    return tuple(token.text for token in tokenize(chunk, **ANALYZER))


@functools.lru_cache(maxsize=1 << 14)
def _words_of(chunk: str) -> tuple[str, ...]:
    from lancedb import tokenize

    plain = ANALYZER | {"stem": False, "remove_stop_words": False}
    return tuple(token.text for token in tokenize(chunk, **plain))
