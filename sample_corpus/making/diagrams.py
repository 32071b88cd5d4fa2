"""Diagrams: boxes and arrows, plans, networks and maps, drawn with matplotlib."""

from figures import axes, done, drawing
from materials import BLUE, FILES, GREEN, GREY, INK, ORANGE, RED
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse, FancyBboxPatch, Polygon, Rectangle

DIAGRAMS = FILES / "images" / "diagrams"


def make_diagrams() -> None:
    """Write eight diagrams under ``files/images/diagrams``."""
    DIAGRAMS.mkdir(parents=True, exist_ok=True)
    drawn = {
        "parcel-returns-flowchart.png": _returns(),
        "library-ground-floor.png": _floor_plan(),
        "office-network.png": _network(),
        "tram-lines.png": _tram(),
        "water-cycle.png": _water_cycle(),
        "database-tables.png": _database(),
        "house-project-gantt.png": _gantt(),
        "family-tree-calder.png": _family(),
    }
    for name, figure in drawn.items():
        (DIAGRAMS / name).write_bytes(done(figure))


def _box(sheet: Axes, x: float, y: float, text: str, colour: str, width: float = 2.2) -> None:
    shape = FancyBboxPatch(
        (x - width / 2, y - 0.4), width, 0.8, "round,pad=0.06", fc=colour, ec=INK
    )
    shape.set_zorder(3)  # above the lines that join the boxes
    sheet.add_patch(shape)
    sheet.text(x, y, text, ha="center", va="center", fontsize=8, zorder=4)


def _arrow(sheet: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    sheet.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK})


def _returns() -> Figure:
    figure, sheet = drawing(6, 5.4)
    _box(sheet, 3, 8.4, "Parcel comes back", "#dce8f2")
    _box(sheet, 3, 4.6, "Check the contents", "#dce8f2")
    for y, question in ((6.5, "Within\n30 days?"), (2.6, "Undamaged?")):
        sheet.add_patch(
            Polygon([(3, y + 0.9), (4.5, y), (3, y - 0.9), (1.5, y)], fc="#fbeee0", ec=INK)
        )
        sheet.text(3, y, question, ha="center", va="center", fontsize=8)
    _box(sheet, 8, 6.5, "Send it back\nto the customer", "#f3d6d3")
    _box(sheet, 8, 2.6, "Refund half", "#fbeee0")
    _box(sheet, 3, 0.6, "Refund in full", "#dcefe2")
    for start, end in ((8.0, 7.4), (5.6, 5.05), (4.15, 3.5), (1.7, 1.05)):
        _arrow(sheet, (3, start), (3, end))
    for y in (6.5, 2.6):
        _arrow(sheet, (4.5, y), (6.8, y))
        sheet.text(5.4, y + 0.12, "no", fontsize=8)
        sheet.text(3.1, y - 1.15, "yes", fontsize=8)
    return figure


def _floor_plan() -> Figure:
    figure, sheet = drawing(6.4, 4.6)
    rooms = [
        (0.3, 0.4, 4.2, 3.0, "Children's library", "#fbeee0"),
        (4.5, 0.4, 2.0, 1.6, "Entrance", "#e9ecef"),
        (6.5, 0.4, 3.2, 2.4, "Cafe", "#f3d6d3"),
        (0.3, 3.4, 4.2, 3.3, "Reading room", "#dce8f2"),
        (4.5, 2.0, 2.0, 2.8, "Loan desk", "#dcefe2"),
        (6.5, 2.8, 3.2, 2.0, "Newspapers", "#dce8f2"),
        (4.5, 4.8, 2.6, 1.9, "Stairs and lift", "#e9ecef"),
        (7.1, 4.8, 2.6, 1.9, "Toilets", "#e9ecef"),
    ]
    for x, y, width, height, name, colour in rooms:
        sheet.add_patch(Rectangle((x, y), width, height, fc=colour, ec=INK, linewidth=2.5))
        sheet.text(x + width / 2, y + height / 2, name, ha="center", va="center", fontsize=8)
    for x, y, dx, dy in ((5.1, 0.4, 0.8, 0), (4.5, 1.0, 0, 0.7), (6.5, 1.1, 0, 0.7)):
        sheet.plot([x, x + dx], [y, y + dy], color="white", linewidth=4)
    sheet.text(0.3, 6.85, "Ground floor", fontsize=10, weight="bold")
    return figure


