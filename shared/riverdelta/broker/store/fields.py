"""Reads the fields of stored hashes, whoever needs them: owners, snapshots, people."""

from __future__ import annotations

from typing import Any

import orjson

from riverdelta.broker.store.keys import ChatKeys
from riverdelta.core.codecs.pieces import Section
from riverdelta.core.errors import FormatTooNew
from riverdelta.core.events import FORMAT
from riverdelta.core.outputs import reduce_output
from riverdelta.core.state import Recent


def card_of(fields: dict[str, bytes]) -> dict[str, Any] | None:
    """Put a chunk's card together; None: it has none."""
    card: dict[str, Any] | None = None
    for name in [*output_segments(fields), "output.result"]:
        if name in fields:
            card = reduce_output(card, orjson.loads(fields[name]))
    return card


def output_segments(fields: dict[str, bytes]) -> list[str]:
    """Names of the fields that hold a chunk's card while it grew, in order."""
    count = sum(1 for name in fields if name.startswith("output.") and name != "output.result")
    return [f"output.{index}" for index in range(count)]


def section_of(fields: dict[str, bytes]) -> Section | None:
    """Read the part of a text that a chunk is; None: it is none."""
    stored = fields.get("section")
    return Section(**orjson.loads(stored)) if stored else None


def text_segments(fields: dict[str, bytes]) -> list[str]:
    """A chunk's text in segments, in order."""
    count = sum(1 for name in fields if name.startswith("text."))
    return [fields[f"text.{index}"].decode() for index in range(count)]


def check_format(fields: dict[str, bytes], what: str) -> None:
    """
    See that we can read what is stored.

    Raises:
        FormatTooNew: A newer riverdelta wrote it; upgrade this process.
    """
    found = int_of(fields, "v", FORMAT)
    if found > FORMAT:
        message = f"this {what} is stored in format {found}, this riverdelta reads up to {FORMAT}: upgrade"
        raise FormatTooNew(message)


def text_of(fields: dict[str, bytes], name: str) -> str:
    """Read a text; "" where there is none."""
    return fields.get(name, b"").decode()


def int_of(fields: dict[str, bytes], name: str, default: int = 0) -> int:
    """Read a number; *default* where there is none."""
    value = fields.get(name)
    return default if not value else int(value)


def keys_of(keys: ChatKeys, recent: dict[str, Recent]) -> list[str]:
    """Name every key of the messages that a head remembers, in its order."""
    return [
        key
        for message_id, entry in recent.items()
        for key in keys.message_and_chunks(message_id, entry.chunk_count)
    ]


def describe(fields: dict[str, bytes]) -> dict[str, Any]:
    """Fields of any hash above, for people: numbers and JSON read, the rest as text."""
    described: dict[str, Any] = {}
    for name, value in fields.items():
        try:
            described[name] = orjson.loads(value)
        except orjson.JSONDecodeError:
            described[name] = value.decode(errors="replace")
    return described
