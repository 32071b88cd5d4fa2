"""Charts of made-up numbers, and words about them that are true of those numbers.

chart(chance) -> Drawing      bar, line, area, pie, scatter, histogram, heat map, box plot
recast(table, style, kind)    the same numbers as another kind of chart
"""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from mmsearch.retriever.training.default.sheets import (
    WHITE,
    Drawing,
    Font,
    Point,
    Sheet,
    Style,
    a,
    count_word,
    listing,
    pick,
    random_style,
    read_out,
    sentence,
    several,
    toward,
)
from mmsearch.retriever.training.default.subjects import (
    MEASURED,
    RELATED,
    SERIES,
    TIMES,
    Subject,
    over_time,
    subject,
)


@dataclass(frozen=True, slots=True)
class Table:
    """What a chart is of: one value a thing and a series.

    values:  ``[series][thing]``
    series:  their names; one empty name where there is a single series
    """

    subject: Subject
    title: str
    series: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return self.subject.members

    def ranked(self) -> list[tuple[str, float]]:
        """Return the first series' things, largest first."""
        pairs = zip(self.names, self.values[0], strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])


@dataclass(frozen=True, slots=True)
class Axes:
    """Where data lie on a sheet."""

    left: float
    top: float
    right: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)


Ticks = Sequence[tuple[float, str]]


def number(value: float) -> str:
    """Return ``12``, ``3.5`` or ``4,200``."""
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def amount(value: float, unit: str) -> str:
    """Return ``3.5 hours``, ``12 million``."""
    if unit in ("millions", "thousands", "billions"):
        unit = unit[:-1]
    return f"{number(value)} {unit}"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers from at most ``low`` to at least ``high``."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(i * step, 6) for i in range(first, last + 1)]


def labelled(values: Sequence[float]) -> list[tuple[float, str]]:
    """Return ticks that say their own value."""
    return [(value, f"{value:,.10g}") for value in values]


def open_axes(
    style: Style,
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_ticks: Ticks,
    y_ticks: Ticks,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    legend: Sequence[str] = (),
    grid: bool = True,
    right: float = 14,
) -> tuple[Sheet, Axes]:
    """Return a sheet with title, axes, labels and legend, and where the data go on it."""
    sheet = style.sheet()
    small, middle = style.font(12), style.font(13)
    top = write_title(sheet, style, title) + 6
    if legend:
        top = write_legend(sheet, style, legend, top)
    widest = max((small.width(text) for _, text in y_ticks), default=0)
    left = widest + 14 + (middle.size * 1.5 if y_label else 0)
    right = style.width - right
    room = (right - left) / max(len(x_ticks), 1)
    broken = [small.wrap(text, room - 4) for _, text in x_ticks]
    fits = all(small.width(line) <= room - 4 for lines in broken for line in lines)
    fits = fits and max((len(lines) for lines in broken), default=1) <= 2
    deepest = max((len(lines) for lines in broken), default=1) if fits else 0
    x_depth = (
        deepest * small.size * 1.2 if fits else max(small.width(text) for _, text in x_ticks) + 4
    )
    bottom = style.height - 10 - x_depth - (middle.size * 1.5 if x_label else 0)
    axes = Axes(left, top + 4, right, bottom, x_range, y_range)
    for value, text in y_ticks:
        y = axes.y(value)
        if style.grid and grid:
            sheet.line(((left, y), (right, y)), style.faint, 1)
        sheet.text((left - 6, y), text, small, style.ink, anchor="rm")
    for (value, text), lines in zip(x_ticks, broken, strict=True):
        x = axes.x(value)
        sheet.line(((x, bottom), (x, bottom + 3)), style.ink, 1)
        if fits:
            for row, line in enumerate(lines):
                sheet.text(
                    (x, bottom + 6 + row * small.size * 1.2), line, small, style.ink, anchor="ma"
                )
        else:
            sheet.text((x, bottom + 6 + small.width(text) / 2), text, small, style.ink, upward=True)
    sheet.line(((left, axes.top), (left, bottom), (right, bottom)), style.ink, 1)
    if x_label:
        at = ((left + right) / 2, style.height - middle.size * 0.8)
        sheet.text(at, fitted(middle, x_label, right - left), middle, style.ink)
    if y_label:
        at = (middle.size * 0.9, (axes.top + bottom) / 2)
        sheet.text(
            at, fitted(middle, y_label, bottom - axes.top + 30), middle, style.ink, upward=True
        )
    return sheet, axes


def fitted(font: Font, text: str, width: float) -> str:
    """Return the text, its unit in brackets left out where there is no room."""
    return text if font.width(text) <= width else text.split(" (")[0]