def _network() -> Figure:
    figure, sheet = drawing(6.4, 4.2)
    _box(sheet, 5, 5.9, "Internet", "#e9ecef")
    _box(sheet, 5, 4.6, "Firewall", "#f3d6d3")
    _box(sheet, 5, 3.3, "Core switch", "#dce8f2")
    leaves = ["File server", "Printer", "Wi-Fi access point", "Reception PC"]
    for k, name in enumerate(leaves):
        x = 1.3 + 2.45 * k
        _box(sheet, x, 1.5, name, "#dcefe2", width=2.1)
        sheet.plot([5, x], [2.85, 1.95], color=INK, linewidth=1.2)
    sheet.plot([5, 5], [5.45, 5.05], color=INK)
    sheet.plot([5, 5], [4.15, 3.75], color=INK)
    for k, address in enumerate(("10.0.0.5", "10.0.0.9", "10.0.0.20", "10.0.0.31")):
        sheet.text(1.3 + 2.45 * k, 0.75, address, ha="center", fontsize=8, family="monospace")
    return figure


def _tram() -> Figure:
    figure, sheet = drawing(6.6, 4.4)
    lines = [
        (RED, [(0.6, 1.2), (3, 1.2), (5, 3.2), (5, 5.8)], "1"),
        (BLUE, [(0.6, 5.2), (3, 5.2), (5, 3.2), (9.3, 3.2)], "2"),
        (GREEN, [(2, 3.2), (5, 3.2), (7, 1.2), (9.3, 1.2)], "3"),
    ]
    for colour, path, number in lines:
        sheet.plot(*zip(*path, strict=True), color=colour, linewidth=6, solid_joinstyle="round")
        sheet.text(*path[0], number, color="white", weight="bold", ha="center", va="center",
                   bbox={"boxstyle": "round", "fc": colour, "ec": colour})  # fmt: skip
    stops = [
        (1.5, 1.2, "Fish Market"), (3, 1.2, "Customs House"), (5, 3.2, "Central Square"),
        (5, 4.6, "Hospital"), (5, 5.8, "Hillcrest"), (1.9, 5.2, "University"), (3, 5.2, "Museum"),
        (7, 3.2, "Stadium"), (9.1, 3.2, "Airport"), (3, 3.2, "Zoo"), (7, 1.2, "Stane Weir"),
        (9.1, 1.2, "Aldermoor"),
    ]  # fmt: skip
    beside = {  # where a name below the stop would lie on a line
        "Hospital": (0.3, -0.08, "left"),
        "Hillcrest": (0.3, -0.08, "left"),
        "Central Square": (0.2, 0.22, "left"),
        "Museum": (0, 0.28, "center"),
    }
    for x, y, name in stops:
        sheet.add_patch(Circle((x, y), 0.15, fc="white", ec=INK, zorder=4))
        dx, dy, side = beside.get(name, (0, -0.48, "center"))
        sheet.text(x + dx, y + dy, name, fontsize=7.5, ha=side)
    return figure


