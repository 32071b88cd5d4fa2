"""Charts as pictures of their own, as people paste them into folders. Invented figures."""

import numpy as np
from figures import axes, done
from materials import BLUE, FILES, GREEN, GREY, INK, ORANGE, RED
from matplotlib.figure import Figure

CHARTS = FILES / "images" / "charts"
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def make_charts() -> None:
    """Write ten charts under ``files/images/charts``."""
    CHARTS.mkdir(parents=True, exist_ok=True)
    drawn = {
        "ice-cream-sales-2023.png": _ice_cream(),
        "commute-modes.png": _commute(),
        "household-energy.png": _energy(),
        "climate-tarnbrook.png": _climate(),
        "chart_final_v2.png": _trees(),
        "library-visits-heatmap.png": _library(),
        "reaction-times.png": _reaction(),
        "marathon-histogram.png": _marathon(),
        "plot-07.png": _latency(),
        "languages-spoken.png": _languages(),
    }
    for name, figure in drawn.items():
        (CHARTS / name).write_bytes(done(figure))


def _ice_cream() -> Figure:
    figure, chart = axes(6.4, 4)
    season = np.exp(-(((np.arange(12) - 6.3) / 2.2) ** 2))
    for name, peak, colour in (("Vanilla", 940, ORANGE), ("Pistachio", 560, GREEN)):
        chart.plot(MONTHS, 60 + peak * season, marker="o", color=colour, label=name)
    chart.plot(MONTHS, 80 + 700 * np.roll(season, 1), marker="s", color=RED, label="Strawberry")
    chart.set(title="Ice-cream sales by flavour, 2023", ylabel="Scoops per day")
    chart.legend(frameon=False)
    return figure


def _commute() -> Figure:
    figure, chart = axes(5.2, 4.4)
    ways = ["Bicycle", "Tram", "Car", "On foot", "Bus", "Ferry"]
    chart.pie(
        [34, 24, 19, 13, 8, 2],
        labels=ways,
        autopct="%d%%",
        colors=[GREEN, BLUE, RED, ORANGE, GREY, "#9cc3dd"],
        wedgeprops={"edgecolor": "white"},
        startangle=90,
        pctdistance=0.72,
    )
    chart.set_title("How staff come to work")
    return figure


def _energy() -> Figure:
    figure, chart = axes(6.4, 4)
    years = np.arange(2015, 2025)
    gas = np.linspace(11.5, 4.2, 10)
    power = np.linspace(3.4, 4.1, 10)
    sun = np.array([0, 0, 0, 0.4, 0.9, 1.6, 2.2, 2.9, 3.5, 3.8])
    chart.bar(years, gas, label="Gas", color=GREY)
    chart.bar(years, power, bottom=gas, label="Grid electricity", color=BLUE)
    chart.bar(years, sun, bottom=gas + power, label="Own solar roof", color=ORANGE)
    chart.set(title="Energy used by one household", ylabel="MWh per year", ylim=(0, 19))
    chart.legend(frameon=False, ncols=3, loc="upper center")
    return figure


def _climate() -> Figure:
    figure, chart = axes(6.4, 4)
    rain = [88, 70, 64, 52, 49, 41, 38, 45, 58, 79, 94, 97]
    warmth = [3.1, 3.8, 6.4, 9.2, 12.9, 16.0, 18.2, 17.9, 14.8, 10.9, 6.5, 4.0]
    chart.bar(MONTHS, rain, color="#9cc3dd")
    chart.set(ylabel="Rain, mm", title="Tarnbrook: rain and temperature, mean of 1991-2020")
    other = chart.twinx()
    other.plot(MONTHS, warmth, color=RED, marker="o")
    other.set(ylabel="Temperature, \u00b0C", ylim=(0, 22))
    return figure


def _trees() -> Figure:
    figure, chart = axes(6, 4.2)
    rng = np.random.default_rng(3)
    for name, growth, colour, shape in (("Oak", 0.62, GREEN, "o"), ("Poplar", 1.35, ORANGE, "^")):
        age = rng.uniform(5, 90, 60)
        chart.scatter(
            age,
            growth * age * rng.normal(1, 0.13, 60),
            s=18,
            color=colour,
            marker=shape,
            label=name,
        )
    chart.set(xlabel="Age of tree, years", ylabel="Trunk diameter, cm")
    chart.legend(frameon=False)
    return figure


def _library() -> Figure:
    figure, chart = axes(6.6, 3.4)
    hours = np.arange(9, 21)
    days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
    rng = np.random.default_rng(11)
    base = 30 + 55 * np.exp(-(((hours - 16.5) / 2.2) ** 2))
    visits = base * np.array([0.7, 0.9, 1.0, 0.95, 0.8, 0.5])[:, None]
    visits[5] += 70 * np.exp(-(((hours - 11) / 1.4) ** 2))
    visits += rng.normal(0, 4, visits.shape)
    shown = chart.imshow(visits, cmap="YlOrRd", aspect="auto")
    chart.set(xticks=range(12), yticks=range(6), title="Library visits by weekday and hour")
    chart.set_xticklabels(hours)
    chart.set_yticklabels(days)
    figure.colorbar(shown, label="Visitors per hour")
    return figure


def _reaction() -> Figure:
    figure, chart = axes(5.6, 4)
    rng = np.random.default_rng(8)
    times = [rng.normal(m, 26, 80) for m in (312, 281, 268, 274)]
    boxes = chart.boxplot(times, patch_artist=True, medianprops={"color": INK})
    for box, colour in zip(boxes["boxes"], (GREY, ORANGE, ORANGE, RED), strict=True):
        box.set_facecolor(colour)
    chart.set_xticklabels(["none", "1 cup", "2 cups", "4 cups"])
    chart.set(title="Reaction time after coffee", ylabel="Milliseconds")
    return figure


def _marathon() -> Figure:
    figure, chart = axes(6.4, 3.8)
    rng = np.random.default_rng(42)
    times = np.concatenate([rng.normal(4.25, 0.6, 5200), rng.normal(3.97, 0.025, 320)])
    chart.hist(times, bins=np.arange(2.3, 6.6, 1 / 30), color=BLUE)
    for hour in (3, 4, 5):
        chart.axvline(hour, color=RED, linewidth=0.7, linestyle="--")
    chart.set(xlabel="Finishing time, hours", ylabel="Runners", title="Harbour marathon 2024")
    return figure


def _latency() -> Figure:
    figure, chart = axes(6.4, 3.8)
    load = np.array([50, 100, 200, 400, 800, 1200, 1600])
    for name, floor, colour in (("p50", 8, GREEN), ("p95", 21, ORANGE), ("p99", 60, RED)):
        chart.plot(load, floor * (1 + (load / 1150) ** 4), marker="o", color=colour, label=name)
    chart.set(yscale="log", xlabel="Requests per second", ylabel="Latency, ms (log scale)")
    chart.grid(visible=True, which="both", alpha=0.25)
    chart.legend(frameon=False)
    return figure


def _languages() -> Figure:
    figure, chart = axes(6, 3.8)
    names = ["Tigrinya", "Ukrainian", "Polish", "Turkish", "Portuguese", "Arabic"]
    chart.barh(names, [14, 23, 31, 46, 58, 72], color=BLUE)
    chart.set(title="Languages spoken at home, Mill Meadow school", xlabel="Pupils")
    return figure
