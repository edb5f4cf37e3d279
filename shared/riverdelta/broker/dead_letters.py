"""Read dead letters (raw entries that could not be used), and put them back into their chats."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from riverdelta.broker.client import Client
from riverdelta.broker.dispatch.attach_jobs import request_owner
from riverdelta.broker.store import scripts, streams
from riverdelta.core.ids import check_id

_PAGE: Final = 16
"""Dead letters read per command: each may be as large as ``max_chunk_bytes``."""


class DeadLetter(NamedTuple):
    """
    A raw entry that its chat could not use.

    Attributes:
        id: Its id in the chat's list of dead letters: ``<Unix milliseconds>-<number>``.
        code, detail: Why; readers got the same with ``input.rejected``.
        message: Message id.
        type: Type of the entry: ``chunk``, ``tool_result``, ``annotate``, ...
        data: The bytes that were pushed.
    """

    id: str
    code: str
    detail: str
    message: str
    type: str
    data: bytes


async def read_dead_letters(client: Client, chat_id: str) -> AsyncIterator[DeadLetter]:
    """
    Read the dead letters that a chat has now, the oldest first.

    Raises:
        InvalidIdError: (a ``ValueError``) *chat_id* is no chat id; a caller bug.
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
            texts = {name: value.decode("utf-8", "replace") for name, value in fields.items()}
            yield DeadLetter(id=letter_id.decode(), data=data, **texts)
        first = b"(" + page[-1][0]


async def requeue(client: Client, chat_id: str, letter: DeadLetter) -> str:
    """
    Put a dead letter back, as a new entry at the end of its chat's raw stream.

    Safe to repeat, and to cut off at any point: the entry is stored once.

    Returns:
        ``requeued``; or the reason why nothing was done: ``absent`` (it was put back before),
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
