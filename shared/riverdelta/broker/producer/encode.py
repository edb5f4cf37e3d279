"""How a producer spells what it pushes as bytes."""

from __future__ import annotations

import json

import orjson
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError


def encode_chunk(chunk: object, *, text_source: bool) -> bytes:
    """
    Spell a raw chunk as bytes: as it is, or as JSON.

    Raises:
        TypeError: It cannot be spelled; a caller bug.
    """
    if isinstance(chunk, str):
        # Half a surrogate pair is legal here: its other half may come with the next chunk.
        return chunk.encode("utf-8", "surrogatepass")
    if isinstance(chunk, bytes | bytearray | memoryview):
        return bytes(chunk)
    if text_source:
        message = f"a text source takes str or bytes, not {type(chunk).__name__}"
        raise TypeError(message)
    if isinstance(chunk, BaseModel):  # what the openai and anthropic SDKs hand out
        # No warnings: the SDK takes what it does not know for the nearest thing it does.
        try:
            return chunk.model_dump_json(exclude_unset=True, warnings=False).encode()
        except PydanticSerializationError:
            chunk = chunk.model_dump(exclude_unset=True, warnings=False)
    try:
        return orjson.dumps(chunk)
    except TypeError:
        # orjson and pydantic refuse lone surrogates; spelled as escapes, the codec joins them.
        return json.dumps(chunk, allow_nan=False).encode()


def clean_json(value: object) -> bytes:
    """
    Spell a value of the backend's own as JSON; half a surrogate pair becomes U+FFFD.

    Raises:
        TypeError: It is no JSON value; a caller bug.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def producer_error(error: BaseException) -> bytes:
    """Say what left a block. The class only: an exception's text may hold what no reader must see."""
    return clean_json({"code": "producer_error", "detail": type(error).__name__})
