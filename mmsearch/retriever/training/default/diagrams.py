"""Diagrams of boxes, arrows and circles: flow charts, cycles, trees, Venn diagrams, geometry.

diagram(chance) -> Drawing
"""

import itertools
import math
import random
from collections.abc import Callable, Sequence

from mmsearch.retriever.training.default.sheets import (
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
    FAMILIES,
    HIERARCHIES,
    OVERLAPS,
    PLACES,
    PROCESSES,
)


def _titled(chance: random.Random, style: Style, title: str) -> tuple[Sheet, float, str]:
    """Return a sheet with its title in three of five cases, where room begins, the title."""
    sheet = style.sheet()
    if chance.random() > 0.6:
        return sheet, 12, ""
    bold = style.font(16, bold=True)
    lines = bold.wrap(title, style.width - 20)
    for row, line in enumerate(lines):
        sheet.text((style.width / 2, 8 + row * bold.size * 1.2), line, bold, style.ink, anchor="ma")
    return sheet, 16 + len(lines) * bold.size * 1.2, title


def _box(
    sheet: Sheet, style: Style, at: Point, size: tuple[float, float], text: str, number: int,
    *, round_: bool = False,
) -> None:  # fmt: skip
    """Draw a box with words in it, smaller where they do not fit."""
    fill = toward(style.colour(number), style.paper, 0.55 if style.named else 0.3)
    w, h = size
    corners = (at[0] - w / 2, at[1] - h / 2, at[0] + w / 2, at[1] + h / 2)
    if round_:
        sheet.ellipse(corners, fill, style.ink)
    else:
        sheet.box(corners, fill, style.ink, 1, 6 if style.grid else 0)
    room = w * (0.78 if round_ else 0.94)
    small, lines = shrunk(style, text, room, h * 0.9)
    sheet.lines(at, lines, small, (0, 0, 0) if sum(fill) > 330 else (255, 255, 255), leading=1.1)


def shrunk(style: Style, text: str, width: float, height: float) -> tuple[Font, list[str]]:
    """Return the largest font from 13 down in which the text fits, and its lines."""
    for size in (13, 12, 11, 10, 9, 8, 7):
        small = style.font(size)
        lines = small.wrap(text, width)
        if len(lines) * small.size * 1.1 <= height and all(small.width(x) <= width for x in lines):
            break
    return small, lines


def _told(
    chance: random.Random, kind: str, sheet: Sheet, title: str, subject: str, what: str,
    steps: Sequence[str], *, queries: Sequence[str], shape: str, caption: str,
) -> Drawing:  # fmt: skip
    """Return the drawing, told from its clauses: ``what`` is seen, then its ``steps``."""
    head = f"{what} titled “{title}”" if title else what
    about = "" if title or subject.lower() in what else f" about {subject.lower()}"
    description = pick(
        chance,
        f"{head}. " + " ".join(sentence(step) for step in steps),
        f"The figure shows {head}. " + " ".join(sentence(step) for step in steps),
        f"{head}{about}: {'; '.join(steps)}",
    )
    rationale = read_out(
        f"it is {what}",
        f"the title reads “{title}”" if title else "it has no title",
        shape,
        *steps[:4],
        f"in short: {caption}",
    )
    query = chance.choice(list(queries))
    return Drawing(kind, sheet, query, sentence(description), sentence(caption), rationale, subject)


