"""The media sidecar: packs of thumbnails, one Arrow file for each batch of documents.

    media/<first two characters>/<pack>.arrow   (segment_id, bytes)

The manifest names the pack of each document. They stay out of the tables, so compaction
never rewrites them, and a file is written once, before the rows that need it, and removed
once, when no document names it any more. An index that was migrated has a pack for each of
its documents, called after its commit.
"""

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.errors import StoreDamaged
from mmsearch.retriever.store.durable import write_file

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "media"
_ENDING = ".arrow"


class Media:
    """The thumbnails of an index, by pack and segment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def write(self, pack: str, thumbnails: Mapping[str, bytes]) -> None:
        """Keep thumbnails by segment under the name of a new pack, durably; none make no file."""
        if not thumbnails:
            return
        import pyarrow as pa

        table = pa.table(
            {
                "segment_id": pa.array(thumbnails.keys(), pa.string()),
                "bytes": pa.array(thumbnails.values(), pa.binary()),
            }
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        write_file(self._file(pack), sink.getvalue())

    def read(self, pack: str) -> dict[str, bytes]:
        """Return the thumbnails of a pack by segment.

        Raises FileNotFoundError where there is no such pack, StoreDamaged where it cannot
        be read.
        """
        with self._opened(pack) as table:
            ids, contents = table["segment_id"].to_pylist(), table["bytes"].to_pylist()
        return dict(zip(ids, contents, strict=True))

    def thumbnail(self, pack: str, segment_id: str) -> bytes:
        """Return one thumbnail, empty where the pack has none of it; raises as `read` does."""
        import pyarrow.compute as pc

        with self._opened(pack) as table:
            place = pc.index(table["segment_id"], segment_id).as_py()
            return b"" if place < 0 else table["bytes"][place].as_py()

    def segment_ids(self, pack: str) -> "pa.ChunkedArray":
        """Return whose thumbnails a pack holds, having read them; raises as `read` does."""
        import pyarrow as pa

        with self._opened(pack) as table:
            table.validate(full=True)
            return pa.chunked_array([pa.array(table["segment_id"].to_pylist(), pa.string())])

    def num_bytes(self, pack: str) -> int:
        """Return the size of a pack; nothing where there is none."""
        try:
            return self._file(pack).stat().st_size
        except FileNotFoundError:
            return 0

    def packs(self) -> Iterator[str]:
        """Give the packs that there are."""
        for folder in self._folders():
            for name in sorted(os.listdir(folder)):
                if name.endswith(_ENDING) and not name.startswith("."):
                    yield name.removesuffix(_ENDING)

    def remove(self, pack: str) -> None:
        """Forget a pack; it need not be there."""
        self._file(pack).unlink(missing_ok=True)

    def sweep(self, named: Collection[str]) -> int:
        """Remove all other packs and what a killed writer left half done; return how many."""
        dead = [pack for pack in self.packs() if pack not in named]
        for pack in dead:
            self.remove(pack)
        for folder in self._folders():
            for name in os.listdir(folder):
                if name.startswith(".") and name.endswith(".tmp"):
                    with contextlib.suppress(FileNotFoundError):
                        (folder / name).unlink()
        return len(dead)

    def _folders(self) -> list[Path]:
        try:
            return sorted(entry for entry in self._folder.iterdir() if entry.is_dir())
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def _opened(self, pack: str) -> "Iterator[pa.Table]":
        """Map a pack into memory: of one thumbnail among thousands, little more is read."""
        import pyarrow as pa

        path = self._file(pack)
        try:
            with pa.memory_map(str(path)) as source:
                yield pa.ipc.open_file(source).read_all()
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException, KeyError) as error:
            raise StoreDamaged(path, f"its thumbnails are unreadable ({error})") from error

    def _file(self, pack: str) -> Path:
        return self._folder / pack[:2] / f"{pack}{_ENDING}"
