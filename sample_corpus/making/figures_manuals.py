"""The drawings of the manuals and the tide tables, in the manner of `figures`."""

import numpy as np
from figures import axes, done, drawing
from materials import BLUE, GREEN, GREY, INK, ORANGE, RED
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle


def _machine(sheet: Axes) -> None:
    """Draw the espresso machine, five units wide, from the front."""
    sheet.add_patch(FancyBboxPatch((2.5, 0.8), 5, 5.6, "round,pad=0.1", fc="#dfe3e6", ec=INK))
    sheet.add_patch(Rectangle((2.9, 4.2), 4.2, 1.9, fc="#b5443c", ec=INK))
    sheet.add_patch(Rectangle((2.9, 6.5), 4.2, 0.3, fc=GREY, ec=INK))
    sheet.add_patch(Circle((3.8, 5.2), 0.55, fc="white", ec=INK))
    sheet.plot([3.8, 4.1], [5.2, 5.5], color=RED, linewidth=2)
    sheet.add_patch(Circle((5.4, 5.2), 0.3, fc="white", ec=INK))
    sheet.add_patch(Rectangle((6.3, 5.0), 0.4, 0.5, fc=GREY, ec=INK))
    sheet.add_patch(Rectangle((4.2, 3.5), 1.6, 0.6, fc=GREY, ec=INK))
    sheet.add_patch(Rectangle((4.4, 3.1), 1.2, 0.4, fc=INK))
    sheet.plot([5.0, 5.0], [3.1, 2.2], color=INK, linewidth=7, solid_capstyle="round")
    sheet.plot([7.1, 7.35, 7.2], [4.1, 3.0, 2.0], color=GREY, linewidth=4)
    sheet.add_patch(Circle((7.9, 4.6), 0.35, fc=INK))
    sheet.add_patch(Rectangle((2.9, 0.9), 4.2, 0.6, fc="white", ec=INK))


def k2_front() -> bytes:
    """Draw the machine alone."""
    figure, sheet = drawing(4.2, 3.1)
    _machine(sheet)
    return done(figure)


def k2_parts() -> bytes:
    """Draw the machine with ten numbered parts."""
    figure, sheet = drawing(5, 3.7)
    _machine(sheet)
    parts = [
        (1, (2.45, 5.6), (0.8, 6.4)),
        (2, (3.4, 6.7), (1.9, 7.1)),
        (3, (3.3, 5.1), (0.8, 5.0)),
        (4, (5.4, 5.5), (5.4, 7.1)),
        (5, (4.2, 3.8), (0.8, 3.7)),
        (6, (4.9, 2.5), (0.8, 2.4)),
        (7, (7.3, 2.4), (9.2, 2.4)),
        (8, (8.2, 4.6), (9.2, 4.6)),
        (9, (2.9, 1.2), (0.8, 1.1)),
        (10, (6.6, 5.3), (9.2, 6.2)),
    ]
    for number, (x, y), (label_x, label_y) in parts:
        sheet.plot([x, label_x], [y, label_y], color=INK, linewidth=0.8)
        sheet.add_patch(Circle((label_x, label_y), 0.32, fc="white", ec=INK, zorder=3))
        sheet.text(label_x, label_y, str(number), ha="center", va="center", fontsize=8, zorder=4)
    return done(figure)


def k2_pressure() -> bytes:
    """Draw the pressure of a double shot over thirty seconds."""
    figure, chart = axes(5.6, 2.3)
    seconds = np.array([0, 1, 5, 6, 8, 10, 20, 26, 28, 30])
    bars = np.array([0, 2, 2.1, 4, 8, 9, 9, 7.6, 3, 0])
    chart.plot(seconds, bars, color=RED, linewidth=2)
    for name, at in (("soak", 3), ("rise", 7), ("plateau", 15), ("fall", 25)):
        chart.text(at, 10, name, ha="center", fontsize=8, color=GREY)
    chart.set(xlabel="Seconds", ylabel="Bar", ylim=(0, 11), xlim=(0, 30))
    return done(figure)


def grind() -> bytes:
    """Draw which setting serves which brew, as ranges."""
    figure, chart = axes(5.6, 2.2)
    rows = [
        ("Cold brew", 29.5, 30.5, BLUE),
        ("French press", 24, 28, GREEN),
        ("Paper filter", 14, 18, ORANGE),
        ("Moka pot", 6, 8, RED),
        ("Espresso", 2, 4, INK),
    ]
    for k, (name, start, end, colour) in enumerate(rows):
        chart.barh(k, end - start, left=start, color=colour, height=0.55)
        chart.text(-0.6, k, name, ha="right", va="center", fontsize=8.5)
    chart.set(xlim=(0, 32), yticks=[], xlabel="Setting on the collar")
    return done(figure)


def tide_curve() -> bytes:
    """Draw a spring and a neap tide over a day."""
    figure, chart = axes(6, 2.9)
    hours = np.linspace(0, 25, 300)
    spring = 2.6 + 2.3 * np.cos(2 * np.pi * (hours - 1) / 12.42)
    neap = 2.6 + 1.0 * np.cos(2 * np.pi * (hours - 6) / 12.42)
    chart.fill_between(hours, 0, 5.2, where=spring > 2.0, color="#e3eef6")
    chart.plot(hours, spring, color=BLUE, label="Spring tide")
    chart.plot(hours, neap, color=ORANGE, label="Neap tide")
    chart.set(xlabel="Hours", ylabel="Metres above datum", xlim=(0, 25), ylim=(0, 5.6))
    chart.legend(frameon=False, ncols=2, loc="upper center")
    return done(figure)
