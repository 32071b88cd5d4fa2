"""Where a server can be reached: a TCP address, and a unix socket in the folder of each index.

    host, port -> tcp_listener -> a bound socket
    folder of an index -> folder_listener -> <folder>/serve.sock, or why not

The socket in the folder is for whoever owns the index (mode 0600), and is how a command on the
same machine finds a server that already has the model in memory. One that was left behind by a
server that died is taken over; one that answers is not.
"""

import contextlib
import errno
import fcntl
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from mmsearch.errors import BadSetting
from mmsearch.serving.client import SOCKET_NAME as SOCKET_NAME

_MOST_ADDRESS_BYTES = 107  # of sockaddr_un, less its final zero
_PROBE_S = 1.0


def tcp_listener(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address; port 0 takes a free one.

    Raises BadSetting where the address is none, or taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise BadSetting(f"--host {host}", "there is no such address on this machine") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise BadSetting(
                f"--port {port}", "another program listens there", hint="--port 0 takes a free one"
            ) from None
        reason = (error.strerror or "it cannot be listened to").lower()
        raise BadSetting(f"--host {host} --port {port}", reason) from None
    return listener


@dataclass(frozen=True, slots=True, eq=False)
class FolderListener:
    """A bound socket in a folder, and what tells it from one that took its place.

    folder: a descriptor of it, kept open: the address of a socket in a deep folder names that
            number, which would else be given to the next one too
    """

    socket: socket.socket
    path: Path
    inode: int
    folder: int

    def remove(self) -> None:
        """Take the file away, if it is still this socket's; called once."""
        with contextlib.suppress(OSError):
            if self.path.lstat().st_ino == self.inode:
                self.path.unlink()
        os.close(self.folder)


def folder_listener(folder: Path) -> FolderListener | str:
    """Return a socket bound in ``folder``, which only this user may connect to.

    Where there can be none, a sentence says why: another server has it, or the folder cannot
    be written to.
    """
    path = folder / SOCKET_NAME
    with contextlib.ExitStack() as failed:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            failed.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # one server at a time looks and binds
            address = str(folder.absolute() / SOCKET_NAME)
            if len(os.fsencode(address)) > _MOST_ADDRESS_BYTES:
                address = f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
            if _is_answered(address):
                return f"another server already answers at {path}"
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            listener = failed.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listener.bind(address)
            path.chmod(0o600)  # before anybody can connect, which needs listen()
            inode = path.lstat().st_ino
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        except OSError as error:
            return f"no socket at {path}: {(error.strerror or str(error)).lower()}"
        failed.pop_all()
        return FolderListener(listener, path, inode, descriptor)


def _is_answered(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(address)
        except TimeoutError:
            return True  # its queue is full: somebody listens
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True
