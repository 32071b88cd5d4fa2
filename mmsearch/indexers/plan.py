"""What a run has to do: the files found, held against the manifest.

    sources + manifest -> Plan(read, awaiting, unchanged, touched, gone)

A file whose size and modification time are those of the manifest is not
opened. One whose time changed but whose content hash did not is only touched.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmsearch.errors import UnreadableFile
from mmsearch.indexers.content import content_hash
from mmsearch.indexers.discover import Source, spellings
from mmsearch.indexers.readers import SUPPORTED_SUFFIXES, sniff
from mmsearch.values import Document, Kind, Status, stored_path


@dataclass(frozen=True, slots=True)
class Reading:
    """A source that has to be read; without a kind it has already failed, for ``error``.

    content_hash: empty for a file never seen before: it is taken when the file is read, so
                  that planning does not read everything twice
    known:        the document that the index has of this very content, where only its OCR
                  is still to be done
    """

    source: Source
    kind: Kind | None
    content_hash: str = ""
    error: str = ""
    known: Document | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run has to do.

    read:          new, changed, or to be tried again, in the order found
    awaiting:      unchanged, and the words in their pictures were not read yet; a run
                   without OCR leaves them as they are
    unchanged:     documents as the manifest has them
    touched:       the same content under a new time; only the manifest changes
    gone:          documents under the named paths whose file no longer exists
    failed_before: unchanged documents that failed in an earlier run
    unsupported:   files that no reader is for
    """

    read: tuple[Reading, ...]
    unchanged: int
    touched: tuple[Document, ...]
    gone: tuple[str, ...]
    failed_before: tuple[Document, ...]
    unsupported: int
    awaiting: tuple[Reading, ...] = ()

    @property
    def num_supported(self) -> int:
        """Files that a reader is for, whatever has to be done with them."""
        known = self.unchanged + len(self.touched) + len(self.failed_before) + len(self.awaiting)
        return len(self.read) + known


def make_plan(
    sources: Iterable[Source],
    manifest: Mapping[str, Document],
    roots: Sequence[Path],
    *,
    retry_failed: bool = False,
    again: bool = False,
) -> Plan:
    """Hold the sources against the manifest and return what has to be done.

    Only documents under ``roots`` whose file is really gone count as gone, and those whose
    file is of no supported kind any more: one that this run's globs pass over stays in the
    index. With ``again`` unchanged files are read too.
    """
    read: list[Reading] = []
    awaiting: list[Reading] = []
    touched: list[Document] = []
    failed_before: list[Document] = []
    unchanged = unsupported = 0
    found: set[str] = set()
    gone: list[str] = []
    for source in sources:
        path = stored_path(source.path)
        if path in found:  # two names that are one once their bytes are written as text
            unsupported += 1
            continue
        found.add(path)
        kept = known = manifest.get(path)
        if known and (again or (retry_failed and known.status is Status.FAILED)):
            known = None
        if known and (known.size, known.mtime_ns) == (source.size, source.mtime_ns):
            if known.status is Status.FAILED:
                failed_before.append(known)
            elif known.awaits_ocr:
                awaiting.append(Reading(source, known.kind, known.content_hash, known=known))
            else:
                unchanged += 1
            continue
        reading = _examine(source, known)
        if reading is None:
            unsupported += 1
            gone += [path] if kept else []
        elif known and _is_same(known, reading):
            touched.append(replace(known, size=source.size, mtime_ns=source.mtime_ns))
        else:
            read.append(reading)
    return Plan(
        read=tuple(read),
        unchanged=unchanged,
        touched=tuple(touched),
        gone=(*gone, *_gone(manifest, roots, found)),
        failed_before=tuple(failed_before),
        unsupported=unsupported,
        awaiting=tuple(awaiting),
    )


def _is_same(known: Document, reading: Reading) -> bool:
    """Say whether a document has its old content under a new time.

    Never of a film: the time may be that of the subtitles beside it, which its own
    content hash knows nothing of.
    """
    return (
        known.status is Status.DONE
        and known.content_hash == reading.content_hash
        and reading.kind is not Kind.VIDEO
    )


def _examine(source: Source, known: Document | None) -> Reading | None:
    """Return how a file is to be read, or None where no reader is for it."""
    meant = source.path.suffix.lower() in SUPPORTED_SUFFIXES
    try:
        kind = sniff(source.path)
        if kind is None:
            if not meant:
                return None
            suffix = source.path.suffix.lower().lstrip(".")
            return Reading(source, None, error=f"its content is not what .{suffix} says")
        return Reading(source, kind, content_hash(source.path) if known else "")
    except UnreadableFile as error:
        return Reading(source, None, error=error.reason) if meant else None


def _gone(manifest: Mapping[str, Document], roots: Sequence[Path], found: set[str]) -> list[str]:
    return [
        path
        for path in manifest
        if path not in found and is_under(path, roots) and not _may_exist(path)
    ]


def emptied(roots: Iterable[Path], manifest: Iterable[str]) -> dict[Path, int]:
    """Return those folders that hold nothing at all though the manifest knows files in them.

    With how many it knows. That is what a disk that is not mounted looks like, so it is no
    proof that the files are gone.
    """
    empty = [root for root in roots if _is_empty(root)]
    paths = list(manifest) if empty else []
    known = {root: sum(is_under(path, [root]) for path in paths) for root in empty}
    return {root: number for root, number in known.items() if number}


def _is_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def is_under(path: str, roots: Sequence[str | Path]) -> bool:
    """Say whether a stored path is one of ``roots``, or lies in one of these folders."""
    tops = (stored_path(Path(os.path.abspath(root))).rstrip("/") for root in roots)
    return any(f"{path}/".startswith(f"{top}/") for top in tops)


def _may_exist(path: str) -> bool:
    """Say whether a file is there, or might be: a folder we may not enter proves nothing."""
    for name in spellings(path):
        try:
            os.lstat(name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return True
        return True
    return False