def write_title(sheet: Sheet, style: Style, title: str) -> float:
    """Write the title on top, in as many lines as it needs; return where it ends."""
    if not title:
        return 6
    bold = style.font(16, bold=True)
    lines = bold.wrap(title, style.width - 16)
    for row, line in enumerate(lines):
        at = (style.width / 2, 8 + row * bold.size * 1.2)
        sheet.text(at, line, bold, style.ink, anchor="ma")
    return 8 + len(lines) * bold.size * 1.2


def write_legend(sheet: Sheet, style: Style, names: Sequence[str], top: float) -> float:
    """Write a row of colours and names, in rows where one is too narrow; return its end."""
    small = style.font(12)
    rows: list[list[tuple[int, str, float]]] = [[]]
    used = 0.0
    for i, name in enumerate(names):
        width = small.width(name) + small.size + 18
        if rows[-1] and used + width > style.width - 20:
            rows.append([])
            used = 0.0
        rows[-1].append((i, name, width))
        used += width
    for row in rows:
        x = (style.width - sum(width for _, _, width in row)) / 2
        for i, name, width in row:
            side = small.size * 0.8
            sheet.box((x, top + 2, x + side, top + 2 + side), style.colour(i))
            sheet.text((x + side + 5, top + 2 + side / 2), name, small, style.ink, anchor="lm")
            x += width
        top += small.size * 1.4
    return top + 2


# ---------------------------------------------------------------- numbers


def random_values(chance: random.Random, low: float, high: float, count: int) -> tuple[float, ...]:
    """Return distinct values whose largest and smallest are easily told from the rest."""
    while True:
        top = chance.uniform(low + 0.4 * (high - low), high)
        values = [chance.uniform(low, top) for _ in range(count)]
        digits = 1 if high - low < 12 else 0
        rounded = [round(value, digits) for value in values]
        ranked = sorted(rounded)
        clear = (high - low) * 0.02
        if count < 2 or (
            ranked[-1] - ranked[-2] > clear
            and ranked[1] - ranked[0] > clear
            and len(set(rounded)) == count
            and ranked[0] > 0
        ):
            return tuple(rounded)


def random_table(chance: random.Random, about: Subject, num_series: int = 1) -> Table:
    """Return made-up numbers about a subject, titled."""
    names: tuple[str, ...] = ("",)
    if num_series > 1:
        names = series_names(chance, num_series)
    if num_series > 1 or not about.ordered or about.noun not in ("year", "month", "day"):
        values = tuple(
            random_values(chance, about.low, about.high, len(about.members)) for _ in names
        )
    else:
        values = (course(chance, about),)
    return Table(about, random_title(chance, about), names, values)


def series_names(chance: random.Random, count: int) -> tuple[str, ...]:
    """Return that many names of series that go together."""
    return tuple(chance.choice([names for names in SERIES if len(names) == count]))


def course(chance: random.Random, about: Subject) -> tuple[float, ...]:
    """Return values that rise, fall, peak or dip in time; one is largest and one smallest."""
    while True:
        values = _any_course(chance, about)
        if values.count(max(values)) == 1 and values.count(min(values)) == 1:
            return values


def _any_course(chance: random.Random, about: Subject) -> tuple[float, ...]:
    count = len(about.members)
    shape = chance.choice(("rise", "fall", "peak", "dip", "rise", "fall", "wander"))
    low = chance.uniform(about.low, about.low + 0.3 * (about.high - about.low))
    high = chance.uniform(about.low + 0.6 * (about.high - about.low), about.high)
    middle = chance.uniform(0.3, 0.7)
    digits = 1 if about.high - about.low < 12 else 0
    values = []
    for i in range(count):
        t = i / (count - 1)
        if shape == "rise":
            level = t ** chance.uniform(0.9, 1.1)
        elif shape == "fall":
            level = 1 - t
        elif shape == "wander":
            level = chance.random()
        else:
            level = t / middle if t <= middle else (1 - t) / (1 - middle)
            level = 1 - level if shape == "dip" else level
        noise = chance.uniform(-0.06, 0.06)
        values.append(round(low + (high - low) * min(max(level + noise, 0), 1), digits))
    return tuple(values)


def random_title(chance: random.Random, about: Subject) -> str:
    """Return a title; one chart in eight has none."""
    if chance.random() < 0.12:
        return ""
    measure = about.measure
    forms: tuple[str, ...] = (
        f"{measure} by {about.noun}",
        f"{measure} by {about.noun}, {chance.randint(1990, 2024)}",
        f"{measure} in {count_word(len(about.members))} {about.plural}",
        f"{measure} across {about.plural}",
        f"{measure}",
        f"{about.plural} compared: {measure}",
    )
    if about.noun in TIMES:
        first, last = about.members[0], about.members[-1]
        forms = (
            f"{measure}, {first} to {last}",
            f"{measure} over time",
            f"{measure} by {about.noun}",
            f"{measure}",
        )
    title = chance.choice(forms)
    return title.title() if chance.random() < 0.3 else title[:1].upper() + title[1:]


