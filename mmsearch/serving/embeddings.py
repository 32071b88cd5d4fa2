"""Vectors over HTTP, as OpenAI's clients ask for them, of more than words.

    POST /v1/embeddings   {"input": [...], ...} -> {"data": [{"embedding": ...}], "usage": ...}
    GET  /v1/models       what can be asked for

``input`` is a text, or a list whose every element is embedded as one thing: a text, a list of
the model's own tokens, one part ``{"type": "image_url", ...}``, or a list of texts and parts.
All of one call may be of different sorts, and are embedded together.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from mmsearch.engine import Engine
from mmsearch.errors import BadInput, BadSetting, BadUpload, TooLarge
from mmsearch.serving.bodies import json_body
from mmsearch.serving.parts import PART_SCHEMA, Upload, Uploads
from mmsearch.serving.state import Served, State, answer
from mmsearch.serving.turns import answer_with_media
from mmsearch.values import Item, Text

if TYPE_CHECKING:
    from mmsearch.retriever.embedding.tokens import ModelTokens
    from mmsearch.values import Vectors

router = APIRouter(tags=["embeddings"])

_TOKEN = {"type": "integer", "minimum": 0}
_PARTS = {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, PART_SCHEMA]}}
_INPUT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "minItems": 1, "items": _TOKEN},
        {
            "type": "array",
            "minItems": 1,
            "items": {
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "array", "minItems": 1, "items": _TOKEN},
                    PART_SCHEMA,
                    _PARTS,
                ]
            },
        },
    ]
}


class EmbeddingsBody(BaseModel):
    """What to embed, and how to send it back. Fields that are not known are left alone."""

    model_config = ConfigDict(extra="ignore")

    input: Annotated[
        Any,
        Field(
            description="A text, or a list of inputs: texts, token lists, parts, lists of parts.",
            json_schema_extra=_INPUT_SCHEMA,
        ),
    ]
    model: Annotated[
        str | None,
        Field(max_length=500, description="One of /v1/models; by default the first index's."),
    ] = None
    encoding_format: Annotated[
        Literal["float", "base64"],
        Field(description="base64: of little-endian float32, several times as fast."),
    ] = "float"
    dimensions: Annotated[
        int | None,
        Field(ge=1, strict=True, description="Leading dimensions, at most the model's."),
    ] = None
    input_type: Annotated[
        Literal["document", "query"],
        Field(description="Of ours: models that prompt questions apart want to know."),
    ] = "document"


_DESCRIBED = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": EmbeddingsBody.model_json_schema()}},
    }
}


@router.post("/v1/embeddings", openapi_extra=_DESCRIBED, summary="Embed texts, pictures, films")
async def embeddings(request: Request, state: State) -> Response:
    """Return a unit vector for each input, in their order."""
    body = await json_body(request, EmbeddingsBody)
    engine, model = _meant(state, body.model)
    inputs = list(_inputs(body.input, state.settings.limits.max_inputs))
    if body.dimensions is not None and body.dimensions > engine.space.dim:
        raise BadSetting("dimensions", f"this model has {engine.space.dim}, not {body.dimensions}")

    def work() -> bytes:
        with Uploads(state.settings) as uploads:
            items, texts = _items(inputs, uploads, engine, state)
        embed = engine.embed_queries if body.input_type == "query" else engine.embed_documents
        vectors = _cut(embed(items), body.dimensions)
        return _told(vectors, body.encoding_format, model, _count(texts, items, engine, state))

    has_media = any(_has_media(one) for one in inputs)
    told = await (answer_with_media if has_media else answer)(request, work)
    return Response(told, media_type="application/json")


@router.get("/v1/models", summary="What can be asked for")
async def models(state: State) -> dict[str, Any]:
    """Return the models of this server, each by its name and by that of its indexes."""
    names = dict.fromkeys(name for known in _names(state).values() for name in known)
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "mmsearch"} for name in names]
    return {"object": "list", "data": data}


def _names(state: Served) -> dict[str, tuple[str, str]]:
    """Return how the model of each index may be called; a folder's path stays here."""
    return {name: (Path(engine.space.model).name, name) for name, engine in state.engines.items()}


def _meant(state: Served, model: str | None) -> tuple[Engine, str]:
    """Return the engine whose model is asked for, and its name; else a 404."""
    if model is None:
        engine = state.engine()
        return engine, Path(engine.space.model).name
    for name, known in _names(state).items():
        if model in known:
            return state.engines[name], model
    raise HTTPException(404, f"no model named {model[:100]!r}; GET /v1/models names them")


