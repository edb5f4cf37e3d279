"""Dead letters: raw entries that could not be used. Read, and put back where that is of use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from riverdelta.broker.client import Client
from riverdelta.broker.dispatch.attach_jobs import request_owner
from riverdelta.broker.store import scripts, streams
from riverdelta.core.ids import check_id

_PAGE: Final = 16
"""Letters read at a time: each may be as large as ``max_chunk_bytes``."""


class DeadLetter(NamedTuple):
    """
    A raw entry as its chat could not use it.

    Attributes:
        id: Its place among the dead letters of the chat: Unix milliseconds, and a number.
        code, detail: Why, as readers were told with ``input.rejected``.
        message: Message id.
        type: What it was pushed as: ``chunk``, ``tool_result``, ``annotate``, ...
        data: As it was pushed.
    """

    id: str
    code: str
    detail: str
    message: str
    type: str
    data: bytes


async def read_dead_letters(client: Client, chat_id: str) -> AsyncIterator[DeadLetter]:
    """
    Give the dead letters that a chat has now, the oldest first.

    Raises:
        InvalidIdError: (a ``ValueError``) your bug.
        BrokerUnavailable: Redis did not answer; try again.
    """
    chats, keys = client.chats, client.keys.chat(check_id("chat_id", chat_id))
    last, first = await streams.newest_dead(chats, keys), b"-"
    if last is None:
        return
    while page := await streams.read_dead(chats, keys, first=first, last=last, count=_PAGE):
        for letter_id, flat in page:
            fields = scripts.as_hash(flat)
            data = fields.pop("data")
            told = {name: value.decode("utf-8", "replace") for name, value in fields.items()}
            yield DeadLetter(id=letter_id.decode(), data=data, **told)
        first = b"(" + page[-1][0]


async def requeue(client: Client, chat_id: str, letter: DeadLetter) -> str:
    """
    Put a dead letter back, as a new entry at the end of its chat's raw stream.

    It is stored once, however often this is called, and wherever it is cut off.

    Returns:
        ``requeued``; or why not, and then nothing was done: ``absent`` (it was put back before),
        ``unknown`` (its message is gone), ``completed``, ``failed``, ``stopped`` (its message has
        ended), ``stopping`` (a reader stopped its message, which has not ended yet).

    Raises:
        BrokerUnavailable: Redis did not answer; try again.
    """
    keys = client.keys.chat(chat_id)
    answer = await scripts.requeue(
        client.chats, keys, letter_id=letter.id, message_id=letter.message
    )
    if answer.status == "requeued" and not answer.owner:
        await request_owner(client, chat_id, term=answer.term)
    return answer.status
