"""A published model onto this machine, whole or not at all.

list -> make room -> fetch and check each file -> describe -> give the folder its name

Until the last step everything lies in a folder that no name finds; it stays where it is
when a pull ends early, and the next one goes on with it. library.py says where.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mmsearch.errors import (
    BadCheckpoint,
    DownloadFailed,
    ModelError,
    NotPulled,
    ToBeConverted,
)
from mmsearch.retriever.embedding.hub import Hub, HubFile, Listing
from mmsearch.retriever.embedding.library import (
    ModelInfo,
    Source,
    described,
    is_commit,
    model_files,
    model_info,
    models_home,
    parts_folder,
    pulled,
    read_source,
    repository_folder,
    split_name,
)
from mmsearch.retriever.models.description import DESCRIPTION_FILE, TOKENIZER_FILE
from mmsearch.retriever.models.hub_families import BARE
from mmsearch.retriever.models.weight_files import read_json

NEWEST = "main"  # what a hub calls the newest revision
_COMMIT_DIGITS = 40
_LOOK_AGAIN_S = 0.2
_WEIGHTS = ".safetensors"
_PICKLED = (".bin", ("pytorch_model", "model"))  # weights, not what training left beside them
_TOKENIZER = ("merges.txt", "vocab.txt", "tokenizer.model", "spiece.model")
_FOR_PEOPLE = ("readme.md", "model_card.md", "license", "licence", "notice", "copying")


@dataclass(frozen=True, slots=True, kw_only=True)
class PullProgress:
    """How far a pull is.

    file:      what is being fetched; empty while another process pulls the same model
    done:      bytes of the model that are on disk
    num_bytes: bytes of the model
    rate:      bytes that came a second, since this run began
    """

    file: str
    done: int
    num_bytes: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """A folder that is gone, and how many bytes that gave back."""

    path: Path
    size: int


def pull(name: str, *, on_progress: Callable[[PullProgress], object] | None = None) -> ModelInfo:
    """Fetch a model by its short name or as ``OWNER/NAME``, either with ``@REVISION``.

    What is there already is not fetched again, and one commit is asked for from the first
    file to the last. Raises DownloadFailed where it cannot be had whole, ToBeConverted
    where it can but must be converted first, BadCheckpoint where it is no model of a kind
    that is known here.
    """
    repository, revision = split_name(name)
    if not repository:
        reason = "it is neither a known name nor OWNER/NAME"
        raise DownloadFailed(name, reason, hint="mmsearch model list --all")
    if is_commit(revision) and len(revision) == _COMMIT_DIGITS and (found := pulled(name)):
        return _ready(name, found[0][0])
    hub = Hub(name)
    listing = hub.listing(repository, revision or NEWEST)
    folder = repository_folder(repository) / listing.commit
    part = parts_folder(repository) / listing.commit
    try:
        with _alone(repository, on_progress):
            if not folder.is_dir():
                _refuse_unknown(name, listing)
                part.mkdir(parents=True, exist_ok=True)
                hashes = _fetch_all(name, hub, listing, part, on_progress)
                source = Source(
                    repository=repository,
                    revisions=(),
                    commit=listing.commit,
                    pulled_at=time.time(),
                    files={one: sum_ for one, sum_ in hashes.items() if one != DESCRIPTION_FILE},
                )
                source.write(part)
                if not _what_keeps_it(part):
                    _describe(name, part, source)
                folder.parent.mkdir(parents=True, exist_ok=True)
                part.rename(folder)
            _note_revision(folder, revision or NEWEST)
    except OSError as error:
        raise hub.not_written(error) from None
    return _ready(name, folder)


def wanted_files(files: tuple[HubFile, ...]) -> tuple[HubFile, ...]:
    """Return the files that a model is made of, the weights last.

    Weights, configuration, tokenizer, licence and card, from the top folder only: never
    code, and pickles only where the weights are nowhere else.
    """
    plain = [one for one in files if "/" not in one.name and "\\" not in one.name]
    weights = [one for one in plain if one.name.endswith(_WEIGHTS)]
    if not weights:
        end, begin = _PICKLED
        weights = [one for one in plain if one.name.endswith(end) and one.name.startswith(begin)]
    rest = [one for one in plain if _is_wanted(one.name)]
    return (*sorted(rest, key=lambda one: one.name), *sorted(weights, key=lambda one: one.name))


def _is_wanted(name: str) -> bool:
    low = name.lower()
    if low.startswith("."):
        return False
    return (
        low.endswith((".json", ".jinja"))  # what training wrote down tells PLUME's steps
        or low in _TOKENIZER
        or low in _FOR_PEOPLE
        or (low.startswith(("license", "licence", "notice")) and low.endswith((".txt", ".md")))
    )


def _refuse_unknown(name: str, listing: Listing) -> None:
    """Raise DownloadFailed for what is no model, before gigabytes of it have come."""
    names = {one.name for one in wanted_files(listing.files)}
    if not names & {DESCRIPTION_FILE, "config.json"}:
        reason = f"{listing.repository} has neither {DESCRIPTION_FILE} nor config.json"
    elif not any(one.endswith((_WEIGHTS, _PICKLED[0])) for one in names):
        reason = f"{listing.repository} has no weights (*{_WEIGHTS})"
    else:
        return
    raise DownloadFailed(name, reason, hint="mmsearch model list --all")


def _fetch_all(
    name: str,
    hub: Hub,
    listing: Listing,
    part: Path,
    on_progress: Callable[[PullProgress], object] | None,
) -> dict[str, str]:
    """Fetch what is missing in ``part``; return the SHA-256 of each file by name."""
    files = wanted_files(listing.files)
    _make_sure_it_fits(name, files, part)
    tracker = _Tracker(sum(one.size for one in files), on_progress)
    hashes: dict[str, str] = {}
    for file in files:
        if file.name.endswith((_WEIGHTS, _PICKLED[0])):
            _refuse_unknown_family(name, part)
        hashes[file.name] = hub.fetch(
            listing, file, part / file.name, on_bytes=tracker.of(file.name)
        )
        tracker.finish(file.size)
    return hashes


def _refuse_unknown_family(name: str, part: Path) -> None:
    """Raise DownloadFailed for a model that no backbone of ours reads, before its weights."""
    if (part / DESCRIPTION_FILE).exists():
        return
    model_type = read_json(part, "config.json").get("model_type")
    if model_type not in BARE:
        reason = f"it is a {model_type!r}, and what is known here stands on {', '.join(BARE)}"
        raise DownloadFailed(name, reason, hint="mmsearch model list --all")


def _make_sure_it_fits(name: str, files: tuple[HubFile, ...], part: Path) -> None:
    here = sum(one.stat().st_size for one in part.iterdir() if one.is_file())
    missing = sum(one.size for one in files) - here
    free = shutil.disk_usage(part).free
    if missing > free:
        reason = f"it takes {missing / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are free"
        hint = f"make room under {models_home()}, or MMSEARCH_MODELS=DIR on another disk"
        raise DownloadFailed(name, reason, hint=hint)


class _Tracker:
    """Adds up the files of a pull."""

    def __init__(
        self, num_bytes: int, on_progress: Callable[[PullProgress], object] | None
    ) -> None:
        self._num_bytes = num_bytes
        self._on_progress = on_progress
        self._before = 0  # bytes of the files that are finished
        self._came = 0  # bytes of this run
        self._began = time.monotonic()

    def of(self, file: str) -> Callable[[int, int], None]:
        """Return what listens to the bytes of one file."""

        def on_bytes(have: int, came: int) -> None:
            self._came += came
            if self._on_progress:
                spent = max(time.monotonic() - self._began, 1e-3)
                progress = PullProgress(
                    file=file,
                    done=self._before + have,
                    num_bytes=self._num_bytes,
                    rate=self._came / spent,
                )
                self._on_progress(progress)

        return on_bytes

    def finish(self, size: int) -> None:
        self._before += size


def _describe(name: str, part: Path, source: Source) -> None:
    """Write into ``part`` what it is, under a name that always finds it."""
    try:
        description = described(part)
        for file, hash_ in description.files.items():
            if source.files.get(file) != hash_:
                raise BadCheckpoint(part, f"{file} is not the file that it describes")
    except BadCheckpoint as error:
        error.hint = f"mmsearch model remove {name} deletes what was fetched"
        raise
    replace(description, name=source.name).write(part)


def _note_revision(folder: Path, revision: str) -> None:
    """Write down that this is what ``revision`` meant just now."""
    source = read_source(folder)
    if source:
        revisions = tuple(dict.fromkeys([*source.revisions, revision]))
        replace(source, revisions=revisions, pulled_at=time.time()).write(folder)


def _ready(name: str, folder: Path) -> ModelInfo:
    if reason := _what_keeps_it(folder):
        raise ToBeConverted(name, folder, reason)
    return model_info(folder)


def _what_keeps_it(folder: Path) -> str:
    """Return why a fetched model cannot be used before it is converted, or nothing."""
    if not any(folder.glob(f"*{_WEIGHTS}")):
        return "its weights are pickles (.bin), which can run code when they are read"
    if not (folder / TOKENIZER_FILE).exists():
        return f"it has no {TOKENIZER_FILE}"
    return ""


def remove(name: str) -> list[Removed]:
    """Delete a pulled model: one revision where one is named, else all of them.

    What an unfinished pull left goes too. Raises NotPulled where there is none of it, and
    DownloadFailed while another process is pulling it.
    """
    repository, _ = split_name(name)
    homes = [repository_folder(repository), parts_folder(repository)]
    if not repository or not any(home.is_dir() for home in homes):
        raise NotPulled(name)
    try:
        with _alone(repository, None, wait=False):
            gone = [_delete(folder) for folder in _doomed(name, *homes)]
            for home in homes:
                if home.is_dir() and not any(home.iterdir()):
                    home.rmdir()
    except OSError as error:
        reason = f"{error.filename or homes[0]} cannot be deleted: {error.strerror or error}"
        raise ModelError(reason) from None
    if not gone:
        raise NotPulled(name)
    return gone


def _doomed(name: str, whole: Path, parts: Path) -> list[Path]:
    _, revision = split_name(name)
    if revision:
        unfinished = sorted(parts.glob("*")) if is_commit(revision) else []
        found = [folder for folder, _ in pulled(name)]
        return found + [one for one in unfinished if one.name.startswith(revision)]
    return [*sorted(whole.glob("*")), *sorted(parts.glob("*"))]


def _delete(folder: Path) -> Removed:
    size = sum(file.stat().st_size for file in model_files(folder))
    # First out of sight: whatever moment this ends at, no name finds half a model.
    hidden = models_home() / ".parts" / folder.parent.name / f"{folder.name}.gone"
    hidden.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(hidden)
    shutil.rmtree(hidden)
    return Removed(path=folder, size=size)


@contextlib.contextmanager
def _alone(
    repository: str,
    on_progress: Callable[[PullProgress], object] | None,
    *,
    wait: bool = True,
) -> Iterator[None]:
    """Keep every other pull and removal of ``repository`` out, here and in other processes.

    The kernel lets go of the lock when its process ends, however it ends. The locked file
    is kept apart from the models, and for good: two processes could otherwise lock two
    files of one name.
    """
    locks = models_home() / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(
        locks / f"{repository_folder(repository).name}.lock",
        os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,
        0o666,
    )
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not wait:
                    reason = "another process is pulling it"
                    raise DownloadFailed(repository, reason, hint="wait for it") from None
                if on_progress:
                    on_progress(PullProgress(file="", done=0, num_bytes=0, rate=0.0))
                time.sleep(_LOOK_AGAIN_S)
        yield
    finally:
        os.close(descriptor)
