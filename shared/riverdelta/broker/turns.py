"""Accept turns: messages that are in their chat before a producer writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson
from redis.exceptions import OutOfMemoryError

from riverdelta.broker.client import Client
from riverdelta.broker.dispatch.attach_jobs import request_owner
from riverdelta.broker.store import members
from riverdelta.broker.store.head import read_ownership, read_turns
from riverdelta.broker.store.start import Encoding, start_entry
from riverdelta.broker.store.turn_scripts import AcceptedTurn, TurnStart, accept_turn
from riverdelta.core.errors import BrokerUnavailable

_TRIES: Final = 20
"""Each is another turn that was accepted in the chat between two commands of this one."""


class NewTurn(NamedTuple):
    """
    A turn to be accepted.

    Attributes:
        chat_id: Its chat.
        start: What is stored of it; see `TurnStart`.
    """

    chat_id: str
    start: TurnStart


def encode_start(
    *, source: str, user: str, metadata: Mapping[str, Any], replaces: Sequence[str]
) -> bytes:
    """
    Encode the start of a turn that waits for its producer.

    Args:
        source: How its producer will encode raw chunks, as far as that is known; the producer says it.
        user: Id of the user who asks.
        metadata: What readers get with ``message.started``.
        replaces: Ids of messages whose place it takes.
    """
    encoding = Encoding(source=source, mode="append", on_mismatch="emit")
    about = {"user": user}
    return orjson.dumps(
        start_entry("", encoding, metadata=metadata, about=about, replaces=replaces)
    )


async def accept(client: Client, turn: NewTurn) -> AcceptedTurn:
    """
    Store the start of a turn; see ``accept_turn.lua`` for the answer. Safe to repeat.

    A chat without an owner is listed as waiting for one before: if this process dies right after, a
    reaper sees to it that readers get the turn.

    Raises:
        BrokerUnavailable: Redis did not answer, and whether the turn is accepted is in doubt; or Redis is
            out of memory, and it is not.
    """
    keys = client.keys.chat(turn.chat_id)
    known, owner = await read_turns(client.chats, keys)
    listed = not owner and await members.add_waiting(client.queue, client.keys, turn.chat_id)
    for _ in range(_TRIES):
        try:
            reply = await accept_turn(client.pushes, keys, turn.start, known=known)
        except OutOfMemoryError as error:
            raise BrokerUnavailable("Redis is out of memory: workers have to drain it") from error
        if reply.status != "moved":
            if listed and reply.status not in {"accepted", "repeat"}:
                await members.remove_waiting(client.queue, client.keys, turn.chat_id)
            return reply
        known = reply.behind
    raise BrokerUnavailable(f"chat {turn.chat_id} got {_TRIES} other turns meanwhile: try again")


async def attach(client: Client, chat_id: str) -> None:
    """
    Get the chat of an accepted turn an owner, unless it has one.

    Raises:
        BrokerUnavailable: Redis did not answer; repeating it is safe, and a reaper does it later.
    """
    ownership = await read_ownership(client.chats, client.keys.chat(chat_id))
    if ownership is not None and not ownership.owner:
        await request_owner(client, chat_id, term=ownership.term)
