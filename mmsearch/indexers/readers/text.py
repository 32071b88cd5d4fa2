"""Text and Markdown: one segment a passage, with its place in the file.

bytes -> text -> blocks (headings, paragraphs) -> passages of about `passage_words`
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmsearch.errors import UnreadableFile
from mmsearch.indexers.readers import about
from mmsearch.indexers.readers.sniff import looks_like_text, utf16_without_mark
from mmsearch.values import Kind, Locator, ReadPolicy, Segment, TextOrigin

_HEADING = re.compile(r"(#{1,6})[ \t]+(.+)")
_FENCE = re.compile(r"[ ]{0,3}(`{3,}|~{3,})([^\n]*)")
_CODE_INDENT = ("    ", "\t")
_SENTENCE_END = re.compile(
    r"(?<=[.!?。\uff01\uff1f])[\"'\u201d\u2019)\]]*\s+|(?<=[。\uff01\uff1f])"
)
# Words beyond 20 letters count more than once: some scripts put no blanks between theirs.
_WORD = re.compile(r"\S{1,20}")


@dataclass(frozen=True, slots=True)
class _Block:
    """A paragraph or a heading: ``text[start:end]``, and the headings it stands under."""

    start: int
    end: int
    num_words: int
    headings: tuple[str, ...]
    is_heading: bool = False


def read(path: Path, policy: ReadPolicy) -> Iterator[Segment]:
    """Yield passages in order; ``text[char_start:char_end]`` of the decoded file is each.

    Passages end where a section ends or the words are enough; a long paragraph is cut
    between sentences. A file longer than ``policy.max_text_bytes`` is read up to there.
    """
    text = _decoded(path, policy.max_text_bytes)
    name = about.name_words(path)
    for start, end, headings in _passages(text, policy.passage_words):
        yield Segment(
            kind=Kind.TEXT,
            locator=Locator(char_start=start, char_end=end),
            text=text[start:end],
            text_origin=TextOrigin.FILE,
            about=about.join(name, " > ".join(headings)),
        )


def decode(raw: bytes, *, is_cut: bool = False) -> str:
    """Return the text of UTF-8, UTF-16 or, where neither fits, Windows-1252 bytes.

    With ``is_cut`` the bytes may end inside a character, which is then left out.
    """
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace")
    if codec := utf16_without_mark(raw):
        return raw.decode(codec, "replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if is_cut and error.start > len(raw) - 4 and error.reason == "unexpected end of data":
            return raw[: error.start].decode("utf-8-sig")
        return raw.decode("latin-1").translate(_WINDOWS_1252)


# Where it differs from latin-1; five of its bytes are assigned to nothing.
_WINDOWS_1252 = {
    byte: bytes((byte,)).decode("cp1252")
    for byte in range(0x80, 0xA0)
    if byte not in b"\x81\x8d\x8f\x90\x9d"
}


def _decoded(path: Path, max_bytes: int) -> str:
    with open(path, "rb") as file:
        raw = file.read(max_bytes)
    if not raw:
        raise UnreadableFile(path, "it is empty")
    if not looks_like_text(raw[:65536]):
        raise UnreadableFile(path, "it is not text, whatever its name says")
    text = decode(raw, is_cut=len(raw) == max_bytes)
    if not text.strip():
        raise UnreadableFile(path, "it holds nothing but blanks")
    return text


def _passages(text: str, max_words: int) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Join blocks into passages; a section of a few words goes with the next."""
    held: list[_Block] = []
    num_words = 0
    for block in _split(text, max_words):
        full = num_words + block.num_words > max_words
        # A heading opens a passage of its own, unless what is held is hardly one.
        if held and (full or (block.is_heading and num_words >= max_words // 4)):
            yield held[0].start, held[-1].end, held[-1].headings
            held, num_words = [], 0
        held.append(block)
        num_words += block.num_words
    if held:
        yield held[0].start, held[-1].end, held[-1].headings


def _split(text: str, max_words: int) -> Iterator[_Block]:
    """Cut every block that is longer than a passage, between sentences or else words."""
    for block in _blocks(text):
        if block.num_words <= max_words:
            yield block
            continue
        start, end, num_words = block.start, block.start, 0
        for piece_start, piece_end, piece_words in _pieces(text, block.start, block.end, max_words):
            if num_words and num_words + piece_words > max_words:
                yield _Block(start, end, num_words, block.headings)
                start, num_words = piece_start, 0
            end = piece_end
            num_words += piece_words
        yield _Block(start, end, num_words, block.headings)


def _pieces(text: str, start: int, end: int, max_words: int) -> Iterator[tuple[int, int, int]]:
    """Yield the sentences of ``text[start:end]``; one that is itself too long, in pieces."""
    cuts = [match.end() for match in _SENTENCE_END.finditer(text, start, end)]
    for left, right in zip([start, *cuts], [*cuts, end], strict=True):
        words = list(_WORD.finditer(text, left, right))
        for at in range(0, len(words), max_words):
            group = words[at : at + max_words]
            yield group[0].start(), group[-1].end(), len(group)


def _blocks(text: str) -> Iterator[_Block]:
    """Cut at blank lines and Markdown headings; a fenced block of code has neither."""
    headings: dict[int, str] = {}
    start, end, num_words, fence = -1, -1, 0, ""
    at = 0
    for line in text.splitlines(keepends=True):
        content = line.strip()
        first = at + len(line) - len(line.lstrip())
        last = first + len(content)
        at += len(line)
        is_prose = not fence and not line.startswith(_CODE_INDENT)
        heading = _HEADING.fullmatch(content.rstrip("# \t")) if is_prose else None
        fence = _fence_after(line, fence)
        if num_words and (heading or (not content and not fence)):
            yield _Block(start, end, num_words, tuple(headings.values()))
            num_words = 0
        if heading:
            level = len(heading[1])
            headings = {key: value for key, value in headings.items() if key < level}
            headings[level] = heading[2]
            yield _Block(first, last, _num_words(content), tuple(headings.values()), True)
        elif content:
            start = first if not num_words else start
            end = last
            num_words += _num_words(content)
    if num_words:
        yield _Block(start, end, num_words, tuple(headings.values()))


def _num_words(content: str) -> int:
    return sum(1 for _ in _WORD.finditer(content))


def _fence_after(line: str, fence: str) -> str:
    """Return the fence of code that is open after a line, where ``fence`` was before it.

    It is closed by as many of its own marks and nothing else; backticks with more of them
    on their line are code inside a sentence.
    """
    mark = _FENCE.match(line)
    if mark is None:
        return fence
    marks, rest = mark[1], mark[2].strip()
    if not fence:
        return "" if marks[0] == "`" and "`" in rest else marks
    closes = marks[0] == fence[0] and len(marks) >= len(fence) and not rest
    return "" if closes else fence
