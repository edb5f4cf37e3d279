"""Gets the next entries of a chat: from its inbox, or from its stream."""

from __future__ import annotations

from typing import Final

from riverdelta.broker.client import Client
from riverdelta.core.state import Entry
from riverdelta_workers.attachment import Attachment

_READ_BYTES: Final = 1024 * 1024
"""A batch of large entries is kept near this size, so that one reply and one commit stay small."""


async def next_entries(client: Client, attachment: Attachment, processed: int) -> list[Entry]:
    """
    Take or read what follows entry number *processed*; may be nothing.

    Raises:
        BrokerUnavailable: Redis did not answer.
    """
    most = 1 if attachment.single else client.settings.batch_chunks
    if not attachment.must_read:
        return attachment.take_inbox(most)
    attachment.must_read = False
    count = most if attachment.single else _fitting(most, attachment.entry_bytes)
    reply = await client.chats.execute(
        "XREAD", "COUNT", count, "STREAMS", attachment.keys.chunks, f"{processed}-0"
    )
    entries = [_entry(entry_id, fields) for entry_id, fields in reply[0][1]] if reply else []
    # A wake that came while we read may have been judged by the number before: read once more.
    if len(entries) == count or attachment.has_work:
        attachment.must_read = True
    attachment.expect(processed + len(entries) + 1)
    if entries:
        attachment.entry_bytes = sum(len(entry.data) for entry in entries) // len(entries)
    return entries


def _fitting(most: int, entry_bytes: int) -> int:
    """How many entries to read, judged by the size of the last ones."""
    return max(1, min(most, _READ_BYTES // entry_bytes)) if entry_bytes else most


def _entry(entry_id: bytes, fields: list[bytes]) -> Entry:
    # Field order is fixed by push.lua.
    _, message, _, kind, _, at_ms, _, data = fields
    # Once for every chunk: a named tuple's own constructor would take a third longer.
    values = (int(entry_id[:-2]), message.decode(), kind.decode(), int(at_ms), data)
    return tuple.__new__(Entry, values)
