"""``mmsearch index --watch``: a line for each change, until somebody ends it."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest


def heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are born deaf


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_each_change_is_a_line_of_json_and_ending_it_is_exit_code_0(
    tmp_path: Path, ending: signal.Signals
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.md").write_text("The pump was replaced in June.")
    watching = subprocess.Popen(
        [sys.executable, "-m", "mmsearch", "index", "docs", "--watch", "--no-ocr"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )

    def line() -> Any:
        assert watching.stdout
        return json.loads(watching.stdout.readline())

    assert line()["documents"] == 1
    (docs / "b.md").write_text("The museum is closed on Mondays.")
    assert line()["documents"] == 1
    (docs / "a.md").unlink()
    assert line()["removed"] == 1
    watching.send_signal(ending)
    rest, said = watching.communicate()

    assert (watching.returncode, rest) == (0, "")
    assert said.splitlines()[-1] == "stopped: what was finished is kept"
    assert not [one for one in psutil.process_iter(["ppid"]) if one.info["ppid"] == watching.pid]


def test_a_typing_error_leaves_no_index_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mmsearch", "index", "dosc", "--watch"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert "nothing to index at dosc" in done.stderr
    assert list(tmp_path.iterdir()) == []
