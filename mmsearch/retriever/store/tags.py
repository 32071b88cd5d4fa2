"""Tags: states of an index that can be brought back.

    tags/<name>.arrow   the manifest as it was, one row a document

A row of a commit never changes, so the manifest of then and the rows of its commits are the
whole state. Rows and packs that a tag names are kept when documents are replaced; nobody
counts them until the tag is restored. (LanceDB has tags of versions too, but removes no old
version at all while one of them has a tag.)
"""

import contextlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.errors import StoreDamaged, StoreError
from mmsearch.retriever.store.durable import flush, write_file
from mmsearch.retriever.store.header import index_folder

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "tags"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ENDING = ".arrow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A state that was given a name.

    created: UTC
    """

    name: str
    created: datetime
    num_documents: int


class Tags:
    """The tags of an index; all but reading is for its one writer."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER
        self._db = f"--db {shlex.quote(str(index_folder(home)))}"  # for what to type

    def all(self) -> list[Tag]:
        """Return every tag, oldest first. Raises StoreDamaged."""
        found = []
        for name in self._names():
            with self._opened(name) as manifest:
                created = datetime.fromisoformat(manifest.schema.metadata[b"created"].decode())
                found.append(Tag(name=name, created=created, num_documents=manifest.num_rows))
        return sorted(found, key=lambda tag: (tag.created, tag.name))

    def manifest(self, name: str) -> "pa.Table":
        """Return the manifest of a tag. Raises StoreError for one that is not there."""
        if name not in self._names():
            raise self._unknown(name)
        with self._opened(name) as manifest:
            return manifest

    def manifests(self) -> "Iterator[tuple[str, pa.Table]]":
        """Give every tag and its manifest."""
        for name in self._names():
            yield name, self.manifest(name)

    def create(self, name: str, manifest: "pa.Table") -> Tag:
        """Keep a manifest under a new name, durably. Raises StoreError."""
        if not NAME.fullmatch(name):
            bad = StoreError(f"{name!r} cannot name a tag")
            bad.hint = "letters, digits, '.', '_' and '-', at most 64, e.g. before-cleanup"
            raise bad
        if name in self._names():
            there = StoreError(f"there is a tag {name} already")
            there.hint = f"mmsearch tag delete {name} {self._db}, or choose another name"
            raise there
        created = datetime.now(UTC)
        self._write(name, manifest, created)
        return Tag(name=name, created=created, num_documents=manifest.num_rows)

    def replace(self, name: str, manifest: "pa.Table") -> None:
        """Keep another manifest under the name and date of one that is there, durably."""
        with self._opened(name) as old:
            created = datetime.fromisoformat(old.schema.metadata[b"created"].decode())
        self._write(name, manifest, created)

    def delete(self, name: str) -> None:
        """Forget a tag. Raises StoreError for one that is not there."""
        if name not in self._names():
            raise self._unknown(name)
        try:
            (self._folder / f"{name}{_ENDING}").unlink()
            flush(self._folder)
        except OSError as error:
            raise self._refused(error) from error

    def _write(self, name: str, manifest: "pa.Table", created: datetime) -> None:
        import pyarrow as pa

        manifest = manifest.replace_schema_metadata({"created": created.isoformat()})
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(sink, manifest.schema, options=options) as writer:
            writer.write_table(manifest)
        try:
            write_file(self._folder / f"{name}{_ENDING}", sink.getvalue())
        except OSError as error:
            raise self._refused(error) from error

    def _names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        files = (path.name for path in self._folder.iterdir() if path.name.endswith(_ENDING))
        names = (file.removesuffix(_ENDING) for file in files)
        return sorted(name for name in names if NAME.fullmatch(name))

    @contextlib.contextmanager
    def _opened(self, name: str) -> "Iterator[pa.Table]":
        import pyarrow as pa

        path = self._folder / f"{name}{_ENDING}"
        try:
            with pa.OSFile(str(path)) as source:
                yield pa.ipc.open_file(source).read_all()
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            damaged = StoreDamaged(path, f"the tag cannot be read ({error})")
            damaged.hint = f"mmsearch tag delete {name} {self._db}"
            raise damaged from error

    def _unknown(self, name: str) -> StoreError:
        unknown = StoreError(f"there is no tag {name}")
        unknown.hint = f"mmsearch tag list {self._db}"
        return unknown

    def _refused(self, error: OSError) -> StoreError:
        failed = StoreError(f"cannot write to {self._folder}: {error.strerror or error}")
        failed.hint = "check free space and permissions and run it again; nothing was lost"
        return failed
