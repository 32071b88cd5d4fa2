"""Haystack: an index as the retriever of a pipeline.

query -> MMSearchRetriever -> documents: words, metadata, score, and the picture as blob

pip install 'mmsearch[haystack]'
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from mmsearch.engine import Engine
from mmsearch.errors import MissingExtra
from mmsearch.integrations.server import Server
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
    from haystack.utils import Secret, deserialize_secrets_inplace
except ImportError as error:
    raise MissingExtra("haystack-ai", "haystack") from error


@component
class MMSearchRetriever:
    """Pages, pictures, clips and passages of an index, best first.

    db:           folder of the index; it is opened when the pipeline is warmed up or first run
    url:          of a running ``mmsearch serve``, which is asked in place of a folder
    api_key:      of that server, where it asks for one
    index:        its name, where the server has several; else the first
    top_k:        how many documents, at most
    where, kinds, path, min_score: as of `Query`
    image_pixels: of the picture that goes with each document as its blob; 0 for none
    """

    def __init__(
        self,
        db: str | Path = ".mmsearch",
        *,
        url: str | None = None,
        api_key: Secret | None = None,
        index: str | None = None,
        top_k: int = 5,
        where: str | None = None,
        kinds: Sequence[str] | None = None,
        path: str | None = None,
        min_score: float = 0.0,
        image_pixels: int = 0,
    ) -> None:
        self.db = str(db)
        self.url, self.api_key, self.index = url, api_key, index
        self.top_k = top_k
        self.where, self.path, self.min_score = where, path, min_score
        self.kinds = None if kinds is None else [str(Kind(kind)) for kind in kinds]
        self.image_pixels = image_pixels
        self._engine: Engine | Server | None = None

    @classmethod
    def of(cls, engine: Engine | Server, **options: Any) -> Self:  # noqa: ANN401  those of __init__
        """Return a retriever over an open engine, or a server; a key is not saved with it."""
        if isinstance(engine, Server):
            made = cls(url=engine.url, index=engine.index, **options)
        else:
            made = cls(engine.path, **options)
        made._engine = engine
        return made

    def warm_up(self) -> None:
        """Open the index and load its model, where that has not been done."""
        self._opened()

    def _opened(self) -> Engine | Server:
        if self._engine is None and self.url is not None:
            key = self.api_key.resolve_value() if self.api_key else None
            self._engine = Server(self.url, api_key=key, index=self.index)
        elif self._engine is None:
            self._engine = Engine.open(self.db)
        if isinstance(self._engine, Engine):
            self._engine.load()
        return self._engine

    def to_dict(self) -> dict[str, Any]:
        """Return it as a pipeline is saved."""
        return default_to_dict(
            self,
            db=self.db,
            url=self.url,
            api_key=self.api_key.to_dict() if self.api_key else None,
            index=self.index,
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
        deserialize_secrets_inplace(data["init_parameters"], ["api_key"])
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(
        self, query: str = "", images: list[str] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Return the best documents for words, pictures (by path), or both."""
        engine = self._opened()
        asked = Query(
            query,
            images=images or [],
            where=self.where,
            kinds=self.kinds,
            path=self.path,
            min_score=self.min_score,
        )
        hits = engine.query(asked, k=self.top_k if top_k is None else top_k)
        return {"documents": [self._document(engine, hit) for hit in hits]}

    def _document(self, engine: Engine | Server, hit: Hit) -> Document:
        picture = picture_of(engine, hit, max_pixels=self.image_pixels)
        return Document(
            id=id_of(hit),
            content=words_of(hit),
            blob=ByteStream(picture, mime_type=PICTURE_TYPE) if picture else None,
            meta=metadata_of(hit),
            score=hit.score,
        )
