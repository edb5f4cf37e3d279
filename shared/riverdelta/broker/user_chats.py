"""The chats of each user: listed before a message is opened, and announced to gateways."""

from __future__ import annotations

from typing import Final, NamedTuple

import orjson

from riverdelta.broker.client import Client
from riverdelta.broker.store import members, scripts
from riverdelta.broker.store.head import read_user

_LISTED: Final = 1000
"""Chats that a list holds at most; nobody scrolls further."""


class Announcement(NamedTuple):
    """A message is about to be opened in a chat of a user; the chat may not exist for a moment yet."""

    chat_id: str
    message_id: str


async def announce(client: Client, user: str, announcement: Announcement) -> None:
    """
    List a chat as active now, and tell all gateways with sockets of its user.

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
        BrokerUnavailable: Redis did not answer; the list only has an entry that `list_chats` may have.
    """
    await members.remove_user_chat(client.queue, client.keys, user, chat_id)


def read_announcement(payload: bytes) -> Announcement:
    """
    Read what `announce` has sent.

    Raises:
        ValueError: It was sent by somebody else.
    """
    match orjson.loads(payload):
        case {"chat": str(chat_id), "message": str(message_id)}:
            return Announcement(chat_id, message_id)
    raise ValueError(payload)


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

    Some may be gone, or not be there yet.

    Raises:
        BrokerUnavailable: Redis did not answer; try again.
    """
    return await members.list_user_chats(client.queue, client.keys, user, limit=_LISTED)
