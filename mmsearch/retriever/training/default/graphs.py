"""Graphs of functions as textbooks draw them: curves, number lines, supply and demand.

graph(chance) -> Drawing
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from mmsearch.retriever.training.default.charts import Axes, number, open_axes
from mmsearch.retriever.training.default.sheets import (
    Drawing,
    Sheet,
    Style,
    a,
    listing,
    pick,
    random_style,
    read_out,
    sentence,
    several,
    toward,
)

Function = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve that has a name; ``of`` maps 0..1 to 0..1.

    shape: how it runs, as a clause without a subject
    """

    name: str
    title: str
    x: str
    y: str
    shape: str
    of: Function


def _bell(t: float, middle: float = 0.5, width: float = 0.15) -> float:
    return math.exp(-(((t - middle) / width) ** 2) / 2)


CURVES = (
    Curve("exponential growth", "Exponential growth", "Time", "Population size",
          "starts slowly and then rises ever more steeply", lambda t: 0.04 * 24**t),
    Curve("logistic growth", "Logistic growth", "Time", "Population size",
          "is S-shaped and levels off at the carrying capacity",
          lambda t: 0.9 / (1 + math.exp(-12 * (t - 0.45)))),
    Curve("exponential decay", "Radioactive decay", "Time", "Amount remaining",
          "falls steeply at first and then flattens toward zero",
          lambda t: 0.95 * math.exp(-4 * t)),
    Curve("forgetting curve", "The forgetting curve", "Days after learning", "Words remembered",
          "falls steeply at first and then flattens", lambda t: 0.25 + 0.7 * math.exp(-6 * t)),
    Curve("learning curve", "A learning curve", "Trials", "Correct responses",
          "rises fast and then levels off", lambda t: 0.9 * (1 - math.exp(-4 * t))),
    Curve("inverted U", "Yerkes-Dodson law", "Arousal", "Performance",
          "rises to a peak in the middle and falls again", lambda t: 0.9 * 4 * t * (1 - t)),
    Curve("normal distribution", "The normal distribution", "Score", "Frequency",
          "is a bell, symmetric around the mean", lambda t: 0.92 * _bell(t)),
    Curve("right-skewed distribution", "Distribution of income", "Income", "Households",
          "has its peak on the left and a long tail on the right",
          lambda t: 5.4 * t * math.exp(-6 * t) * 2.4 / 2.2),
    Curve("production possibilities frontier", "Production possibilities frontier", "Guns",
          "Butter", "bows outward from the upper left to the lower right",
          lambda t: 0.9 * math.sqrt(max(1 - (t / 0.95) ** 2, 0))),
    Curve("Lorenz curve", "Income inequality", "Share of households", "Share of income",
          "sags below the diagonal", lambda t: 0.95 * t**2.4),
    Curve("Laffer curve", "The Laffer curve", "Tax rate", "Tax revenue",
          "rises from zero to a maximum and falls back to zero",
          lambda t: 0.9 * math.sin(math.pi * t)),
    Curve("average cost curve", "Average cost", "Quantity", "Cost",
          "is U-shaped with its lowest point in the middle", lambda t: 0.2 + 2.6 * (t - 0.5) ** 2),
    Curve("Phillips curve", "The Phillips curve", "Unemployment rate", "Inflation rate",
          "slopes downward, steep first and then flat", lambda t: 0.08 + 0.1 / (t + 0.12)),
    Curve("bacterial growth curve", "Growth of a culture", "Time (hours)", "Number of cells",
          "has a lag, a steep rise, a plateau and a decline",
          lambda t: 0.08 if t < 0.15 else 0.08 + 0.8 * min((t - 0.15) / 0.3, 1)
          - max(t - 0.75, 0) * 1.8),
    Curve("enzyme activity", "Enzyme activity and temperature", "Temperature", "Rate of reaction",
          "climbs to an optimum and drops steeply behind it",
          lambda t: 0.9 * (_bell(t, 0.62, 0.25) if t < 0.62 else _bell(t, 0.62, 0.09))),
    Curve("dose-response curve", "Dose and response", "Log dose", "Response",
          "is S-shaped from no response to the full one",
          lambda t: 0.92 / (1 + math.exp(-11 * (t - 0.5)))),
    Curve("reaction energy diagram", "Energy of a reaction", "Reaction progress", "Energy",
          "climbs over a hump, the activation energy, and ends lower than it began",
          lambda t: (0.5 if t < 0.5 else 0.2) + (0.42 if t < 0.5 else 0.72) * _bell(t, 0.5, 0.12)),
    Curve("titration curve", "Titration", "Volume of base added", "pH",
          "stays low, jumps at the equivalence point and stays high",
          lambda t: 0.2 + 0.6 / (1 + math.exp(-40 * (t - 0.55))) + 0.08 * t),
    Curve("business cycle", "The business cycle", "Time", "Real GDP",
          "waves up and down around a rising trend",
          lambda t: 0.2 + 0.5 * t + 0.13 * math.sin(13 * t)),
    Curve("sine wave", "A wave", "Time", "Displacement",
          "oscillates with the same height around the middle",
          lambda t: 0.5 + 0.38 * math.sin(4 * math.pi * t)),
    Curve("damped oscillation", "Damped oscillation", "Time", "Displacement",
          "oscillates while its swings get smaller",
          lambda t: 0.5 + 0.44 * math.exp(-3 * t) * math.cos(10 * math.pi * t)),
    Curve("action potential", "The action potential", "Time (ms)", "Membrane potential (mV)",
          "rests, shoots up to a peak, drops below rest and returns",
          lambda t: 0.25 + 0.65 * _bell(t, 0.4, 0.06) - 0.12 * _bell(t, 0.6, 0.08)),
    Curve("survivorship curve", "Survivorship", "Age", "Survivors",
          "stays high for long and drops late in life",
          lambda t: 0.92 / (1 + math.exp(14 * (t - 0.8)))),
    Curve("diminishing returns", "Diminishing returns", "Workers", "Output",
          "rises ever more slowly", lambda t: 0.92 * math.sqrt(t)),
    Curve("velocity at constant acceleration", "Motion with constant acceleration", "Time (s)",
          "Velocity (m/s)", "is a straight line that rises", lambda t: 0.1 + 0.75 * t),
    Curve("predator-prey cycle", "Hares", "Year", "Number of animals",
          "rises and falls again and again", lambda t: 0.5 + 0.35 * math.sin(18 * t)),
)  # fmt: skip


