"""The media sidecar: the thumbnails of one commit in one Arrow file.

    media/<first two digits>/<commit_id>.arrow   (segment_id, bytes)

They stay out of the tables, so compaction never rewrites them, and a file is written
once, before the rows that need it, and removed once, after the rows that did.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from mmsearch.errors import StoreDamaged
from mmsearch.retriever.store.durable import write_file

FOLDER = "media"


class Media:
    """The thumbnails of an index, by commit and segment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def write(self, commit_id: str, thumbnails: Mapping[str, bytes]) -> None:
        """Keep the thumbnails of a commit, durably; none make no file."""
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
        write_file(self._file(commit_id), sink.getvalue().to_pybytes())

    def read(self, commit_id: str) -> dict[str, bytes]:
        """Return the thumbnails of a commit by segment.

        Raises FileNotFoundError where it has none, StoreDamaged where they cannot be read.
        """
        import pyarrow as pa

        path = self._file(commit_id)
        try:
            with pa.OSFile(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
            ids, contents = table["segment_id"].to_pylist(), table["bytes"].to_pylist()
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException, KeyError) as error:
            raise StoreDamaged(path, f"its thumbnails are unreadable ({error})") from error
        return dict(zip(ids, contents, strict=True))

    def exists(self, commit_id: str) -> bool:
        """Say whether a commit has a file; not whether it can be read."""
        return self._file(commit_id).is_file()

    def commits(self) -> Iterator[str]:
        """Give the commits that have a file."""
        for path in sorted(self._folder.glob("*/*.arrow")):
            if not path.name.startswith("."):
                yield path.stem

    def remove(self, commit_id: str) -> None:
        """Forget the thumbnails of a commit; it need not have any."""
        self._file(commit_id).unlink(missing_ok=True)

    def sweep(self, live: Collection[str]) -> int:
        """Remove the files of all other commits and what a killed writer left half done."""
        dead = [commit_id for commit_id in self.commits() if commit_id not in live]
        for commit_id in dead:
            self.remove(commit_id)
        for left in self._folder.glob("*/.*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                left.unlink()
        return len(dead)

    def _file(self, commit_id: str) -> Path:
        return self._folder / commit_id[:2] / f"{commit_id}.arrow"
