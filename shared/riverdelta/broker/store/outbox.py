"""Encode a chat's outbox: the calls of observers that are still owed to ended messages."""

from __future__ import annotations

import orjson

from riverdelta.core.changes import OwedCall


def field_of(call: OwedCall) -> str:
    """Name the field of *call* in the outbox."""
    return f"{call.message_id} {call.observer}"


def encode_call(call: OwedCall) -> bytes:
    """Encode a call as JSON."""
    record = {"tries": call.tries, "error": call.error, "end": orjson.Fragment(call.end)}
    return orjson.dumps(record)


def read_calls(fields: dict[str, bytes]) -> list[OwedCall]:
    """Decode the fields of an outbox."""
    calls = []
    for field, encoded in fields.items():
        message_id, _, observer = field.partition(" ")
        record = orjson.loads(encoded)
        end = orjson.dumps(record["end"])
        calls.append(OwedCall(message_id, observer, end, record["tries"], record["error"]))
    return calls
