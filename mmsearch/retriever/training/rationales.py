"""A rationale cut into the segments that latent steps replace, one after another.

    text -> sentences -> count segments, some of them empty where there is little to cut

Nothing is lost and nothing is added: the pieces, put together, are the text without the
space around it. A full stop ends a sentence only where one may end: not in "3.14", not
after "e.g." or "Fig.", not after the number of a list.
"""

import itertools
import re

# After these words a full stop is part of the word; after the second kind before a number only.
ABBREVIATIONS = frozenset(
    (
        *("e.g", "i.e", "cf", "vs", "viz", "approx", "ca", "resp", "incl", "fig", "figs", "eq"),
        *("eqs", "ref", "refs", "dr", "mr", "mrs", "ms", "prof", "st", "jr", "sr", "inc", "ltd"),
        *("co", "corp", "dept", "est", "al", "jan", "feb", "mar", "apr", "jun", "jul", "aug"),
        *("sept", "oct", "nov", "dec"),
    )
)
NUMBERED = frozenset(("no", "nos", "vol", "pp", "ch", "sec", "tab", "art", "ed"))
ENDS = re.compile(
    r"[。！？]+[」』”’）\"']*\s*"  # noqa: RUF001 - these end a sentence wherever they stand
    r"|[.!?…]+[\"'”’»)\]]*(?:\s+|$)"  # noqa: RUF001 - these where a space follows
    r"|\n\s*"
)
LAST_WORD = re.compile(r"[^\s(\[\"'“‘«]+$")  # noqa: RUF001
LETTERS_ALONE = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")  # J, U.S, p.a


def sentences(text: str) -> list[str]:
    """Return the sentences of ``text`` in order, each with the space behind it.

    A line ends a sentence too. Empty for a text without a word.
    """
    text = text.strip()
    found: list[str] = []
    start = 0
    for end in ENDS.finditer(text):
        if _is_part_of_a_word(text[start : end.start()], end.group(), text[end.end() :][:1]):
            continue
        found.append(text[start : end.end()])
        start = end.end()
    return [*found, text[start:]] if text[start:] else found


def _is_part_of_a_word(before: str, end: str, following: str) -> bool:
    """Return whether a full stop belongs to the last word of ``before``, a sentence so far."""
    if end.strip() != "." or "\n" in end:
        return False
    word = LAST_WORD.search(before)
    if word is None:
        return False
    if word.group() == before.strip() and word.group().isdecimal():
        return True  # "1. Look at the axis"
    if LETTERS_ALONE.fullmatch(word.group()):
        return True
    spelled = word.group().lower()
    return spelled in ABBREVIATIONS or (spelled in NUMBERED and following.isdecimal())


def segments(text: str, count: int) -> list[str]:
    """Return ``text`` as ``count`` segments: whole sentences, the first ones longer.

    Fewer sentences than that are cut into equal numbers of characters instead; a text of
    fewer characters leaves segments empty.
    """
    if count < 1:
        raise ValueError(f"a rationale has at least one segment, not {count}")
    pieces = sentences(text)
    if len(pieces) < count:
        pieces = list(text.strip())
    size, longer = divmod(len(pieces), count)
    ends = [size * i + min(i, longer) for i in range(count + 1)]
    return ["".join(pieces[a:b]) for a, b in itertools.pairwise(ends)]