def _plot(
    sheet: Sheet, axes: Axes, of: Function, style: Style, colour: int, span: tuple[float, float]
) -> None:
    low, high = span
    points = []
    for i in range(81):
        x = low + (high - low) * i / 80
        y = of(x)
        if axes.y_range[0] <= y <= axes.y_range[1]:
            points.append((axes.x(x), axes.y(y)))
    if len(points) > 1:
        sheet.line(points, style.colour(colour), 3)


def _named(chance: random.Random) -> Drawing:
    curve = chance.choice(CURVES)
    style = random_style(chance)
    title = curve.title if chance.random() < 0.6 else ""
    sheet, axes = open_axes(
        style, title=title, x_label=curve.x, y_label=curve.y, x_ticks=(), y_ticks=(),
        x_range=(0, 1), y_range=(0, 1), grid=False,
    )  # fmt: skip
    _plot(sheet, axes, curve.of, style, 0, (0, 1))
    hue = f"{style.colour_name(0)} " if style.named else ""
    description = pick(
        chance,
        f"A graph of {curve.y} against {curve.x}. The {hue}curve {curve.shape}.",
        f"The graph shows {a(curve.name)}. The x-axis is labeled {curve.x} and the y-axis is "
        f"labeled {curve.y}. The {hue}line {curve.shape}.",
        f"Line graph with {curve.x} on the horizontal axis and {curve.y} on the vertical axis; it "
        f"{curve.shape}.",
    )
    query = pick(
        chance,
        f"graph of {curve.name}",
        f"{curve.name} graph",
        f"curve that {curve.shape}",
        f"{curve.y} versus {curve.x}",
    )
    rationale = read_out(
        "it is a graph with one curve",
        f"the title reads “{title}”" if title else "it has no title",
        f"the horizontal axis is {curve.x}",
        f"the vertical axis is {curve.y}",
        f"the curve is {style.colour_name(0)}" if style.named else "",
        f"from left to right it {curve.shape}",
        f"so it shows {a(curve.name)}",
    )
    caption = pick(
        chance,
        f"{curve.title}: the curve {curve.shape}.",
        f"{curve.y} depends on {curve.x}.",
        f"{a(curve.name)} {curve.shape}.",
    )
    return Drawing("curve", sheet, query, description, sentence(caption), rationale, curve.name)


