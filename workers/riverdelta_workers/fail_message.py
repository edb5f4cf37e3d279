"""Ends messages in their producers' place, where those are dead or silent."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from riverdelta.broker.client import Client
from riverdelta.broker.dispatch.attach_jobs import request_owner
from riverdelta.broker.store import scripts
from riverdelta.broker.store.save import REAPER
from riverdelta.broker.store.scripts import NewEntry, PushLimits
from riverdelta.core.state import MessageState


async def fail_message(
    client: Client, chat_id: str, message_id: str, *, code: str, detail: str
) -> None:
    """
    Fail a message, in stream order: behind all that was pushed, and only if no end came before.

    Safe to repeat, and for several workers at once: the entry is stored once.

    Raises:
        BrokerUnavailable: Redis did not answer; try again.
    """
    reply = await scripts.push(
        client.chats,
        client.keys.chat(chat_id),
        producer=REAPER,
        message_id=message_id,
        number=1,
        entries=[NewEntry("fail", 0, orjson.dumps({"code": code, "detail": detail}))],
        limits=PushLimits(0, 0),
    )
    if not reply.owner and reply.pushed > reply.processed:
        await request_owner(client, chat_id, term=reply.term)


async def doubt_producers(client: Client, chat_id: str, messages: Iterable[MessageState]) -> None:
    """
    List open messages with their producers again, as a new owner finds them.

    A server that came back with less may have forgotten that they had ended, or been failed, and
    their producers be gone from all lists since: a reaper finds that those counters stand still.

    Raises:
        BrokerUnavailable: Redis did not answer; try again.
    """
    for message in messages:
        await scripts.doubt(
            client.queue,
            client.keys,
            producer_id=message.producer,
            member=f"{chat_id} {message.id}",
        )
