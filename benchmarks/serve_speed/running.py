"""A server in a process of its own, as a person starts it, and what its processes hold.

index -> ``mmsearch serve`` on a free port of loopback -> Server -> SIGTERM, drained
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MMSEARCH = (sys.executable, "-m", "mmsearch")
_START_S = 120.0
_END_S = 60.0
_LISTENING = re.compile(r"listening at http://([\d.]+):(\d+)")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs; ``ready_s`` is from the start of its process to the model in memory."""

    host: str
    port: int
    pid: int
    ready_s: float
    log: Path

    def memory_mib(self) -> float:
        """Resident memory of the server and its workers; pages that they share count once each."""
        return sum(_resident_mib(pid) for pid in _family(self.pid))

    def largest_worker_mib(self) -> float:
        """Resident memory of its largest worker, 0 while it has none.

        How many there are comes and goes with what is indexed.
        """
        workers = [pid for pid in _family(self.pid) if pid != self.pid]
        return max(map(_resident_mib, workers), default=0.0)

    def own_memory_mib(self) -> float:
        """Resident memory of the server's own process."""
        return _resident_mib(self.pid)

    def processor_s(self) -> float:
        """Processor time of the server's own process, all its threads, since it began."""
        after_name = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")

    def num_descriptors(self) -> int:
        """How many files and sockets the server has open."""
        with contextlib.suppress(OSError):
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        return 0

    def num_processes(self) -> int:
        """The server and its workers."""
        return len(_family(self.pid))

    def is_alive(self) -> bool:
        """Whether its process runs."""
        return _resident_mib(self.pid) > 0


@contextlib.contextmanager
def running(command: Sequence[str]) -> Iterator[Server]:
    """Run a server for as long as the block lasts; it begins once the model is in memory.

    The server is told to stop at the end, and RuntimeError says so where it does not end
    with 0.
    """
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        began = time.perf_counter()
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        try:
            host, port = _reached(process, log, began)
            ready_s = time.perf_counter() - began
            yield Server(host, port, process.pid, ready_s, log)
        finally:
            said = _ended(process, log)
        if process.returncode:
            raise RuntimeError(f"the server ended with {process.returncode}: {said[-2000:]}")


def serving(db: Path, *options: str) -> tuple[str, ...]:
    """Return the command that serves an index on a free port."""
    return (*MMSEARCH, "serve", "--db", str(db), "--port", "0", *options)


def _reached(process: "subprocess.Popen[bytes]", log: Path, began: float) -> tuple[str, int]:
    """Return where the server listens, once it says that it is ready."""
    while time.perf_counter() < began + _START_S:
        said = log.read_text(errors="replace")
        where = _LISTENING.search(said)
        if where and "ready after" in said:
            return where[1], int(where[2])
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}: {said}")
        time.sleep(0.01)
    raise RuntimeError(f"the server was not ready in {_START_S:.0f} s: {said}")


def _ended(process: "subprocess.Popen[bytes]", log: Path) -> str:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return log.read_text(errors="replace")


def _family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                waiting += map(int, children.read_text().split())
    return found


def _resident_mib(pid: int) -> float:
    with contextlib.suppress(OSError):
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0
    return 0.0
