"""LlamaIndex: our model as its multimodal embedding, an index as its retriever.

MMSearchEmbedding    texts, pictures -> vectors
MMSearchRetriever    a question, with a picture -> ImageNode (pages, pictures, clips), TextNode

pip install 'mmsearch[llama-index]'
"""

import asyncio
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.engine import Engine
from mmsearch.errors import MissingExtra
from mmsearch.integrations.server import Server
from mmsearch.integrations.shared import (
    PICTURE_TYPE,
    Vectorizer,
    id_of,
    metadata_of,
    picture_of,
    words_of,
)
from mmsearch.values import Hit, Kind, Query

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.embeddings import MultiModalEmbedding
    from llama_index.core.schema import (
        ImageNode,
        ImageType,
        NodeWithScore,
        QueryBundle,
        TextNode,
    )
except ImportError as error:
    raise MissingExtra("llama-index-core", "llama-index") from error

if TYPE_CHECKING:
    from mmsearch.retriever.seams import Embedder

_AT_ONCE = 64  # texts of one call: our own batches are cut by tokens
_IMAGE_PIXELS = 1_000_000
_NOT_FOR_PROMPTS = ["segment_id", "source"]


class MMSearchEmbedding(MultiModalEmbedding):
    """Vectors of texts and pictures, all in one space.

    model: an open engine, whose model it shares, a server, or a name, a model folder, or an
           embedder
    """

    _vectorizer: Vectorizer = PrivateAttr()

    def __init__(
        self,
        model: "Engine | Server | Embedder | str | Path" = "default",
        *,
        device: str = "auto",
        dtype: str = "auto",
        embed_batch_size: int = _AT_ONCE,
    ) -> None:
        vectorizer = Vectorizer(model, device=device, dtype=dtype)
        super().__init__(model_name=vectorizer.name, embed_batch_size=embed_batch_size)
        self._vectorizer = vectorizer

    @classmethod
    def class_name(cls) -> str:
        """Return the name by which LlamaIndex knows it."""
        return "MMSearchEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vectorizer.queries([query])[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vectorizer.documents([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._vectorizer.documents(texts)

    def _get_image_embedding(self, img_file_path: ImageType) -> list[float]:
        return self._vectorizer.pictures([img_file_path])[0]

    def _get_image_embeddings(self, img_file_paths: list[ImageType]) -> list[list[float]]:
        return self._vectorizer.pictures(img_file_paths)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    async def _aget_image_embedding(self, img_file_path: ImageType) -> list[float]:
        return await asyncio.to_thread(self._get_image_embedding, img_file_path)

    async def _aget_image_embeddings(self, img_file_paths: list[ImageType]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_image_embeddings, img_file_paths)


class MMSearchRetriever(BaseRetriever):
    """Pages, pictures and clips of an index as ImageNodes, passages as TextNodes.

    A QueryBundle may bring a picture (``image_path``) beside its words, or in their place.

    engine:       an open index, or `Server` for one that is served
    k:            how many nodes, at most
    where, kinds, path, min_score: as of `Query`
    group:        only the best segment of each file
    collapse:     only the best of those that look alike
    image_pixels: of the picture in each ImageNode; with 0 there are TextNodes alone
    """

    def __init__(
        self,
        engine: Engine | Server,
        *,
        k: int = 5,
        where: str | None = None,
        kinds: Sequence[Kind | str] | None = None,
        path: str | None = None,
        min_score: float = 0.0,
        group: bool = False,
        collapse: bool = False,
        image_pixels: int = _IMAGE_PIXELS,
    ) -> None:
        super().__init__()
        self._engine = engine
        self._k = k
        self._filters: dict[str, Any] = {
            "where": where,
            "kinds": kinds,
            "path": path,
            "min_score": min_score,
        }
        self._group, self._collapse = group, collapse
        self._image_pixels = image_pixels

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        images = [query_bundle.image_path] if query_bundle.image_path else []
        query = Query(query_bundle.query_str, images=images, **self._filters)
        hits = self._engine.query(query, k=self._k, group=self._group, collapse=self._collapse)
        return [NodeWithScore(node=self._node(hit), score=hit.score) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def _node(self, hit: Hit) -> TextNode:
        told: dict[str, Any] = {
            "id_": id_of(hit),
            "text": words_of(hit),
            "metadata": metadata_of(hit),
            "excluded_llm_metadata_keys": _NOT_FOR_PROMPTS,
            "excluded_embed_metadata_keys": _NOT_FOR_PROMPTS,
        }
        picture = picture_of(self._engine, hit, max_pixels=self._image_pixels)
        if not picture:
            return TextNode(**told)
        image = base64.b64encode(picture).decode()
        return ImageNode(**told, image=image, image_mimetype=PICTURE_TYPE)