# ---------------------------------------------------------------- one value a thing


def recast(table: Table, style: Style, kind: str) -> Sheet:
    """Draw a table as any of NAMES."""
    if kind in ("pie", "donut"):
        return _pie(table, style, hollow=kind == "donut")
    count = len(table.names)
    if kind == "stacked":
        highest = max(sum(column) for column in zip(*table.values, strict=True))
    else:
        highest = max(max(row) for row in table.values)
    lowest = min(min(row) for row in table.values)
    floor = 0.0 if kind in ("bar", "barh", "grouped", "stacked", "area") else lowest * 0.8
    marks = ticks(0 if floor < 0.4 * highest else floor, highest)
    legend = [name for name in table.series if name]
    slots = [(i + 0.5, name) for i, name in enumerate(table.names)]
    label = table.subject.label
    noun = table.subject.noun[:1].upper() + table.subject.noun[1:]
    if kind == "barh":
        slots = [(count - i - 0.5, name) for i, name in enumerate(table.names)]
        sheet, axes = open_axes(
            style, title=table.title, x_label=label, y_label="", x_ticks=labelled(marks),
            y_ticks=slots, x_range=(marks[0], marks[-1]), y_range=(0, count), legend=legend,
            grid=False, right=24,
        )  # fmt: skip
    else:
        sheet, axes = open_axes(
            style, title=table.title, x_label=noun, y_label=label, x_ticks=slots,
            y_ticks=labelled(marks), x_range=(0, count), y_range=(marks[0], marks[-1]),
            legend=legend,
        )  # fmt: skip
    if kind in ("line", "area", "dots"):
        _lines(sheet, axes, table, style, kind)
    else:
        _bars(sheet, axes, table, style, kind)
    return sheet


def _bars(sheet: Sheet, axes: Axes, table: Table, style: Style, kind: str) -> None:
    count, num_series = len(table.names), len(table.values)
    width = 0.7 / (num_series if kind == "grouped" else 1)
    varied = num_series == 1 and style.grid and style.named  # each bar its own colour
    for i in range(count):
        base = 0.0
        for s in range(num_series):
            value = table.values[s][i]
            colour = style.colour(i if varied else s)
            start = i + 0.15 + (s * width if kind == "grouped" else 0)
            if kind == "barh":
                top, bottom = axes.y(count - start), axes.y(count - start - width)
                sheet.box((axes.x(0), top, axes.x(value), bottom), colour)
            else:
                left, right = axes.x(start), axes.x(start + width)
                sheet.box((left, axes.y(base + value), right - 1, axes.y(base)), colour)
                if kind == "stacked":
                    base += value


def _lines(sheet: Sheet, axes: Axes, table: Table, style: Style, kind: str) -> None:
    for s, row in enumerate(table.values):
        colour = style.colour(s)
        points = [(axes.x(i + 0.5), axes.y(value)) for i, value in enumerate(row)]
        if kind == "area":
            closed = [(points[0][0], axes.bottom), *points, (points[-1][0], axes.bottom)]
            sheet.polygon(closed, toward(colour, style.paper, 0.4))
        if kind != "dots":
            sheet.line(points, colour, 3)
        if kind == "dots" or style.grid:
            for point in points:
                sheet.dot(point, 5 if kind == "dots" else 3, colour)


def _pie(table: Table, style: Style, *, hollow: bool) -> Sheet:
    sheet = style.sheet()
    top = write_title(sheet, style, table.title) + 6
    small = style.font(12)
    total = sum(table.values[0])
    shares = [value / total for value in table.values[0]]
    texts = [f"{n} {s:.0%}" for n, s in zip(table.names, shares, strict=True)]
    legend_width = max(small.width(text) for text in texts) + small.size + 20
    beside = style.width - legend_width > style.height * 0.62
    room_x = style.width - legend_width if beside else style.width
    room_y = style.height - top - (0 if beside else len(texts) * small.size * 1.4)
    radius = max(min(room_x, room_y) / 2 - 12, 30)
    cx, cy = room_x / 2, top + room_y / 2 - 2
    angle = -90.0
    corners = (cx - radius, cy - radius, cx + radius, cy + radius)
    for i, share in enumerate(shares):
        sheet.slice(corners, angle, angle + share * 360, style.colour(i), style.paper)
        angle += share * 360
    if hollow:
        sheet.dot((cx, cy), radius * 0.5, style.paper)
    step = small.size * 1.4
    x = room_x if beside else (style.width - legend_width) / 2
    y = cy - step * (len(texts) - 1) / 2 if beside else cy + radius + 14
    for i, text in enumerate(texts):
        side = small.size * 0.8
        sheet.box((x, y - side / 2, x + side, y + side / 2), style.colour(i))
        sheet.text((x + side + 6, y), text, small, style.ink, anchor="lm")
        y += step
    return sheet


