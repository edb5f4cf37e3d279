"""Deliver the entries of one message, as `riverdelta.core.outgoing` decides."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Iterator
from typing import ClassVar, Final

from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from riverdelta.broker.producer.encode import producer_error
from riverdelta.broker.producer.registry import Opening, Registry, new_token
from riverdelta.broker.store import scripts, turn_scripts
from riverdelta.broker.store.scripts import PushLimits
from riverdelta.core.errors import (
    BackpressureError,
    BrokerUnavailable,
    MessageEnded,
    MessageExists,
    MessageLost,
    NotChatOwner,
    RiverdeltaError,
    Stopped,
)
from riverdelta.core.outgoing import (
    Adopt,
    ChatFellBack,
    NewEntry,
    Open,
    Outgoing,
    Output,
    Push,
    PushReply,
    Raise,
    RequestOwner,
    Resend,
    Wait,
)

_RETRY_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
"""Waits between tries of a refused push: soon at first, because a busy worker catches up in ms."""

_UNLIMITED: Final = PushLimits(2**53, 2**53)
"""For entries that were stored before: back-pressure does not delay what a server has lost."""

_NOBODY: Final = b'{"producer":""}'
"""Entry of a turn that waits for a producer again."""

_log = logging.getLogger("riverdelta.producer")


class Delivery:
    """
    The delivery of one message: sends, waits and retries as `Outgoing` says.

    Args:
        registry: The producer's registry.
        opening: Ids, user, source and start of the message.

    Attributes:
        kept: Its last entries, to be sent again to a server that lost them.
        outgoing: Decides what is sent.
        keep_s: How long after its end a message is kept, to send it again to a server that lost it.
        fail_wait_s: How long leaving a block by an exception may take to store the end; after that
            the producer's caretaker does it.
    """

    keep_s: ClassVar = 30.0
    fail_wait_s: ClassVar = 2.0

    def __init__(self, registry: Registry, opening: Opening) -> None:
        self.opening = opening
        self._registry = registry
        self._keys = registry.client.keys.chat(opening.chat_id)
        self._order = asyncio.Lock()
        self._opener = new_token()
        self._has_chunks = False
        self._name = f"message {opening.message_id} of chat {opening.chat_id}"
        self.kept = registry.resends.for_message()
        self.outgoing = Outgoing(
            opening.chat_id,
            opening.message_id,
            self.kept,
            doubt_bytes=registry.limits.bytes,
            # Half of it: an older reply cannot tell loss from expiry.
            stale_ms=int(registry.client.settings.retention_s / 2 * 1000),
            keep_ms=int(self.keep_s * 1000),
            adopts=opening.adopts is not None,
        )

    # -- what a message does ---------------------------------------------------------------------

    async def open(self) -> None:
        """Register the message, then store its start, or adopt it. Raises as `Message.__aenter__`."""
        outputs = self.outgoing.open(_now_ms())
        await self._register()
        try:
            async with self._order:
                await self._perform(outputs)
        except (MessageExists, MessageEnded, MessageLost, Stopped):
            await self._registry.forget(self)
            raise
        except NotChatOwner:
            await self._registry.withdraw(self)
            raise
        except BaseException as error:
            # It may still be open: the caretaker stores its end.
            end = self._entry("fail", producer_error(error))
            self.outgoing.want_end(end, MessageEnded("it was not opened"))
            raise

    async def store(self, type_: str, data: list[bytes]) -> None:
        """Store entries of one type, all or none of them. Raises as `Message.push`."""
        self._has_chunks = self._has_chunks or type_ != "annotate"
        async with self._order:
            entries = [self._entry(type_, item) for item in data]
            await self._perform(self.outgoing.store(entries))

    async def finish(self, type_: str, data: bytes, ended: RiverdeltaError) -> None:
        """
        Store the end, unless it has one.

        Args:
            type_: Type of the entry: ``end`` or ``fail``.
            data: JSON of the entry.
            ended: The error that a later call raises.
        """
        try:
            async with self._order:
                end = self._entry(type_, data)
                await self._perform(self.outgoing.finish(end, ended))
        except BaseException:
            # Cut off, perhaps while another task was pushing: the caretaker stores it later.
            self.outgoing.want_end(self._entry(type_, data), ended)
            raise

    async def let_wait(self) -> bool:
        """Let an adopted turn wait for another producer; False: it has chunks, or has ended."""
        opening, outgoing = self.opening, self.outgoing
        async with self._order:
            if outgoing.ended is not None or outgoing.doubt or opening.adopts is None:
                return False
            if self._has_chunks:
                return False
            reply = await turn_scripts.release_turn(
                self._registry.client.pushes,
                self._keys,
                producer=self._registry.id,
                message_id=opening.message_id,
                entry=_NOBODY,
                last=outgoing.last,
            )
            if reply.status != "released":
                return False
            outgoing.release(MessageEnded(f"{self._name} waits for another producer"))
        await self._registry.forget(self)
        if reply.unread and not reply.owner:
            await self._registry.request_owner(opening.chat_id, reply.term)
        return True

    async def fail_by(self, error: BaseException) -> None:
        """Fail the message because *error* left its block; what cannot be stored now is stored later."""
        try:
            async with asyncio.timeout(self.fail_wait_s):
                ended = MessageEnded("its block failed")
                await self.finish("fail", producer_error(error), ended)
        except (RiverdeltaError, TimeoutError) as late:
            _log.warning("%s fails later: %s", self._name, late)

    # -- what the caretaker does -----------------------------------------------------------------

    @property
    def is_ended(self) -> bool:
        """Whether its end is stored, by this producer or by a worker."""
        return self.outgoing.ended is not None

    def is_due(self) -> bool:
        """Whether to `check` now: at each turn, and ever more rarely once its end was processed."""
        return self.outgoing.is_due(_now_ms())

    async def check(self) -> bool:
        """
        Read the state of the message, and do what is due.

        Obeys a stop, stores an end that could not be stored before, sends again what the server has
        lost, requests an owner if the chat has none.

        Returns:
            Whether it needs no more checks.

        Raises:
            BrokerUnavailable: Redis did not answer; check again.
        """
        last = self.outgoing.last
        reply = await scripts.check(
            self._registry.client.chats,
            self._keys,
            producer=self._registry.id,
            message_id=self.opening.message_id,
        )
        if not self._order.locked():
            async with self._order:
                await self._perform(self.outgoing.checked(reply, last, _now_ms()))
        if not reply.owner and reply.pushed > reply.processed:
            await self._registry.request_owner(self.opening.chat_id, reply.term)
        return self.outgoing.is_over(reply, _now_ms())

    def look_soon(self) -> None:
        """Note that the server lost some of the chat; `check` is due now."""
        self.outgoing.fell_back()

    def release(self) -> None:
        """Drop what is kept to be sent again."""
        self.kept.release()

    # -- doing what is decided -------------------------------------------------------------------

    async def _register(self) -> None:
        """List the message under its producer; repeats that for ``push_wait_s``."""
        patience = self._patience()
        while True:
            try:
                await self._registry.register(self)
            except (BrokerUnavailable, ResponseError) as error:
                await self._wait(patience, self._temporary(error))
            else:
                return

    async def _perform(self, outputs: list[Output]) -> None:
        """Carry out *outputs* and what follows, until the call is done. The caller holds the order."""
        goal, patience = self.outgoing.goal, self._patience()
        while True:
            for output in outputs[:-1]:
                self._note(output)
            match outputs[-1]:
                case Open() | Adopt() | Push() | Resend() as sending:
                    outputs = await self._send(sending)
                case Wait(error):
                    if goal != self.outgoing.goal:
                        goal, patience = self.outgoing.goal, self._patience()
                    await self._wait(patience, error)
                    outputs = self.outgoing.retry()
                case Raise(error):
                    raise error
                case _:
                    return

    def _note(self, output: Output) -> None:
        match output:
            case RequestOwner(term):
                self._registry.request_owner_soon(self.opening.chat_id, term)
            case ChatFellBack():
                _log.warning("Redis lost some of %s", self._name)
                self._registry.chat_fell_back(self.opening.chat_id)

    async def _send(self, sending: Open | Adopt | Push | Resend) -> list[Output]:
        """Send once, and return what follows from the reply, or from its absence."""
        try:
            reply = await self._answer(sending)
        except BrokerUnavailable as error:
            return self.outgoing.lost(error)
        except ResponseError as error:
            return self.outgoing.refused(self._temporary(error))
        return self.outgoing.reply(reply, _now_ms())

    async def _answer(self, sending: Open | Adopt | Push | Resend) -> PushReply:
        client = self._registry.client
        if isinstance(sending, Open):
            if sending.again:
                await self._registry.announce(self.opening)
            return await scripts.open_message(
                client.pushes,
                self._keys,
                producer=self._registry.id,
                message_id=self.opening.message_id,
                opener=self._opener,
                start=self.opening.start,
                user=self.opening.user or "",
            )
        if isinstance(sending, Adopt):
            if sending.again:
                await self._registry.announce(self.opening)
            return await turn_scripts.adopt(
                client.pushes,
                self._keys,
                producer=self._registry.id,
                message_id=self.opening.message_id,
                entry=self.opening.adopts or b"",
            )
        return await scripts.push(
            client.pushes,
            self._keys,
            producer=self._registry.id,
            message_id=self.opening.message_id,
            message_seq=sending.message_seq,
            entries=sending.entries,
            limits=self._registry.limits if isinstance(sending, Push) else _UNLIMITED,
        )

    def _patience(self) -> Iterator[float | None]:
        """Seconds to wait before each retry; None: ``push_wait_s`` would be over by then."""
        deadline = time.monotonic() + self._registry.client.settings.push_wait_s
        for wait in itertools.chain(_RETRY_S, itertools.repeat(_RETRY_S[-1])):
            yield None if time.monotonic() + wait > deadline else wait

    async def _wait(self, patience: Iterator[float | None], error: RiverdeltaError) -> None:
        wait = next(patience)
        if wait is None or self._registry.client.closed:
            raise self.outgoing.give_up(error)
        await asyncio.sleep(wait)

    def _temporary(self, error: RedisError | RiverdeltaError) -> RiverdeltaError:
        """Convert a temporary error into one of ours."""
        if isinstance(error, RiverdeltaError):
            return error
        if isinstance(error, OutOfMemoryError):
            return BackpressureError("Redis is out of memory (maxmemory): workers have to drain it")
        return self._registry.client.chats.unavailable(error)

    def _entry(self, type_: str, data: bytes) -> NewEntry:
        return NewEntry(type_, self.outgoing.at_ms(_now_ms()), data)


def _now_ms() -> int:
    return int(time.monotonic() * 1000)
