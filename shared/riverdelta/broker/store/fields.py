"""Reads the fields of stored hashes, whoever needs them: owners, snapshots, people."""

from __future__ import annotations

from typing import Any, Final

import orjson

from riverdelta.broker.store.keys import ChatKeys
from riverdelta.core.codecs.pieces import Section
from riverdelta.core.errors import FormatTooNew
from riverdelta.core.outputs import grow_output
from riverdelta.core.state import Recent

STORED_FORMAT: Final = 2
"""
Format number ``v`` of the hashes that a worker writes. It reads this one and the one before, so that
workers can be replaced one by one, and refuses what is newer. Events count theirs apart.

- 1: a chunk's ``card`` names the processor that made its card; ``retake`` is how a retried call goes on.
- 2: these are ``card_processor`` and ``retried_call``.

The head's ``v`` is the newest of the chat: a worker that claims the chat raises it.
"""

OPENED_FORMAT: Final = 1
"""Format number of what a producer writes when it opens a message: workers of format 1 can read that."""

_RENAMED: Final = {"card_processor": "card", "retried_call": "retake"}
"""Fields of a chunk in format 2, and their names in format 1."""


def card_of(fields: dict[str, bytes]) -> dict[str, Any] | None:
    """Put a chunk's card together; None: it has none."""
    card: dict[str, Any] | None = None
    for name in [*output_segments(fields), "output.result"]:
        if name in fields:
            card = grow_output(card, orjson.loads(fields[name]))
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
    Check that this version can read what is stored.

    Raises:
        FormatTooNew: A newer riverdelta wrote it; upgrade this process.
    """
    found = format_of(fields)
    if found > STORED_FORMAT:
        message = (
            f"this {what} is stored in format {found}, this riverdelta reads up to {STORED_FORMAT}"
        )
        raise FormatTooNew(f"{message}: upgrade")


def format_of(fields: dict[str, bytes]) -> int:
    """Format number that a hash was written in."""
    return int_of(fields, "v", STORED_FORMAT)


def chunk_field(fields: dict[str, bytes], name: str) -> str:
    """Read a text of a chunk's hash by its present name; in an older format it may have another."""
    return text_of(fields, name if name in fields else _RENAMED.get(name, name))


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