NAMES = {
    "bar": ("bar chart", "bar graph", "vertical bar chart"),
    "barh": ("horizontal bar chart", "horizontal bar graph"),
    "grouped": ("grouped bar chart", "clustered bar graph", "double bar graph"),
    "stacked": ("stacked bar chart", "stacked bar graph"),
    "line": ("line graph", "line chart", "line plot"),
    "area": ("area chart", "area graph"),
    "dots": ("dot plot", "point chart"),
    "pie": ("pie chart", "circle graph"),
    "donut": ("donut chart", "ring chart"),
}
PARTS = {"bar": "bar", "barh": "bar", "line": "point", "area": "point", "dots": "dot",
         "pie": "slice", "donut": "slice"}  # fmt: skip


def _one_series(chance: random.Random, kind: str) -> Drawing:
    is_course = kind in ("line", "area") or (kind in ("bar", "dots") and chance.random() < 0.25)
    if is_course:
        about = over_time(chance)
    else:
        about = subject(chance, most=6 if kind in ("pie", "donut") else 9)
    table = random_table(chance, about)
    style = random_style(chance)
    sheet = recast(table, style, kind)
    return tell_table(chance, table, kind, sheet)


def tell_table(chance: random.Random, table: Table, kind: str, sheet: Sheet) -> Drawing:
    """Return the drawing of a table with one series, described."""
    about = table.subject
    ranked = table.ranked()
    (highest, most), (lowest, least) = ranked[0], ranked[-1]
    name, part = chance.choice(NAMES[kind]), PARTS[kind]
    unit = about.unit
    rows = list(zip(table.names, table.values[0], strict=True))
    share = {n: f"{v / sum(table.values[0]):.0%}" for n, v in ranked}
    is_pie = kind in ("pie", "donut")

    def told(name: str, value: float) -> str:
        return share[name] if is_pie else amount(value, unit)

    what, plural = about.measure, about.plural
    is_time = about.noun in TIMES
    trend = trend_of(table.values[0]) if is_time else ""
    head = f"{a(name)} titled “{table.title}”" if table.title else a(name)
    names = listing(table.names)
    highs = pick(
        chance,
        f"{highest} is highest at {told(highest, most)}",
        f"{highest} has the largest value, {told(highest, most)}",
        f"the tallest {part} is {highest}"
        if part == "bar" and kind == "bar"
        else f"the largest {part} is {highest}"
        if is_pie
        else f"the maximum is at {highest}",
        f"it peaks in {highest} at {told(highest, most)}"
        if is_time
        else f"{highest} comes first with {told(highest, most)}",
    )
    lows = pick(
        chance,
        f"{lowest} is lowest at {told(lowest, least)}",
        f"{lowest} has the smallest value, {told(lowest, least)}",
        f"the lowest is {lowest}",
    )
    axis = ""
    if not is_pie:
        x, y = (about.label, about.plural) if kind == "barh" else (about.plural, about.label)
        axis = pick(
            chance,
            f"The x-axis shows {x} and the y-axis shows {y}. ",
            f"The horizontal axis is labeled with {x}; the vertical axis with {y}. ",
            f"{about.label} is plotted for {several(len(table.names), about.noun, plural)}. ",
            "",
        )
    description = pick(
        chance,
        f"{head}. {axis}The {plural} are {names}. {sentence(highs)} {sentence(lows)}",
        f"{a(name)} of {what} by {about.noun}, {highs}, and {lows}",
        f"This {name} shows {what} for {names}. {axis}{sentence(highs)} {sentence(lows)}",
        f"The figure is {a(name)}. {axis}{sentence(highs)}",
        f"{head} shows {what}. " + " ".join(f"{n}: {told(n, v)}." for n, v in rows),
    )
    if trend:
        description = f"{sentence(description)} Overall the values {trend}."
    query = pick(
        chance,
        f"{name} of {what} by {about.noun}",
        f"{what} by {about.noun} {name}",
        f"{name} where {highest} is highest",
        f"{what} chart",
        f"{highs} {name}",
        f"which {about.noun} has the highest {what}",
        f"{name} of {what} with {listing(table.names[:3])}",
    )
    caption = pick(
        chance,
        f"{what} by {about.noun}. {sentence(highs)}",
        f"Among {several(len(table.names), about.noun, plural)}, {highest} had the highest {what}.",
        f"{what} was highest in {highest} and lowest in {lowest}.",
    )
    if is_time and trend:
        caption = f"Between {table.names[0]} and {table.names[-1]}, {what} {past(trend)}."
    rationale = read_out(
        f"it is {a(name)}",
        f"the title reads “{table.title}”" if table.title else "it has no title",
        f"there are {several(len(table.names), part)}, one for each {about.noun}"
        if len(table.names) > 1
        else "",
        f"the axis reads {about.label}" if not is_pie else f"the slices are shares of {what}",
        f"the largest is {highest} at {told(highest, most)}",
        f"the smallest is {lowest} at {told(lowest, least)}",
        f"from first to last the values {trend}"
        if trend
        else f"second comes {ranked[1][0]} at {told(*ranked[1])}"
        if len(ranked) > 2
        else "",
        f"so it shows {what} by {about.noun}, led by {highest}",
    )
    return Drawing(
        kind, sheet, query, sentence(description), sentence(caption), rationale,
        f"{what} by {about.noun}; {highest} leads",
    )  # fmt: skip


