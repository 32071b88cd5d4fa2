"""A body of JSON, read and checked: what is wrong in it is said, and nothing of it repeated.

request -> bytes -> fields -> a model of pydantic
"""

import json
from typing import TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from mmsearch.errors import BadUpload
from mmsearch.serving.state import answer

_AT_ONCE_BYTES = 256 * 1024  # parsed in a millisecond; more goes to a thread
_Body = TypeVar("_Body", bound=BaseModel)


async def json_body(request: Request, model: type[_Body]) -> _Body:
    """Return the body of a request. Raises BadUpload, RequestValidationError."""
    raw = await request.body()
    if len(raw) < _AT_ONCE_BYTES:
        return checked(_parsed(raw), model)
    return await answer(request, lambda: checked(_parsed(raw), model))


def checked(fields: object, model: type[_Body]) -> _Body:
    """Return the fields of a body. Raises RequestValidationError."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_input=False, include_url=False)) from None


def _parsed(raw: bytes) -> object:
    try:
        return json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        raise BadUpload("the body", "it is not JSON in UTF-8") from None
