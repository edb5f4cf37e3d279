"""Fail messages on behalf of producers that are dead or silent."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from riverdelta.broker.client import Client
from riverdelta.broker.dispatch.attach_jobs import request_owner
from riverdelta.broker.store import scripts
from riverdelta.broker.store.save import REAPER
from riverdelta.broker.store.scripts import PushLimits
from riverdelta.core.outgoing import NewEntry
from riverdelta.core.state import MessageState


async def fail_message(
    client: Client, chat_id: str, message_id: str, *, code: str, detail: str
) -> None:
    """
    Fail a message in stream order: behind everything that was pushed, and only if it has not ended.

    Safe to repeat, also by several workers at once: the entry is stored once.

    Raises:
        BrokerUnavailable: Redis did not answer; try again.
    """
    reply = await scripts.push(
        client.chats,
        client.keys.chat(chat_id),
        producer=REAPER,
        message_id=message_id,
        message_seq=1,
        entries=[NewEntry("fail", 0, orjson.dumps({"code": code, "detail": detail}))],
        limits=PushLimits(0, 0),
    )
    if not reply.owner and reply.pushed > reply.processed:
        await request_owner(client, chat_id, term=reply.term)


async def doubt_producers(client: Client, chat_id: str, messages: Iterable[MessageState]) -> None:
    """
    Register the producers of open messages again, when a chat gets a new owner.

    A server that lost data may have forgotten that the messages ended, while their producers are already
    deregistered. Once registered again, a reaper sees that their counters stand still.

    Raises:
        BrokerUnavailable: Redis did not answer; try again.
    """
    for message in messages:
        if not message.producer:
            continue  # a turn that waits: no producer is to be missed
        await scripts.add_messages(
            client.queue,
            client.keys,
            producer_id=message.producer,
            members=[f"{chat_id} {message.id}"],
        )
