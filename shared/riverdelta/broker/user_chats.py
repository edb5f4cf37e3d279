"""List the chats of each user, and announce new messages to gateways."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

import orjson

from riverdelta.broker.client import Client
from riverdelta.broker.store import members, scripts
from riverdelta.broker.store.head import read_folded_open, read_user

_LISTED: Final = 1000
"""Most chats that are listed for a user."""
_SEARCHED: Final = 20
"""Chats that are searched for open messages: opening a message moves its chat to the front."""


class Announcement(NamedTuple):
    """A message is about to be opened in a user's chat; the chat may not exist yet."""

    chat_id: str
    message_id: str


async def announce(client: Client, user: str, announcement: Announcement) -> None:
    """
    List a chat as active now, and announce it to all gateways with sockets of its user.

    Raises:
        BrokerUnavailable: Redis did not answer; repeating it is safe.
    """
    payload = orjson.dumps({"chat": announcement.chat_id, "message": announcement.message_id})
    await scripts.list_chat(
        client.queue,
        client.keys.user_chats(user),
        chat_id=announcement.chat_id,
        announcement=payload,
        kept_ms=int(client.settings.retention_s * 1000),
    )


async def remove_chat(client: Client, user: str, chat_id: str) -> None:
    """
    Remove a chat from a user's list: it belongs to another user.

    Raises:
        BrokerUnavailable: Redis did not answer. The chat may stay on the list; that does no harm.
    """
    await members.remove_user_chat(client.queue, client.keys, user, chat_id)


def read_announcement(payload: bytes) -> Announcement:
    """
    Decode an announcement.

    Raises:
        ValueError: `announce` did not send it; ignore it.
    """
    match orjson.loads(payload):
        case {"chat": str(chat_id), "message": str(message_id)}:
            return Announcement(chat_id, message_id)
    raise ValueError(payload)


async def open_messages(client: Client, user: str) -> list[Announcement]:
    """
    Find the open messages of a user's chats: those whose announcements may have been missed.

    The chats that were active last are searched; a chat in the list may be another user's.

    Raises:
        BrokerUnavailable: Redis did not answer; try again.
    """
    listed = await members.list_user_chats(client.queue, client.keys, user, limit=_SEARCHED)
    chat_ids = [chat_id for chat_id, _ in listed]
    reads = (read_folded_open(client.chats, client.keys.chat(chat_id)) for chat_id in chat_ids)
    found = zip(chat_ids, await asyncio.gather(*reads), strict=True)
    return [Announcement(chat_id, one) for chat_id, open_ in found for one in open_]


async def user_of_chat(client: Client, chat_id: str) -> str | None:
    """
    Look up the user that a chat was opened for; "": none was named; None: the chat does not exist.

    Raises:
        BrokerUnavailable: Redis did not answer; try again.
    """
    return await read_user(client.chats, client.keys.chat(chat_id))


async def list_chats(client: Client, user: str) -> list[tuple[str, int]]:
    """
    List a user's chats with the Unix millisecond of their last activity, the latest first.

    Some of them may be gone, or may not exist yet.

    Raises:
        BrokerUnavailable: Redis did not answer; try again.
    """
    return await members.list_user_chats(client.queue, client.keys, user, limit=_LISTED)
