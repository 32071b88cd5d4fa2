"""Back-ends of vector search: one promise (`seams.VectorIndex`), several ways to keep it.

choose(wanted).of(snapshot)                 what answers
meant(wanted, snapshot)                     which of them that is
build, refresh, remove, exists, problems    the faiss files beside the tables
keep_fresh(store)                           after an index run

choice         which back-end, and the copies it keeps
answers        a VectorIndex over a copy: masks, new rows, filters
rows           which rows a copy has, and how they stand to a snapshot
scanners       nearest vectors with numpy and with torch
faiss_scanner  nearest vectors with faiss
faiss_files    the files
"""

from mmsearch.retriever.search.backends.choice import Backends, choose, keep_fresh, meant
from mmsearch.retriever.search.backends.faiss_files import (
    build,
    exists,
    problems,
    refresh,
    remove,
)

__all__ = [
    "Backends",
    "build",
    "choose",
    "exists",
    "keep_fresh",
    "meant",
    "problems",
    "refresh",
    "remove",
]
