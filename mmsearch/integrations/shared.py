"""What all frameworks are given alike: a hit's words, its metadata, its picture, vectors.

    Hit -> words_of, metadata_of, picture_of -> a framework's own document
    texts, pictures -> Vectorizer -> lists of floats

Knows no framework.
"""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.context import cited
from mmsearch.engine import Engine
from mmsearch.errors import SegmentNotFound, UnreadableFile
from mmsearch.integrations.server import Server
from mmsearch.values import Hit, Item, Role, given_id

if TYPE_CHECKING:
    from mmsearch.retriever.seams import Embedder
    from mmsearch.retriever.store.store import StoredSegment
    from mmsearch.values import Vectors

PICTURE_TYPE = "image/webp"


def id_of(hit: "Hit | StoredSegment") -> str:
    """Return the id of a text that was given, and of a file's segment that of the segment."""
    return given_id(hit.path) or hit.segment_id


def words_of(hit: "Hit | StoredSegment") -> str:
    """Return its words; of a picture without any, those about it."""
    return hit.text or ("" if given_id(hit.path) is not None else hit.about)


def metadata_of(hit: "Hit | StoredSegment") -> dict[str, Any]:
    """Return what is known of it, as JSON.

    Of a text that was given, what was given with it. Of a file, where it lies: ``source``
    (its path), ``page``, ``start`` and ``end``, what it is: ``kind``, and how it is cited.
    """
    if given_id(hit.path) is not None:
        return read_metadata(hit.about)
    return {
        "source": hit.path,
        "citation": cited(hit),
        "kind": str(hit.kind),
        "segment_id": hit.segment_id,
        **hit.locator.as_dict(),
    }


def written_metadata(metadata: dict[str, Any], *, text_id: str) -> str:
    """Return metadata as it is kept with a given text. Raises TypeError where it is not JSON."""
    try:
        return json.dumps(metadata, ensure_ascii=False) if metadata else ""
    except TypeError as error:
        raise TypeError(f"the metadata of {text_id!r} cannot be kept: {error}") from None


def read_metadata(about: str) -> dict[str, Any]:
    """Return what `written_metadata` was given; other words about a text as ``about``."""
    if not about:
        return {}
    try:
        read = json.loads(about)
    except json.JSONDecodeError:
        read = None
    return read if isinstance(read, dict) else {"about": about}


def picture_of(engine: Engine | Server, hit: Hit, *, max_pixels: int) -> bytes:
    """Return WebP of a page, a picture or a clip; empty for text, or where the file is gone."""
    if not max_pixels:
        return b""
    try:
        return engine.picture(hit.segment_id, max_pixels=max_pixels)
    except (UnreadableFile, SegmentNotFound):
        return b""


def data_uri(picture: bytes) -> str:
    """Return a picture as the URI that prompts and pages take."""
    return f"data:{PICTURE_TYPE};base64,{base64.b64encode(picture).decode()}"


class Vectorizer:
    """Texts and pictures into lists of floats, by the model of an index or one by its name.

    model: an open engine, a server, a name, a model folder, or an embedder of your own
    A picture given to an engine or a server is decoded in a worker process, within limits; a
    model by its name decodes it here.
    """

    def __init__(
        self,
        model: "Engine | Server | Embedder | str | Path",
        *,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        if isinstance(model, str | Path):
            from mmsearch.retriever.embedding.load import load_embedder

            model = load_embedder(model, device=device, dtype=dtype)
        self.model = model

    @property
    def name(self) -> str:
        """The model's name."""
        if isinstance(self.model, Server):
            return self.model.model
        return self.model.space.model

    def queries(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a unit vector for each, as queries are embedded."""
        return self._texts(texts, Role.QUERY)

    def documents(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a unit vector for each, as segments are embedded."""
        return self._texts(texts, Role.DOCUMENT)

    def pictures(self, pictures: Sequence[str | Path | io.BytesIO]) -> list[list[float]]:
        """Return a unit vector for each picture, by its path or its bytes.

        Raises UnreadableFile.
        """
        if not pictures:
            return []
        if isinstance(self.model, Server):
            return _lists(self.model.embed_pictures(pictures))
        return _lists(self._embedder.embed([self._picture(one) for one in pictures]))

    def _texts(self, texts: Sequence[str], role: Role) -> list[list[float]]:
        if not texts:
            return []
        if isinstance(self.model, Server):
            return _lists(self.model.embed_texts(texts, role))
        return _lists(self._embedder.embed([Item(text) for text in texts], role=role))

    @property
    def _embedder(self) -> "Embedder":
        assert not isinstance(self.model, Server)
        return self.model.embedder if isinstance(self.model, Engine) else self.model

    def _picture(self, given: str | Path | io.BytesIO) -> Item:
        if isinstance(given, io.BytesIO):
            import tempfile

            with tempfile.NamedTemporaryFile(prefix="mmsearch-") as file:
                file.write(given.getvalue())
                file.flush()
                return self._picture(file.name)
        if isinstance(self.model, Engine):
            return Item([self.model.part_of(given)])
        try:
            return Item([Path(given)])
        except OSError as error:
            raise UnreadableFile(given, "it is no picture that can be read") from error


def _lists(vectors: "Vectors") -> list[list[float]]:
    rows: list[list[float]] = vectors.tolist()
    return rows
