"""Pages of books: headings, paragraphs, lists, two columns, and their text layer.

page(chance, title, paragraphs) -> Drawing     its ``text`` is the page's text layer
question(chance, paragraph)     -> str         what a person would ask to find it
noisy(chance, words)            -> str         as OCR would have read them
"""

import random
import re
from collections.abc import Sequence

from mmsearch.retriever.training.default.charts import Table, random_values, recast
from mmsearch.retriever.training.default.sheets import (
    COLOURS,
    Drawing,
    Font,
    Sheet,
    Style,
    font,
    pick,
    read_out,
    toward,
)
from mmsearch.retriever.training.default.subjects import subject
from mmsearch.retriever.training.default.tables import moved
from mmsearch.retriever.training.rationales import sentences

SIZES = ((420, 560), (400, 540), (432, 540), (400, 580), (540, 420))
IS_A = re.compile(
    r"^(?:An? |The )?([A-Za-z][\w’'-]*(?: [\w’'-]+){0,3}?) "  # noqa: RUF001 - as books print it
    r"(is|are|was|were) ((?:an?|the) .{25,})$"
)
COMMON = frozenset(
    (
        *("about", "after", "all", "also", "and", "any", "are", "because", "been", "before"),
        *("between", "both", "but", "can", "could", "did", "does", "each", "for", "from", "had"),
        *("has", "have", "her", "his", "how", "into", "its", "many", "may", "more", "most"),
        *("not", "one", "only", "other", "our", "out", "over", "she", "should", "some", "such"),
        *("than", "that", "the", "their", "them", "then", "there", "these", "they", "this"),
        *("those", "through", "two", "was", "were", "what", "when", "where", "which", "while"),
        *("who", "will", "with", "would", "you", "your", "been", "being", "must", "very"),
    )
)


def page(chance: random.Random, title: str, paragraphs: Sequence[str]) -> Drawing:
    """Return a page that begins with the title and holds as many paragraphs as fit."""
    width, height = chance.choice(SIZES)
    family = chance.choices(("sans", "serif", "mono"), (45, 50, 5))[0]
    paper = chance.choice(((255, 255, 255), (255, 255, 255), (252, 250, 243), (245, 245, 245)))
    ink = chance.choice(((0, 0, 0), (35, 35, 35)))
    accent = chance.choice(list(COLOURS.values()))
    sheet = Sheet(width, height, paper)
    body = font(family, chance.choice((9, 10, 10, 11, 12)))
    head = font(chance.choice((family, "sans")), chance.choice((15, 17, 20)), bold=True)
    columns = 2 if width < height and chance.random() < 0.35 else 1
    margin = chance.choice((24, 32, 40))
    numbers: list[str] = []
    if chance.random() < 0.4:
        numbers = [str(chance.randint(2, 900))]
        at = (width - margin, margin * 0.5)
        sheet.text(at, numbers[0], font(family, 9), ink, anchor="rm")
    top = float(margin)
    level = chance.choice((ink, accent))
    for line in head.wrap(title, width - 2 * margin):
        sheet.text((margin, top), line, head, level, anchor="la")
        top += head.size * 1.2
    if chance.random() < 0.3:
        sheet.line(((margin, top + 3), (width - margin, top + 3)), accent, 2)
    top += 10
    bottom = float(height - margin)
    extra = ""
    if chance.random() < 0.25:
        bottom, extra = _figure(chance, sheet, margin, bottom, family)
    gap = 18
    column_width = (width - 2 * margin - gap * (columns - 1)) / columns
    spots = [(margin + c * (column_width + gap), top) for c in range(columns)]
    listed = _list_of(chance, paragraphs)
    blocks = [(paragraph, False) for paragraph in paragraphs]
    if listed:
        blocks.insert(chance.randint(0, 1), ("\n".join(listed), True))
    shown = _flow(sheet, body, ink, blocks, spots, column_width, bottom, accent)
    text = [*numbers, title, *shown, extra]
    first = sentences(shown[0])[0].strip() if shown else title
    layout = "in two columns" if columns == 2 else "in one column"
    what = pick(chance, "a page of a textbook", "a page of text", "a printed page")
    part = f" It has a chart, {extra}." if extra else ""
    bullets = f" It has a list of {len(listed)} points." if listed else ""
    description = f"{what} with the heading “{title}” {layout}.{bullets}{part} It begins: {first}"
    rationale = read_out(
        f"it is {what}", f"the heading reads “{title}”", f"the text stands {layout}",
        f"it begins: {first[:160]}", f"there is a chart, {extra}" if extra else "",
        f"so it is about {title}",
    )  # fmt: skip
    return Drawing(
        "page", sheet, title, description[:1].upper() + description[1:], first, rationale, title,
        " ".join(text).strip(),
    )  # fmt: skip


