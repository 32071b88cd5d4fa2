"""The command line within this process: what it wrote, and how it ended."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from mmsearch.cli import main as command_line


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What a command says that tells of each thing as a line of JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``mmsearch`` with these words."""

    def run(*words: str) -> Done:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["mmsearch", *words])
        code: Any = 0
        try:
            command_line.main()
        except SystemExit as exit_:
            code = exit_.code or 0
        return Done(int(code), *capsys.readouterr())

    return run
