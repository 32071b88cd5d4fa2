"""What is known of earlier runs, for guesses about the next."""

from pathlib import Path

import pytest

from mmsearch.indexers.rates import NAME, Rate, add_rates, read_rates
from mmsearch.values import Kind


def test_later_runs_count_more(tmp_path: Path) -> None:
    add_rates(tmp_path, {Kind.PDF: Rate(documents=4, segments=40, read_s=2.0)})
    add_rates(tmp_path, {Kind.PDF: Rate(documents=1, segments=10, read_s=1.0)})
    add_rates(tmp_path, {Kind.TEXT: Rate(documents=1)})

    rates = read_rates(tmp_path)

    assert rates[Kind.PDF] == Rate(documents=3, segments=30, read_s=2.0)
    assert set(rates) == {Kind.PDF, Kind.TEXT}


def test_a_run_that_did_nothing_adds_nothing(tmp_path: Path) -> None:
    add_rates(tmp_path, {Kind.PDF: Rate()})

    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"version": 2, "kinds": {}}',
        b'{"version": 1, "kinds": {"song": {}}}',
        b'{"version": 1, "kinds": {"pdf": {"speed": 1}}}',
        b'{"version": 1, "kinds": {"pdf": {"read_s": "fast"}}}',
        b'{"version": 1, "kinds": {"pdf": {"read_s": NaN}}}',
    ],
)
def test_a_broken_file_is_as_if_there_were_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)

    assert read_rates(tmp_path) == {}
    add_rates(tmp_path, {Kind.PDF: Rate(documents=1)})
    assert read_rates(tmp_path) == {Kind.PDF: Rate(documents=1)}