GOODS = ("coffee", "gasoline", "labor", "housing", "bread", "oil", "pizza", "loans", "smartphones",
         "apples", "sugar", "steel", "doctors", "tickets")  # fmt: skip


def _market(chance: random.Random) -> Drawing:
    good = chance.choice(GOODS)
    style = random_style(chance)
    shift = chance.choice(("none", "none", "demand right", "demand left", "supply right",
                           "supply left"))  # fmt: skip
    control = chance.choice(("ceiling", "floor", "", "")) if shift == "none" else ""
    title = chance.choice((f"The market for {good}", f"Supply and demand for {good}", "")).strip()
    sheet, axes = open_axes(
        style, title=title, x_label=f"Quantity of {good}", y_label="Price", x_ticks=(), y_ticks=(),
        x_range=(0, 1), y_range=(0, 1), grid=False,
    )  # fmt: skip
    curved = chance.random() < 0.3
    bend = 0.25 if curved else 0.0

    def demand(by: float) -> Function:
        return lambda q: 0.95 - 0.85 * (q - by) - bend * (q - by) * (1 - q + by)

    def supply(by: float) -> Function:
        return lambda q: 0.08 + 0.85 * (q - by) - bend * (q - by) * (1 - q + by)

    pairs = [("D", demand(0), 0), ("S", supply(0), 1)]
    if shift != "none":
        which, way = shift.split()
        by = 0.22 if way == "right" else -0.22
        moved = demand(by) if which == "demand" else supply(by)
        pairs.append((f"{which[0].upper()}1", moved, 0 if which == "demand" else 1))
    small = style.font(13, bold=True)
    for name, of, colour in pairs:
        span = (0.06, 0.9)
        _plot(sheet, axes, of, style, colour, span)
        end = max((x / 50 for x in range(3, 46) if 0.02 < of(x / 50) < 0.98), default=0.8)
        sheet.text((axes.x(end) + 12, axes.y(of(end))), name, small, style.ink)
    q = min((x / 200 for x in range(200)), key=lambda x: abs(demand(0)(x) - supply(0)(x)))
    p = demand(0)(q)
    sheet.dashed((axes.x(q), axes.y(p)), (axes.x(q), axes.bottom), style.ink)
    sheet.dashed((axes.left, axes.y(p)), (axes.x(q), axes.y(p)), style.ink)
    sheet.dot((axes.x(q), axes.y(p)), 4, style.ink)
    if chance.random() < 0.6:
        sheet.text((axes.x(q), axes.y(p) - 14), "E", small, style.ink)
    level = 0.3 if control == "ceiling" else 0.75
    if control:
        sheet.line(((axes.left, axes.y(level)), (axes.right, axes.y(level))), style.colour(2), 2)
        sheet.text((axes.left + 4, axes.y(level) - 10), f"price {control}", small, style.ink,
                   anchor="lm")  # fmt: skip
    extra = ""
    if shift != "none":
        which, way = shift.split()
        extra = f"the {which} curve has shifted to the {way}"
    elif control:
        where = "below" if control == "ceiling" else "above"
        extra = f"a horizontal line marks a price {control} {where} the equilibrium"
    description = pick(
        chance,
        f"A supply and demand graph for {good}. The demand curve slopes down and the supply curve "
        f"slopes up; they cross at the equilibrium. {sentence(extra) if extra else ''}",
        "The graph has price on the vertical axis and quantity on the horizontal axis, with a "
        "downward-sloping line D and an upward-sloping line S. "
        + (sentence(extra) if extra else "Dashed lines mark the equilibrium price and quantity."),
    ).strip()
    query = pick(
        chance,
        f"supply and demand for {good}",
        "supply and demand curves with equilibrium",
        f"market for {good} graph",
        f"graph where {extra}" if extra else f"equilibrium price of {good}",
    )
    effect = {
        "demand right": "price and quantity rise", "demand left": "price and quantity fall",
        "supply right": "the price falls and the quantity rises",
        "supply left": "the price rises and the quantity falls",
    }.get(shift, "")  # fmt: skip
    if control:
        effect = "a shortage results" if control == "ceiling" else "a surplus results"
    rationale = read_out(
        "it is a graph of supply and demand",
        f"the title reads “{title}”" if title else "it has no title",
        f"the vertical axis is the price and the horizontal axis the quantity of {good}",
        "the line D slopes down and the line S slopes up",
        "they cross at the equilibrium",
        extra,
        f"so {effect}" if effect else f"so it shows the market for {good} in equilibrium",
    )
    caption = sentence(
        f"when {extra}, {effect}"
        if extra and effect
        else f"in the market for {good}, supply equals demand at the equilibrium price"
    )
    return Drawing("market", sheet, query, description, caption, rationale,
                   effect or f"equilibrium in the market for {good}")  # fmt: skip


