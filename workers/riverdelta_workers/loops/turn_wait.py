"""Fail turns that no turns process adopted in time."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import ClassVar, Final

import orjson

from riverdelta.broker.dispatch.attach_jobs import request_owner
from riverdelta.broker.loop import Loop
from riverdelta.broker.store.turn_scripts import expire_turn
from riverdelta_workers.pump import Pump

_ENTRY: Final = orjson.dumps(
    {"code": "not_started", "detail": "No process was free to write this reply."}
)

_log = logging.getLogger("riverdelta.worker")


class TurnWait(Loop):
    """
    Watches the turns of this process's chats that wait for a producer.

    The server says how long each may still wait: its clock alone counts. A chat with such a turn keeps its
    owner, so every turn is watched by one worker; the failure is stored once.

    Attributes:
        every_s: Seconds between two turns of the loop: by so much a failure may be late.
    """

    every_s: ClassVar = 1.0

    def __init__(self, pump: Pump) -> None:
        super().__init__(self.every_s, _log)
        self._pump = pump
        self._due: dict[tuple[str, str], float] = {}
        """Chat and message -> when to ask the server again, by `time.monotonic`."""

    async def exec(self) -> None:
        """Fail every turn whose time is over."""
        now = time.monotonic()
        waiting = {
            (attachment.chat_id, message.id)
            for attachment in self._pump.attachments
            if attachment.hot is not None
            for message in attachment.hot.state.messages.values()
            if not message.producer
        }
        self._due = {turn: at for turn, at in self._due.items() if turn in waiting}
        due = [turn for turn in waiting if self._due.get(turn, now) <= now]
        await asyncio.gather(*(self._expire(chat_id, message_id) for chat_id, message_id in due))

    async def _expire(self, chat_id: str, message_id: str) -> None:
        client = self._pump.client
        keys = client.keys.chat(chat_id)
        reply = await expire_turn(client.chats, keys, message_id=message_id, entry=_ENTRY)
        if reply.status == "waiting":
            self._due[chat_id, message_id] = time.monotonic() + reply.left_ms / 1000
        elif reply.status == "failed":
            _log.warning("turn %s of chat %s was not started in time", message_id, chat_id)
            if not reply.owner:
                await request_owner(client, chat_id, term=reply.term)
