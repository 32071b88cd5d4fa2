"""A model hub: what it has, and its bytes. Nothing else of ours opens a connection.

    Hub(name).listing(repository, revision)  -> the commit, its files, their sizes and hashes
    Hub(name).fetch(listing, file, target)   -> the file on disk, whole and checked

huggingface_hub says where things are and who asks. It downloads whole files too, but
drops what has come when a process ends; weights of gigabytes are worth going on with, so
the bytes are taken here, by range.
"""

import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mmsearch.errors import DownloadFailed

log = logging.getLogger(__name__)

_TIMEOUT_S = 30.0  # without a byte
_WAITS_S = (1.0, 2.0, 4.0, 8.0)  # before the next try, as long as nothing comes
_TRANSIENT = (408, 429, 500, 502, 503, 504)
_BLOCK = 2**20
_SET = {"1", "on", "yes", "true"}
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_ELSEWHERE = (
    "or pull it on another machine and name the copied folder (--model DIR), "
    "or name a mirror (HF_ENDPOINT=https://...)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file of a repository.

    sha256: of its content, where the hub states it (large files)
    git_id: SHA-1 that git names its content by, where it does not
    """

    name: str
    size: int
    sha256: str = ""
    git_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a repository holds at one commit."""

    repository: str
    commit: str
    files: tuple[HubFile, ...]


class Hub:
    """The hub that HF_ENDPOINT names, asked on behalf of ``name``.

    Every failure is a DownloadFailed that says what to do about it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
        if self._endpoint and not self._endpoint.startswith(("http://", "https://")):
            raise self._failed(
                f"HF_ENDPOINT is {self._endpoint!r}, which is no address", "HF_ENDPOINT=https://..."
            )
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in _SET:
            raise self._failed("HF_HUB_OFFLINE is set", f"unset HF_HUB_OFFLINE, {_ELSEWHERE}")

    def listing(self, repository: str, revision: str) -> Listing:
        """Return what ``repository`` holds at ``revision``, a branch, a tag or a commit."""
        hub = _huggingface_hub()
        api = hub.HfApi(endpoint=self._endpoint, library_name="mmsearch")
        try:
            found = api.model_info(
                repository, revision=revision, files_metadata=True, timeout=_TIMEOUT_S
            )
            files = tuple(_file(one) for one in found.siblings)
            commit = found.sha
        except hub.errors.RevisionNotFoundError:
            raise self._failed(
                f"{repository} has no revision {revision!r}",
                f"mmsearch model pull {repository} takes its newest; "
                "a commit is named with all its 40 digits",
            ) from None
        except Exception as error:
            raise self._explained(error) from None
        if not commit:
            raise self._no_hub()
        return Listing(repository=repository, commit=commit, files=files)

    def fetch(
        self,
        listing: Listing,
        file: HubFile,
        target: Path,
        *,
        on_bytes: Callable[[int, int], object],
    ) -> str:
        """Make ``target`` the whole ``file`` and return its SHA-256, 64 hex digits.

        What ``target`` holds already is taken as its beginning. ``on_bytes(have, came)`` is
        told how many bytes of it there are, and how many of them just came. A connection
        that breaks is taken up again; what then is not the file that the hub describes is
        deleted, so that the next try begins anew.
        """
        sums = _Sums(file)
        try:
            with target.open("ab+") as out:
                left = sums.read(out)
                self._take_all(listing, file, out, sums, on_bytes)
                if left and not sums.match:  # an earlier run left something else
                    sums.restart(out)
                    self._take_all(listing, file, out, sums, on_bytes)
                os.fsync(out.fileno())
        except (_http_error(), OSError) as error:
            raise self._explained(error) from None
        if not sums.match:
            target.unlink()
            raise self._failed(
                f"{file.name} is not the file that the hub describes: its size or its hash differs",
                f"mmsearch model pull {self._name} fetches it anew",
            )
        return sums.sha256

    def _take_all(
        self,
        listing: Listing,
        file: HubFile,
        out: BinaryIO,
        sums: "_Sums",
        on_bytes: Callable[[int, int], object],
    ) -> None:
        """Append the rest of ``file``, in as many answers as it takes while something comes."""
        on_bytes(sums.size, 0)
        waits = list(_WAITS_S)
        while sums.size < file.size:
            before = sums.size
            try:
                self._take(listing, file, out, sums, on_bytes)
                if sums.size <= before:
                    return  # a whole answer, and not one byte of the rest
            except _http_error() as error:
                log.info("%s: %s; at byte %d", file.name, error, sums.size)
                if sums.size > before:
                    waits = list(_WAITS_S)
                elif waits and _is_transient(error):
                    time.sleep(waits.pop(0))
                else:
                    raise

    def _take(
        self,
        listing: Listing,
        file: HubFile,
        out: BinaryIO,
        sums: "_Sums",
        on_bytes: Callable[[int, int], object],
    ) -> None:
        """Append what one answer of the hub holds of the rest of ``file``."""
        hub = _huggingface_hub()
        url = hub.hf_hub_url(
            listing.repository, file.name, revision=listing.commit, endpoint=self._endpoint
        )
        headers = hub.utils.build_hf_headers(library_name="mmsearch")
        headers["accept-encoding"] = "identity"  # ranges count the bytes of the file itself
        if sums.size:
            headers["range"] = f"bytes={sums.size}-"
        session = hub.utils.get_session()
        with session.stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as answer:
            hub.utils.hf_raise_for_status(answer)
            if sums.size and answer.status_code != 206:  # all of it, not the rest
                sums.restart(out)
            for block in answer.iter_bytes():  # as it comes: what a cut leaves is kept
                out.write(block)
                sums.update(block)
                on_bytes(sums.size, len(block))
                if sums.size > file.size:
                    break  # not the file that was described, however much may follow
        out.flush()

    # ------------------------------------------------------------ what went wrong

    def _explained(self, error: Exception) -> DownloadFailed:
        """Return what a person can do about ``error``; no token is ever part of it."""
        errors = _huggingface_hub().errors
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, errors.OfflineModeIsEnabled):
            return self._failed("HF_HUB_OFFLINE is set", f"unset HF_HUB_OFFLINE, {_ELSEWHERE}")
        if isinstance(error, errors.HFValidationError):
            return self._failed("it is no name of a repository", "mmsearch model list --all")
        if isinstance(error, errors.GatedRepoError):
            return self._failed(
                "its authors ask who you are before they hand it out",
                "accept their terms on its page, "
                f"then HF_TOKEN=... mmsearch model pull {self._name}",
            )
        if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
            return self._failed(
                "the hub has no such repository, or shows it to its members only",
                "mmsearch model list --all names some; a private one needs HF_TOKEN=...",
            )
        if status in (401, 403):
            return self._failed(
                f"the hub refuses ({status}): no such repository, or it wants another token",
                f"check the name, or HF_TOKEN=... mmsearch model pull {self._name}",
            )
        if status is not None:
            return self._failed(
                f"the hub answers {status}", f"later, mmsearch model pull {self._name} goes on"
            )
        if isinstance(error, _http_error()):
            return self._failed(
                f"{self._host} cannot be reached ({error or type(error).__name__})",
                f"mmsearch model pull {self._name} goes on once there is a network; {_ELSEWHERE}",
            )
        if isinstance(error, OSError):
            return self.not_written(error)
        if isinstance(error, ValueError | TypeError | KeyError | AttributeError):
            return self._no_hub()
        raise error

    def not_written(self, error: OSError) -> DownloadFailed:
        """Return what a person can do where a file cannot be written."""
        if error.errno in _DISK_FULL:
            return self._failed(
                "the disk is full",
                "make room, or MMSEARCH_MODELS=DIR on another disk; then pull it again to go on",
            )
        return self._failed(
            f"{error.filename or 'a file'} cannot be written: {error.strerror or error}",
            "MMSEARCH_MODELS=DIR names another place for models",
        )

    def _no_hub(self) -> DownloadFailed:
        reason = f"what answers at {self._host} is not a model hub"
        return self._failed(reason, "sign in to the network, or mend HF_ENDPOINT")

    @property
    def _host(self) -> str:
        return self._endpoint or str(_huggingface_hub().constants.ENDPOINT)

    def _failed(self, reason: str, hint: str) -> DownloadFailed:
        return DownloadFailed(self._name, reason, hint=hint)


class _Sums:
    """Counts and hashes a file as it comes."""

    def __init__(self, file: HubFile) -> None:
        self._file = file
        self._begin()

    def _begin(self) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()
        # What git hashes: the length goes before the content.
        self._git = hashlib.sha1(b"blob %d\0" % self._file.size, usedforsecurity=False)

    def update(self, block: bytes) -> None:
        self.size += len(block)
        self._sha256.update(block)
        if not self._file.sha256:
            self._git.update(block)

    def read(self, out: BinaryIO) -> int:
        """Take in what ``out`` holds; return how many bytes that is."""
        out.seek(0)
        while block := out.read(_BLOCK):
            self.update(block)
        return self.size

    def restart(self, out: BinaryIO) -> None:
        """Forget everything, and empty ``out``."""
        out.truncate(0)
        self._begin()

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def match(self) -> bool:
        """Whether it is the whole file, and that file."""
        if self.size != self._file.size:
            return False
        if self._file.sha256:
            return self.sha256 == self._file.sha256
        return self._git.hexdigest() == self._file.git_id


def _file(sibling: Any) -> HubFile:  # noqa: ANN401 - huggingface_hub's RepoSibling
    lfs = sibling.lfs
    return HubFile(
        name=sibling.rfilename,
        size=int(lfs.size if lfs else sibling.size),
        sha256=lfs.sha256 if lfs else "",
        git_id=sibling.blob_id or "",
    )


def _is_transient(error: Exception) -> bool:
    """Say whether the same request may well succeed in a moment."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status in _TRANSIENT if status is not None else isinstance(error, _http_error())


def _http_error() -> type[Exception]:
    """Return the base of what its transport raises: httpx or httpx2, by its version."""
    return _huggingface_hub().errors.HTTPError


def _huggingface_hub() -> Any:  # noqa: ANN401 - a module of lazy attributes
    """Return the library; imported only when something is pulled."""
    # It would otherwise tell the hub which libraries and which assistant stand around it.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub
    import huggingface_hub.constants
    import huggingface_hub.errors
    import huggingface_hub.utils

    return huggingface_hub
