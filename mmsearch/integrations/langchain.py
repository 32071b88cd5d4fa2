"""LangChain: our model as its embeddings, an index as its retriever and its vector store.

MMSearchEmbeddings     texts, pictures -> vectors
MMSearchRetriever      a question, with pictures or a page -> documents of what was indexed
MMSearchVectorStore    documents in, documents out, beside the files of the same index

pip install 'mmsearch[langchain]'
"""

import contextlib
import shlex
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from mmsearch.engine import Engine
from mmsearch.errors import BadInput, MissingExtra, SegmentNotFound
from mmsearch.integrations.server import Server
from mmsearch.integrations.shared import (
    Vectorizer,
    data_uri,
    id_of,
    metadata_of,
    picture_of,
    words_of,
    written_metadata,
)
from mmsearch.values import Hit, Kind, Locator, Query, given_id, given_path, segment_id

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.vectorstores import VectorStore
    from pydantic import ConfigDict, SkipValidation
except ImportError as error:
    raise MissingExtra("langchain-core", "langchain") from error

if TYPE_CHECKING:
    from mmsearch.retriever.seams import Embedder
    from mmsearch.retriever.store.store import StoredSegment

Filter = Mapping[str, Any] | Callable[[Document], bool]

_LEAST_DEPTH = 64  # hits that are looked through where a filter is ours to apply


class MMSearchEmbeddings(Embeddings):
    """Vectors of texts and pictures, all in one space.

    model: an open engine, whose model it shares, a server, or a name, a model folder, or an
           embedder
    """

    def __init__(
        self,
        model: "Engine | Server | Embedder | str | Path" = "default",
        *,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.vectorizer = Vectorizer(model, device=device, dtype=dtype)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a unit vector for each text that is to be found."""
        return self.vectorizer.documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """Return the unit vector of a question."""
        return self.vectorizer.queries([text])[0]

    def embed_image(self, uris: list[str]) -> list[list[float]]:
        """Return a unit vector for each picture, by its path. Raises UnreadableFile."""
        return self.vectorizer.pictures(uris)


class MMSearchRetriever(BaseRetriever):
    """Pages, pictures, clips and passages of an index, as documents.

    ``retriever.invoke("a question", k=3, images=["q.png"])``: what `Query` takes beside its
    words may be given to every call.

    engine:       an open index, or `Server` for one that is served
    k:            how many documents, at most
    where, kinds, path, min_score: as of `Query`
    group:        only the best segment of each file
    collapse:     only the best of those that look alike
    image_pixels: of the picture that goes with each document as ``metadata["image"]``, a
                  data: URI; 0 for none
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    engine: Annotated[Engine | Server, SkipValidation]
    k: int = 5
    where: str | None = None
    kinds: Sequence[Kind | str] | None = None
    path: str | None = None
    min_score: float = 0.0
    group: bool = False
    collapse: bool = False
    image_pixels: int = 0

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        images: Sequence[str | Path] = (),
        video: str | Path | None = None,
        page: str | None = None,
        negative: Sequence[str] = (),
    ) -> list[Document]:
        asked = Query(
            query,
            images=images,
            video=video,
            page=page,
            negative=negative,
            where=self.where,
            kinds=self.kinds,
            path=self.path,
            min_score=self.min_score,
        )
        hits = self.engine.query(
            asked, k=self.k if k is None else k, group=self.group, collapse=self.collapse
        )
        return [self._document(hit) for hit in hits]

    def _document(self, hit: Hit) -> Document:
        found = _document(hit)
        found.metadata |= {"score": hit.score}
        if picture := picture_of(self.engine, hit, max_pixels=self.image_pixels):
            found.metadata["image"] = data_uri(picture)
        return found


