"""What drawings are about: things to count, measures of them, processes, wholes and parts.

    subject(chance)   -> Subject, a measure of named things
    over_time(chance) -> Subject, a measure of years, months or hours

The words are common ones and stand in ``subjects.toml``; numbers are made up elsewhere.
"""

import random
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WORDS: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())

FAMILIES: list[dict[str, Any]] = _WORDS["families"]
OVER_TIME: list[str] = _WORDS["over_time"]
PLACES: list[str] = _WORDS["places"]
SERIES: list[list[str]] = _WORDS["series"]
RELATED: list[list[str]] = _WORDS["related"]
MEASURED: list[str] = _WORDS["measured"]
OVERLAPS: list[list[str]] = _WORDS["overlaps"]
PROCESSES: list[tuple[str, list[str]]] = list(_WORDS["processes"].items())
HIERARCHIES: list[tuple[str, list[str]]] = list(_WORDS["hierarchies"].items())
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
TIMES = ("year", "month", "day", "week", "hour", "trial")


@dataclass(frozen=True, slots=True)
class Subject:
    """A measure, its unit and range, and the named things it is of.

    ``members`` are in the order of time where ``ordered``.
    """

    measure: str
    unit: str
    low: float
    high: float
    noun: str
    plural: str
    members: tuple[str, ...]
    ordered: bool

    @property
    def label(self) -> str:
        """What stands beside the axis: ``Sales (kilograms)``."""
        name = self.measure[:1].upper() + self.measure[1:]
        return name if self.unit in self.measure else f"{name} ({self.unit})"


ORDERED = ("month", "weekday", "quarter", "age group", "education level")


def subject(chance: random.Random, *, most: int = 8, least: int = 3) -> Subject:
    """Return a measure of ``least`` to ``most`` named things."""
    family = chance.choice(FAMILIES)
    noun, plural, names = family["noun"], family["plural"], family["members"]
    measure, unit, low, high = _measure(chance.choice(family["measures"]))
    count = min(chance.randint(least, most), len(names))
    ordered = noun in ORDERED
    if ordered:
        start = chance.randint(0, len(names) - count)
        chosen = names[start : start + count]
    else:
        chosen = chance.sample(names, count)
    return Subject(measure, unit, low, high, noun, plural, tuple(chosen), ordered)


def over_time(chance: random.Random) -> Subject:
    """Return a measure of years, months or hours one after the other."""
    measure, unit, low, high = _measure(chance.choice(OVER_TIME))
    measure = measure.format(
        place=chance.choice(PLACES),
        company=chance.choice(("Acme", "Globex", "Vertex", "Polaris")),
        product=chance.choice(("phones", "laptops", "bicycles", "books", "solar panels")),
    )
    count = chance.randint(5, 12)
    kind = chance.random()
    if kind < 0.7:
        step = chance.choice((1, 1, 2, 5, 10))
        last = chance.randint(1985, 2024)
        first = max(last - step * (count - 1), 1850)
        noun, members = "year", tuple(str(first + step * i) for i in range(count))
    elif kind < 0.85:
        noun, members = (
            "month",
            tuple(
                ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
            ),
        )
        members = members[: max(count, 6)]
    else:
        noun = chance.choice(("day", "week", "hour", "trial"))
        members = tuple(str(i) for i in range(1, count + 1))
    return Subject(measure, unit, low, high, noun, noun + "s", members, True)


def _measure(line: str) -> tuple[str, str, float, float]:
    measure, unit, low, high = line.strip().split("|")
    return measure, unit, float(low), float(high)
