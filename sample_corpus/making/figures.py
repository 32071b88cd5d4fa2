"""The charts and drawings inside the PDFs. All figures are invented, from fixed seeds.

Each function returns the PNG that a page of `documents` shows.
"""

import matplotlib.pyplot as plt
import numpy as np
from materials import BLUE, GREEN, GREY, INK, ORANGE, RED, figure_bytes
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse, FancyBboxPatch, Polygon, Rectangle

plt.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "figure.constrained_layout.use": True,
    }
)


def axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty chart of that many inches."""
    return plt.subplots(figsize=(width, height))


def drawing(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty sheet, ten units wide, to draw shapes on."""
    figure, sheet = axes(width, height)
    sheet.set(xlim=(0, 10), ylim=(0, 10 * height / width), aspect="equal")
    sheet.axis("off")
    return figure, sheet


def done(figure: Figure) -> bytes:
    """Return the PNG of a figure and close it."""
    png = figure_bytes(figure)
    plt.close(figure)
    return png


# ------------------------------------------------------------ Veldhaven Water


def waterworks() -> bytes:
    """Draw a water tower, hills and a river."""
    figure, sheet = drawing(6, 3.4)
    sheet.add_patch(Rectangle((0, 0), 10, 5.7, color="#dcebf5"))
    x = np.linspace(0, 10, 200)
    sheet.fill_between(x, 0, 1.9 + 0.5 * np.sin(x * 0.9), color="#a9c79a")
    sheet.fill_between(x, 0, 1.1 + 0.3 * np.sin(x * 0.7 + 2), color="#7fae78")
    sheet.fill_between(x, 0, 0.55 + 0.15 * np.sin(x * 2), color="#5b9bc8")
    sheet.add_patch(Polygon([(4.2, 1.2), (4.6, 3.4), (5.4, 3.4), (5.8, 1.2)], color="#c9b79c"))
    sheet.add_patch(FancyBboxPatch((4.0, 3.4), 2.0, 1.0, "round,pad=0.15", color="#8c6f56"))
    sheet.add_patch(Polygon([(3.8, 4.55), (5, 5.4), (6.2, 4.55)], color="#6b4c3b"))
    for k in range(3):
        sheet.add_patch(Rectangle((4.3 + 0.6 * k, 3.7), 0.25, 0.45, color="#dcebf5"))
    return done(figure)


def leakage() -> bytes:
    """Draw seven years of losses and the target."""
    figure, chart = axes(6, 3)
    years = list(range(2018, 2025))
    losses = [21.5, 21.9, 20.2, 18.4, 16.6, 15.1, 13.8]
    chart.bar(years, losses, color=BLUE, width=0.6)
    for year, loss in zip(years, losses, strict=True):
        chart.text(year, loss + 0.4, f"{loss}", ha="center", fontsize=8)
    chart.axhline(11, color=RED, linestyle="--", linewidth=1)
    chart.text(2024.45, 11.3, "target 2027", color=RED, fontsize=8)
    chart.set(ylabel="Water lost, % of supply", ylim=(0, 25), xlim=(2017.5, 2025.6), xticks=years)
    return done(figure)


def spending() -> bytes:
    """Draw where each crown went, as a pie."""
    figure, chart = axes(5, 2.7)
    labels = ["Operations", "Renewal", "Interest", "Hardship fund", "Surplus"]
    parts = [36010, 30645, 6890, 900, 5710]
    colours = [BLUE, GREEN, ORANGE, RED, GREY]
    chart.pie(parts, labels=labels, colors=colours, autopct="%.0f%%", pctdistance=0.75)
    return done(figure)


