"""``docs/training.md`` says what the code does: its keys, defaults, rows, table and commands."""

import dataclasses
import json
import re
import shlex
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmsearch.retriever.training.config import DataSource, TrainingConfig, read_config
from mmsearch.retriever.training.curriculum import plume_stages
from mmsearch.retriever.training.examples import Example
from mmsearch.retriever.training.records import read_examples
from mmsearch.training import known_configs

HOME = Path(__file__).parents[1]
GUIDE = (HOME / "docs" / "training.md").read_text()
README = (HOME / "README.md").read_text()


def documented_keys() -> dict[str, str]:
    """Return the defaults that the guide tells, by key; "" where it tells none."""
    rows = re.findall(r"^\| `([a-z_.]+)` \|(?: `(.+?)`)? \|", GUIDE, re.MULTILINE)
    return {key: default for key, default in rows if "." in key}


def keys(kind: type[Any], at: str = "") -> Iterator[tuple[str, str]]:
    """Yield every key of a configuration and its default as JSON."""
    hints = typing.get_type_hints(kind)
    for one in dataclasses.fields(kind):
        hint = hints[one.name]
        tables = [of for of in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(of)]
        if tables:
            yield from keys(typing.cast(type[Any], tables[0]), f"{at}{one.name}.")
        elif one.default is not dataclasses.MISSING:
            yield f"{at}{one.name}", json.dumps(one.default)
        elif one.default_factory is not dataclasses.MISSING:
            yield f"{at}{one.name}", json.dumps(one.default_factory())
        else:
            yield f"{at}{one.name}", ""


def block(mark: str) -> str:
    """Return the code that stands behind a mark of the guide."""
    return GUIDE.split(f"<!-- {mark} -->")[1].split("```")[1].partition("\n")[2]


def test_every_key_is_told_with_its_default() -> None:
    assert documented_keys() == dict(keys(TrainingConfig))


def test_the_rows_are_rows(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(block("rows"))
    read = list(read_examples(DataSource(file)))
    assert len(read) == 5
    assert [one for one in read if not isinstance(one, Example)] == []


def test_the_configuration_is_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(block("config"))
    config = read_config(file)
    assert [one.weight for one in config.data.train] == [1.0, 0.5]


def test_the_curriculum_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| (\S+) - (\S+) \| (\d) / (\d) / (\d) \|", GUIDE, re.MULTILINE)
    assert len(rows) == 5
    for column, steps in enumerate((8, 6, 4), start=2):
        stages = plume_stages(steps)
        assert [int(row[column]) for row in rows] == [stage.effort for stage in stages]
        starts = [
            int(top) / int(bottom or 1) for top, _, bottom in (r[0].partition("/") for r in rows)
        ]
        assert starts == pytest.approx([stage.start for stage in stages])


def test_the_commands_have_those_flags_and_configurations() -> None:
    import click
    import typer.main

    from mmsearch.cli.main import app

    commands = typing.cast(click.Group, typer.main.get_command(app)).commands
    ready = {one.name for one in known_configs()}
    seen = []
    for text in (GUIDE, README):
        for line in re.findall(r"mmsearch (?:train|export) (?!\.\.\.)[^\n`(]+", text):
            command, *words = shlex.split(re.split(r" #|   | \[", line)[0])[1:]
            flags = {flag for one in commands[command].params for flag in one.opts}
            assert {word for word in words if word.startswith("--")} <= flags, line
            if command == "train" and not words[0].startswith("--"):
                assert words[0] in ready or words[0].endswith(".toml") or words[0].isupper(), line
            seen.append(command)
    assert {"train", "export"} <= set(seen)