def _flow(chance: random.Random) -> Drawing:
    title, all_steps = chance.choice(PROCESSES)
    style = random_style(chance)
    steps = all_steps[: chance.randint(3, len(all_steps))] if len(all_steps) > 3 else all_steps
    sheet, top, shown = _titled(chance, style, title)
    count = len(steps)
    way = (
        chance.choice(("down", "right", "snake")) if count > 3 else chance.choice(("down", "right"))
    )
    if way == "right" and count > 5:
        way = "snake"
    places: list[Point] = []
    height = style.height - top - 12
    if way == "down":
        size = (min(style.width * 0.6, 220), min(height / count * 0.62, 50))
        places = [(style.width / 2, top + (i + 0.5) * height / count) for i in range(count)]
    elif way == "right":
        size = (style.width / count * 0.76, min(height * 0.4, 80))
        places = [((i + 0.5) * style.width / count, top + height / 2) for i in range(count)]
    else:
        across = (count + 1) // 2
        size = (style.width / across * 0.72, min(height * 0.28, 70))
        for i in range(count):
            column = i if i < across else 2 * across - 1 - i
            row = 0.28 if i < across else 0.76
            places.append(((column + 0.5) * style.width / across, top + height * row))
    for i in range(count - 1):
        _join(sheet, style, places[i], places[i + 1], size)
    one_hue = chance.random() < 0.5
    round_ = chance.random() < 0.15
    for i, (place, step) in enumerate(zip(places, steps, strict=True)):
        _box(sheet, style, place, size, step, 0 if one_hue else i, round_=round_)
    what = f"a flow chart of {several(count, 'box', 'boxes')} joined by arrows"
    arrows = [f"an arrow leads from {one} to {two}" for one, two in itertools.pairwise(steps)]
    told = pick(chance, "order", "arrows")
    clauses = [f"it begins with {steps[0]}", *arrows, f"it ends with {steps[-1]}"]
    if told == "order":
        clauses = [f"from first to last the boxes read {listing(steps)}"]
    where = {"down": "from top to bottom", "right": "from left to right",
             "snake": "right along the upper row and back along the lower"}[way]  # fmt: skip
    return _told(
        chance, "flow chart", sheet, shown, title, what, clauses,
        queries=(f"flow chart of {title.lower()}", f"steps of {title.lower()}",
                 f"diagram with arrows from {steps[0]} to {steps[-1]}",
                 f"{title.lower()} diagram", f"process: {listing(steps[:3])}"),
        shape=f"the arrows run {where}", caption=f"{title}: from {steps[0]} to {steps[-1]}",
    )  # fmt: skip


