"""Fetching what a request names by its address, where the server was told that it may.

    http(s) address -> parsed once -> resolved once -> every address checked -> that one connected

Whoever names an address makes this machine open a connection, and this machine may reach what
they cannot: its own services, the network it stands in, the metadata of its cloud. So the host
is resolved here, all its addresses have to be public, and the connection is made to one of these
very addresses: a name that resolves to another one a moment later gains nothing. No redirects,
no proxies, no passwords in addresses, no ports but 80 and 443, no compressed answers; limits on
size and on the time it takes altogether.
"""

import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from mmsearch.errors import BadUpload, NotAllowed, TooLarge

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_BYTES = 32 * 2**20
TIMEOUT_S = 10.0
PORTS = frozenset({80, 443})
_MAX_URL_CHARS = 2_048
_BLOCK_BYTES = 64 * 1024
# What passes for an address: no blanks, no control characters, no backslash, ASCII only. Where
# parsers disagree about a host, one of these is in it.
_URL = re.compile(r"https?://[!#-;=?-\[\]_a-z~%]+", re.IGNORECASE)
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?\.?|[0-9a-f:.]+", re.IGNORECASE)
# Addresses that `ipaddress` calls global and that lead inside nevertheless.
_INSIDE = tuple(
    map(
        ipaddress.ip_network,
        (
            "::/96",  # IPv4 written as IPv6, in the old way
            "::ffff:0:0/96",  # IPv4 mapped
            "::ffff:0:0:0/96",  # IPv4 translated
            "64:ff9b::/96",  # through NAT64 to any IPv4
            "64:ff9b:1::/48",
            "2001::/32",  # Teredo: carries an IPv4
            "2002::/16",  # 6to4: carries an IPv4
            "5f00::/16",  # segment routing
            "fec0::/10",  # site-local
            "192.0.0.0/24",  # of protocols, and of another cloud's metadata
            "168.63.129.16/32",  # a cloud's own services, at a public address
            "192.88.99.0/24",  # relays of 6to4
        ),
    )
)


@dataclass(frozen=True, slots=True)
class _Target:
    """What an address says; ``path`` is what is asked for, with its query."""

    is_tls: bool
    host: str
    port: int
    path: str


def fetch(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    timeout_s: float = TIMEOUT_S,
    ports: frozenset[int] = PORTS,
    is_allowed: "Callable[[IPAddress], bool] | None" = None,
) -> bytes:
    """Return what is at an http or https address.

    timeout_s: for everything together: to resolve, to connect and to receive
    ports, is_allowed: where it may connect to; by default to public addresses alone
    Raises NotAllowed for an address that may not be asked, BadUpload where it does not answer
    with what was asked for, TooLarge. Neither says what the other side said.
    """
    target = _parse(url, ports)
    addresses = _resolve(target, timeout_s)
    check = is_allowed or is_public
    if not addresses or not all(map(check, addresses)):
        raise NotAllowed("the address", "it leads to a place that this server may not reach")
    return _get(target, addresses[0], max_bytes=max_bytes, timeout_s=timeout_s)


def is_public(address: IPAddress) -> bool:
    """Say whether an address is of the public internet, and hides no other one in it."""
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in net for net in _INSIDE if net.version == address.version)
    )


def _parse(url: str, ports: frozenset[int]) -> _Target:
    """Take an address apart; what is not plainly one is refused."""
    refused = BadUpload("the address", "it is not a plain http or https address")
    if len(url) > _MAX_URL_CHARS or not _URL.fullmatch(url):
        raise refused
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise refused from None
    if not host or "@" in parts.netloc or not _HOST.fullmatch(host):
        raise refused
    is_tls = parts.scheme.lower() == "https"
    port = (443 if is_tls else 80) if port is None else port
    if port not in ports:
        raise NotAllowed(
            "the address", f"port {port} is none of {', '.join(map(str, sorted(ports)))}"
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(is_tls, host, port, path)


def _resolve(target: _Target, timeout_s: float) -> list[IPAddress]:
    """Return all addresses of a host; waits no longer than told.

    The system's resolver cannot be told when to stop, so it is left to itself then.
    """
    found: list[IPAddress] = []
    is_done = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError, UnicodeError, ValueError):
            for *_, address in socket.getaddrinfo(
                target.host, target.port, type=socket.SOCK_STREAM
            ):
                found.append(ipaddress.ip_address(address[0]))
        is_done.set()

    threading.Thread(target=ask, name="mmsearch-resolve", daemon=True).start()
    if not is_done.wait(timeout_s) or not found:
        raise BadUpload("the address", "its host cannot be found")
    return list(dict.fromkeys(found))


def _get(target: _Target, address: IPAddress, *, max_bytes: int, timeout_s: float) -> bytes:
    silent = BadUpload("the address", "it did not answer as it should, or not in time")
    connection = _Pinned(target, address, timeout_s)
    # A timeout of a socket begins anew with every byte that drips in: this one does not.
    deadline = threading.Timer(timeout_s, connection.cut)
    deadline.daemon = True
    deadline.start()
    try:
        connection.request("GET", target.path, headers=_HEADERS)
        with connection.getresponse() as response:
            content = _read(response, max_bytes)
    except (OSError, http.client.HTTPException, ValueError):
        raise silent from None
    finally:
        deadline.cancel()
        connection.close()
    if connection.is_cut:  # an answer without a length ends where the connection does
        raise silent
    return content


_HEADERS = {"Accept": "image/*, video/*, application/pdf", "Accept-Encoding": "identity"}


def _read(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    if response.status != 200:
        kind = "redirects elsewhere" if 300 <= response.status < 400 else "has no such thing"
        raise BadUpload("the address", f"it {kind} (status {response.status})")
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise BadUpload("the address", "it answers compressed, though not asked to")
    blocks: list[bytes] = []
    num_bytes = 0
    while block := response.read(_BLOCK_BYTES):
        num_bytes += len(block)
        if num_bytes > max_bytes:
            raise TooLarge("what is at the address", f"{max_bytes / 2**20:g} MiB")
        blocks.append(block)
    if response.length:  # it ended before the length that it had announced
        raise http.client.IncompleteRead(b"")
    return b"".join(blocks)


class _Pinned(http.client.HTTPConnection):
    """A connection to one address, whatever the name of the host leads to by now."""

    def __init__(self, target: _Target, address: IPAddress, timeout_s: float) -> None:
        super().__init__(target.host, target.port, timeout=timeout_s)
        # How `Host` leaves out the port that goes without saying.
        self.default_port = 443 if target.is_tls else 80
        self._is_tls, self._address = target.is_tls, address
        self.is_cut = False
        self._open: socket.socket | None = None  # `sock` is forgotten once the answer begins

    def connect(self) -> None:
        self.sock = socket.create_connection((str(self._address), self.port), self.timeout)
        if self._is_tls:
            context = ssl.create_default_context()
            # Its handshake afterwards, so that `cut` reaches that too.
            self.sock = context.wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False
            )
        self._open = self.sock
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.do_handshake()
        if self.is_cut:
            raise TimeoutError

    def cut(self) -> None:
        """End it from another thread: whoever waits for it gets an OSError or the end."""
        self.is_cut = True
        if self._open is not None:
            with contextlib.suppress(OSError):
                # Not `SSLSocket.shutdown`, which takes away what another thread is using.
                socket.socket.shutdown(self._open, socket.SHUT_RDWR)
