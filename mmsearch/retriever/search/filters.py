"""From what a person may filter by to one SQL condition, which the store applies first.

The person's own SQL is read word by word before any database sees it: it is one
condition over the filter columns, and nothing else gets through.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from mmsearch.errors import BadFilter
from mmsearch.retriever.store.rows import any_of, quoted
from mmsearch.values import Kind, Query

COLUMNS = ("path", "kind", "page", "start", "end", "num_words", "modified")
KEYWORDS = frozenset(
    {"and", "or", "not", "in", "is", "null", "like", "ilike", "between", "true", "false"}
)
TIMES = ("modified",)  # columns whose text literals are times, in UTC
TIME_WORDS = frozenset({"date", "timestamp"})  # may stand before such a literal
FUNCTIONS = frozenset({"lower", "upper", "starts_with", "ends_with", "contains"})
MAX_LENGTH = 4_000
MAX_WORDS = 256  # a chain of 900 sums overflows the stack of the database, and ends the process

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<string>'(?:[^']|'')*')
      | (?P<number>\d+(?:\.\d+)?)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<operator><=|>=|<>|!=|[=<>+*(),-])""",
    re.VERBOSE,
)
_TIME_FOLLOWS = re.compile(rf"(?:<=|>=|<>|!=|[=<>])\s*(?:{'|'.join(TIMES)})\b", re.IGNORECASE)
_YEAR_OR_MONTH = re.compile(r"[0-9]{4}(?:-[0-9]{2})?")


def filter_sql(query: Query) -> str | None:
    """Return the condition that ``query``'s where, kinds and path make; None for no filter.

    Raises BadFilter for a where that is not one condition over the filter columns, and
    for an unknown kind.
    """
    conditions = []
    if query.where is not None:
        conditions.append(checked(query.where))
    if query.kinds is not None:
        conditions.append(_kinds_sql(query.kinds))
    if query.path is not None:
        conditions.append(_glob_sql(query.path))
    return _all_of(conditions)


def checked(where: str) -> str:
    """Return ``where`` with its columns in lower case, if it is one condition.

    What ``modified`` is compared with may be written ``'2026-01-31'``, ``'2026-01'``,
    ``'2026-01-31 18:30'`` or as SQL has it, ``date '2026-01-31'``.

    Comments, several statements, subqueries, other columns and functions, and brackets
    that close what they did not open are a BadFilter.
    """
    if len(where) > MAX_LENGTH:
        raise BadFilter(where[:40] + "...", f"it has more than {MAX_LENGTH} characters")
    words: list[str] = []
    position = depth = 0
    column = ""  # the last one named
    while position < len(where):
        token = _TOKEN.match(where, position)
        if token is None:
            raise BadFilter(where, f"unexpected {where[position]!r} at character {position + 1}")
        position, text = token.end(), token.group()
        if token.lastgroup == "space":
            continue
        rest = where[position:].lstrip()
        if token.lastgroup == "word":
            if text.lower() in TIME_WORDS and rest.startswith("'"):
                continue
            text = _known_word(where, text, called=rest.startswith("("))
            column = text if text in COLUMNS else column
        if token.lastgroup == "string" and (column in TIMES or _TIME_FOLLOWS.match(rest)):
            text = _time_literal(where, text)
        depth += {"(": 1, ")": -1}.get(text, 0)
        if depth < 0:
            raise BadFilter(where, "a bracket closes that was never opened")
        if text == "-" and words[-1:] == ["-"]:
            raise BadFilter(where, "unexpected '--'")
        words.append(text)
    if not words:
        raise BadFilter(where, "it is empty")
    if len(words) > MAX_WORDS:
        raise BadFilter(where[:40] + "...", f"it has more than {MAX_WORDS} words and signs")
    if depth:
        raise BadFilter(where, "a bracket is never closed")
    return " ".join(words)