def _plane(style: Style, size: int, *, title: str = "") -> tuple[Sheet, Axes]:
    """Return a coordinate plane from -size to size with a grid and both axes."""
    sheet = style.sheet()
    top = 12.0
    if title:
        big = style.font(14)
        sheet.text((style.width / 2, 6), title, big, style.ink, anchor="ma")
        top = 12 + big.size * 1.3
    side = min(style.width, style.height - top) - 20
    left = (style.width - side) / 2
    axes = Axes(left, top, left + side, top + side, (-size, size), (-size, size))
    small = style.font(10)
    step = 1 if size <= 6 else 2
    for value in range(-size, size + 1):
        if style.grid:
            sheet.line(((axes.x(value), top), (axes.x(value), top + side)), style.faint, 1)
            sheet.line(((left, axes.y(value)), (left + side, axes.y(value))), style.faint, 1)
        if value and value % step == 0 and abs(value) < size:
            sheet.text((axes.x(value), axes.y(0) + 8), str(value), small, style.ink)
            sheet.text((axes.x(0) - 9, axes.y(value)), str(value), small, style.ink)
    sheet.arrow((left, axes.y(0)), (left + side + 6, axes.y(0)), style.ink, 1, 7)
    sheet.arrow((axes.x(0), top + side), (axes.x(0), top - 6), style.ink, 1, 7)
    sheet.text((left + side + 2, axes.y(0) - 12), "x", small, style.ink)
    sheet.text((axes.x(0) + 12, top - 2), "y", small, style.ink)
    return sheet, axes


def _spoken(value: float) -> str:
    return f"negative {number(-value)}" if value < 0 else number(value)


