"""What an index holds, for whoever looks at it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmsearch.values import Backend, Document, Space, Status, View

if TYPE_CHECKING:
    from mmsearch.retriever.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStatus:
    """What an index holds.

    schema:       of its tables
    documents:    how many by kind, those that could be read
    awaits_ocr:   of these, how many have words in pictures that are still to be read
    bytes:        size on disk
    backend:      what looks for near vectors, as `Engine.open` was told; never "auto"
    vector_index: for each view, what it looks into: "every row", or the name of an index
    tags:         names of states that are kept
    """

    path: str
    schema: int
    space: Space
    documents: dict[str, int]
    segments: int
    awaits_ocr: int
    bytes: int
    backend: Backend
    vector_index: dict[str, str]
    tags: tuple[str, ...]
    failed: tuple[Document, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "path": self.path,
            "model": self.space.model,
            "space": self.space.id,
            "effort": self.space.effort,
            "dims": self.space.dim,
            "max_pixels": self.space.max_pixels,
            "schema": self.schema,
            "documents": self.documents,
            "segments": self.segments,
            "awaits_ocr": self.awaits_ocr,
            "bytes": self.bytes,
            "backend": str(self.backend),
            "vector_index": self.vector_index,
            "tags": list(self.tags),
            "failed": [{"path": one.path, "reason": one.error} for one in self.failed],
        }


def status_of(store: "Store", backend: Backend) -> IndexStatus:
    """Return what a store holds, and what looks for near vectors in it."""
    from mmsearch.retriever.search import backends

    counts = store.counts()
    documents = store.documents()
    backend = backends.meant(backend, store.snapshot())
    return IndexStatus(
        path=str(store.path),
        schema=store.header.schema_version,
        space=store.space,
        documents={str(kind): count for kind, count in sorted(counts.documents.items())},
        segments=counts.num_segments,
        awaits_ocr=sum(one.awaits_ocr for one in documents),
        bytes=counts.num_bytes,
        backend=backend,
        vector_index=_looked_into(store, backend),
        tags=tuple(tag.name for tag in store.tags()),
        failed=tuple(one for one in documents if one.status is Status.FAILED),
    )


def _looked_into(store: "Store", backend: Backend) -> dict[str, str]:
    """Return what each view is looked for in; see `IndexStatus`."""
    from mmsearch.retriever.store.ann import trained
    from mmsearch.retriever.store.rows import VECTOR_COLUMN

    if backend is Backend.FAISS:
        return dict.fromkeys(map(str, View), "the faiss file")
    names = dict.fromkeys(map(str, View), "every row")
    if backend is Backend.LANCE:
        table = store.snapshot().table
        for view, column in VECTOR_COLUMN.items():
            if index := trained(table, column):
                names[str(view)] = index.name
    return names
