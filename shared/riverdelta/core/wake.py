"""Parse the wake payload, which may carry entries to the owner."""

from __future__ import annotations

from riverdelta.core.state import Entry


def parse_wake(payload: bytes) -> list[Entry]:
    r"""
    Parse what ``push.lua`` published: ``<number>\n`` and ``<message> <type> <at> <size>\n<data>`` each.

    An empty payload (nothing inline: read the stream) gives an empty list.
    """
    if not payload:
        return []
    at = payload.index(b"\n") + 1
    number = int(payload[: at - 1])
    entries = []
    while at < len(payload):
        end = payload.index(b"\n", at)
        message, kind, at_ms, size = payload[at:end].split(b" ")
        at = end + 1 + int(size)
        if not end < at <= len(payload):
            raise ValueError("a wake entry is longer or shorter than its size field says")
        data = payload[end + 1 : at]
        entries.append(Entry(number, message.decode(), kind.decode(), int(at_ms), data))
        number += 1
    return entries
