"""Tables and slides: words in rows, columns and bullets.

table(chance) -> Drawing
slide(chance) -> Drawing
"""

import random

from mmsearch.retriever.training.default.charts import (
    Table,
    number,
    random_title,
    random_values,
    recast,
    series_names,
    write_title,
)
from mmsearch.retriever.training.default.diagrams import shrunk
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
from mmsearch.retriever.training.default.subjects import (
    HIERARCHIES,
    PROCESSES,
    Subject,
    subject,
)


def table(chance: random.Random) -> Drawing:
    """Return a table of one measure, or of several series, of named things."""
    about = subject(chance, most=8)
    columns = chance.choice((1, 1, 2, 3))
    names: tuple[str, ...] = (about.measure[:1].upper() + about.measure[1:],)
    if columns > 1:
        names = series_names(chance, columns)
    values = tuple(random_values(chance, about.low, about.high, len(about.members)) for _ in names)
    title = random_title(chance, about)
    style = random_style(chance)
    sheet = _draw_table(style, title, about, names, values)
    return _tell_table(chance, sheet, title, about, names, values)


def _draw_table(
    style: Style, title: str, about: Subject, names: tuple[str, ...],
    values: tuple[tuple[float, ...], ...],
) -> Sheet:  # fmt: skip
    sheet = style.sheet()
    top = write_title(sheet, style, title) + 8
    rows = len(about.members) + 1
    height = min((style.height - top - 8) / rows, 44)
    left, right = 12.0, style.width - 12.0
    small = style.font(12)
    first = min(max(small.width(name) for name in (*about.members, about.noun)) + 24,
                (right - left) * 0.6)  # fmt: skip
    width = (right - left - first) / len(names)
    head = toward(style.colour(0), style.paper, 0.25)
    sheet.box((left, top, right, top + height), head)
    white = sum(head) < 380
    cells = [[about.noun[:1].upper() + about.noun[1:], *names]]
    cells += [
        [member, *(number(column[i]) for column in values)]
        for i, member in enumerate(about.members)
    ]
    for r, row in enumerate(cells):
        y = top + r * height
        if r and r % 2 == 0 and style.named:
            sheet.box((left, y, right, y + height), toward(style.paper, style.ink, 0.07))
        sheet.line(((left, y), (right, y)), style.ink if r < 2 else style.faint, 1)
        for c, text in enumerate(row):
            x0 = left if c == 0 else left + first + (c - 1) * width
            w = first if c == 0 else width
            ink = (255, 255, 255) if r == 0 and white else (0, 0, 0) if r == 0 else style.ink
            cell_font, lines = shrunk(style, text, w - 10, height)
            if c == 0 and len(lines) == 1:
                sheet.text((x0 + 8, y + height / 2), text, cell_font, ink, anchor="lm")
            else:
                sheet.lines((x0 + w / 2, y + height / 2), lines, cell_font, ink, leading=1.05)
    bottom = top + rows * height
    sheet.line(((left, bottom), (right, bottom)), style.ink, 1)
    if style.grid:
        for c in range(len(names) + 2):
            x = left if c == 0 else left + first + (c - 1) * width
            sheet.line(((x, top), (x, bottom)), style.faint, 1)
    return sheet


def _tell_table(
    chance: random.Random, sheet: Sheet, title: str, about: Subject, names: tuple[str, ...],
    values: tuple[tuple[float, ...], ...],
) -> Drawing:  # fmt: skip
    ranked = sorted(zip(values[0], about.members, strict=True), reverse=True)
    (most, top), (least, low) = ranked[0], ranked[-1]
    what = about.measure
    rows, columns = len(about.members) + 1, len(names) + 1
    series = "" if len(names) == 1 else f" for {listing(names)}"
    lead = f"in the column {names[0]}, " if len(names) > 1 else ""
    description = pick(
        chance,
        f"A table with {rows} rows and {columns} columns. The first row is a header row: "
        f"{about.noun}, {', '.join(names)}. The rows are {listing(about.members)}.",
        f"A table{f' titled “{title}”' if title else ''} lists {what} by {about.noun}{series}. "
        f"{sentence(f'{lead}{top} has the largest number, {number(most)}')}",
        f"This table shows {listing(about.members)} with their {what}{series}. "
        + " ".join(f"{m}: {number(v)}." for v, m in zip(values[0], about.members, strict=True)),
    )
    query = pick(
        chance, f"table of {what} by {about.noun}", f"table listing {listing(about.members[:3])}",
        f"{what} table{series}", f"table where {top} has {number(most)}",
    )  # fmt: skip
    rationale = read_out(
        f"it is a table of {several(rows, 'row')} and {several(columns, 'column')}",
        f"the title reads “{title}”" if title else "it has no title",
        f"the header reads {about.noun}, {', '.join(names)}",
        f"the rows are {listing(about.members)}",
        f"{lead}the largest number is {number(most)}, that of {top}",
        f"{lead}the smallest number is {number(least)}, that of {low}",
        f"so it lists {what} by {about.noun}",
    )
    caption = f"{what} of {several(rows - 1, about.noun, about.plural)}{series}"
    return Drawing("table", sheet, query, description, sentence(caption), rationale,
                   f"{what} by {about.noun}")  # fmt: skip


