"""Plain shapes and small scenes: colours, numbers, places, and what stands beside what.

shapes(chance) -> Drawing
scene(chance)  -> Drawing
Figures        what stands on a sheet of shapes; composed pairs change one of them
"""

import math
import random
from dataclasses import dataclass, replace

from mmsearch.retriever.training.default.sheets import (
    COLOURS,
    Colour,
    Drawing,
    Point,
    Sheet,
    a,
    count_word,
    jitter,
    listing,
    pick,
    read_out,
    sentence,
    several,
    toward,
)

FORMS = ("circle", "square", "triangle", "star", "rectangle", "diamond", "hexagon", "cross",
         "heart", "ring", "arrow", "half circle")  # fmt: skip
HUES = ("red", "blue", "green", "orange", "purple", "yellow", "pink", "brown", "gray", "black",
        "teal")  # fmt: skip
PAPERS: tuple[tuple[str, Colour], ...] = (
    ("white", (255, 255, 255)), ("white", (250, 250, 248)), ("light gray", (222, 222, 222)),
    ("black", (12, 12, 14)), ("light blue", (206, 228, 248)), ("cream", (252, 244, 218)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """One shape; ``at`` and ``size`` are shares of the sheet, ``size`` "large" or "small"."""

    form: str
    hue: str
    at: Point
    size: str

    @property
    def name(self) -> str:
        """``small red circle``."""
        return f"{self.size} {self.hue} {self.form}".strip()


@dataclass(frozen=True, slots=True)
class Figures:
    """The shapes of a sheet, in reading order."""

    paper: tuple[str, Colour]
    figures: tuple[Figure, ...]
    relation: str
    seed: str

    def sheet(self) -> Sheet:
        """Draw them; the same values draw the same."""
        sheet = Sheet(320, 320, self.paper[1])
        for figure in self.figures:
            usual = 0.145 if len(self.figures) < 3 else 0.095
            side = {"large": 0.22, "small": 0.09}.get(figure.size, usual) * 320
            chance = random.Random(f"{self.seed} {figure.at}")
            colour = jitter(chance, COLOURS[figure.hue], 12)
            at = (figure.at[0] * 320, figure.at[1] * 320)
            draw_form(sheet, figure.form, at, side, colour, self.paper[1])
        return sheet

    @property
    def told(self) -> str:
        """What is seen, as a clause."""
        if len(self.figures) == 2 and self.relation:
            one, two = self.figures
            return f"{a(one.name)} {self.relation} {a(two.name)}"
        if len({(f.form, f.hue) for f in self.figures}) == 1 and len(self.figures) > 1:
            first = self.figures[0]
            return f"{count_word(len(self.figures))} {first.hue} {plural(first.form)}"
        return listing([a(figure.name) for figure in self.figures])


def plural(form: str) -> str:
    """Return more than one of a form."""
    return f"{form}es" if form.endswith(("s", "x")) else f"{form}s"


def draw_form(sheet: Sheet, form: str, at: Point, r: float, fill: Colour, paper: Colour) -> None:
    """Draw a form that reaches about ``r`` from its middle."""
    x, y = at

    def ring(count: int, turn: float, *radii: float) -> list[Point]:
        return [
            (x + radii[i % len(radii)] * math.cos(turn + 2 * math.pi * i / count),
             y + radii[i % len(radii)] * math.sin(turn + 2 * math.pi * i / count))
            for i in range(count)
        ]  # fmt: skip

    up = -math.pi / 2
    match form:
        case "circle":
            sheet.dot(at, r, fill)
        case "square":
            sheet.box((x - r * 0.85, y - r * 0.85, x + r * 0.85, y + r * 0.85), fill)
        case "rectangle":
            sheet.box((x - r * 1.15, y - r * 0.6, x + r * 1.15, y + r * 0.6), fill)
        case "triangle":
            sheet.polygon(ring(3, up, r * 1.1), fill)
        case "star":
            sheet.polygon(ring(10, up, r * 1.15, r * 0.48), fill)
        case "diamond":
            high, wide = r * 1.15, r * 0.8
            sheet.polygon(((x, y - high), (x + wide, y), (x, y + high), (x - wide, y)), fill)
        case "hexagon":
            sheet.polygon(ring(6, 0, r), fill)
        case "cross":
            sheet.box((x - r, y - r * 0.33, x + r, y + r * 0.33), fill)
            sheet.box((x - r * 0.33, y - r, x + r * 0.33, y + r), fill)
        case "heart":
            sheet.dot((x - r * 0.48, y - r * 0.35), r * 0.52, fill)
            sheet.dot((x + r * 0.48, y - r * 0.35), r * 0.52, fill)
            sheet.polygon(((x - r * 0.95, y - r * 0.12), (x + r * 0.95, y - r * 0.12), (x, y + r)),
                          fill)  # fmt: skip
        case "ring":
            sheet.dot(at, r, fill)
            sheet.dot(at, r * 0.55, paper)
        case "arrow":
            sheet.arrow((x - r * 1.1, y), (x + r * 1.1, y), fill, max(int(r / 4), 3), int(r * 0.8))
        case "half circle":
            sheet.slice((x - r, y - r, x + r, y + r), 180, 360, fill)
        case _:
            raise ValueError(f"no such form: {form}")


def random_figures(chance: random.Random, seed: str) -> Figures:
    """Return one to five shapes: alone, beside, above, inside each other, in a row, scattered."""
    paper = chance.choice(PAPERS)
    hues = [hue for hue in HUES if hue != paper[0] and not (paper[0] == "light gray" and
                                                             hue == "gray")]  # fmt: skip
    kind = chance.choice(("one", "pair", "pair", "pair", "inside", "row", "count", "scatter"))
    sizes = ("", "", "large", "small")
    if kind == "one":
        figure = Figure(
            chance.choice(FORMS),
            chance.choice(hues),
            (chance.uniform(0.3, 0.7), chance.uniform(0.3, 0.7)),
            chance.choice(sizes),
        )
        return Figures(paper, (figure,), "", seed)  # fmt: skip
    if kind in ("pair", "inside"):
        forms, two_hues = chance.sample(FORMS, 2), chance.sample(hues, 2)
        if chance.random() < 0.25:
            forms[1] = forms[0]
        if kind == "inside":
            outer = chance.choice(("circle", "square", "hexagon"))
            inner = chance.choice([f for f in FORMS if f != outer])
            middle = (chance.uniform(0.4, 0.6), chance.uniform(0.4, 0.6))
            return Figures(
                paper,
                (Figure(outer, two_hues[0], middle, "large"),
                 Figure(inner, two_hues[1], middle, "small")),
                "around", seed,
            )  # fmt: skip
        relation = chance.choice(("to the left of", "to the right of", "above", "below"))
        low, high, side = (
            chance.uniform(0.2, 0.3),
            chance.uniform(0.7, 0.8),
            chance.uniform(0.4, 0.6),
        )
        one, two = (low, side), (high, side)
        if relation in ("to the right of", "below"):
            one, two = two, one
        if relation in ("above", "below"):
            one, two = (one[1], one[0]), (two[1], two[0])
        figures = tuple(
            Figure(form, hue, at, chance.choice(("", "", "small")))
            for form, hue, at in zip(forms, two_hues, (one, two), strict=True)
        )
        return Figures(paper, figures, relation, seed)
    count = chance.randint(3, 5)
    if kind == "row":
        forms = [chance.choice(FORMS) for _ in range(count)]
        colours = [chance.choice(hues) for _ in range(count)]
        level = chance.uniform(0.35, 0.65)
        return Figures(
            paper,
            tuple(Figure(f, h, ((i + 0.5) / count, level), "")
                  for i, (f, h) in enumerate(zip(forms, colours, strict=True))),
            "in a row", seed,
        )  # fmt: skip
    spots = [((c + 0.5) / 3, (r + 0.5) / 3) for c in range(3) for r in range(3)]
    places = chance.sample(spots, chance.randint(2, 7) if kind == "count" else count)
    places.sort(key=lambda at: (at[1], at[0]))
    form, hue = chance.choice(FORMS), chance.choice(hues)
    figures = tuple(
        Figure(form, hue, at, "small") if kind == "count"
        else Figure(chance.choice(FORMS), chance.choice(hues), at, "")
        for at in places
    )  # fmt: skip
    return Figures(paper, figures, "", seed)


def shapes(chance: random.Random) -> Drawing:
    """Return a sheet of shapes."""
    figures = random_figures(chance, str(chance.random()))
    return tell_figures(chance, figures)


def tell_figures(chance: random.Random, figures: Figures) -> Drawing:
    """Return the drawing of shapes, described."""
    told, paper = figures.told, figures.paper[0]
    row = " in a row from left to right" if figures.relation == "in a row" else ""
    description = pick(
        chance,
        f"{told}{row} on a {paper} background",
        f"The picture shows {told}{row}. The background is {paper}.",
        f"A simple drawing of {told}{row}",
    )
    count = len(figures.figures)
    steps = []
    for figure in figures.figures[:4]:
        steps.append(f"there is {a(figure.name)} {_where(figure.at)}")
    rationale = read_out(
        f"it is a drawing of {several(count, 'shape')}",
        f"the background is {paper}",
        *steps,
        f"so it shows {told}{row}",
    )
    query = pick(chance, told, f"{told}{row}", f"drawing of {told}", f"{told} on {paper}")
    return Drawing("shapes", figures.sheet(), query, sentence(description), sentence(told),
                   rationale, told)  # fmt: skip


def _where(at: Point) -> str:
    x = "left" if at[0] < 0.4 else "right" if at[0] > 0.6 else ""
    y = "upper" if at[1] < 0.4 else "lower" if at[1] > 0.6 else ""
    if x and y:
        return f"at the {y} {x}"
    if x:
        return f"on the {x}"
    return f"in the {y} half" if y else "in the middle"


def recoloured(figures: Figures, number: int, hue: str) -> Figures:
    """Return the shapes with one in another colour."""
    return _with(figures, number, replace(figures.figures[number], hue=hue))


def reshaped(figures: Figures, number: int, form: str) -> Figures:
    """Return the shapes with another form in the place of one."""
    return _with(figures, number, replace(figures.figures[number], form=form))


def without(figures: Figures, number: int) -> Figures:
    """Return the shapes less one."""
    kept = tuple(f for i, f in enumerate(figures.figures) if i != number)
    return replace(figures, figures=kept, relation="")


def _with(figures: Figures, number: int, figure: Figure) -> Figures:
    changed = tuple(figure if i == number else f for i, f in enumerate(figures.figures))
    return replace(figures, figures=changed)


# ---------------------------------------------------------------- scenes

SKIES: tuple[tuple[str, Colour], ...] = (
    ("blue", (150, 200, 245)), ("night", (18, 22, 58)), ("red evening", (250, 180, 110)),
    ("gray", (190, 195, 200)),
)  # fmt: skip
GROUNDS: tuple[tuple[str, Colour], ...] = (
    ("green meadow", (110, 180, 80)), ("desert", (225, 195, 130)), ("blue sea", (40, 110, 180)),
    ("snow", (240, 244, 250)), ("gray street", (120, 120, 125)),
)  # fmt: skip
ON_LAND = ("house", "tree", "car", "person", "flower", "mountain", "fir", "bus", "dog", "fence")
AT_SEA = ("boat", "fish", "island", "lighthouse")


def scene(chance: random.Random) -> Drawing:
    """Return a small picture: sky, ground, and one to three things on it."""
    sky_name, sky = chance.choice(SKIES)
    ground_name, ground = chance.choice(GROUNDS)
    horizon = chance.uniform(0.52, 0.68) * 300
    sheet = Sheet(400, 300, jitter(chance, sky))
    if sky_name == "night":
        for _ in range(14):
            sheet.dot((chance.uniform(0, 400), chance.uniform(0, 130)), 2, (250, 250, 220))
    above = []
    if chance.random() < 0.6:
        moon = sky_name == "night"
        x = chance.choice((60.0, 340.0))
        sheet.dot((x, 55), 28, (250, 245, 205) if moon else (255, 215, 40))
        above.append(
            f"the {'moon' if moon else 'sun'} is at the upper {'left' if x < 200 else 'right'}"
        )
    if sky_name != "night" and chance.random() < 0.5:
        num = chance.randint(1, 3)
        for i in range(num):
            x, y = 90 + i * 110 + chance.uniform(-20, 20), chance.uniform(40, 80)
            for dx, r in ((-22, 15), (0, 22), (24, 16)):
                sheet.dot((x + dx, y), r, (255, 255, 255))
        above.append(f"{several(num, 'white cloud')} {'is' if num == 1 else 'are'} in the sky")
    sheet.box((0, horizon, 400, 300), jitter(chance, ground))
    names = list(AT_SEA if "sea" in ground_name else ON_LAND)
    count = chance.choice((1, 2, 2, 3))
    things = chance.sample(names, count)
    spots = [(i + 0.5) * 400 / count + chance.uniform(-18, 18) for i in range(count)]
    said = []
    for thing, x in zip(things, spots, strict=True):
        hue = chance.choice(("red", "blue", "yellow", "green", "orange", "purple", "brown"))
        said.append(_draw_thing(chance, sheet, thing, x, horizon, hue))
    clauses = listing([a(one) for one in said])
    where = f"on {a(ground_name)}" if "sea" not in ground_name else "on the blue sea"
    land = "the sea" if "sea" in ground_name else a(ground_name)
    if ground_name == "snow":
        where, land = "in the snow", "snow"
    order = f"from left to right stand {clauses}" if count > 1 else f"there is {clauses}"
    description = pick(
        chance,
        f"A cartoon of {clauses} {where} under {a(sky_name)} sky. "
        + " ".join(sentence(one) for one in above),
        f"A simple illustration. {sentence(order)} The sky is {sky_name}; below is {land}.",
    ).strip()
    query = pick(chance, f"{clauses} {where}", f"{clauses} under {a(sky_name)} sky",
                 f"cartoon of {clauses}", f"drawing with {a(said[0])}")  # fmt: skip
    rationale = read_out(
        "it is a simple cartoon", f"the sky is {sky_name}", *above,
        f"the lower part is {land}", order,
        f"so it shows {clauses} {where}",
    )  # fmt: skip
    return Drawing("scene", sheet, query, description, sentence(f"{clauses} {where}"), rationale,
                   clauses)  # fmt: skip


def _draw_thing(
    chance: random.Random, sheet: Sheet, thing: str, x: float, ground: float, hue: str
) -> str:
    """Draw a thing that stands at ``x``; return its name with what is seen of it."""
    c, y = jitter(chance, COLOURS[hue]), ground + 26
    dark, brown, wall = toward(c, (0, 0, 0), 0.35), (115, 75, 45), (240, 225, 200)
    match thing:
        case "house":
            sheet.box((x - 44, y - 60, x + 44, y), wall, (60, 60, 60))
            sheet.polygon(((x - 54, y - 60), (x + 54, y - 60), (x, y - 104)), c, (60, 60, 60))
            sheet.box((x - 10, y - 32, x + 10, y), brown)
            sheet.box((x + 18, y - 48, x + 36, y - 30), (150, 200, 240), (60, 60, 60))
            return f"house with a {hue} roof"
        case "tree":
            sheet.box((x - 7, y - 44, x + 7, y), brown)
            for dx, dy in ((-20, -60), (20, -60), (0, -82), (0, -54)):
                sheet.dot((x + dx, y + dy), 24, (50, 140, 55))
            return "green tree"
        case "fir":
            sheet.box((x - 6, y - 16, x + 6, y), brown)
            for i in range(3):
                half, top = 36 - i * 8, y - 12 - i * 26
                sheet.polygon(((x - half, top), (x + half, top), (x, top - 40)), (20, 100, 50))
            return "fir tree"
        case "car":
            sheet.box((x - 52, y - 34, x + 52, y - 8), c, dark, 1, 8)
            sheet.polygon(((x - 32, y - 34), (x - 20, y - 54), (x + 20, y - 54), (x + 34, y - 34)),
                          (190, 220, 240), dark)  # fmt: skip
            for dx in (-30, 30):
                sheet.dot((x + dx, y - 8), 11, (25, 25, 25))
                sheet.dot((x + dx, y - 8), 4, (200, 200, 200))
            return f"{hue} car"
        case "bus":
            sheet.box((x - 60, y - 66, x + 60, y - 8), c, dark, 1, 6)
            for i in range(4):
                sheet.box((x - 52 + i * 27, y - 58, x - 32 + i * 27, y - 38), (190, 220, 240))
            for dx in (-36, 36):
                sheet.dot((x + dx, y - 8), 11, (25, 25, 25))
            return f"{hue} bus"
        case "person":
            sheet.dot((x, y - 84), 13, (225, 180, 145))
            sheet.box((x - 14, y - 70, x + 14, y - 32), c)
            for dx in (-8, 8):
                sheet.line(((x + dx, y - 32), (x + dx, y)), (40, 50, 90), 8)
            for way in (-1, 1):
                sheet.line(((x + way * 14, y - 66), (x + way * 28, y - 40)), (225, 180, 145), 6)
            return f"person in {a(hue)} shirt"
        case "flower":
            sheet.line(((x, y), (x, y - 52)), (50, 140, 55), 4)
            for i in range(6):
                t = i * math.pi / 3
                sheet.dot((x + 15 * math.cos(t), y - 62 + 15 * math.sin(t)), 10, c)
            sheet.dot((x, y - 62), 9, (250, 225, 60) if hue != "yellow" else brown)
            return f"{hue} flower"
        case "mountain":
            sheet.polygon(((x - 80, y), (x + 80, y), (x, y - 128)), (125, 115, 110))
            sheet.polygon(((x - 22, y - 93), (x + 22, y - 93), (x, y - 128)), (250, 250, 252))
            return "mountain with a white top"
        case "dog":
            sheet.box((x - 28, y - 34, x + 24, y - 14), brown, None, 1, 8)
            sheet.dot((x + 30, y - 38), 12, brown)
            for dx in (-22, -10, 10, 20):
                sheet.line(((x + dx, y - 16), (x + dx, y)), brown, 5)
            sheet.line(((x - 28, y - 30), (x - 42, y - 44)), brown, 5)
            return "brown dog"
        case "fence":
            for i in range(6):
                sheet.box((x - 52 + i * 20, y - 38, x - 42 + i * 20, y), wall, (90, 90, 90))
            sheet.box((x - 56, y - 28, x + 62, y - 21), wall, (90, 90, 90))
            return "fence"
        case "boat":
            sheet.polygon(((x - 54, y - 14), (x + 54, y - 14), (x + 36, y + 12), (x - 36, y + 12)),
                          brown)  # fmt: skip
            sheet.line(((x, y - 14), (x, y - 100)), (60, 40, 30), 4)
            sheet.polygon(((x + 4, y - 98), (x + 4, y - 22), (x + 48, y - 22)), c)
            return f"boat with a {hue} sail"
        case "fish":
            sheet.ellipse((x - 36, y + 16, x + 26, y + 48), c)
            sheet.polygon(((x + 20, y + 32), (x + 46, y + 14), (x + 46, y + 50)), c)
            sheet.dot((x - 20, y + 28), 3, (0, 0, 0))
            return f"{hue} fish"
        case "island":
            sheet.ellipse((x - 62, y - 16, x + 62, y + 16), (235, 210, 140))
            sheet.line(((x, y - 8), (x + 10, y - 70)), brown, 7)
            for way in (-40, -16, 20, 44):
                sheet.line(((x + 10, y - 70), (x + 10 + way, y - 62 - abs(30 - abs(way)))),
                           (40, 140, 60), 6)  # fmt: skip
            return "palm island"
        case _:
            sheet.polygon(((x - 20, y), (x + 20, y), (x + 13, y - 108), (x - 13, y - 108)),
                          (250, 250, 250), (90, 90, 90))  # fmt: skip
            for low in (24, 66):
                wide, narrow = 18 - low / 18, 15 - low / 30
                sheet.polygon(((x - wide, y - low), (x + wide, y - low), (x + narrow, y - low - 20),
                               (x - narrow, y - low - 20)), c)  # fmt: skip
            sheet.box((x - 10, y - 124, x + 10, y - 108), (255, 230, 90), (90, 90, 90))
            return f"lighthouse with {hue} stripes"