def _join(sheet: Sheet, style: Style, start: Point, end: Point, size: tuple[float, float]) -> None:
    """Draw an arrow from the edge of one box to the edge of the next."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    span = max(abs(dx) / size[0], abs(dy) / size[1], 1e-6)
    cut = min(0.5 / span, 0.45)
    sheet.arrow(
        (start[0] + dx * cut, start[1] + dy * cut),
        (end[0] - dx * (cut + 0.02), end[1] - dy * (cut + 0.02)),
        style.ink,
    )


def _cycle(chance: random.Random) -> Drawing:
    title, all_steps = chance.choice([p for p in PROCESSES if 3 <= len(p[1]) <= 6])
    style = random_style(chance)
    steps = list(all_steps)
    sheet, top, shown = _titled(chance, style, title)
    count = len(steps)
    cx, cy = style.width / 2, (top + style.height) / 2
    rx, ry = style.width * 0.34, (style.height - top) * 0.36
    size = (style.width * 0.25, (style.height - top) * 0.19)
    spots = []
    for i in range(count):
        angle = -math.pi / 2 + 2 * math.pi * i / count
        spots.append((cx + rx * math.cos(angle), cy + ry * math.sin(angle)))
    for i in range(count):
        _join(sheet, style, spots[i], spots[(i + 1) % count], (size[0] * 1.05, size[1] * 1.05))
    round_ = chance.random() < 0.5
    for i, (spot, step) in enumerate(zip(spots, steps, strict=True)):
        _box(sheet, style, spot, size, step, i, round_=round_)
    shape = "circles" if round_ else "boxes"
    what = f"a cycle of {count_word(count)} {shape} joined by arrows"
    return _told(
        chance, "cycle", sheet, shown, title, what,
        [f"it starts at the top with {steps[0]}", f"clockwise follow {listing(steps[1:])}",
         f"the last arrow leads back to {steps[0]}"],
        queries=(f"cycle diagram of {title.lower()}", f"{title.lower()} as a cycle",
                 f"circular diagram {steps[0]}, {steps[1]}", f"diagram of {title.lower()}"),
        shape=f"{count_word(count)} {shape} stand in a ring",
        caption=f"{title} repeats: {listing(steps)}",
    )  # fmt: skip


def _tree(chance: random.Random) -> Drawing:
    root, parts = chance.choice(HIERARCHIES)
    style = random_style(chance)
    parts = parts[:4]
    sheet, top, shown = _titled(chance, style, f"Kinds of {root.lower()}")
    deep = chance.random() < 0.4
    levels = 3 if deep else 2
    height = (style.height - top - 8) / levels
    width = style.width / len(parts)
    size = (min(width * 0.88, 150), min(height * 0.5, 56))
    head = (style.width / 2, top + height * 0.4)
    leaves: list[list[str]] = []
    for i, part in enumerate(parts):
        at = ((i + 0.5) * width, top + height * 1.4)
        _elbow(sheet, style, (head[0], head[1] + size[1] / 2), (at[0], at[1] - size[1] / 2))
        if deep:
            names = chance.sample("ABCDEFGHJKLMNPQRST", 2)
            leaves.append(names)
            for j, name in enumerate(names):
                spot = (at[0] + (j - 0.5) * width * 0.48, top + height * 2.4)
                _elbow(sheet, style, (at[0], at[1] + size[1] / 2), (spot[0], spot[1] - size[1] / 2))
                _box(sheet, style, spot, (width * 0.4, size[1]), name, 2)
        _box(sheet, style, at, size, part, 1)
    _box(sheet, style, head, (size[0] * 1.2, size[1]), root, 0)
    what = f"a tree diagram with {count_word(levels)} levels"
    steps = [f"{root} is at the top", f"it branches into {listing(parts)}"]
    if deep:
        pairs = zip(parts, leaves, strict=True)
        steps.append("below stand " + "; ".join(f"{n[0]} and {n[1]} under {p}" for p, n in pairs))
    return _told(
        chance, "tree", sheet, shown, root, what, steps,
        queries=(f"tree diagram of {root.lower()}", f"organization chart {root.lower()}",
                 f"hierarchy with {root.lower()} at the top", f"{root}: {listing(parts)}"),
        shape="lines lead from the upper boxes to the lower ones",
        caption=f"{root} is divided into {listing(parts)}",
    )  # fmt: skip


def _elbow(sheet: Sheet, style: Style, start: Point, end: Point) -> None:
    middle = (start[1] + end[1]) / 2
    sheet.line((start, (start[0], middle), (end[0], middle), end), style.ink, 1)


def _venn(chance: random.Random) -> Drawing:
    left, right, both = chance.choice(OVERLAPS)
    style = random_style(chance)
    kind = chance.choice(("overlap", "overlap", "apart", "inside"))
    title = left if kind == "inside" else f"{left} and {right}"
    sheet, top, shown = _titled(chance, style, title)
    cy = (top + style.height) / 2 + 6
    r = min((style.height - top) / 2 - 22, style.width * 0.25)
    mid = style.width / 2
    gap = {"overlap": r * 0.62, "apart": r * 1.06, "inside": 0.0}[kind]
    one, two = (toward(style.colour(i), style.paper, 0.55) for i in (0, 1))
    bold = style.font(13, bold=True)
    if kind == "inside":
        r2 = r * 0.55
        sheet.dot((mid, cy), r, one, style.ink)
        sheet.dot((mid, cy + r * 0.3), r2, two, style.ink)
        sheet.text((mid, cy - r * 0.62), left, bold, style.ink)
        small, lines = shrunk(style, both, r2 * 1.6, r2)
        sheet.lines((mid, cy + r * 0.3), lines, small)
        what = "a Venn diagram of one circle inside another"
        steps = [f"the outer circle is labeled {left}", f"the inner circle is labeled {both}"]
        caption = f"The circle of {both} lies within that of {left}"
    else:
        for x, fill in ((mid - gap, one), (mid + gap, two)):
            sheet.dot((x, cy), r, fill, style.ink)
        if kind == "overlap":  # the lens between both circles, in both colours
            half = math.acos(gap / r)
            lens = [(mid - gap + r * math.cos(t), cy + r * math.sin(t))
                    for t in (half * (i / 12 - 1) for i in range(25))]  # fmt: skip
            lens += [(mid + gap - r * math.cos(t), cy - r * math.sin(t))
                     for t in (half * (i / 12 - 1) for i in range(25))]  # fmt: skip
            sheet.polygon(lens, toward(one, two, 0.5))
            for x in (mid - gap, mid + gap):
                sheet.ellipse((x - r, cy - r, x + r, cy + r), None, style.ink)
            small, lines = shrunk(style, both, (r - gap) * 1.7, r)
            sheet.lines((mid, cy), lines, small)
        for x, name in ((mid - gap - r * 0.3, left), (mid + gap + r * 0.3, right)):
            small, lines = shrunk(style, name, r * (0.9 if kind == "overlap" else 1.2), r)
            sheet.lines((x, cy), lines, small)
        word = "two overlapping circles" if kind == "overlap" else "two circles that do not touch"
        what = f"a Venn diagram of {word}"
        steps = [f"the left circle is labeled {left}", f"the right circle is labeled {right}"]
        if kind == "overlap":
            steps.append(f"where they overlap it reads {both}")
        caption = (
            f"{left} and {right} share {both}" if kind == "overlap"
            else f"{left} and {right} have nothing in common"
        )  # fmt: skip
    if chance.random() < 0.3:
        sheet.box((6, top, style.width - 6, style.height - 6), None, style.ink)
        sheet.text((style.width - 16, style.height - 18), "U", bold, style.ink)
        steps.append("a rectangle labeled U stands around it")
    return _told(
        chance, "Venn diagram", sheet, shown, title, what, steps,
        queries=(f"Venn diagram of {left.lower()} and {right.lower()}" if kind != "inside"
                 else f"Venn diagram of {both.lower()} within {left.lower()}",
                 what, f"{caption.lower()} diagram"),
        shape=f"the circles are {'separate' if kind == 'apart' else 'not separate'}",
        caption=caption,
    )  # fmt: skip


def _pyramid(chance: random.Random) -> Drawing:
    title, parts = chance.choice(HIERARCHIES)
    style = random_style(chance)
    sheet, top, shown = _titled(chance, style, title)
    count = len(parts)
    upward = chance.random() < 0.8
    left, right, bottom = style.width * 0.1, style.width * 0.9, style.height - 10
    height = (bottom - top) / count
    for i, part in enumerate(parts):  # the first part is the broad base
        low, high = i / count, (i + 1) / count
        mid, half = (left + right) / 2, (right - left) / 2
        y0, y1 = (bottom - i * height, bottom - (i + 1) * height)
        if not upward:
            y0, y1 = top + i * height, top + (i + 1) * height
        fill = toward(style.colour(i), style.paper, 0.45)
        sheet.polygon(
            ((mid - half * (1 - low), y0), (mid + half * (1 - low), y0),
             (mid + half * (1 - high), y1), (mid - half * (1 - high), y1)), fill, style.ink,
        )  # fmt: skip
        small, lines = shrunk(style, part, max(half * 2 * (1 - (low + high) / 2), 60), height * 0.9)
        sheet.lines((mid, (y0 + y1) / 2 + (height * 0.15 if i == count - 1 else 0)), lines, small,
                    (0, 0, 0) if sum(fill) > 330 else (255, 255, 255))  # fmt: skip
    name = "pyramid" if upward else "funnel"
    wide, narrow = ("base", "top") if upward else ("top", "bottom")
    return _told(
        chance, name, sheet, shown, title, f"a {name} of {several(count, 'layer')}",
        [f"the broad {wide} reads {parts[0]}", f"then follow {listing(parts[1:-1])}" if count > 2
         else f"it is about {title.lower()}", f"the narrow {narrow} reads {parts[-1]}"],
        queries=(f"{name} of {title.lower()}", f"{name} diagram with {parts[0]} at the {wide}",
                 f"{title.lower()} {name}", f"layers: {listing(parts)}"),
        shape=f"each layer is {'narrower toward the ' + narrow}",
        caption=f"{title} in layers from {parts[0]} to {parts[-1]}",
    )  # fmt: skip


def _hub(chance: random.Random) -> Drawing:
    title, parts = chance.choice(HIERARCHIES)
    style = random_style(chance)
    sheet, top, shown = _titled(chance, style, f"Concept map: {title.lower()}")
    cx, cy = style.width / 2, (top + style.height) / 2
    rx, ry = style.width * 0.34, (style.height - top) * 0.35
    size = (style.width * 0.25, (style.height - top) * 0.17)
    turn = chance.uniform(0, math.pi)
    spots = [(cx + rx * math.cos(turn + 2 * math.pi * i / len(parts)),
              cy + ry * math.sin(turn + 2 * math.pi * i / len(parts)))
             for i in range(len(parts))]  # fmt: skip
    for spot in spots:
        sheet.line(((cx, cy), spot), style.ink, 2)
    round_ = chance.random() < 0.6
    for i, (spot, part) in enumerate(zip(spots, parts, strict=True)):
        _box(sheet, style, spot, size, part, i + 1, round_=round_)
    _box(sheet, style, (cx, cy), size, title, 0, round_=round_)
    shape = "ovals" if round_ else "boxes"
    return _told(
        chance, "concept map", sheet, shown, title,
        f"a concept map with {count_word(len(parts))} {shape} around a central one",
        [f"the center is labeled {title}", f"around it are {listing(parts)}",
         "lines join each of them to the center"],
        queries=(f"concept map of {title.lower()}", f"mind map {title.lower()}",
                 f"diagram with {title.lower()} in the center", f"{title}: {listing(parts[:3])}"),
        shape=f"lines run outward from the middle to {several(len(parts), shape[:-1], shape)}",
        caption=f"{title} is connected with {listing(parts)}",
    )  # fmt: skip


def _timeline(chance: random.Random) -> Drawing:
    title, steps = chance.choice(PROCESSES)
    style = random_style(chance)
    title = f"{title} in {chance.choice(PLACES)}" if chance.random() < 0.3 else title
    sheet, top, shown = _titled(chance, style, f"Timeline: {title}")
    steps = steps[:5]
    start, gap = chance.randint(1500, 1990), chance.choice((2, 5, 10, 25))
    years = [start + i * gap + chance.randint(0, gap - 1) for i in range(len(steps))]
    cy, width = (top + style.height) / 2, style.width / len(steps)
    sheet.arrow((10, cy), (style.width - 8, cy), style.ink, 3, 10)
    bold = style.font(13, bold=True)
    for i, (year, step) in enumerate(zip(years, steps, strict=True)):
        x, way = (i + 0.5) * width, -1 if i % 2 == 0 else 1
        sheet.dot((x, cy), 6, style.colour(i), style.ink)
        sheet.line(((x, cy), (x, cy + way * 34)), style.ink, 1)
        sheet.text((x, cy - way * 18), str(year), bold, style.ink)
        room = min(width * 1.5, 2 * min(x, style.width - x) - 4)
        small, lines = shrunk(style, step, room, style.height * 0.25)
        sheet.lines((x, cy + way * (38 + len(lines) * small.size * 0.6)), lines, small, style.ink)
    told = [f"{year}: {step}" for year, step in zip(years, steps, strict=True)]
    return _told(
        chance, "timeline", sheet, shown, title, f"a timeline with {several(len(steps), 'event')}",
        [f"it begins in {years[0]} with {steps[0]}", f"the events are {listing(told)}",
         f"it ends in {years[-1]} with {steps[-1]}"],
        queries=(f"timeline of {title.lower()}", f"timeline from {years[0]} to {years[-1]}",
                 f"timeline showing {steps[1]} in {years[1]}"),
        shape="dots stand along a horizontal arrow",
        caption=f"{title} between {years[0]} and {years[-1]}",
    )  # fmt: skip


def _network(chance: random.Random) -> Drawing:
    style = random_style(chance)
    count = chance.randint(4, 8)
    first = ord(chance.choice("AaP"))
    names = [chr(first + i) for i in range(count)]
    sheet = style.sheet()
    cx, cy = style.width / 2, style.height / 2
    spots = [(cx + style.width * 0.38 * math.cos(2 * math.pi * i / count + 0.3),
              cy + style.height * 0.38 * math.sin(2 * math.pi * i / count + 0.3))
             for i in range(count)]  # fmt: skip
    pairs = [(i, j) for i in range(count) for j in range(i)]
    edges = sorted(chance.sample(pairs, min(chance.randint(count - 1, count + 3), len(pairs))))
    weights = [chance.randint(1, 30) for _ in edges] if chance.random() < 0.5 else []
    bold = style.font(13, bold=True)
    for n, (i, j) in enumerate(edges):
        sheet.line((spots[i], spots[j]), style.ink, 2)
        if weights:
            at = ((spots[i][0] * 2 + spots[j][0]) / 3, (spots[i][1] * 2 + spots[j][1]) / 3)
            sheet.dot(at, 9, style.paper)
            sheet.text(at, str(weights[n]), style.font(11), style.ink)
    for spot, name in zip(spots, names, strict=True):
        sheet.dot(spot, 15, toward(style.colour(0), style.paper, 0.4), style.ink)
        sheet.text(spot, name, bold)
    told = [f"{names[j]}{names[i]}" for i, j in edges]
    what = f"a graph of {several(count, 'vertex', 'vertices')} and {several(len(edges), 'edge')}"
    steps = [f"{listing(names)} label the vertices", f"the edges are {listing(told)}"]
    if weights:
        steps.append("a number on each edge is its weight")
    return _told(
        chance, "network", sheet, "", "network", what, steps,
        queries=(what, f"network with {several(len(edges), 'edge')}",
                 f"graph with vertices {names[0]} to {names[-1]}",
                 "weighted graph" if weights else "graph with vertices and edges"),
        shape="circles are joined by straight lines", caption=f"{what}: {listing(told)}",
    )  # fmt: skip


def _geometry(chance: random.Random) -> Drawing:
    style = random_style(chance)
    sheet = style.sheet()
    cx, cy = style.width / 2, style.height / 2
    r = min(style.width, style.height) * 0.36
    bold = style.font(14)
    colour = toward(style.colour(0), style.paper, 0.5)
    unit = chance.choice(("cm", "m", "in", "ft", ""))
    kind = chance.choice(("right triangle", "rectangle", "circle", "angle", "triangle",
                          "trapezoid", "parallel lines", "cube"))  # fmt: skip
    n, m, k = (chance.randint(2, 20) for _ in range(3))
    length = [f"{value} {unit}".strip() for value in (n, m, k)]
    if kind == "right triangle":
        corners = ((cx - r, cy + r * 0.7), (cx + r, cy + r * 0.7), (cx - r, cy - r * 0.8))
        sheet.polygon(corners, colour, style.ink)
        x, y = corners[0]
        sheet.line(((x + 14, y), (x + 14, y - 14), (x, y - 14)), style.ink, 1)
        sheet.text((cx, y + 16), length[0], bold, style.ink)
        sheet.text((x - 8, cy), length[1], bold, style.ink, anchor="rm")
        sheet.text((cx + 14, cy - r * 0.15), "c", bold, style.ink)
        steps = ["the right angle is at the lower left", f"the base is {length[0]}",
                 f"the height is {length[1]}", "the letter c labels the hypotenuse"]  # fmt: skip
    elif kind == "rectangle":
        wide, high = r * 1.2, r * chance.uniform(0.5, 0.8)
        sheet.box((cx - wide, cy - high, cx + wide, cy + high), colour, style.ink, 2)
        sheet.text((cx, cy + high + 16), length[0], bold, style.ink)
        sheet.text((cx - wide - 8, cy), length[1], bold, style.ink, anchor="rm")
        steps = [f"the length is labeled {length[0]}", f"the width is labeled {length[1]}"]
    elif kind == "circle":
        sheet.dot((cx, cy), r, colour, style.ink)
        full = chance.random() < 0.5
        sheet.line(((cx - r if full else cx, cy), (cx + r, cy)), style.ink, 2)
        sheet.dot((cx, cy), 4, style.ink)
        sheet.text((cx + (0 if full else r / 2), cy - 14), length[0], bold, style.ink)
        name = "diameter" if full else "radius"
        steps = [f"its {name} is drawn", f"the {name} is labeled {length[0]}"]
    elif kind == "angle":
        degrees = chance.randint(20, 160)
        turn = math.radians(degrees)
        base = (cx - r * 0.4, cy + r * 0.5)
        sheet.arrow(base, (base[0] + r * 1.4, base[1]), style.ink)
        tip = (base[0] + r * 1.3 * math.cos(turn), base[1] - r * 1.3 * math.sin(turn))
        sheet.arrow(base, tip, style.ink)
        sheet.arc((base[0] - 34, base[1] - 34, base[0] + 34, base[1] + 34), -degrees, 0,
                  style.colour(1))  # fmt: skip
        at = (base[0] + 56 * math.cos(turn / 2), base[1] - 56 * math.sin(turn / 2))
        sheet.text(at, f"{degrees}°", bold, style.ink)
        word = "acute" if degrees < 90 else "obtuse" if degrees > 90 else "right"
        kind = f"{word} angle"
        steps = [f"the angle measures {degrees}°", "two rays start at its vertex"]
    elif kind == "triangle":
        top_x = cx + r * chance.uniform(-0.5, 0.5)
        corners = ((cx - r, cy + r * 0.7), (cx + r, cy + r * 0.7), (top_x, cy - r * 0.8))
        sheet.polygon(corners, colour, style.ink)
        for (x, y), name, (dx, dy) in zip(
            corners, "ABC", ((-12, 6), (12, 6), (0, -12)), strict=True
        ):
            sheet.text((x + dx, y + dy), name, bold, style.ink)
        sheet.text((cx, cy + r * 0.7 + 16), length[0], bold, style.ink)
        steps = ["A, B, and C label its corners", f"the side AB is {length[0]}"]
    elif kind == "trapezoid":
        corners_ = ((cx - r, cy + r * 0.5), (cx + r, cy + r * 0.5), (cx + r * 0.5, cy - r * 0.5),
                    (cx - r * 0.6, cy - r * 0.5))  # fmt: skip
        sheet.polygon(corners_, colour, style.ink)
        sheet.text((cx, cy + r * 0.5 + 16), length[0], bold, style.ink)
        sheet.text((cx, cy - r * 0.5 - 14), length[1], bold, style.ink)
        sheet.dashed((cx - r * 0.6, cy - r * 0.5), (cx - r * 0.6, cy + r * 0.5), style.ink)
        sheet.text((cx - r * 0.5, cy), length[2], bold, style.ink, anchor="lm")
        steps = [f"the lower base is {length[0]}", f"the upper base is {length[1]}",
                 f"a dashed height is {length[2]}"]  # fmt: skip
    elif kind == "parallel lines":
        for y in (cy - r * 0.4, cy + r * 0.4):
            sheet.line(((cx - r * 1.2, y), (cx + r * 1.2, y)), style.colour(0), 3)
        sheet.line(((cx - r * 0.7, cy + r), (cx + r * 0.7, cy - r)), style.colour(1), 3)
        for name, at in (
            ("1", (cx + r * 0.36, cy - r * 0.56)),
            ("2", (cx - r * 0.1, cy + r * 0.26)),
        ):
            sheet.text(at, name, bold, style.ink)
        steps = ["a slanted line crosses both of them", "two of the angles are numbered 1 and 2"]
    else:
        side, off = r * 1.1, r * 0.45
        x, y = cx - r * 0.8, cy - r * 0.3
        sheet.polygon(((x, y), (x + off, y - off), (x + side + off, y - off), (x + side, y)),
                      toward(colour, style.paper, 0.4), style.ink)  # fmt: skip
        right = ((x + side, y), (x + side + off, y - off), (x + side + off, y + side - off),
                 (x + side, y + side))  # fmt: skip
        sheet.polygon(right, toward(colour, style.ink, 0.2), style.ink)
        sheet.box((x, y, x + side, y + side), colour, style.ink)
        sheet.text((x + side / 2, y + side + 14), length[0], bold, style.ink)
        steps = ["three of its faces are seen", f"its edge is {length[0]}"]
    what = f"a drawing of {'two parallel lines' if kind == 'parallel lines' else a(kind)}"
    return _told(
        chance, "geometry", sheet, "", kind, what, steps,
        queries=(f"{kind} with labels", f"{kind}: {steps[0]}", f"geometry figure, {kind}", what),
        shape=f"it is a figure of geometry filled with {style.colour_name(0)}"
        if style.named and kind in ("rectangle", "circle", "triangle", "trapezoid")
        else "it is a figure of geometry",
        caption=f"{a(kind) if kind != 'parallel lines' else kind}: {listing(steps)}",
    )  # fmt: skip


def _map(chance: random.Random) -> Drawing:
    """Return a map of regions on a bent lattice, one of them darker."""
    style = random_style(chance, dark=0)
    columns, rows = chance.choice(((2, 2), (3, 2), (2, 3), (3, 3)))
    place = chance.choice(PLACES)
    lands = [f["members"] for f in FAMILIES if f["noun"] in ("country", "state", "city")]
    names = chance.sample(chance.choice(lands), columns * rows)
    sheet, top, shown = _titled(chance, style, f"Map of {place}")
    wide, high = style.width - 40, style.height - top - 24

    def spot(c: int, r: int) -> Point:
        bend = random.Random(f"{c} {r} {names[0]}")
        dx, dy = bend.uniform(-0.22, 0.22) / columns, bend.uniform(-0.22, 0.22) / rows
        x, y = 20 + wide * (c / columns + dx * 0.8), top + 8 + high * (r / rows + dy * 0.8)
        return (min(max(x, 6), style.width - 6), min(max(y, top + 6), style.height - 6))

    if chance.random() < 0.5:
        sheet.box((0, top, style.width, style.height), (205, 225, 245))
    marked = chance.randrange(columns * rows)
    for i, name in enumerate(names):
        c, r = i % columns, i // columns
        ring = (spot(c, r), spot(c + 1, r), spot(c + 1, r + 1), spot(c, r + 1))
        fill = toward(style.colour(0), (255, 255, 255), 0.2 if i == marked else 0.75)
        sheet.polygon(ring, fill, style.ink)
        at = (sum(x for x, _ in ring) / 4, sum(y for _, y in ring) / 4)
        small, lines = shrunk(style, name, wide / columns * 0.8, high / rows)
        sheet.lines(at, lines, small, (0, 0, 0) if sum(fill) > 330 else (255, 255, 255))
    c, r = marked % columns, marked // columns
    ns = "north" if r == 0 else "south" if r == rows - 1 else ""
    ew = "west" if c == 0 else "east" if c == columns - 1 else ""
    where = f"{ns}{ew}" or "center"
    hue = f" {style.colour_name(0)}" if style.named else ""
    what = f"a map with {several(len(names), 'region')}"
    return _told(
        chance, "map", sheet, shown, f"Map of {place}" if shown else "Map of regions", what,
        [f"the regions are labeled {listing(names)}",
         f"{names[marked]} in the {where} is shaded dark{hue}",
         "the others are pale"],
        queries=(f"map showing {names[marked]}", f"map where {names[marked]} is shaded",
                 f"map of {listing(names[:3])}", f"map of {place}" if shown else "political map"),
        shape="borders divide the land", caption=f"{names[marked]} lies in the {where}",
    )  # fmt: skip


KINDS: dict[str, tuple[Callable[[random.Random], Drawing], int]] = {
    "flow chart": (_flow, 4), "cycle": (_cycle, 2), "tree": (_tree, 2), "Venn diagram": (_venn, 2),
    "pyramid": (_pyramid, 2), "concept map": (_hub, 2), "timeline": (_timeline, 1),
    "network": (_network, 1), "geometry": (_geometry, 3), "map": (_map, 2),
}  # fmt: skip


def diagram(chance: random.Random, kind: str = "") -> Drawing:
    """Return a diagram of one of KINDS, or of any."""
    kind = kind or chance.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
    return KINDS[kind][0](chance)
