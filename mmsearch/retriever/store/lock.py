"""One writer at a time: a lock that dies with the process that holds it."""

import fcntl
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from mmsearch.errors import StoreError, StoreLocked

LOCK_NAME = "write.lock"


class WriteLock:
    """Hold the right to write to the index in ``folder`` for the length of a ``with``.

    The kernel drops an flock when its process ends, however it ends, so a lock file
    left by a killed writer holds nobody up. The JSON in it only names the holder.
    Raises StoreLocked while another writer, in this process or another, is at work.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1

    def __enter__(self) -> None:
        path = self._folder / LOCK_NAME
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            failed = StoreError(f"cannot write to {self._folder}: {error.strerror}")
            failed.hint = "it can be asked as it is; to change it, check permissions and free space"
            raise failed from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(os.pread(descriptor, 4096, 0))
            os.close(descriptor)
            raise StoreLocked(self._folder, holder) from None
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        me = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(me).encode(), 0)
        except OSError:
            pass  # a full disk keeps the name from the next writer, not the lock from us

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The file stays: removing it would let two writers lock two files of one name.
        os.close(self._descriptor)


def _holder(content: bytes) -> str:
    try:
        holder = json.loads(content)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"  # it has locked but not yet said who it is