def trend_of(values: Sequence[float]) -> str:
    """Return ``rise``, ``fall``, ``rise and then fall``, ... where the values plainly do.

    Three of four steps go that way, and further than half of all that the values span.
    """
    far = (max(values) - min(values)) / 2
    if _rises(values, far):
        return "rise"
    if _rises([-value for value in values], far):
        return "fall"
    top, low = values.index(max(values)), values.index(min(values))
    if _rises(values[: top + 1], far) and _rises([-value for value in values[top:]], far):
        return "rise and then fall"
    if _rises([-value for value in values[: low + 1]], far) and _rises(values[low:], far):
        return "fall and then rise"
    return ""


def _rises(values: Sequence[float], far: float) -> bool:
    steps = [after - before for before, after in itertools.pairwise(values)]
    ups = sum(step > 0 for step in steps)
    return values[-1] - values[0] > far and ups >= 0.75 * len(steps)


def past(trend: str) -> str:
    """Return the trend as it is told afterwards."""
    return trend.replace("rise", "rose").replace("fall", "fell")


def _many_series(chance: random.Random, kind: str) -> Drawing:
    num = chance.choice((2, 2, 3))
    while True:
        about = over_time(chance) if kind == "line" else subject(chance, most=6, least=2)
        table = random_table(chance, about, num)
        if kind == "line":
            values = tuple(course(chance, about) for _ in table.series)
            table = Table(about, table.title, table.series, values)
        everything = [value for row in table.values for value in row]
        totals = [sum(row) for row in table.values]
        lone = (everything.count(max(everything)), everything.count(min(everything)))
        if lone == (1, 1) and totals.count(max(totals)) == 1:
            break
    style = random_style(chance)
    sheet = recast(table, style, kind)
    name, what = chance.choice(NAMES[kind]), about.measure
    flat = [
        (value, s, n)
        for s, row in zip(table.series, table.values, strict=True)
        for n, value in zip(table.names, row, strict=True)
    ]
    most, top_series, top_name = max(flat)
    least, low_series, low_name = min(flat)
    leader = table.series[totals.index(max(totals))]
    series = listing(table.series)
    part = "line" if kind == "line" else "bar"
    hues = ""
    if style.named:
        named = [f"{name} is {style.colour_name(i)}" for i, name in enumerate(table.series)]
        hues = sentence(listing(named))
    head = f"{a(name)} titled “{table.title}”" if table.title else a(name)
    description = pick(
        chance,
        f"{head} compares {series} for {listing(table.names)}. {hues} "
        f"The highest value is {top_series} at {top_name}, {amount(most, about.unit)}",
        f"{a(name)} of {what} by {about.noun} for {series}; {top_series} is highest at {top_name} "
        f"and {low_series} is lowest at {low_name}",
        f"The figure shows {a(name)} with {several(num, part)} for each {about.noun}. "
        if kind == "grouped"
        else f"The figure shows {a(name)} of {what}. ",
    )
    if description.endswith(". "):
        description += f"The legend names {series}. {hues} In total {leader} is largest"
    query = pick(
        chance,
        f"{name} of {what} for {series}",
        f"{series} {what} by {about.noun}",
        f"compare {series}: {what}",
        f"{name} {what} {table.series[0]} vs {table.series[1]}",
    )
    caption = f"{what} of {series} by {about.noun}; overall {leader} is largest"
    rationale = read_out(
        f"it is {a(name)}",
        f"the title reads “{table.title}”" if table.title else "it has no title",
        f"the legend names {series}",
        hues,
        f"there are {several(len(table.names), about.noun, about.plural)}: {listing(table.names)}",
        f"the highest value is {number(most)}, {top_series} at {top_name}",
        f"the lowest value is {number(least)}, {low_series} at {low_name}",
        f"so it compares {series} by {what}, and {leader} is largest in total",
    )
    return Drawing(
        kind, sheet, query, sentence(" ".join(description.split())), sentence(caption),
        rationale, f"{series} compared by {what}; {leader} is largest",
    )  # fmt: skip