def _water_cycle() -> Figure:
    figure, sheet = drawing(6.4, 4.2)
    sheet.add_patch(Rectangle((0, 0), 10, 6.6, color="#eaf4fb"))
    sheet.add_patch(Polygon([(0, 0), (0, 2), (2.2, 4.8), (4.4, 1.4), (5, 0)], color="#9fb98f"))
    sheet.add_patch(Polygon([(1.5, 3.9), (2.2, 4.8), (2.8, 3.85)], color="white"))
    sheet.add_patch(Rectangle((4.4, 0), 5.6, 1.3, color="#6aa5cf"))
    sheet.add_patch(Circle((9, 5.8), 0.5, color="#f2c14e"))
    for x in (3.4, 4.0, 4.6):
        sheet.add_patch(Ellipse((x, 5.7), 1.3, 0.8, color="#b9c6d0"))
    sheet.text(7, 0.5, "Sea", color="white", fontsize=10)
    for start, end, name, at in (
        ((8, 1.5), (7.6, 4.6), "Evaporation", (8.0, 3.0)),
        ((6.9, 5.4), (5.4, 5.7), "Condensation", (5.6, 4.9)),
        ((3.6, 5.2), (3.0, 4.0), "Precipitation", (3.6, 4.4)),
        ((3.4, 2.6), (4.5, 1.3), "Runoff", (4.3, 2.1)),
        ((1.4, 2.2), (2.4, 0.7), "Groundwater", (0.3, 0.9)),
    ):
        _arrow(sheet, start, end)
        sheet.text(*at, name, fontsize=9)
    return figure


def _database() -> Figure:
    figure, sheet = drawing(6.4, 3.9)
    tables = [
        (0.3, "customer", ["id  PK", "name", "email", "created_at"]),
        (3.8, "order", ["id  PK", "customer_id  FK", "total_cents", "paid_at"]),
        (7.2, "order_line", ["order_id  FK", "sku", "quantity", "unit_price"]),
    ]
    for x, name, columns in tables:
        sheet.add_patch(Rectangle((x, 1.2), 2.5, 3.6, fc="white", ec=INK))
        sheet.add_patch(Rectangle((x, 4.1), 2.5, 0.7, fc=BLUE, ec=INK))
        sheet.text(x + 0.15, 4.3, name, color="white", weight="bold", fontsize=9)
        for k, column in enumerate(columns):
            sheet.text(x + 0.15, 3.55 - 0.68 * k, column, fontsize=8, family="monospace")
    for left, right in ((2.8, 3.8), (6.3, 7.2)):
        sheet.plot([left, right], [3.0, 3.0], color=INK)
        sheet.text(left + 0.1, 3.1, "1", fontsize=8)
        sheet.text(right - 0.3, 3.1, "n", fontsize=8)
    return figure


def _gantt() -> Figure:
    figure, chart = axes(6.6, 3.4)
    steps = [
        ("Foundations", 0, 3, GREY), ("Walls", 3, 5, RED), ("Roof", 7, 3, ORANGE),
        ("Windows", 9, 2, BLUE), ("Wiring", 10, 3, GREEN), ("Plaster", 12, 3, GREY),
        ("Move in", 16, 1, INK),
    ]  # fmt: skip
    for k, (_, start, weeks, colour) in enumerate(steps):
        chart.barh(len(steps) - k, weeks, left=start, color=colour, height=0.6)
    chart.set(yticks=range(len(steps), 0, -1), xlabel="Week", xticks=range(0, 18, 2))
    chart.set_yticklabels([name for name, *_ in steps])
    chart.set_title("Building the house")
    return figure


def _family() -> Figure:
    figure, sheet = drawing(6.4, 4)
    people = {
        "Harold 1911-1990": (3.2, 5.4), "Edith 1914-2001": (6.8, 5.4),
        "John b. 1938": (1.8, 3.3), "Alice b. 1941": (5, 3.3), "Peter b. 1946": (8.2, 3.3),
        "Ruth b. 1968": (3.6, 1.2), "Simon b. 1971": (6.4, 1.2),
    }  # fmt: skip
    sheet.plot([3.2, 6.8], [5.4, 5.4], color=INK)
    sheet.plot([5, 5], [5.4, 4.4], color=INK)
    sheet.plot([1.8, 8.2], [4.4, 4.4], color=INK)
    for x in (1.8, 5, 8.2):
        sheet.plot([x, x], [4.4, 3.3], color=INK)
    sheet.plot([5, 5], [3.3, 2.3], color=INK)
    sheet.plot([3.6, 6.4], [2.3, 2.3], color=INK)
    for x in (3.6, 6.4):
        sheet.plot([x, x], [2.3, 1.2], color=INK)
    for name, (x, y) in people.items():
        _box(sheet, x, y, name, "#f4ead2", width=2.5)
    return figure
