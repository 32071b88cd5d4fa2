"""What a server is told when it starts: which indexes, where it listens, what it allows.

    command line or a program -> Settings -> make_app, serve

Frozen, and without any import of the server's libraries, so that the command line can make
one before it knows whether they are installed.
"""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.errors import BadSetting

if TYPE_CHECKING:
    from mmsearch.retriever.seams import Embedder

DEFAULT_PORT = 7700


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one request, and all of them together, may take.

    max_body_bytes:  of one request, all its uploads together
    max_parts:       parts of one input (texts, pictures, films), and of one multipart form
    max_inputs:      inputs of one call of /v1/embeddings
    max_media:       pictures and films of one request
    max_text_chars:  characters of one text
    max_json_depth:  brackets inside brackets
    queue:           requests that may be at work or wait; beyond it they get 429
    threads:         requests that are worked on side by side
    cache_bytes:     vectors that are remembered
    head_timeout_s:  for a client to send its headers, and between two requests
    body_timeout_s:  for a client to send its body
    drain_s:         for requests at work to finish once the server is told to stop
    """

    max_body_bytes: int = 64 * 2**20
    max_parts: int = 64
    max_inputs: int = 2048
    max_media: int = 16
    max_text_chars: int = 200_000
    max_json_depth: int = 32
    queue: int = 256
    threads: int = 32
    cache_bytes: int = 64 * 2**20
    head_timeout_s: float = 15.0
    body_timeout_s: float = 60.0
    drain_s: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server is and allows.

    dbs:       folders of indexes; the first answers where a request names none
    host, port: where it listens; port 0 takes a free one
    api_keys:  any of them opens the door; none needs no key, on loopback only
    roots:     folders whose files may be indexed, and asked with by path; by default none
    model:     name, folder or an embedder; by default what each index was made with
    latency_ms: how long a text may wait for others to be embedded with it, where others come
    allow_url_fetch: fetch pictures from http(s) addresses that requests name
    """

    dbs: tuple[Path, ...] = (Path(".mmsearch"),)
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    api_keys: frozenset[str] = frozenset()
    roots: tuple[Path, ...] = ()
    model: "str | Path | Embedder | None" = None
    device: str = "auto"
    dtype: str = "auto"
    allow_url_fetch: bool = False
    latency_ms: float = 5.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.dbs:
            raise ValueError("a server needs an index")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    def check_exposure(self) -> None:
        """Raise BadSetting for an address beyond this machine without a key."""
        if not self.is_loopback and not self.api_keys:
            raise BadSetting(
                f"--host {self.host}",
                "others could reach it, and there is no key",
                hint="--api-key-file FILE, with a key on each line, or --host 127.0.0.1",
            )


def read_api_keys(path: Path) -> frozenset[str]:
    """Return the keys of a file, one a line; empty lines and those that begin with # are none.

    Raises BadSetting for a file that cannot be read, holds no key, or holds a short one.
    """
    asked = f"--api-key-file {path}"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise BadSetting(asked, reason.lower()) from None
    keys = frozenset(
        line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")
    )
    advice = f"python -c 'import secrets; print(secrets.token_urlsafe(32))' > {path}"
    if not keys:
        raise BadSetting(asked, "there is no key in it", hint=advice)
    if min(map(len, keys)) < LEAST_KEY_CHARS:
        raise BadSetting(asked, f"a key is shorter than {LEAST_KEY_CHARS} characters", hint=advice)
    return keys


LEAST_KEY_CHARS = 16  # of which none is guessed over a network