# ---------------------------------------------------------------- many values


def _scatter(chance: random.Random) -> Drawing:
    x_name, y_name = chance.choice(RELATED)
    kind = chance.choice(("positive", "negative", "none", "strong positive", "strong negative"))
    slope = {"p": 1.0, "n": -1.0}.get(kind.split()[-1][0], 1.0) if kind != "none" else 0.0
    noise = 0.05 if "strong" in kind else 0.13
    count = chance.randint(14, 70)
    points: list[Point] = []
    for _ in range(count):
        u = chance.random()
        v = (0.5 + slope * (u - 0.5) * 0.8 + chance.gauss(0, noise)) if slope else chance.random()
        points.append((u, min(max(v, 0), 1)))
    style = random_style(chance)
    x_max, y_max = (chance.choice((5, 10, 20, 50, 100, 200)) for _ in range(2))
    title = chance.choice((f"{y_name} and {x_name}", f"{y_name} versus {x_name}", "")).capitalize()
    line = slope != 0 and chance.random() < 0.5
    sheet, axes = open_axes(
        style, title=title, x_label=x_name.capitalize(), y_label=y_name.capitalize(),
        x_ticks=labelled(ticks(0, x_max)), y_ticks=labelled(ticks(0, y_max)),
        x_range=(0, x_max), y_range=(0, y_max),
    )  # fmt: skip
    for u, v in points:
        sheet.dot((axes.x(u * x_max), axes.y(v * y_max)), 4, style.colour(0))
    if line:
        ends = [(t, 0.5 + slope * (t - 0.5) * 0.8) for t in (0.02, 0.98)]
        sheet.line([(axes.x(u * x_max), axes.y(v * y_max)) for u, v in ends], style.colour(1), 2)
    way = {1.0: "rises", -1.0: "falls", 0.0: "neither rises nor falls"}[slope]
    relation = "no correlation" if kind == "none" else f"a {kind} correlation"
    fit = " A line of best fit is drawn through the points." if line else ""
    hue = f"{style.colour_name(0)} " if style.named else ""
    direction = {
        1.0: "from lower left to upper right", -1.0: "from upper left to lower right",
        0.0: "all over the plane without any pattern",
    }[slope]  # fmt: skip
    description = pick(
        chance,
        f"A scatter plot of {y_name} against {x_name}. The {hue}points run {direction}.{fit}",
        f"Scatterplot with {x_name} on the x-axis and {y_name} on the y-axis, "
        f"showing {relation}.{fit}",
        f"The graph shows {count} {hue}dots scattered {direction}. The horizontal axis is {x_name} "
        f"from 0 to {x_max} and the vertical axis is {y_name} from 0 to {y_max}.{fit}",
    )
    query = pick(
        chance,
        f"scatter plot of {x_name} and {y_name}",
        f"{relation} between {x_name} and {y_name}",
        f"scatterplot showing {relation}",
        f"{y_name} versus {x_name}",
    )
    caption = f"As {x_name} increases, {y_name} {way}: {relation}."
    rationale = read_out(
        "it is a scatter plot",
        f"the title reads “{title}”" if title else "it has no title",
        f"the horizontal axis is {x_name} and the vertical axis is {y_name}",
        "each of the points is one observation of both",
        f"the points run {direction}",
        "a line of best fit is drawn" if line else "no line is drawn",
        f"so there is {relation} between {x_name} and {y_name}",
    )
    return Drawing("scatter", sheet, query, description, caption, rationale, relation)


