"""The folders in which the data of an index lie: the one that answers, and the others.

    index.json names "." or generation-N: that one answers
    generation-M with M > N is being filled: by a rebuild, which gives it an index.json of
    its own and goes on with it after a kill, or by a migration, which begins anew
    every other one answered until the last switch, and goes when no reader is left in it

All but the naming is for the one writer of the index.
"""

import contextlib
import os
import re
import shutil
import time
from datetime import timedelta
from pathlib import Path

from mmsearch.errors import StoreError
from mmsearch.retriever.store.durable import flush
from mmsearch.retriever.store.header import NAME, Header, write_header
from mmsearch.retriever.store.lock import LOCK_NAME
from mmsearch.retriever.store.media import FOLDER as MEDIA_FOLDER
from mmsearch.retriever.store.tables import FOLDER as TABLES_FOLDER
from mmsearch.retriever.store.tables import KEEP_VERSIONS

# A rebuild that nobody has gone on with for so long is given up.
KEEP_UNFINISHED = timedelta(days=7)
GENERATION = re.compile(r"generation-([0-9]{1,9})")
# What lies in a data folder; of ".", where index.json and other generations lie too, no
# more than this is ever removed.
DATA_NAMES = (TABLES_FOLDER, MEDIA_FOLDER, "tags", "faiss", "rates.json")


def next_generation(path: Path, header: Header) -> str:
    """Return a name that no data folder of the index has had since ``header`` was written."""
    return f"generation-{max([_number(header.data), *_generations(path)]) + 1}"


def unfinished(path: Path, header: Header) -> list[Path]:
    """Return the folders that a rebuild was filling when it ended, the latest first."""
    numbers = sorted(_generations(path), reverse=True)
    begun = [path / f"generation-{number}" for number in numbers if number > _number(header.data)]
    return [folder for folder in begun if (folder / NAME).is_file()]


def take_over(path: Path, header: Header) -> Header:
    """Let the data folder that ``header`` names answer from now on, and durably.

    This is the one commit point of a change of the whole index. Raises StoreError.
    """
    home = path / header.data
    try:
        _flush_all(home)
        written = write_header(path, header)
        for name in (NAME, LOCK_NAME):  # of a rebuild: it is no index of its own any more
            (home / name).unlink(missing_ok=True)
    except OSError as error:
        failed = StoreError(f"cannot write to {path}: {error.strerror or error}")
        failed.hint = "check free space and permissions and run it again; nothing was lost"
        raise failed from error
    return written


def remove_unnamed(path: Path, header: Header) -> None:
    """Remove the data folders that ``header`` does not name, once nobody can need them.

    Readers may still be at work in one that answered until a moment ago; a rebuild that
    was stopped may be gone on with.
    """
    switched_s = _age_s(path / NAME)
    for number in _generations(path):
        folder = path / f"generation-{number}"
        if number < _number(header.data):
            if switched_s > KEEP_VERSIONS.total_seconds():
                remove_generation(folder)
        elif number > _number(header.data):
            resumable = (folder / NAME).is_file()
            if not resumable or _age_s(folder / LOCK_NAME) > KEEP_UNFINISHED.total_seconds():
                remove_generation(folder)
    if header.data != "." and switched_s > KEEP_VERSIONS.total_seconds():
        for name in DATA_NAMES:
            _remove(path / name)


def remove_generation(folder: Path) -> None:
    """Remove a data folder; half removed it is never taken for one to go on with."""
    with contextlib.suppress(OSError):
        (folder / NAME).unlink(missing_ok=True)
    _remove(folder)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)  # what is left is for the next writer
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _generations(path: Path) -> list[int]:
    found = (GENERATION.fullmatch(entry.name) for entry in path.iterdir() if entry.is_dir())
    return sorted(int(match[1]) for match in found if match)


def _number(data: str) -> int:
    match = GENERATION.fullmatch(data)
    return int(match[1]) if match else 0


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _flush_all(folder: Path) -> None:
    """Bring everything under ``folder``, names and contents, to the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            flush(Path(parent, name))
        flush(Path(parent))
    flush(folder.parent)
