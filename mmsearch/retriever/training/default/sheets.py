"""A sheet to draw on: what is put down is kept as a list of marks, and painted when asked.

    Sheet.text, .line, .box, ... -> Sheet.words (what OCR would read), Sheet.paint() -> picture

Describing a drawing needs no pixels, so texts of ten thousand drawings are made in seconds.
Shapes are painted without smoothing: the network's own resize does that. The fonts are the
fourteen every PDF reader has, taken from pymupdf, so any machine draws the same.
"""

import functools
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from PIL import Image as pil
from PIL import ImageDraw, ImageFont

Colour: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]

COLOURS: dict[str, Colour] = {
    "red": (214, 39, 40),
    "blue": (31, 100, 200),
    "green": (44, 150, 60),
    "orange": (255, 140, 20),
    "purple": (130, 70, 180),
    "yellow": (245, 210, 30),
    "pink": (240, 130, 180),
    "brown": (140, 86, 60),
    "gray": (128, 128, 128),
    "teal": (20, 150, 150),
    "black": (20, 20, 20),
    "light blue": (140, 195, 240),
    "light green": (160, 220, 140),
}
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
FAMILIES = {
    "sans": ("helv", "hebo", "heit", "hebi"),
    "serif": ("tiro", "tibo", "tiit", "tibi"),
    "mono": ("cour", "cobo", "coit", "cobi"),
}


@functools.lru_cache
def _font_file(name: str) -> bytes:
    import pymupdf

    face = pymupdf.Font(name)  # type: ignore[no-untyped-call]
    return bytes(face.buffer)


@functools.lru_cache(maxsize=512)
def font(family: str, size: int, *, bold: bool = False, italic: bool = False) -> "Font":
    """Return a font of ``sans``, ``serif`` or ``mono``; sizes are pixels."""
    name = FAMILIES[family][bold + 2 * italic]
    face = ImageFont.truetype(
        io.BytesIO(_font_file(name)), size, layout_engine=ImageFont.Layout.BASIC
    )
    return Font(size, face)


@functools.lru_cache(maxsize=100_000)
def _width(face: ImageFont.FreeTypeFont, text: str) -> float:
    return face.getlength(text)


@dataclass(frozen=True, slots=True, eq=False)
class Font:
    """A font of one size that knows how wide words are."""

    size: int
    face: ImageFont.FreeTypeFont

    def width(self, text: str) -> float:
        return _width(self.face, text)

    def wrap(self, text: str, width: float) -> list[str]:
        """Return the lines of ``text`` that fit; a word wider than a line has its own."""
        lines: list[str] = []
        space, used = self.width(" "), 0.0
        for word in text.split():
            wide = self.width(word)
            if lines and used + space + wide <= width:
                lines[-1] += f" {word}"
                used += space + wide
            else:
                lines.append(word)
                used = wide
        return lines