# ---------------------------------------------------------------- from a body to items


def _inputs(given: object, most: int) -> Iterator[str | list[Any]]:
    """Yield what is embedded, each a text, its tokens, or a list of texts and parts."""
    if isinstance(given, str) or _are_tokens(given):
        given = [given]
    if not isinstance(given, list) or not given:
        raise BadUpload("input", "it is neither a text nor a list with anything in it")
    if len(given) > most:
        raise TooLarge(f"input with {len(given)} elements", f"{most} inputs a call")
    for place, one in enumerate(given):
        name = f"input[{place}]"
        if isinstance(one, str):
            if not one.strip():
                raise BadUpload(name, "it is empty")
            yield one
        elif isinstance(one, dict):
            yield [one]
        elif isinstance(one, list) and one:
            yield one
        else:
            raise BadUpload(name, "it is neither a text, nor tokens, nor parts")


def _are_tokens(given: object) -> bool:
    """Say whether it is a list of numbers; True is one in Python, and none in JSON."""
    return (
        isinstance(given, list)
        and bool(given)
        and all(isinstance(one, int) and not isinstance(one, bool) for one in given)
    )


def _has_media(given: str | list[Any]) -> bool:
    return isinstance(given, list) and any(isinstance(part, dict) for part in given)


def _items(
    inputs: Sequence[str | list[Any]], uploads: Uploads, engine: Engine, state: Served
) -> tuple[list[Item], list[str]]:
    """Return what is embedded, and all the words in it.

    All that was sent is looked at before anything is decoded.
    """
    texts: list[str] = []
    made: list[list[str | Upload]] = []
    for place, given in enumerate(inputs):
        name = f"input[{place}]"
        if _are_tokens(given):
            parts: list[str | Upload] = [_text_of(given, name, engine, state)]
        else:
            parts = uploads.parts(given, name=name)
        if not any(isinstance(part, Upload) or part.strip() for part in parts):
            raise BadUpload(name, "it is empty")
        texts += [part for part in parts if isinstance(part, str)]
        made.append(parts)
    return [uploads.item(parts, engine) for parts in made], texts


def _text_of(given: str | list[Any], name: str, engine: Engine, state: Served) -> str:
    tokens = state.tokens(engine)
    hint = "send the text itself; LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False"
    if tokens is None:
        raise BadUpload(name, "this model has no tokens of its own", hint=hint)
    if len(given) > state.settings.limits.max_text_chars:
        raise TooLarge(f"{name}, tokens,", f"{state.settings.limits.max_text_chars} tokens")
    try:
        return tokens.text_of([int(one) for one in given])
    except BadInput as error:
        raise BadUpload(name, str(error), hint=hint) from None


# ---------------------------------------------------------------- from vectors to an answer


def _cut(vectors: "Vectors", dimensions: int | None) -> "Vectors":
    """Return the leading dimensions as unit vectors again."""
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    cut = vectors[:, :dimensions]
    length = np.linalg.norm(cut, axis=1, keepdims=True)
    return cut / np.maximum(length, np.finfo(np.float32).tiny)


def _count(texts: Sequence[str], items: Sequence[Item], engine: Engine, state: Served) -> int:
    """Return the tokens of all inputs: of words as the model cuts them, of pixels its work."""
    tokens: ModelTokens | None = state.tokens(engine)
    if tokens is None:
        return sum(engine.embedder.num_tokens(item) for item in items)
    media = [Item([part]) for item in items for part in item.parts if not isinstance(part, Text)]
    return tokens.count(texts) + sum(engine.embedder.num_tokens(item) for item in media)


def _told(vectors: "Vectors", form: str, model: str, num_tokens: int) -> bytes:
    """Return the body of the answer; base64 rows need no escaping, and are not parsed again."""
    rows: Iterator[str]
    if form == "base64":
        little = np.ascontiguousarray(vectors, dtype="<f4")
        rows = (f'"{base64.b64encode(row.tobytes()).decode()}"' for row in little)
    else:
        rows = (json.dumps(row) for row in vectors.tolist())
    data = ",".join(
        f'{{"object":"embedding","index":{index},"embedding":{row}}}'
        for index, row in enumerate(rows)
    )
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return (
        f'{{"object":"list","data":[{data}],"model":{json.dumps(model)},'
        f'"usage":{json.dumps(usage)}}}'
    ).encode()
