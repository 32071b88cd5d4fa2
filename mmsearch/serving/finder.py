"""Hits of an index, by the server that runs on it where there is one, else by an engine.

    Query, segment id -> the socket in the index's folder -> hits
                      -> Engine -> hits, where nobody answers there

For who opens an index to stay: as long as a server answers, no second model is loaded.
"""

from mmsearch.engine import Engine
from mmsearch.serving import client
from mmsearch.values import Hit, Query


class Finder:
    """Finds the hits of an engine's index; ``asks_server`` false leaves all to the engine."""

    def __init__(self, engine: Engine, *, asks_server: bool) -> None:
        self._engine, self._asks_server = engine, asks_server

    def query(self, asked: Query, *, k: int, group: bool) -> list[Hit]:
        """Return the best hits, best first; raises as `Engine.query` does."""
        if self._asks_server:
            db = self._engine.path
            answer = client.query(db, asked, k=k, group=group, collapse=False, ocr=True)
            if answer is not None:
                return answer.hits
        return self._engine.query(asked, k=k, group=group)

    def similar(self, segment_id: str, *, k: int) -> list[Hit]:
        """Return what is most like a segment; raises as `Engine.similar` does."""
        if self._asks_server:
            answer = client.similar(self._engine.path, segment_id, k=k)
            if answer is not None:
                return answer.hits
        return self._engine.similar(segment_id, k=k)

    def load(self) -> None:
        """Load the model, unless a server has it already. Raises as `Engine.load` does."""
        if not (self._asks_server and client.is_answered(self._engine.path)):
            self._engine.load()
