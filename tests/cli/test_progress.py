"""How far a command is: a bar for a person, a line now and then for a log."""

import io

import pytest

from mmsearch.cli import progress
from mmsearch.cli.progress import Listener
from mmsearch.indexers.report import Progress

HALF = Progress(
    stage="embed",
    documents=3,
    num_documents=6,
    segments=30,
    failed=0,
    elapsed_s=10.0,
    path="/docs/[red]\x1b[2Jname.pdf",
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    return terminal


def test_a_person_sees_stage_count_pace_and_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = a_terminal(monkeypatch)
    with Listener("load") as listener:
        listener.indexing(HALF)

    shown = terminal.getvalue()
    for part in ("embed", "3 of 6", "30 segments, 3.0/s, 10.0 s left", "[red]\\x1b[2Jname.pdf"):
        assert part in shown


def test_a_note_stays_above_the_bar_and_the_bar_comes_back_after_a_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = a_terminal(monkeypatch)
    with Listener("load") as listener:
        listener.indexing(HALF)
        listener.note("waiting for [another]")
        listener.rest()
        before = terminal.tell()
        listener.indexing(HALF)
        listener.rest()

        assert "waiting for [another]\n" in terminal.getvalue().replace("\r", "")
        assert "3 of 6" in terminal.getvalue()[before:]


def test_a_log_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Listener("load") as listener:
        listener.indexing(HALF)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(progress, "_SAY_EVERY_S", -1.0)
        listener.indexing(HALF)
        said = capsys.readouterr().err

    assert said == "embed: 3/6 documents, 30 segments, 3.0/s  /docs/[red]\\x1b[2Jname.pdf\n"


def test_one_that_is_not_shown_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Listener("load", is_shown=False) as listener:
        listener.indexing(HALF)
        listener.note("waiting")

    assert capsys.readouterr().err == ""