def projects() -> bytes:
    """Draw the building times of five projects."""
    figure, chart = axes(6, 2.6)
    rows = [
        ("Old Harbour mains", 2025.25, 2027.9, BLUE),
        ("Quay Street storm tank", 2025.67, 2027.2, BLUE),
        ("Ultraviolet stage", 2026.0, 2026.8, ORANGE),
        ("Solar roof", 2025.33, 2025.65, ORANGE),
        ("Fish ladder", 2026.42, 2026.72, GREEN),
    ]
    for k, (name, start, end, colour) in enumerate(reversed(rows)):
        chart.barh(k, end - start, left=start, color=colour, height=0.55)
        chart.text(2024.95, k, name, ha="right", va="center", fontsize=8.5)
    chart.set(xlim=(2025, 2028), yticks=[], xticks=[2025, 2026, 2027, 2028])
    return done(figure)


def river() -> bytes:
    """Draw the level of a river through a year: flood in February, drought in summer."""
    figure, chart = axes(6, 2.7)
    rng = np.random.default_rng(5)
    day = np.arange(366)
    level = 1.55 + 0.45 * np.cos((day - 30) / 366 * 2 * np.pi)
    level += np.convolve(rng.normal(0, 0.55, 366), np.ones(9) / 9, "same")
    level += 1.9 * np.exp(-(((day - 47) / 4.0) ** 2))
    summer = slice(152, 273)  # June to September: 53 days lie under the summer mark
    level[summer] += 0.9 - np.sort(level[summer])[53]
    chart.fill_between(day, 0, level, color="#a9cbe2")
    chart.plot(day, level, color=BLUE, linewidth=1)
    chart.axhline(3.4, color=RED, linewidth=0.8)
    chart.text(250, 3.47, "red mark (flood)", color=RED, fontsize=8)
    chart.axhline(0.9, color=ORANGE, linewidth=0.8)
    chart.text(60, 0.6, "summer mark", color=ORANGE, fontsize=8)
    months = ["J", "F", "M", "A", "M", "J", "J", "A", "S", "O", "N", "D"]
    chart.set(xticks=np.arange(12) * 30.5 + 15, ylabel="Level, m", xlim=(0, 366))
    chart.set_xticklabels(months)
    return done(figure)


# ------------------------------------------------------------ the bee paper


def bee_map() -> bytes:
    """Draw 36 farms along a river as dots."""
    figure, chart = axes(3.4, 2.6)
    rng = np.random.default_rng(36)
    x = np.linspace(0, 30, 200)
    chart.plot(x, 10 + 3 * np.sin(x / 5), color=BLUE, linewidth=3, alpha=0.6)
    east = rng.uniform(1, 29, 36)
    north = 10 + 3 * np.sin(east / 5) + rng.normal(0, 4, 36)
    dots = chart.scatter(east, north, c=rng.uniform(5, 120, 36), cmap="YlGn", edgecolor=INK, s=36)
    figure.colorbar(dots, label="Mean hedge age, years")
    chart.set(xlabel="km east", ylabel="km north")
    return done(figure)


def bee_age() -> bytes:
    """Draw species richness against hedge age, with a curve that levels off."""
    figure, chart = axes(3.4, 2.7)
    rng = np.random.default_rng(108)
    age = rng.uniform(2, 130, 108)
    curve = lambda a: 5.2 + 15 * (1 - np.exp(-a / 28))  # noqa: E731 - used twice, here
    chart.scatter(age, curve(age) + rng.normal(0, 1.9, 108), s=11, color=GREEN, alpha=0.7)
    years = np.linspace(1, 130, 100)
    chart.plot(years, curve(years), color=INK)
    chart.set(xlabel="Hedge age, years", ylabel="Bee species (rarefied)", ylim=(0, 26))
    return done(figure)


def bee_guilds() -> bytes:
    """Draw three nesting guilds over four age classes."""
    figure, chart = axes(3.4, 2.5)
    at = np.arange(4)
    guilds = [
        ("Bumblebees", [4.1, 5.9, 6.0, 6.1], ORANGE),
        ("Ground nesters", [3.2, 4.0, 6.9, 8.8], BLUE),
        ("Cavity nesters", [0.4, 0.8, 2.9, 4.3], GREEN),
    ]
    for k, (name, species, colour) in enumerate(guilds):
        chart.bar(at + (k - 1) * 0.26, species, width=0.25, label=name, color=colour)
    chart.set(xticks=at, xlabel="Hedge age, years", ylabel="Species", ylim=(0, 12))
    chart.set_xticklabels(["< 10", "10-30", "30-60", "> 60"])
    chart.legend(fontsize=7, frameon=False, loc="upper left")
    return done(figure)