def _function(chance: random.Random) -> Drawing:
    style = random_style(chance)
    size = chance.choice((5, 6, 8, 10))
    kind = chance.choice(("line", "line", "parabola", "parabola", "absolute", "cubic", "sine",
                          "exponential", "circle", "inequality", "points"))  # fmt: skip
    m = chance.choice((-3, -2, -1, -0.5, 0.5, 1, 2, 3))
    h, k = chance.randint(-2, 2), chance.randint(-3, 3)
    marks: list[tuple[float, float]] = []
    of: Function = lambda x: m * x + k  # noqa: E731
    if kind in ("line", "inequality"):
        formula = f"y = {_factor(m)}x{_plus(k)}"
        way = "rises" if m > 0 else "falls"
        shape = (
            f"a straight line that {way} from left to right and crosses the y-axis at {_spoken(k)}"
        )
        marks = [(0, k)] if chance.random() < 0.6 else []
    elif kind == "parabola":
        s = chance.choice((1, -1, 0.5, -0.5))
        of = lambda x: s * (x - h) ** 2 + k  # noqa: E731
        formula = f"y = {_factor(s)}{f'(x{_plus(-h)})' if h else 'x'}²{_plus(k)}"
        shape = (
            f"a parabola that opens {'upward' if s > 0 else 'downward'} with its vertex at "
            f"({_spoken(h)}, {_spoken(k)})"
        )
        marks = [(h, k)]
    elif kind == "absolute":
        s = chance.choice((1, -1))
        of = lambda x: s * abs(x - h) + k  # noqa: E731
        formula = f"y = {_factor(s)}|x{_plus(-h)}|{_plus(k)}"
        shape = (
            f"a V {'' if s > 0 else 'upside down '}with its corner at ({_spoken(h)}, {_spoken(k)})"
        )
        marks = [(h, k)]
    elif kind == "cubic":
        of = lambda x: x**3 / 4 + k  # noqa: E731
        formula = f"y = x³/4{_plus(k)}"
        shape = "an S-shaped cubic curve that rises from the lower left to the upper right"
    elif kind == "sine":
        height = chance.choice((1, 2, 3))
        of = lambda x: height * math.sin(x) + k * 0  # noqa: E731
        formula = f"y = {_factor(height)}sin x"
        shape = f"a wave that swings between {height} and negative {height}"
    elif kind == "exponential":
        base = chance.choice((2, 3, 0.5))
        of = lambda x: base**x  # noqa: E731
        formula = f"y = {base:g}^x"
        way = "rises ever more steeply" if base > 1 else "falls and flattens toward the x-axis"
        shape = f"an exponential curve that {way} through (0, 1)"
        marks = [(0, 1)]
    elif kind == "circle":
        radius = chance.choice((2, 3, 4))
        formula = f"x² + y² = {radius**2}"
        shape = f"a circle of radius {radius} around the origin"
    else:
        count = chance.randint(3, 5)
        spots = [(x, y) for x in range(-size + 1, size) for y in range(-size + 1, size)]
        marks = [(float(x), float(y)) for x, y in chance.sample(spots, count)]
        formula = ""
        shape = f"{several(count, 'point')} at " + listing(
            [f"({_spoken(x)}, {_spoken(y)})" for x, y in marks]
        )
    shown = bool(formula) and kind != "inequality" and chance.random() < 0.5
    sheet, axes = _plane(style, size, title=formula if shown else "")
    if kind == "circle":
        sheet.ellipse((axes.x(-radius), axes.y(radius), axes.x(radius), axes.y(-radius)), None,
                      style.colour(0), 3)  # fmt: skip
    elif kind == "inequality":
        above = chance.random() < 0.5
        edge = size if above else -size
        ends = [(x / 10 * size, min(max(of(x / 10 * size), -size), size)) for x in range(-10, 11)]
        outline = [*ends, (size, edge), (-size, edge)]
        pale = toward(style.colour(0), style.paper, 0.6)
        sheet.polygon([(axes.x(x), axes.y(y)) for x, y in outline], pale)
        formula = f"y {'≥' if above else '≤'} {formula[4:]}"
        shape = f"{shape}; the region {'above' if above else 'below'} it is shaded"
        _plot(sheet, axes, of, style, 0, (-size, size))
    elif kind != "points":
        _plot(sheet, axes, of, style, 0, (-size, size))
    for x, y in marks:
        sheet.dot((axes.x(x), axes.y(y)), 4, style.colour(1))
    hue = f"in {style.colour_name(0)} " if style.named and kind != "points" else ""
    title = f" labeled {formula}" if shown else ""
    description = pick(
        chance,
        f"The figure shows {shape}, drawn {hue}on the x y-coordinate plane. Both axes run from "
        f"negative {size} to {size}.",
        f"A graph{title} on a coordinate plane: {shape}.",
        f"This figure has {shape}. The x-axis and the y-axis run from negative {size} to {size}.",
    )
    name = {"absolute": "absolute value function", "points": "plotted points",
            "inequality": "linear inequality"}.get(kind, kind)  # fmt: skip
    query = pick(chance, f"graph of {formula}" if formula else shape, f"graph of {a(name)}", shape)
    rationale = read_out(
        "it is a coordinate plane",
        f"both axes run from negative {size} to {size}",
        f"it shows {shape}",
        f"it is drawn {hue}" if hue else "",
        f"the marked points are {listing([f'({_spoken(x)}, {_spoken(y)})' for x, y in marks])}"
        if marks else "",
        f"the label reads {formula}" if shown else "there is no label",
        f"so it is the graph of {formula}" if formula else "so it shows where these points lie",
    )  # fmt: skip
    caption = f"The graph of {formula}." if formula else "Points in the coordinate plane."
    return Drawing(kind, sheet, query, description, caption, rationale, formula or shape)


