"""Haystack: an index as the retriever of a pipeline.

query -> MMSearchRetriever -> documents: words, metadata, score, and the picture as blob

pip install 'mmsearch[haystack]'
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from mmsearch.engine import Engine
from mmsearch.errors import MissingExtra
from mmsearch.integrations.shared import (
    PICTURE_TYPE,
    id_of,
    metadata_of,
    picture_of,
    words_of,
)
from mmsearch.values import Hit, Kind, Query

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.dataclasses import ByteStream
except ImportError as error:
    raise MissingExtra("haystack-ai", "haystack") from error


@component
class MMSearchRetriever:
    """Pages, pictures, clips and passages of an index, best first.

    db:           folder of the index; it is opened when the pipeline is warmed up or first run
    top_k:        how many documents, at most
    where, kinds, path, min_score: as of `Query`
    image_pixels: of the picture that goes with each document as its blob; 0 for none
    """

    def __init__(
        self,
        db: str | Path = ".mmsearch",
        *,
        top_k: int = 5,
        where: str | None = None,
        kinds: Sequence[str] | None = None,
        path: str | None = None,
        min_score: float = 0.0,
        image_pixels: int = 0,
    ) -> None:
        self.db = str(db)
        self.top_k = top_k
        self.where, self.path, self.min_score = where, path, min_score
        self.kinds = None if kinds is None else [str(Kind(kind)) for kind in kinds]
        self.image_pixels = image_pixels
        self._engine: Engine | None = None

    @classmethod
    def of(cls, engine: Engine, **options: Any) -> Self:  # noqa: ANN401  those of __init__
        """Return a retriever over an engine that is open."""
        made = cls(engine.path, **options)
        made._engine = engine
        return made

    def warm_up(self) -> None:
        """Open the index and load its model, where that has not been done."""
        if self._engine is None:
            self._engine = Engine.open(self.db)
        self._engine.load()

    def to_dict(self) -> dict[str, Any]:
        """Return it as a pipeline is saved."""
        return default_to_dict(
            self,
            db=self.db,
            top_k=self.top_k,
            where=self.where,
            kinds=self.kinds,
            path=self.path,
            min_score=self.min_score,
            image_pixels=self.image_pixels,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return what was saved."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(
        self, query: str = "", images: list[str] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Return the best documents for words, pictures (by path), or both."""
        self.warm_up()
        assert self._engine is not None
        asked = Query(
            query,
            images=images or [],
            where=self.where,
            kinds=self.kinds,
            path=self.path,
            min_score=self.min_score,
        )
        hits = self._engine.query(asked, k=self.top_k if top_k is None else top_k)
        return {"documents": [self._document(self._engine, hit) for hit in hits]}

    def _document(self, engine: Engine, hit: Hit) -> Document:
        picture = picture_of(engine, hit, max_pixels=self.image_pixels)
        return Document(
            id=id_of(hit),
            content=words_of(hit),
            blob=ByteStream(picture, mime_type=PICTURE_TYPE) if picture else None,
            meta=metadata_of(hit),
            score=hit.score,
        )
