"""Full text: how words become terms, in the index and in a question alike."""

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


def words_index() -> "FTS":
    """Return how a column of words is indexed."""
    from lancedb.index import FTS

    return FTS(**ANALYZER)


def words_query(text: str) -> "FullTextQuery":
    """Return what asks for rows with any word of ``text`` in any of the TEXT_COLUMNS."""
    from lancedb.query import FullTextOperator, MultiMatchQuery

    return MultiMatchQuery(
        text,
        list(TEXT_COLUMNS),
        # Equal, for BM25 already prefers a word of the few in ``about``.
        boosts=[1.0] * len(TEXT_COLUMNS),
        operator=FullTextOperator.OR,
    )


def terms(text: str) -> list[str]:
    """Return the words of ``text`` as the full-text index knows them, stop words left out."""
    from lancedb import tokenize

    return [token.text for token in tokenize(text, **ANALYZER)]