def _histogram(chance: random.Random) -> Drawing:
    what = chance.choice(MEASURED)
    shape = chance.choice(("symmetric", "skewed right", "skewed left", "uniform", "bimodal"))
    bins = chance.randint(6, 14)
    heights = []
    for i in range(bins):
        t = (i + 0.5) / bins
        level = {
            "symmetric": math.exp(-(((t - 0.5) / 0.2) ** 2)),
            "skewed right": t * 4 * math.exp(1 - t * 7) * 1.8,
            "skewed left": (1 - t) * 4 * math.exp(1 - (1 - t) * 7) * 1.8,
            "uniform": 0.8,
            "bimodal": math.exp(-(((t - 0.25) / 0.11) ** 2))
            + 0.9 * math.exp(-(((t - 0.76) / 0.11) ** 2)),
        }[shape]
        heights.append(max(round((level + chance.uniform(-0.04, 0.04)) * 40), 1))
    style = random_style(chance)
    start, step = chance.choice((0, 10, 20, 50)), chance.choice((1, 2, 5, 10))
    edges = [start + i * step for i in range(bins + 1)]
    title = chance.choice((f"distribution of {what}", f"histogram of {what}", what, ""))
    title = title[:1].upper() + title[1:]
    marks = ticks(0, max(heights))
    every = 1 if bins <= 8 else 2
    sheet, axes = open_axes(
        style, title=title, x_label=what[:1].upper() + what[1:], y_label="Frequency",
        x_ticks=labelled(edges[::every]), y_ticks=labelled(marks),
        x_range=(edges[0], edges[-1]), y_range=(0, marks[-1]),
    )  # fmt: skip
    for left, height in zip(edges, heights, strict=False):
        corners = (axes.x(left), axes.y(height), axes.x(left + step), axes.y(0))
        sheet.box(corners, style.colour(0), style.paper)
    peak = heights.index(max(heights))
    span = f"{edges[peak]} to {edges[peak + 1]}"
    looks = {
        "symmetric": "it is bell-shaped, highest in the middle and symmetric on both sides",
        "skewed right": "the peak is on the left and a long tail runs to the right",
        "skewed left": "the peak is on the right and a long tail runs to the left",
        "uniform": "all bars are about equally high",
        "bimodal": "there are two peaks with a valley between them",
    }[shape]
    description = pick(
        chance,
        f"A histogram of {what} with {several(bins, 'bar')}. {sentence(looks)}",
        f"Histogram showing the distribution of {what} from {edges[0]} to {edges[-1]}; {looks}.",
        f"This histogram consists of {bins} adjacent bars over intervals of {step} from "
        f"{edges[0]} to {edges[-1]}. The tallest bar is over {span}. {sentence(looks)}",
    )
    names = {"symmetric": "symmetric bell-shaped", "uniform": "uniform", "bimodal": "bimodal"}
    word = names.get(shape, shape)
    query = pick(
        chance,
        f"histogram of {what}",
        f"{word} histogram",
        f"distribution of {what}",
        f"histogram that is {word}",
        f"frequency of {what}, {word}",
    )
    rationale = read_out(
        "it is a histogram", f"the title reads “{title}”" if title else "it has no title",
        f"the horizontal axis is {what} from {edges[0]} to {edges[-1]}",
        f"the vertical axis is the frequency, and the tallest bar reaches {max(heights)}",
        f"the tallest bar lies over {span}", looks,
        f"so the distribution of {what} is {word}",
    )  # fmt: skip
    caption = f"The distribution of {what} is {word}."
    return Drawing("histogram", sheet, query, description, caption, rationale, f"{word} {what}")


def _heat_map(chance: random.Random) -> Drawing:
    rows_of = columns_of = subject(chance, most=6)
    while columns_of.noun == rows_of.noun:
        columns_of = subject(chance, most=6)
    rows, columns = rows_of.members, columns_of.members
    what = rows_of.measure
    distinct = iter(chance.sample(range(100), len(rows) * len(columns)))
    values = [[next(distinct) for _ in columns] for _ in rows]
    cells = [(values[r][c], r, c) for r in range(len(rows)) for c in range(len(columns))]
    (_, top_r, top_c), (_, low_r, low_c) = max(cells), min(cells)
    style = random_style(chance, dark=0.03)
    base = style.colour(0)
    if style.named and style.colour_name(0) == "yellow":
        base = style.colour(1)
    title = random_title(chance, rows_of)
    small = style.font(12)
    sheet = style.sheet()
    top = write_title(sheet, style, title) + 8
    left = max(small.width(row) for row in rows) + 12
    width = (style.width - left - 10) / len(columns)
    turned = max(small.width(name) for name in columns) > width
    depth = max(small.width(name) for name in columns) + 6 if turned else small.size * 1.5
    height = (style.height - top - depth - 6) / len(rows)
    shown = chance.random() < 0.6
    for value, r, c in cells:
        x, y = left + c * width, top + r * height
        colour = toward(WHITE, base, 0.08 + 0.92 * value / 99)
        sheet.box((x, y, x + width - 1, y + height - 1), colour)
        if shown:
            ink = (0, 0, 0) if sum(colour) > 380 else WHITE
            sheet.text((x + width / 2, y + height / 2), str(value), small, ink)
    for r, row in enumerate(rows):
        sheet.text((left - 6, top + (r + 0.5) * height), row, small, style.ink, anchor="rm")
    for c, name in enumerate(columns):
        x, y = left + (c + 0.5) * width, top + len(rows) * height + 4
        if turned:
            sheet.text((x, y + small.width(name) / 2), name, small, style.ink, upward=True)
        else:
            sheet.text((x, y), name, small, style.ink, anchor="ma")
    hue = style.colour_name(0) if style.named and base == style.colour(0) else "color"
    description = pick(
        chance,
        f"A heat map of {rows_of.plural} against {columns_of.plural}. The darkest cell is "
        f"{rows[top_r]} and {columns[top_c]}, the palest {rows[low_r]} and {columns[low_c]}.",
        f"Heatmap with rows {listing(rows)} and columns {listing(columns)}; the strongest {hue} is "
        f"at {rows[top_r]}, {columns[top_c]}.",
    )
    query = pick(
        chance,
        f"heat map of {rows_of.plural} by {columns_of.plural}",
        f"heatmap {what} {rows[top_r]}",
        f"matrix of {rows_of.plural} and {columns_of.plural}",
    )
    rationale = read_out(
        "it is a heat map", f"the title reads “{title}”" if title else "it has no title",
        f"the rows are {listing(rows)}", f"the columns are {listing(columns)}",
        f"the darkest cell is in the row {rows[top_r]} and the column {columns[top_c]}",
        f"the palest cell is in the row {rows[low_r]} and the column {columns[low_c]}",
        f"so {rows_of.plural} are compared across {columns_of.plural}",
    )  # fmt: skip
    caption = f"{what} for {rows_of.plural} and {columns_of.plural}."
    return Drawing(
        "heat map", sheet, query, description, sentence(caption), rationale,
        f"highest for {rows[top_r]} and {columns[top_c]}",
    )  # fmt: skip