@dataclass(slots=True)
class Sheet:
    """Marks in the order they were put down; later ones lie on top."""

    width: int
    height: int
    paper: Colour = WHITE
    marks: list[tuple[Any, ...]] = field(default_factory=list)

    def text(
        self,
        at: Point,
        text: str,
        font: Font,
        ink: Colour = BLACK,
        *,
        anchor: str = "mm",
        upward: bool = False,
    ) -> None:
        """Write one line; ``anchor`` is Pillow's; ``upward`` turns it by a quarter."""
        if text:
            self.marks.append(("text", at, text, font, ink, anchor, upward))

    def lines(
        self,
        at: Point,
        texts: Sequence[str],
        font: Font,
        ink: Colour = BLACK,
        *,
        leading: float = 1.25,
    ) -> None:
        """Write lines one under the other, centred on ``at`` in both directions."""
        step = font.size * leading
        top = at[1] - step * (len(texts) - 1) / 2
        for row, text in enumerate(texts):
            self.text((at[0], top + row * step), text, font, ink)

    def line(self, points: Sequence[Point], ink: Colour, width: int = 2) -> None:
        self.marks.append(("line", tuple(points), ink, width))

    def dashed(self, start: Point, end: Point, ink: Colour, width: int = 1) -> None:
        (x0, y0), (x1, y1) = start, end
        count = max(int(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5 / 5), 1)
        for i in range(0, count, 2):
            a, b = i / count, min((i + 1) / count, 1.0)
            self.line(
                (
                    (x0 + (x1 - x0) * a, y0 + (y1 - y0) * a),
                    (x0 + (x1 - x0) * b, y0 + (y1 - y0) * b),
                ),
                ink,
                width,
            )

    def arrow(self, start: Point, end: Point, ink: Colour, width: int = 2, head: int = 8) -> None:
        """Draw an arrow that points at ``end``."""
        (x0, y0), (x1, y1) = start, end
        length = max(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5, 1e-6)
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        bx, by = x1 - ux * head, y1 - uy * head
        self.line((start, (bx, by)), ink, width)
        wing = head * 0.5
        self.polygon((end, (bx - uy * wing, by + ux * wing), (bx + uy * wing, by - ux * wing)), ink)

    def box(
        self,
        corners: tuple[float, float, float, float],
        fill: Colour | None = None,
        ink: Colour | None = None,
        width: int = 1,
        radius: int = 0,
    ) -> None:
        """Draw a rectangle from its left, top, right and bottom."""
        self.marks.append(("box", corners, fill, ink, width, radius))

    def ellipse(
        self,
        corners: tuple[float, float, float, float],
        fill: Colour | None = None,
        ink: Colour | None = None,
        width: int = 1,
    ) -> None:
        self.marks.append(("ellipse", corners, fill, ink, width))

    def dot(self, at: Point, radius: float, fill: Colour, ink: Colour | None = None) -> None:
        x, y = at
        self.ellipse((x - radius, y - radius, x + radius, y + radius), fill, ink)

    def polygon(
        self, points: Sequence[Point], fill: Colour | None, ink: Colour | None = None
    ) -> None:
        self.marks.append(("polygon", tuple(points), fill, ink))

    def slice(
        self,
        corners: tuple[float, float, float, float],
        start: float,
        end: float,
        fill: Colour,
        ink: Colour | None = None,
    ) -> None:
        """Draw a piece of a pie; degrees run clockwise from three o'clock."""
        self.marks.append(("slice", corners, start, end, fill, ink))

    def arc(
        self,
        corners: tuple[float, float, float, float],
        start: float,
        end: float,
        ink: Colour,
        width: int = 2,
    ) -> None:
        self.marks.append(("arc", corners, start, end, ink, width))

    def paste(self, at: tuple[int, int], picture: pil.Image) -> None:
        """Put a picture down with its upper left corner there."""
        self.marks.append(("paste", at, picture))

    @property
    def words(self) -> str:
        """What is written, row by row from the top, as OCR would read it."""
        texts = [mark for mark in self.marks if mark[0] == "text"]
        texts.sort(key=lambda mark: (round(mark[1][1] / 12), mark[1][0]))
        return " ".join(mark[2] for mark in texts)

    def paint(self) -> pil.Image:
        """Return the picture, RGB."""
        picture = pil.new("RGB", (self.width, self.height), self.paper)
        pen = ImageDraw.Draw(picture)
        for mark in self.marks:
            match mark:
                case ("text", at, text, font, ink, anchor, False):
                    pen.text(at, text, fill=ink, font=font.face, anchor=anchor)
                case ("text", at, text, font, ink, _, True):
                    _write_upward(picture, at, text, font, ink)
                case ("line", points, ink, width):
                    pen.line(points, ink, width, joint="curve" if width > 2 else None)
                case ("box", corners, fill, ink, width, 0):
                    pen.rectangle(corners, fill, ink, width)
                case ("box", corners, fill, ink, width, radius):
                    pen.rounded_rectangle(corners, radius, fill, ink, width)
                case ("ellipse", corners, fill, ink, width):
                    pen.ellipse(corners, fill, ink, width)
                case ("polygon", points, fill, ink):
                    pen.polygon(points, fill, ink)
                case ("slice", corners, start, end, fill, ink):
                    pen.pieslice(corners, start, end, fill, ink)
                case ("arc", corners, start, end, ink, width):
                    pen.arc(corners, start, end, ink, width)
                case ("paste", at, other):
                    picture.paste(other, at)
        return picture


def _write_upward(picture: pil.Image, at: Point, text: str, font: Font, ink: Colour) -> None:
    width, height = round(font.width(text)) + 4, round(font.size * 1.5)
    mask = pil.new("L", (width, height))
    ImageDraw.Draw(mask).text((width / 2, height / 2), text, 255, font.face, anchor="mm")
    mask = mask.transpose(pil.Transpose.ROTATE_90)
    corner = (round(at[0] - height / 2), round(at[1] - width / 2))
    picture.paste(ink, corner, mask)


# ---------------------------------------------------------------- how a drawing looks