def _flow(
    sheet: Sheet, body: Font, ink: tuple[int, int, int], blocks: Sequence[tuple[str, bool]],
    spots: Sequence[tuple[float, float]], width: float, bottom: float, accent: tuple[int, int, int],
) -> list[str]:  # fmt: skip
    """Set blocks into columns until they are full; return the text that was set."""
    column, (x, y) = 0, spots[0]
    step = body.size * 1.28
    shown: list[str] = []
    for block, is_list in blocks:
        set_lines: list[str] = []
        for item in block.split("\n"):
            inset = 14 if is_list else 0
            for row, line in enumerate(body.wrap(item, width - inset)):
                if y + step > bottom:
                    column += 1
                    if column >= len(spots):
                        return [*shown, " ".join(set_lines)] if set_lines else shown
                    x, y = spots[column]
                if is_list and row == 0:
                    sheet.dot((x + 5, y + body.size * 0.55), 2, accent)
                sheet.text((x + inset, y), line, body, ink, anchor="la")
                set_lines.append(line)
                y += step
        shown.append(" ".join(set_lines))
        y += body.size * 0.6
    return shown


def _list_of(chance: random.Random, paragraphs: Sequence[str]) -> list[str]:
    """Return three to five short sentences for a list, on one page of five."""
    short = [s.strip() for p in paragraphs[1:] for s in sentences(p) if 4 <= len(s.split()) <= 12]
    if chance.random() > 0.2 or len(short) < 3:
        return []
    return short[: chance.randint(3, 5)]


def _figure(
    chance: random.Random, sheet: Sheet, margin: int, bottom: float, family: str
) -> tuple[float, str]:
    """Draw a small chart at the foot of the page; return where the text ends, what it is of."""
    about = subject(chance, most=5)
    width, height = sheet.width - 2 * margin, round(sheet.height * 0.27)
    colour = chance.choice(list(COLOURS))
    other = toward(COLOURS[colour], (255, 255, 255), 0.5)
    colours = ((colour, COLOURS[colour]), (f"pale {colour}", other), ("gray", COLOURS["gray"]))
    style = Style(
        width, height, sheet.paper, (0, 0, 0), (220, 220, 220), family, 0.72,
        colours, True, False,
    )  # fmt: skip
    values = (random_values(chance, about.low, about.high, len(about.members)),)
    drawn = recast(Table(about, "", ("",), values), style, chance.choice(("bar", "barh", "line")))
    top = bottom - height
    sheet.marks += [moved(mark, margin, top) for mark in drawn.marks]
    return top - 6, f"{about.measure} by {about.noun}"


def question(chance: random.Random, paragraph: str) -> str:
    """Return a question, a few key words, or a sentence of the paragraph."""
    told = [one.strip() for one in sentences(paragraph) if len(one.split()) >= 5]
    if not told:
        return paragraph
    one = chance.choice(told)
    kind = chance.random()
    if kind < 0.4 and (term := definition(one)):
        plural = term[1] in ("are", "were")
        return f"What {'are' if plural else 'is'} {term[0]}?"
    if kind < 0.75:
        words = [w.strip(".,;:()“”\"'") for w in one.split()]
        keys = [w for w in words if len(w) > 3 and w.lower() not in COMMON]
        start = chance.randint(0, max(len(keys) - 5, 0))
        if len(keys) >= 3:
            return " ".join(keys[start : start + chance.randint(3, 6)])
    return one


def definition(sentence: str) -> tuple[str, str, str] | None:
    """Return (term, verb, what it is) of a sentence that defines one, else None."""
    found = IS_A.match(sentence.strip().rstrip("."))
    if not found or sentence.strip().endswith(("?", ":")) or found.group(1).split()[0].lower() in (
        "it", "this", "that", "there", "these", "those", "they", "he", "she", "we", "what", "one",
        "another", "which", "i", "you", "who", "here", "such", "each", "some", "all", "if", "when",
        "does", "do", "did", "why", "how", "where", "can", "is", "are", "and", "but", "so", "in",
    ):  # fmt: skip
        return None
    term, verb, what = found.groups()
    return term, verb, what


CONFUSED = (("rn", "m"), ("m", "rn"), ("l", "1"), ("O", "0"), ("I", "l"), ("e", "c"), ("S", "5"),
            ("cl", "d"), ("ti", "h"), ("B", "8"), (",", "."), ("’", "'"))  # fmt: skip  # noqa: RUF001


def noisy(chance: random.Random, words: str, share: float = 0.06) -> str:
    """Return the words with a share of them misread, split, joined or lost."""
    out: list[str] = []
    for word in words.split():
        if chance.random() >= share:
            out.append(word)
            continue
        kind = chance.random()
        if kind < 0.5:
            wrong, right = chance.choice(CONFUSED)
            changed = word.replace(wrong, right, 1)
            out.append(changed if changed != word else word[:-1] or word)
        elif kind < 0.7 and len(word) > 4:
            cut = chance.randint(2, len(word) - 2)
            out += [word[:cut], word[cut:]]
        elif kind < 0.85 and out:
            out[-1] += word
        # what is left is lost
    return " ".join(out)
