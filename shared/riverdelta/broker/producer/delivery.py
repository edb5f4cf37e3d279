"""Stores the entries of one message, each once and in order, until its end is stored."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import ClassVar, Final

from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from riverdelta.broker.producer.encode import clean_json, producer_error
from riverdelta.broker.producer.registry import Opening, Registry
from riverdelta.broker.producer.sender import Sender
from riverdelta.broker.store import scripts
from riverdelta.broker.store.scripts import NewEntry, PushReply
from riverdelta.core.errors import (
    BackpressureError,
    BrokerUnavailable,
    MessageEnded,
    MessageExists,
    MessageLost,
    RiverdeltaError,
    Stopped,
)

_RETRY_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
"""Waits between tries of a refused push: soon at first, because a busy worker catches up in ms."""

_log = logging.getLogger("riverdelta.producer")


class Delivery:
    """
    The delivery of one message: numbers its entries, retries, and decides what a refusal means.

    Args:
        registry: Of the producer.
        opening: What opens the message.

    Attributes:
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
        self._opened_at = 0.0
        self._order = asyncio.Lock()
        self._opened = False
        self._sender = Sender(registry, opening)
        self._in_doubt: list[NewEntry] = []
        self._end: tuple[NewEntry, RiverdeltaError] | None = None
        self._ended: RiverdeltaError | None = None
        self._ended_at: float | None = None
        self._check_at = 0.0
        self._name = f"message {opening.message_id} of chat {opening.chat_id}"

    # -- what a message does ---------------------------------------------------------------------

    async def open(self) -> None:
        """Register the message, then store its start. Raises as `Message.__aenter__`."""
        self._opened_at = time.monotonic()
        await self._keep_trying(self._try_register)
        try:
            await self._keep_trying(self._try_open)
        except MessageExists:
            await self._registry.forget(self)
            raise
        except BaseException as error:
            # It may be open all the same: the caretaker stores its end.
            self._want_end("fail", producer_error(error), MessageEnded("it was not opened"))
            raise

    async def store(self, type_: str, data: list[bytes]) -> None:
        """Store entries of one type, all or none of them. Raises as `Message.push`."""
        async with self._order:
            if self._ended is not None:
                raise self._ended
            if self._end is not None:
                raise self._end[1]
            await self._bound_doubt()
            entries = [NewEntry(type_, self._at_ms(), item) for item in data]
            await self._put([*self._in_doubt, *entries])

    async def finish(self, type_: str, data: bytes, ended: RiverdeltaError) -> None:
        """
        Store the end, unless it has one.

        Args:
            type_: Of the entry: ``end`` or ``fail``.
            data: Of the entry.
            ended: What a later call raises.
        """
        try:
            async with self._order:
                if self._ended is None:
                    self._want_end(type_, data, ended)
                    await self._store_end()
        except BaseException:
            # Cut off, perhaps while another task was pushing: the caretaker stores it later.
            if self._ended is None:
                self._want_end(type_, data, ended)
            raise

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
        """Whether its end is stored, or an end by somebody else is."""
        return self._ended is not None

    def is_due(self) -> bool:
        """Whether to `check` now: at each turn, and ever more rarely once its end was processed."""
        return time.monotonic() >= self._check_at

    async def check(self) -> bool:
        """
        Ask how the message stands, and do what is due.

        Obeys a stop, stores an end that could not be stored before, sends again what the server has
        lost, asks for an owner where the chat has none.

        Returns:
            Whether it needs no more checks.

        Raises:
            BrokerUnavailable: Redis did not answer; check again.
        """
        last = self._sender.last
        reply = await scripts.check(
            self._registry.client.chats,
            self._keys,
            producer=self._registry.id,
            message_id=self.opening.message_id,
        )
        if not self._order.locked():
            async with self._order:
                await self._do_what_is_due(reply, last)
        if not reply.owner and reply.pushed > reply.processed:
            await self._registry.request_owner(self.opening.chat_id, reply.term)
        return self._is_over(reply)

    def look_soon(self) -> None:
        """Note that the server lost some of the chat; `check` is due now."""
        self._sender.chat_fell_back = True
        self._check_at = 0.0

    def release(self) -> None:
        """Drop what is kept to be sent again."""
        self._sender.kept.release()

    async def _do_what_is_due(self, reply: PushReply, last: int) -> None:
        """Act on a check's *reply*, sent when *last* was the last number. The caller holds the order."""
        if self._ended is None and self._end is not None:
            await self._store_end()
        elif not self._opened:
            return
        elif reply.status == "open" and reply.last < last:
            await self._put(self._in_doubt)
        elif reply.status != "unknown":
            self._sender.note_answer(reply)
            if self._ended is None and reply.stop and reply.status == "open":
                await self._obey_stop(reply.stop)
        elif self._ended is None or self._sender.is_forgotten(reply):
            await self._put(self._in_doubt)

    def _is_over(self, reply: PushReply) -> bool:
        if self._ended_at is None:
            return self._ended is not None or (
                self._opened and reply.status not in ("open", "unknown")
            )
        if reply.status == "open":
            return False
        # Processed; but a server that comes back with less may have lost it.
        now, keep_s = time.monotonic(), min(self.keep_s, self._sender.stale_s)
        self._check_at = min(2 * now - self._ended_at, self._ended_at + keep_s)
        return now >= self._ended_at + keep_s or not self._sender.kept

    # -- numbering and storing -------------------------------------------------------------------

    async def _bound_doubt(self) -> None:
        """Refuse entries while a backlog's worth of them is in doubt: memory is bounded."""
        if sum(len(entry.data) for entry in self._in_doubt) < self._registry.limits.bytes:
            return
        try:
            await self._put(self._in_doubt)
        except BrokerUnavailable as error:
            message = (
                f"not stored: {len(self._in_doubt)} chunks before it wait for an answer: {error}"
            )
            raise BackpressureError(message) from error

    def _want_end(self, type_: str, data: bytes, ended: RiverdeltaError) -> None:
        """Refuse every entry but this end from now on; the first end wins."""
        if self._end is None:
            self._end = NewEntry(type_, self._at_ms(), data), ended

    async def _store_end(self) -> None:
        """Store the end that is wanted. The caller holds the order."""
        if self._end is None or self._ended is not None:
            return
        end, ended = self._end
        if not self._opened:
            await self._keep_trying(self._try_open)
        doubt = self._in_doubt
        await self._put(doubt if doubt and doubt[-1] is end else [*doubt, end])
        self._ended, self._ended_at = ended, time.monotonic()
        self._sender.is_ended = True

    async def _obey_stop(self, reason: str) -> None:
        """End the message because a reader asked for it. The caller holds the order."""
        self._want_end("stop", clean_json({"reason": reason}), Stopped(reason))
        await self._store_end()

    async def _put(self, entries: list[NewEntry]) -> None:
        """
        Push *entries* under the next numbers until they are stored, or must not be.

        Entries in doubt go first, under the numbers they had, so that each is stored once.
        """
        try:
            await self._keep_trying(lambda: self._try_push(entries))
        except BackpressureError as error:
            # Never say "not stored" of what an earlier try, without an answer, may have stored.
            if self._in_doubt is entries:
                reason = f"no answer, then: {error}"
                raise self._registry.client.chats.unavailable(reason) from error
            raise

    async def _keep_trying(self, action: Callable[[], Awaitable[RiverdeltaError | None]]) -> None:
        """Repeat *action* while it returns an error, for ``push_wait_s``; then raise that."""
        deadline = time.monotonic() + self._registry.client.settings.push_wait_s
        waits = itertools.chain(_RETRY_S, itertools.repeat(_RETRY_S[-1]))
        while (refused := await action()) is not None:
            wait = next(waits)
            if self._registry.client.closed or time.monotonic() + wait > deadline:
                raise refused
            await asyncio.sleep(wait)

    async def _try_register(self) -> RiverdeltaError | None:
        try:
            await self._registry.register(self)
        except (BrokerUnavailable, ResponseError) as error:
            return self._temporary(error)
        return None

    async def _try_open(self) -> RiverdeltaError | None:
        """Try once. None: open. An error: not open, or in doubt; trying again may help."""
        try:
            reply = await self._sender.start()
        except (BrokerUnavailable, ResponseError) as error:
            return self._temporary(error)
        if reply.status == "exists":
            chat_id, message_id, *_ = self.opening
            message = f"message {message_id} exists in chat {chat_id}: it was opened before"
            raise self._close(MessageExists(message))
        self._opened = True
        self._sender.note_answer(reply)
        self._ensure_owner(reply)
        return None

    async def _try_push(self, entries: list[NewEntry]) -> RiverdeltaError | None:
        """Try once. None: stored. An error: not stored, or in doubt; trying again may help."""
        # Until an answer comes (this call may be cancelled, too), all of them are in doubt: nothing
        # else may ever take their numbers, because this very push may still arrive.
        before, self._in_doubt = self._in_doubt, entries
        try:
            reply = await self._sender.push(entries)
        except BrokerUnavailable as error:
            return error
        except ResponseError as error:
            self._in_doubt = before
            return self._temporary(error)
        if reply.status not in ("stored", "repeat"):
            self._in_doubt = before
            return await self._refused(reply)
        self._in_doubt = []
        self._ensure_owner(reply)
        return None

    def _temporary(self, error: RedisError | RiverdeltaError) -> RiverdeltaError:
        """Turn an error that may pass into one of ours."""
        if isinstance(error, RiverdeltaError):
            return error
        if isinstance(error, OutOfMemoryError):
            return BackpressureError("Redis is out of memory (maxmemory): workers have to drain it")
        return self._registry.client.chats.unavailable(error)

    def _ensure_owner(self, reply: PushReply) -> None:
        if not reply.owner:
            self._registry.request_owner_soon(self.opening.chat_id, reply.term)

    async def _refused(self, reply: PushReply) -> RiverdeltaError:
        """Decide what a refusal means: return an error that may pass, raise one that will not."""
        match reply.status:
            case "full":
                unread = reply.pushed - reply.processed
                owner = f"worker {reply.owner}" if reply.owner else "no worker"
                message = f"chat {self.opening.chat_id} has {unread} unread chunks ({owner} has it)"
                return BackpressureError(message)
            case "stopped":
                await self._obey_stop(reply.stop)
                raise Stopped(reply.stop)
            case "hole":
                await self._fail_with_data_lost(reply.last)
                message = f"Redis lost more of {self._name} than could be sent again"
                raise self._close(MessageLost(message))
            case "ended":
                message = f"{self._name} has ended"
                raise self._close(MessageEnded(message))
            case _:
                message = f"Redis does not know {self._name} any more"
                raise self._close(MessageLost(message))

    async def _fail_with_data_lost(self, last: int) -> None:
        """Fail the message: Redis lost entries that are not kept here either."""
        self._sender.last, self._in_doubt = last, []
        self._sender.kept.release()
        self._ended, self._sender.is_ended = None, False
        lost = {"code": "data_lost", "detail": "Redis lost part of the reply"}
        self._end = None
        self._want_end("fail", clean_json(lost), MessageLost(f"{self._name} lost data"))
        await self._store_end()

    def _close(self, error: RiverdeltaError) -> RiverdeltaError:
        """Raise *error* for every later call, too."""
        self._ended = error
        return error

    def _at_ms(self) -> int:
        return int((time.monotonic() - self._opened_at) * 1000)