def _box_plot(chance: random.Random) -> Drawing:
    about = subject(chance, most=6, least=2)
    style = random_style(chance)
    count = len(about.members)
    medians = random_values(chance, 20, 80, count)
    spreads = [chance.uniform(4, 14) for _ in range(count)]
    title = random_title(chance, about)
    sheet, axes = open_axes(
        style, title=title, x_label=about.noun.capitalize(), y_label=about.measure.capitalize(),
        x_ticks=[(i + 0.5, name) for i, name in enumerate(about.members)],
        y_ticks=labelled(ticks(0, 100)), x_range=(0, count), y_range=(0, 100),
    )  # fmt: skip
    widths = []
    for i, (median, spread) in enumerate(zip(medians, spreads, strict=True)):
        q1, q3 = median - spread * chance.uniform(0.6, 1.2), median + spread
        low, high = max(q1 - spread * 1.2, 1), min(q3 + spread * 1.2, 99)
        widths.append(q3 - q1)
        x, half = axes.x(i + 0.5), (axes.x(0.6) - axes.x(0.3)) * 0.8
        sheet.line(((x, axes.y(low)), (x, axes.y(high))), style.ink, 1)
        for end in (low, high):
            sheet.line(((x - half / 2, axes.y(end)), (x + half / 2, axes.y(end))), style.ink, 1)
        sheet.box(
            (x - half, axes.y(q3), x + half, axes.y(q1)),
            style.colour(i if style.named else 0),
            style.ink,
        )
        sheet.line(((x - half, axes.y(median)), (x + half, axes.y(median))), style.ink, 2)
    top = about.members[medians.index(max(medians))]
    low_name = about.members[medians.index(min(medians))]
    names = listing(about.members)
    description = pick(
        chance,
        f"Box plots of {about.measure} for {names}. {top} has the highest median and {low_name} "
        "the lowest.",
        f"A box-and-whisker plot with {several(count, 'box', 'boxes')}, one for each {about.noun}; "
        f"the median of {top} is highest.",
    )
    query = pick(
        chance,
        f"box plot of {about.measure} by {about.noun}",
        f"box and whisker plot {names}",
        f"boxplot where {top} has the highest median",
    )
    rationale = read_out(
        "it is a box plot", f"the title reads “{title}”" if title else "it has no title",
        f"there are {several(count, 'box', 'boxes')}: {names}",
        "a line in each box marks the median, and whiskers show the range",
        f"the highest median is that of {top}", f"the lowest median is that of {low_name}",
        f"so {about.measure} is compared by {about.noun}, and {top} is typically highest",
    )  # fmt: skip
    caption = f"{about.measure} by {about.noun}; the median of {top} is highest"
    return Drawing(
        "box plot", sheet, query, description, sentence(caption), rationale,
        f"{top} has the highest median",
    )  # fmt: skip


KINDS = {
    "bar": 5, "barh": 3, "grouped": 3, "stacked": 2, "line": 4, "lines": 3, "area": 1, "dots": 1,
    "pie": 3, "donut": 1, "scatter": 3, "histogram": 3, "heat map": 2, "box plot": 1,
}  # fmt: skip


def chart(chance: random.Random, kind: str = "") -> Drawing:
    """Return a chart of one of KINDS, or of any."""
    kind = kind or chance.choices(list(KINDS), list(KINDS.values()))[0]
    match kind:
        case "scatter":
            return _scatter(chance)
        case "histogram":
            return _histogram(chance)
        case "heat map":
            return _heat_map(chance)
        case "box plot":
            return _box_plot(chance)
        case "grouped" | "stacked":
            return _many_series(chance, kind)
        case "lines":
            return _many_series(chance, "line")
        case _:
            return _one_series(chance, kind)