class MMSearchVectorStore(VectorStore):
    """An index as a vector store: texts go in with ids and metadata, and come out best first.

    Files that were indexed are found beside the texts, as documents whose id is that of the
    segment. Scores are those of the engine, in [0, 1], higher is better. Metadata is JSON,
    and its words are searched too. Calls from several threads write one after the other;
    while another process writes, adding and deleting raise StoreLocked.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writing = threading.Lock()

    @property
    def embeddings(self) -> MMSearchEmbeddings:
        """The model of the index."""
        return MMSearchEmbeddings(self.engine)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        db: str | Path = ".mmsearch",
        **kwargs: Any,  # noqa: ANN401  as the base class has it
    ) -> Self:
        """Put texts into the index at ``db``, which is made where there is none.

        embedding: MMSearchEmbeddings: cosines are read by what is known of their model. One
                   that was made from an engine stands for that engine's index, not ``db``
        """
        if not isinstance(embedding, MMSearchEmbeddings):
            raise TypeError(
                f"an index is made with MMSearchEmbeddings, not {type(embedding).__name__}"
            )
        model = embedding.vectorizer.model
        if isinstance(model, Server):
            raise TypeError("a server takes no texts: open the index itself")
        engine = model if isinstance(model, Engine) else Engine.open(db, create=True, model=model)
        store = cls(engine)
        store.add_texts(texts, metadatas, ids=ids, **kwargs)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,  # noqa: ANN401  as the base class has it
    ) -> list[str]:
        """Keep texts, all or none of them; one of a known id is replaced. Returns the ids.

        Raises StoreLocked, TypeError for metadata that is not JSON, ValueError where there
        are not as many ids or metadatas as texts.
        """
        _refuse_unknown(kwargs)
        texts = list(texts)
        for name, given in (("metadatas", metadatas), ("ids", ids)):
            if given is not None and len(given) != len(texts):
                raise ValueError(f"{len(texts)} texts, but {len(given)} {name}")
        text_ids = [one or uuid.uuid4().hex for one in ids or [None] * len(texts)]
        about = {
            text_id: written_metadata(metadata, text_id=text_id)
            for text_id, metadata in zip(text_ids, metadatas or [{}] * len(texts), strict=True)
        }
        with self._writing:
            self.engine.add_texts(dict(zip(text_ids, texts, strict=True)), about=about)
        return text_ids

    def delete(
        self,
        ids: list[str] | None = None,
        **kwargs: Any,  # noqa: ANN401  as the base class has it
    ) -> bool:
        """Take texts out, all of them where no ids are given; unknown ids are passed over.

        Files stay: `Engine.remove` takes them out. Raises StoreLocked, and BadInput for the
        id of a file's segment.
        """
        _refuse_unknown(kwargs)
        with self._writing:
            if ids is None:
                known = [one.path for one in self.engine.documents() if given_id(one.path)]
            else:
                known = [one.path for one in self.engine.documents(list(map(given_path, ids)))]
                self._refuse_files(set(ids) - {given_id(path) for path in known})
            if known:
                self.engine.remove(known)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return texts and segments by their ids, in this order; unknown ones are left out."""
        found = []
        for one in ids:
            for stored in (segment_id(given_path(one), Locator()), one):
                with contextlib.suppress(SegmentNotFound):
                    found.append(_document(self.engine.show(stored)))
                    break
        return found

    def similarity_search(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Filter | None = None,
        where: str | None = None,
        kinds: Sequence[Kind | str] | None = None,
        path: str | None = None,
        **kwargs: Any,  # noqa: ANN401  as the base class has it
    ) -> list[Document]:
        """Return the ``k`` best documents, best first.

        filter: metadata that a document must have, or a function of the document; asked
                here, of ever more hits until there are enough
        where, kinds, path: as of `Query`, asked of the index itself; texts are of the kind
                "text", and their path is ``text:`` and the id
        """
        _refuse_unknown(kwargs)
        asked = Query(query, where=where, kinds=kinds, path=path)
        return [found for found, _ in self._found(asked, k, filter)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Filter | None = None,
        where: str | None = None,
        kinds: Sequence[Kind | str] | None = None,
        path: str | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> list[tuple[Document, float]]:
        """Return what `similarity_search` does, each with its score in [0, 1]."""
        _refuse_unknown(kwargs)
        return self._found(Query(query, where=where, kinds=kinds, path=path), k, filter)

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        where: str | None = None,
        kinds: Sequence[Kind | str] | None = None,
        path: str | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> list[Document]:
        """Return ``k`` of the ``fetch_k`` best documents that are unlike each other.

        Likeness is that of their words; a picture without any is told by those about it.
        lambda_mult: 1 for the best alone, 0 for the most unlike
        """
        import numpy as np
        from langchain_core.vectorstores.utils import maximal_marginal_relevance

        _refuse_unknown(kwargs)
        asked = Query(query, where=where, kinds=kinds, path=path)
        found = [one for one, _ in self._found(asked, max(k, fetch_k), filter)]
        if not found:
            return []
        words = [one.page_content or str(one.metadata.get("citation")) for one in found]
        chosen = maximal_marginal_relevance(
            np.array(self.embeddings.embed_query(query)),
            self.embeddings.embed_documents(words),
            lambda_mult=lambda_mult,
            k=k,
        )
        return [found[place] for place in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda score: score

    def _found(self, query: Query, k: int, wanted: Filter | None) -> list[tuple[Document, float]]:
        depth = k if wanted is None else max(k, _LEAST_DEPTH)
        while True:
            hits = self.engine.query(query, k=depth)
            found = [(_document(hit), hit.score) for hit in hits]
            fitting = [one for one in found if _fits(one[0], wanted)]
            if len(fitting) >= k or len(hits) < depth:
                return fitting[:k]
            depth *= 4

    def _refuse_files(self, ids: Iterable[str]) -> None:
        for one in ids:
            with contextlib.suppress(SegmentNotFound):
                path = self.engine.show(one).path
                refused = BadInput(f"{one} is a part of {path}, and no text that was added")
                refused.hint = f"mmsearch remove {shlex.quote(path)}"
                raise refused


def _document(found: "Hit | StoredSegment") -> Document:
    return Document(id=id_of(found), page_content=words_of(found), metadata=metadata_of(found))


def _fits(document: Document, wanted: Filter | None) -> bool:
    if wanted is None:
        return True
    if callable(wanted):
        return wanted(document)
    missing = object()
    return all(document.metadata.get(name, missing) == value for name, value in wanted.items())


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    """Raise TypeError for an option that would otherwise be dropped in silence."""
    if options:
        raise TypeError(f"there is no option {', '.join(options)}")