def slide(chance: random.Random) -> Drawing:
    """Return a slide: a title, bullets, perhaps a small chart beside them."""
    style = random_style(chance, dark=0.3)
    topic, points = chance.choice([*PROCESSES, *HIERARCHIES])
    title = pick(chance, topic, f"{topic}: an overview", f"What is {topic.lower()}?",
                 f"{topic} in brief")  # fmt: skip
    points = [point[:1].upper() + point[1:] for point in points[:5]]
    width, height = 480, chance.choice((270, 360))
    sheet = Sheet(width, height, style.paper)
    accent = style.colour(0)
    layout = chance.choice(("bar", "line", "plain"))
    big = style.font(22, bold=True)
    while big.width(title) > width - 40 and big.size > 12:
        big = style.font((big.size - 2) / style.scale, bold=True)
    ink = style.ink
    if layout == "bar":
        sheet.box((0, 0, width, 54), accent)
        ink = (0, 0, 0) if sum(accent) > 430 else (255, 255, 255)
    sheet.text((20, 28), title, big, ink, anchor="lm")
    if layout == "line":
        sheet.line(((20, 52), (width - 20, 52)), accent, 3)
    has_chart = chance.random() < 0.45
    room = width * (0.45 if has_chart else 0.9)
    step = (height - 84) / len(points)
    numbered = chance.random() < 0.4
    for i, point in enumerate(points):
        y = 74 + (i + 0.5) * step
        small, lines = shrunk(style, point, room - 40, step * 0.95)
        if numbered:
            sheet.text((26, y), f"{i + 1}.", small, style.ink)
        else:
            sheet.dot((26, y), 4, accent)
        for row, line in enumerate(lines):
            at = (42, y + (row - (len(lines) - 1) / 2) * small.size * 1.15)
            sheet.text(at, line, small, style.ink, anchor="lm")
    extra = ""
    if has_chart:
        about = subject(chance, most=5)
        kind = chance.choice(("bar", "pie", "line"))
        inner = Style(
            int(width * 0.46), int(height * 0.62), style.paper, style.ink, style.faint,
            style.family, 0.7, style.colours, style.named, style.grid,
        )  # fmt: skip
        values = (random_values(chance, about.low, about.high, len(about.members)),)
        beside = recast(Table(about, "", ("",), values), inner, kind)
        dx, dy = width * 0.51, height * 0.27
        sheet.marks += [moved(mark, dx, dy) for mark in beside.marks]
        extra = f"{a(kind)} chart of {about.measure} by {about.noun} stands on the right"
    sort = "numbered" if numbered else "bulleted"
    description = pick(
        chance,
        f"A slide titled “{title}” with a {sort} list: {listing(points)}. "
        f"{sentence(extra) if extra else ''}",
        f"A presentation slide about {topic.lower()}. It lists {listing(points)}. "
        f"{sentence(extra) if extra else ''}",
    ).strip()
    query = pick(
        chance, f"slide about {topic.lower()}", f"slide listing {listing(points[:3])}",
        f"presentation slide {title}", f"slide with {sort} list on {topic.lower()}",
    )  # fmt: skip
    rationale = read_out(
        "it is a presentation slide", f"the title reads “{title}”",
        f"below stands a {sort} list of {several(len(points), 'point')}",
        f"the points are {listing(points)}", extra, f"so it is about {topic.lower()}",
    )  # fmt: skip
    caption = f"{topic}: {listing(points)}"
    return Drawing("slide", sheet, query, description, sentence(caption), rationale, topic)


def moved(mark: tuple[object, ...], dx: float, dy: float) -> tuple[object, ...]:
    """Return a mark shifted by so much."""
    where = mark[1]
    assert isinstance(where, tuple)
    if mark[0] in ("line", "polygon"):
        return (mark[0], tuple((x + dx, y + dy) for x, y in where), *mark[2:])
    steps = (dx, dy) * (len(where) // 2)
    return (mark[0], tuple(v + d for v, d in zip(where, steps, strict=True)), *mark[2:])
