"""Read the fields of stored hashes: for owners, snapshots and people."""

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

- 1: two fields of a chunk have other names, see `_RENAMED`.
- 2: the names of today. What changes with every entry of an open message is in the head, in its
  `counters_field`, and in the message's hash only once it has ended.

The head's ``v`` is the newest of the chat: a worker that claims the chat raises it.
"""

_COUNTERS: Final = "open."

OPENED_FORMAT: Final = 1
"""Format number of what a producer writes when it opens a message: workers of format 1 can read it."""

_RENAMED: Final = {"card_processor": "card", "retried_call": "retake"}  # codespell:ignore
"""Fields of a chunk in format 2, and their names in format 1."""


def card_of(fields: dict[str, bytes]) -> dict[str, Any] | None:
    """Build a chunk's card from its segments; None: it has none."""
    card: dict[str, Any] | None = None
    for name in [*output_segments(fields), "output.result"]:
        if name in fields:
            card = grow_output(card, orjson.loads(fields[name]))
    return card


def output_segments(fields: dict[str, bytes]) -> list[str]:
    """Name the fields that hold the segments of a chunk's card, in order."""
    count = sum(1 for name in fields if name.startswith("output.") and name != "output.result")
    return [f"output.{index}" for index in range(count)]


def section_of(fields: dict[str, bytes]) -> Section | None:
    """Read which section of a text a chunk is; None: it is no section."""
    stored = fields.get("section")
    return Section(**orjson.loads(stored)) if stored else None


def text_segments(fields: dict[str, bytes]) -> list[str]:
    """Read the segments of a chunk's text, in order."""
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
    """Read the format number that a hash was written in."""
    return int_of(fields, "v", STORED_FORMAT)


def chunk_field(fields: dict[str, bytes], name: str) -> str:
    """Read a text field of a chunk by its present name, also where an older format names it differently."""
    return text_of(fields, name if name in fields else _RENAMED.get(name, name))


def counters_field(message_id: str) -> str:
    """Field of the head: ``<raw chunks> <raw bytes> <at of the last entry, ms>`` of an open message."""
    return f"{_COUNTERS}{message_id}"


def counters_of(head: dict[str, bytes]) -> dict[str, tuple[int, int, int]]:
    """Read raw chunks, raw bytes and the last entry's ``at`` of the open messages, by message id."""
    found = {}
    for name, value in head.items():
        if name.startswith(_COUNTERS):
            chunks, size, at_ms = map(int, value.split())
            found[name.removeprefix(_COUNTERS)] = (chunks, size, at_ms)
    return found


def text_of(fields: dict[str, bytes], name: str) -> str:
    """Read a text; "" where there is none."""
    return fields.get(name, b"").decode()


def int_of(fields: dict[str, bytes], name: str, default: int = 0) -> int:
    """Read a number; *default* where there is none."""
    value = fields.get(name)
    return default if not value else int(value)


def keys_of(keys: ChatKeys, recent: dict[str, Recent]) -> list[str]:
    """Name the keys of all messages that a head lists, and of their chunks, in its order."""
    return [
        key
        for message_id, entry in recent.items()
        for key in keys.message_and_chunks(message_id, entry.chunk_count)
    ]


def describe(fields: dict[str, bytes]) -> dict[str, Any]:
    """Decode the fields of any hash for people: numbers and JSON as such, the rest as text."""
    described: dict[str, Any] = {}
    for name, value in fields.items():
        try:
            described[name] = orjson.loads(value)
        except orjson.JSONDecodeError:
            described[name] = value.decode(errors="replace")
    return described
