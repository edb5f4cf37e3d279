"""Encode what a producer pushes as bytes."""

from __future__ import annotations

import json

import orjson
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError


def encode_chunk(chunk: object, *, text_source: bool) -> bytes:
    """
    Encode a raw chunk: str and bytes as they are, anything else as JSON.

    Raises:
        TypeError: It cannot be encoded; a caller bug.
    """
    if isinstance(chunk, str):
        # Half a surrogate pair is legal here: its other half may come with the next chunk.
        return chunk.encode("utf-8", "surrogatepass")
    if isinstance(chunk, bytes | bytearray | memoryview):
        return bytes(chunk)
    if text_source:
        message = f"a text source takes str or bytes, not {type(chunk).__name__}"
        raise TypeError(message)
    if isinstance(chunk, BaseModel):  # the openai and anthropic SDKs' type of chunks
        # No warnings: the SDK reads a chunk that it does not know as the nearest type that it knows.
        try:
            return chunk.model_dump_json(exclude_unset=True, warnings=False).encode()
        except PydanticSerializationError:
            chunk = chunk.model_dump(exclude_unset=True, warnings=False)
    try:
        return orjson.dumps(chunk)
    except TypeError:
        # orjson and pydantic refuse lone surrogates; as escapes, the codec joins them.
        return json.dumps(chunk, allow_nan=False).encode()


def clean_json(value: object) -> bytes:
    """
    Encode a value of the backend as JSON; half a surrogate pair becomes U+FFFD.

    Raises:
        TypeError: It is not a JSON value; a caller bug.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def producer_error(error: BaseException) -> bytes:
    """Encode the error that left a block: its class only, since its text may contain secrets."""
    return clean_json({"code": "producer_error", "detail": type(error).__name__})
