"""mmsearch: search PDFs, pictures and films with words, pictures or both.

    from mmsearch import Engine, Query
    engine = Engine.open("db", create=True)
    engine.index(["docs"])
    hits = engine.query(Query(text="chart of sales by region"), k=10)

The public names are imported when first used: ``import mmsearch`` loads
neither torch nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmsearch.engine import Engine
    from mmsearch.retriever.embedding.load import load_embedder
    from mmsearch.retriever.models.description import ModelSettings
    from mmsearch.values import Hit, Item, Query

__version__ = "0.1.0"
__all__ = ["Engine", "Hit", "Item", "ModelSettings", "Query", "load_embedder"]

_HOME = {
    "Engine": "mmsearch.engine",
    "Hit": "mmsearch.values",
    "Item": "mmsearch.values",
    "ModelSettings": "mmsearch.retriever.models.description",
    "Query": "mmsearch.values",
    "load_embedder": "mmsearch.retriever.embedding.load",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'mmsearch' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
