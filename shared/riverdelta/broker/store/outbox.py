"""How a chat's outbox is spelled: the calls of observers that ended messages still wait for."""

from __future__ import annotations

import orjson

from riverdelta.core.changes import OwedCall


def field_of(call: OwedCall) -> str:
    """Name the call's field in the outbox."""
    return f"{call.message_id} {call.observer}"


def spell_call(call: OwedCall) -> bytes:
    """Write a call down."""
    record = {"tries": call.tries, "error": call.error, "end": orjson.Fragment(call.end)}
    return orjson.dumps(record)


def read_calls(fields: dict[str, bytes]) -> list[OwedCall]:
    """Read an outbox."""
    calls = []
    for field, spelled in fields.items():
        message_id, _, observer = field.partition(" ")
        record = orjson.loads(spelled)
        end = orjson.dumps(record["end"])
        calls.append(OwedCall(message_id, observer, end, record["tries"], record["error"]))
    return calls