# ------------------------------------------------------------ the nature park


def _ridge(label: str) -> bytes:
    figure, sheet = drawing(6, 2.2)
    x = np.linspace(0, 10, 400)
    sheet.add_patch(Rectangle((0, 0), 10, 3.7, color="#fbe6cf"))
    sheet.add_patch(Circle((8, 2.7), 0.45, color="#f2b880"))
    for height, tone, phase in (
        (2.2, "#b9a7c4", 0.0),
        (1.6, "#8d7fa3", 1.7),
        (0.9, "#5d5478", 3.1),
    ):
        rough = np.abs(np.sin(x * 0.8 + phase)) + 0.25 * np.abs(np.sin(x * 3.3 + phase))
        sheet.fill_between(x, 0, height * (0.55 + 0.45 * rough), color=tone)
    sheet.text(0.3, 3.2, label, fontsize=9, color="#5d5478")
    return done(figure)


def ridge() -> bytes:
    """Draw mountains at dusk."""
    return _ridge("La cuerda desde Robledal")


def _profile(names: tuple[str, str, str, str, str], x_label: str, y_label: str) -> bytes:
    figure, chart = axes(6, 2.5)
    km = np.array([0, 2, 4, 5, 7, 8, 10, 11.5, 13, 15, 17.4])
    metres = np.array([1040, 1150, 1330, 1380, 1810, 1850, 2021, 1930, 1800, 1400, 1040])
    chart.fill_between(km, 900, metres, color="#c9d8b6")
    chart.plot(km, metres, color=GREEN)
    marks = zip(names, (0.1, 4.3, 6.6, 10.2, 15.1), (1190, 1440, 1885, 2060, 1470), strict=True)
    for name, x, y in marks:
        chart.text(x, y, name, fontsize=8, ha="left" if x < 5 or x > 12 else "center")
    chart.set(xlabel=x_label, ylabel=y_label, ylim=(900, 2200), xlim=(0, 17.4))
    return done(figure)


def perfil() -> bytes:
    """Draw the height along the ridge walk, in Spanish."""
    names = ("Robledal", "Refugio", "Collado del Viento", "Pe\u00f1a Alta 2.021 m", "Fuente")
    return _profile(names, "Kil\u00f3metros", "Altitud, m")


def ridge_en() -> bytes:
    """Draw the height along the ridge walk, in English."""
    names = ("Robledal", "Hut", "Windy Col", "High Rock 2,021 m", "Spring")
    return _profile(names, "Kilometres", "Height, m")


# ------------------------------------------------------------ cargo bikes and newsletter


def bike_flow() -> bytes:
    """Draw truck, depot, bike, locker and shop as boxes and arrows."""
    figure, sheet = drawing(7.5, 1.7)
    stops = [
        "Truck\nbefore 22:00",
        "Depot\nFerry Road",
        "Cargo bike\n22:00-05:00",
        "Locker",
        "Shop",
    ]
    for k, stop in enumerate(stops):
        sheet.add_patch(
            FancyBboxPatch((0.15 + 2 * k, 0.65), 1.4, 0.9, "round,pad=0.08", fc="#dcefe2", ec=GREEN)
        )
        sheet.text(0.85 + 2 * k, 1.1, stop, ha="center", va="center", fontsize=9)
        if k < 4:
            sheet.annotate(
                "", (2.05 + 2 * k, 1.1), (1.68 + 2 * k, 1.1), arrowprops={"arrowstyle": "-|>"}
            )
    return done(figure)