@dataclass(frozen=True, slots=True)
class Style:
    """The look of one drawing.

    colours: names and values, no two alike; ``named`` says whether a reader could name them
    """

    width: int
    height: int
    paper: Colour
    ink: Colour
    faint: Colour
    family: str
    scale: float
    colours: tuple[tuple[str, Colour], ...]
    named: bool
    grid: bool

    def font(self, size: float, *, bold: bool = False, italic: bool = False) -> Font:
        """Return the style's font; 12 is the size of a tick's label."""
        return font(self.family, max(round(size * self.scale), 8), bold=bold, italic=italic)

    def sheet(self) -> Sheet:
        return Sheet(self.width, self.height, self.paper)

    def colour(self, number: int) -> Colour:
        return self.colours[number % len(self.colours)][1]

    def colour_name(self, number: int) -> str:
        return self.colours[number % len(self.colours)][0]


SIZES = ((448, 336), (480, 320), (400, 400), (420, 360), (512, 320), (380, 420), (440, 300))
HUES = ("blue", "green", "red", "orange", "purple", "teal")


def random_style(chance: random.Random, *, dark: float = 0.08) -> Style:
    """Return a look: size, paper, font, colours of a palette."""
    width, height = chance.choice(SIZES)
    is_dark = chance.random() < dark
    if is_dark:
        level = chance.randint(15, 50)
        paper = (level, level + chance.randint(0, 12), level + chance.randint(0, 25))
        ink, faint = (235, 235, 235), (85, 85, 95)
    else:
        paper = chance.choice((WHITE, WHITE, WHITE, (250, 248, 240), (240, 244, 250), (245,) * 3))
        ink, faint = chance.choice(((0, 0, 0), (40, 40, 40), (30, 40, 70))), (215, 215, 215)
    named = chance.random() < 0.65
    if named:
        names = [name for name in COLOURS if name != "black" and "light" not in name]
        chance.shuffle(names)
        colours = tuple((name, jitter(chance, COLOURS[name])) for name in names)
    else:
        hue = chance.choice(HUES)
        base = COLOURS[hue]
        depths = [1.0, 0.45, 0.75, 0.3, 0.6, 0.88, 0.2, 0.52]
        colours = tuple((f"shade of {hue}", toward(base, WHITE, 1 - d)) for d in depths)
    family = chance.choices(("sans", "serif", "mono"), (75, 20, 5))[0]
    scale = min(width, height) / 336 * chance.uniform(0.92, 1.12)
    return Style(
        width, height, paper, ink, faint, family, scale, colours, named, chance.random() < 0.5
    )


def toward(colour: Colour, other: Colour, share: float) -> Colour:
    """Return the colour moved that share of the way to the other."""
    r, g, b = (round(a + (c - a) * share) for a, c in zip(colour, other, strict=True))
    return (r, g, b)


def jitter(chance: random.Random, colour: Colour, most: int = 18) -> Colour:
    """Return nearly that colour."""
    r, g, b = (min(max(level + chance.randint(-most, most), 0), 255) for level in colour)
    return (r, g, b)


# ---------------------------------------------------------------- how one is told


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawing and all that is said about it; every claim is made from its data.

    query:       what a person would type to find it
    description: what is seen, as an alternative text tells it
    caption:     what it means, as a book's caption tells it
    rationale:   three to eight sentences that read it step by step, each with a full stop
    answer:      the gist in a few words
    text:        the words in reading order where the sheet's rows do not tell it: a page
    """

    kind: str
    sheet: Sheet
    query: str
    description: str
    caption: str
    rationale: str
    answer: str
    text: str = ""

    @property
    def words(self) -> str:
        """What is written in it, as OCR or a page's text layer gives it."""
        return self.text or self.sheet.words


COUNTS = (
    "no", "one", "two", "three", "four", "five", "six",
    "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip


def count_word(count: int) -> str:
    """Return ``three`` for 3, digits above twelve."""
    return COUNTS[count] if count < len(COUNTS) else str(count)


def several(count: int, singular: str, plural: str = "") -> str:
    """Return ``one bar``, ``three bars``."""
    return f"{count_word(count)} {singular if count == 1 else plural or singular + 's'}"


def listing(names: Sequence[str], last: str = "and") -> str:
    """Return ``a, b, and c``."""
    if len(names) < 3:
        return f" {last} ".join(names)
    return f"{', '.join(names[:-1])}, {last} {names[-1]}"


def a(noun: str) -> str:
    """Return the noun with its article: ``an arrow``, ``a bar``."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def sentence(text: str) -> str:
    """Return the text with a capital first and a full stop last."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def read_out(*steps: str) -> str:
    """Return the steps as sentences; empty ones are left out."""
    return " ".join(sentence(step) for step in steps if step)


def pick(chance: random.Random, *wordings: str) -> str:
    """Return one of the wordings."""
    return chance.choice(wordings)