def glob_pattern(glob: str) -> str:
    """Return the regular expression of a path glob.

    ``*`` is any characters but a slash, ``?`` one of them, ``**`` any characters at all;
    a slash at the end means everything below. A glob that does not begin with a slash may
    match the end of a path: ``reports/*.pdf`` finds ``/x/reports/a.pdf``.
    """
    parts = _glob_parts(glob)
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    body = "".join(meaning.get(part, re.escape(part)) for part in parts)
    return f"(?s)^{body}$" if glob.startswith("/") else f"(?s)(?:^|/){body}$"


def _glob_parts(glob: str) -> list[str]:
    """Return the texts of a glob and what stands between them: text, wildcard, text, ..."""
    return re.split(r"(\*\*/|\*\*|\*|\?)", glob + "**" if glob.endswith("/") else glob)


def _glob_sql(glob: str) -> str:
    """Return the condition that a path matches a glob.

    An index of paths knows plain texts, so they are asked for first, and the pattern (27 ms
    for 200,000 rows, against 6) of what has them; not where the texts already say it all.
    """
    texts, wildcards = _glob_parts(glob)[::2], _glob_parts(glob)[1::2]
    first, *inner, last = texts if wildcards else ["", *texts]
    is_whole = glob.startswith("/")
    if is_whole and not wildcards:
        return f"path = {quoted(last)}"
    begins, has = ([first], inner) if is_whole else ([], [first, *inner])
    conditions = [
        f"{function}(path, {quoted(text)})"
        for function, some in (("starts_with", begins), ("contains", has), ("ends_with", [last]))
        for text in some
        if text
    ]
    anywhere = not is_whole and not any(texts[:-1]) and set(wildcards[:-1]) <= {"**/"}
    is_end = anywhere and wildcards[-1:] == ["*"] and last
    is_begin = is_whole and wildcards == ["**"] and not last
    if not is_end and not is_begin:
        conditions.append(f"regexp_like(path, {quoted(glob_pattern(glob))})")
    return " AND ".join(conditions)


def excluding(where: str | None, *, paths: Iterable[str], segments: Iterable[str]) -> str | None:
    """Return ``where`` narrowed to other paths and segments than these."""
    conditions = [] if where is None else [where]
    for column, values in (("path", paths), ("segment_id", segments)):
        listed = ", ".join(quoted(value) for value in sorted(values))
        if listed:
            conditions.append(f"{column} NOT IN ({listed})")
    return _all_of(conditions)


def _all_of(conditions: Sequence[str]) -> str | None:
    if len(conditions) < 2:
        return conditions[0] if conditions else None  # as it was typed, for error messages
    return " AND ".join(f"({one})" for one in conditions)


def _known_word(where: str, word: str, *, called: bool) -> str:
    lower = word.lower()
    if lower in KEYWORDS or (lower in COLUMNS and not called) or (lower in FUNCTIONS and called):
        return lower
    if called:
        raise BadFilter(where, f"no function {word!r}; there are {', '.join(sorted(FUNCTIONS))}")
    raise BadFilter(where, f"no column {word!r} (text goes in single quotes)")


def _time_literal(where: str, text: str) -> str:
    """Return SQL of a time in UTC, from a text literal that says one."""
    said = text[1:-1]
    whole = said + "-01-01"[(len(said) - 4) :] if _YEAR_OR_MONTH.fullmatch(said) else said
    try:
        time = datetime.fromisoformat(whole)
    except ValueError:
        raise BadFilter(where, f"{text} is no time such as '2026-01-31'") from None
    if time.tzinfo is not None:
        time = time.astimezone(UTC).replace(tzinfo=None)
    return f"timestamp '{time.isoformat(sep=' ')}'"


def _kinds_sql(kinds: Iterable[Kind | str]) -> str:
    try:
        known = sorted({Kind(kind) for kind in kinds})
    except ValueError as error:
        there_are = ", ".join(Kind)
        raise BadFilter(", ".join(map(str, kinds)), f"{error}; kinds are {there_are}") from None
    if not known:
        return "false"  # of no kind at all
    return any_of("kind", known)