def bike_boxes() -> bytes:
    """Draw six months of nightly boxes."""
    figure, chart = axes(7, 3.2)
    months = ["Apr", "May", "Jun", "Jul", "Aug", "Sep"]
    chart.plot(months, [92, 148, 205, 236, 228, 311], marker="o", color=GREEN, linewidth=2.5)
    chart.axhline(240, color=RED, linestyle=":")
    chart.text(0, 246, "break-even: 240 boxes", color=RED)
    chart.set(ylim=(0, 350), ylabel="Boxes per night, monthly mean")
    return done(figure)


def bike_cost() -> bytes:
    """Draw the cost of a box against the number of boxes, by van and by bike."""
    figure, chart = axes(6, 2.5)
    boxes = np.linspace(80, 400, 100)
    chart.plot(boxes, 1.9 + 400 / boxes, color=GREEN, label="Cargo bike", linewidth=2)
    chart.plot(boxes, 2.9 + 160 / boxes, color=GREY, label="Van", linewidth=2)
    chart.axvline(240, color=RED, linestyle=":")
    chart.set(xlabel="Boxes per night", ylabel="Crowns per box", ylim=(0, 7))
    chart.legend(frameon=False)
    return done(figure)


def tricycle() -> bytes:
    """Draw a three-wheeled cargo bike from the side."""
    figure, sheet = drawing(4.6, 2.3)
    sheet.axhline(0.35, color=GREY)
    for x in (2, 6.6):
        sheet.add_patch(Circle((x, 1.25), 0.9, fill=False, linewidth=3, color=INK))
        sheet.add_patch(Circle((x, 1.25), 0.12, color=INK))
    sheet.add_patch(Rectangle((4.9, 1.5), 3.9, 2.4, color=GREEN))
    sheet.text(6.85, 2.7, "NIGHT BOX", color="white", ha="center", va="center", fontsize=11)
    sheet.plot([2, 2.5, 4.6, 4.9], [1.25, 3.2, 2.6, 2.0], color=RED, linewidth=4)
    sheet.plot([2.5, 2.1], [3.2, 3.7], color=INK, linewidth=3)
    sheet.plot([4.0, 4.0], [2.7, 3.6], color=INK, linewidth=3)
    sheet.add_patch(Ellipse((4.0, 3.65), 0.9, 0.25, color=INK))
    return done(figure)


def bee() -> bytes:
    """Draw a bee at a hollow twig."""
    figure, sheet = drawing(4, 2)
    sheet.add_patch(Rectangle((6.2, 1.3), 3.8, 1.5, color="#a47c52"))
    sheet.add_patch(Ellipse((6.2, 2.05), 0.7, 1.5, color="#4f3722"))
    for x in (2.7, 3.5):
        sheet.add_patch(Ellipse((x, 3.3), 1.0, 1.9, angle=-25, color="#cfdde8"))
    sheet.add_patch(Ellipse((2.9, 2.2), 2.6, 1.3, color="#c77b2b"))
    for x in (2.2, 2.8, 3.4):
        sheet.add_patch(Rectangle((x, 1.72), 0.22, 0.98, color="#3c2a1c"))
    sheet.add_patch(Circle((4.4, 2.3), 0.55, color="#3c2a1c"))
    sheet.plot([4.6, 5.3], [2.7, 3.2], color="#3c2a1c")
    sheet.plot([4.8, 5.5], [2.5, 2.7], color="#3c2a1c")
    return done(figure)


def crossword() -> bytes:
    """Draw a small crossword with one word across and three down."""
    figure, sheet = drawing(2.4, 2.4)
    numbers = {(0, 0): "1", (2, 0): "2", (4, 0): "3"}
    for column in range(5):
        for row in range(4):
            is_open = row == 0 or column % 2 == 0
            box = (1 + 1.6 * column, 7.4 - 1.6 * row)
            sheet.add_patch(Rectangle(box, 1.6, 1.6, fc="white" if is_open else INK, ec=INK))
            if (column, row) in numbers:
                sheet.text(box[0] + 0.12, box[1] + 1.0, numbers[column, row], fontsize=7)
    return done(figure)