def _factor(value: float) -> str:
    return "" if value == 1 else "-" if value == -1 else f"{value:g}"


def _plus(value: float) -> str:
    return "" if value == 0 else f" {'+' if value > 0 else '-'} {abs(value):g}"


def _number_line(chance: random.Random) -> Drawing:
    style = random_style(chance)
    sheet = Sheet(style.width, max(style.height // 3, 96), style.paper)
    size = chance.choice((5, 6, 8, 10))
    axes = Axes(24, 0, style.width - 24, sheet.height, (-size, size), (0, 1))
    y, small = sheet.height * 0.5, style.font(12)
    for end in (8, style.width - 8):
        sheet.arrow((style.width / 2, y), (end, y), style.ink, 2, 9)
    for value in range(-size, size + 1):
        sheet.line(((axes.x(value), y - 5), (axes.x(value), y + 5)), style.ink, 1)
        if size <= 6 or value % 2 == 0:
            sheet.text((axes.x(value), y + 18), str(value), small, style.ink)
    kind = chance.choice(("point", "greater", "less", "between"))
    left, right = sorted(chance.sample(range(-size + 1, size), 2))
    closed = chance.random() < 0.5
    ball = "closed" if closed else "open"
    colour = style.colour(0)
    spots = [left]
    ends = {
        "point": None, "greater": (left, size), "less": (-size, left), "between": (left, right),
    }[kind]  # fmt: skip
    if ends:
        sheet.line(((axes.x(ends[0]), y), (axes.x(ends[1]), y)), colour, 5)
    if kind == "between":
        spots.append(right)
    if kind == "point":
        closed, ball = True, "closed"
    for spot in spots:
        sheet.dot((axes.x(spot), y), 7, colour if closed else style.paper, colour)
    sign = {"greater": "≥" if closed else ">", "less": "≤" if closed else "<"}.get(kind, "")
    less = "≤" if closed else "<"
    formula = {"point": f"x = {left}", "between": f"{left} {less} x {less} {right}"}.get(
        kind, f"x {sign} {left}"
    )
    what = {
        "point": f"a closed circle at {_spoken(left)}",
        "greater": f"{a(ball)} circle at {_spoken(left)} and shading to the right of it",
        "less": f"{a(ball)} circle at {_spoken(left)} and shading to the left of it",
        "between": f"{ball} circles at {_spoken(left)} and {_spoken(right)}, shaded between",
    }[kind]
    description = f"A number line from negative {size} to {size} with {what}."
    query = pick(chance, f"number line showing {formula}", f"number line with {what}", formula)
    rationale = read_out(
        "it is a number line", f"it runs from negative {size} to {size}", f"it has {what}",
        f"{a(ball)} circle means that the end is {'included' if closed else 'left out'}",
        f"so it shows {formula}",
    )  # fmt: skip
    return Drawing("number line", sheet, query, description, f"The solution is {formula}.",
                   rationale, formula)  # fmt: skip


KINDS: dict[str, tuple[Callable[[random.Random], Drawing], int]] = {
    "curve": (_named, 4), "market": (_market, 2), "function": (_function, 3),
    "number line": (_number_line, 1),
}  # fmt: skip


def graph(chance: random.Random, kind: str = "") -> Drawing:
    """Return a graph of one of KINDS, or of any."""
    kind = kind or chance.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
    return KINDS[kind][0](chance)
