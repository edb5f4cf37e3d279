"""One reply being pushed: opens, numbers its entries, pushes each exactly once, ends."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final, Self

import orjson
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from riverdelta.broker.producer.encode import clean_json, encode_chunk, producer_error
from riverdelta.broker.producer.sender import Sender
from riverdelta.broker.store import scripts
from riverdelta.broker.store.scripts import NewEntry, PushReply
from riverdelta.core.errors import (
    BackpressureError,
    BrokerUnavailable,
    ChunkTooLarge,
    MessageEnded,
    MessageExists,
    MessageLost,
    RiverdeltaError,
    Stopped,
)
from riverdelta.core.stitch import OVERLAP_RULES, OnOverlap

if TYPE_CHECKING:
    from types import TracebackType

    from riverdelta.broker.producer.producer import Producer

_RETRY_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
"""Waits between tries of a refused push: soon at first, because a busy worker catches up in ms."""

_FAIL_WAIT_S: Final = 2.0
"""How long leaving a block by an exception may take to say so; then the producer's caretaker does."""

_KEEP_S: Final = 30.0
"""How long after its end a message is looked after, and sent again to a server that forgot it."""

_log = logging.getLogger("riverdelta.producer")


class Message:
    """
    A reply in a chat. An async context manager; made by `Producer.message`.

    Leaving the block ends the message; leaving it by an exception fails it. Where that cannot be
    stored at once, the producer goes on trying. Calls may come from several tasks of one loop; they
    are stored in the order in which they were made.

    Attributes:
        id: Message id.
        chat_id: Chat id.
        user: Whose the chat is, if this message makes it; None: nobody's.
    """

    def __init__(
        self, producer: Producer, chat_id: str, message_id: str, start: bytes, user: str | None
    ) -> None:
        self.id = message_id
        self.chat_id = chat_id
        self.user = user
        self._producer = producer
        self._keys = producer.client.keys.chat(chat_id)
        self._text_source = orjson.loads(start)["source"].startswith("text")
        self._opened_at = 0.0
        self._order = asyncio.Lock()
        self._opened = False
        self._sender = Sender(producer, self, start)
        self._in_doubt: list[NewEntry] = []
        self._end: tuple[NewEntry, RiverdeltaError] | None = None
        self._ended: RiverdeltaError | None = None
        self._ended_at: float | None = None
        self._check_at = 0.0

    # -- what users call -------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """
        Open the message, so that a worker is attached before the provider's first token.

        Raises:
            MessageExists: The id was opened before; the reply is already under way.
            BrokerUnavailable: Redis did not answer for ``push_wait_s``.
        """
        self._opened_at = time.monotonic()
        await self._keep_trying(self._try_register)
        try:
            await self._keep_trying(self._try_open)
        except MessageExists:
            await self._producer.forget(self)
            raise
        except BaseException as error:
            # It may be open all the same: the producer sees to its end.
            self._want_end("fail", producer_error(error), MessageEnded("it was not opened"))
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the message, or fail it with ``producer_error`` if *exc* leaves the block."""
        if exc is None:
            await self.end()
            return
        try:
            async with asyncio.timeout(_FAIL_WAIT_S):
                await self._finish("fail", producer_error(exc), MessageEnded("its block failed"))
        except (RiverdeltaError, TimeoutError) as error:
            _log.warning("message %s of chat %s fails later: %s", self.id, self.chat_id, error)

    async def push(self, chunk: object) -> None:
        """
        Store one raw chunk; returns when Redis has it.

        Args:
            chunk: An object of the provider's SDK, a dict, a str or bytes, as the source spells it.

        Raises:
            ChunkTooLarge: Over ``max_chunk_bytes``; nothing was sent.
            Stopped: A reader stopped the reply; end the provider's call.
            BackpressureError: The backlog stayed full for ``push_wait_s``; the chunk is not stored.
            MessageEnded: The message has ended, e.g. a worker found this producer dead.
            MessageLost: The server forgot more of the message than this producer still had
                (``resend_bytes``): it was failed with ``data_lost``. Or all of it expired.
            BrokerUnavailable: No answer for ``push_wait_s``. The chunk may be stored or not; the
                next call of this message settles it first, so do not push it again. The same
                holds for a call that was cancelled.
            TypeError: Not one of the above, or not text for a text source; a caller bug.
        """
        await self.push_many((chunk,))

    async def push_many(self, chunks: Iterable[object]) -> None:
        """Store several raw chunks in one call; all or none of them. Raises as `push`."""
        raw = [encode_chunk(chunk, text_source=self._text_source) for chunk in chunks]
        limit = self._producer.client.settings.max_chunk_bytes
        for data in raw:
            if len(data) > limit:
                message = f"chunk of {len(data)} bytes is over max_chunk_bytes ({limit}): nothing was sent"
                raise ChunkTooLarge(message)
        if raw:
            await self._store("chunk", raw)

    async def push_tool_result(self, tool_call_id: str, content: object) -> None:
        """
        Store what a tool gave back.

        Args:
            tool_call_id: The provider's id of the call.
            content: Text, or any JSON value.
        """
        result = {"tool_call_id": tool_call_id, "content": content}
        await self._store("tool_result", [clean_json(result)])

    async def annotate(self, name: str, data: object) -> None:
        """Add something of the backend's own to the message: a title, a citation. Any JSON value."""
        await self._store("annotate", [clean_json({"name": name, "data": data})])

    async def restart(self, on_overlap: OnOverlap = "stitch") -> None:
        """
        Say that the provider's call is made again: push the new call's chunks after this.

        The step that is under way goes on, with the chunks that readers have. The new call's first text
        takes up the step's first text, its second the second; so do reasoning, the calls of each tool,
        and every other kind of chunk. How a text goes on, with ``Hello, dear world`` delivered:

        =====================  ======================  =========================  =====================
        the new call says      it is                   readers get                and end with
        =====================  ======================  =========================  =====================
        Hello, dear world! A   from its start          what is new: ``! A``       Hello, dear world! A
        dear world! A          from its middle         what is new: ``! A``       Hello, dear world! A
        Hello, cruel world     a changed word          `chunk.reset`, all of it   Hello, cruel world
        Good night             nothing in common       `chunk.reset`, all of it   Good night
        Hello                  less than it was        `chunk.reset`, all of it   Hello
        =====================  ======================  =========================  =====================

        A reader's text is never a mix of two calls that differ. While a new text may still turn out to
        be a repeat, it is held, and readers keep what they have: also where the message is stopped or
        fails meanwhile. A call goes on *from its middle* if it begins with the last characters that
        were delivered: at least eight, and more than it has in common with the start. Where a filter
        is at work, what it lets out is compared.

        A chunk that had ended stays as it is if the new call says the same; else it is emptied by a
        `chunk.reset`, and another takes its place. What the new call does not say again is emptied when
        its step ends, and fails with ``superseded`` if it was open. A call of a tool keeps the id that
        readers know; results may be pushed under the new one. Results that were pushed stay.

        If the step has failed already (the provider sent an error), its chunks are emptied, and the new
        call is a step of its own. Without a step under way there is nothing to take up: what was
        completed stays. With the source ``chunks``, chunks take up those of the same name, and what was
        ``done`` and is not said again stays. Of such chunks the last 64 are known, a million characters
        at most: do not push older ones again.

        Args:
            on_overlap: ``"stitch"``: as above. ``"append"``: the new call goes on where the last one
                stopped and says nothing again (a prefill): its texts are added to those that are open.
                ``"reset"``: what was delivered of the step is void at once.

        Raises:
            ValueError: *on_overlap* is none of these; a caller bug.
            RiverdeltaError: As `push`.
        """
        if on_overlap not in OVERLAP_RULES:
            message = f"on_overlap {on_overlap!r} is unknown: use one of {', '.join(OVERLAP_RULES)}"
            raise ValueError(message)
        await self._store("restart", [clean_json({"on_overlap": on_overlap})])

    async def end(self) -> None:
        """End the message; leaving the block does it. Nothing can be pushed after it."""
        await self._finish("end", b"{}", MessageEnded(f"message {self.id} was ended"))

    async def fail(self, code: str, detail: str) -> None:
        """Fail the message: *code* is for programs, *detail* for the people who read the reply."""
        ended = MessageEnded(f"message {self.id} was failed: {code}")
        await self._finish("fail", clean_json({"code": code, "detail": detail}), ended)

    # -- what the producer's caretaker calls -----------------------------------------------------

    @property
    def is_ended(self) -> bool:
        """Whether its end is stored, or somebody else's is."""
        return self._ended is not None

    def is_due(self) -> bool:
        """Whether to `check` now: each second, and ever more rarely once its end was processed."""
        return time.monotonic() >= self._check_at

    async def check(self) -> bool:
        """
        Ask how the message stands, and do what is due.

        Obeys a stop, stores an end that could not be stored before, sends again what the server has
        forgotten, sees that somebody has the chat.

        Returns:
            Whether it is over, and needs no more care.
        """
        last = self._sender.last
        reply = await scripts.check(
            self._producer.client.chats,
            self._keys,
            producer=self._producer.id,
            message_id=self.id,
        )
        if not self._order.locked():
            async with self._order:
                await self._do_what_is_due(reply, last)
        if not reply.owner and reply.pushed > reply.processed:
            await self._producer.request_owner(self.chat_id, reply.term)
        return self._is_over(reply)

    def fell_back(self) -> None:
        """Learn that the server forgot some of the chat: look soon."""
        self._sender.chat_fell_back = True
        self._check_at = 0.0

    def release(self) -> None:
        """Give up what is kept to be sent again."""
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
            self._sender.heard(reply)
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
        # Processed. A server that comes back with less may forget it all the same.
        now, keep_s = time.monotonic(), min(_KEEP_S, self._sender.stale_s)
        self._check_at = min(2 * now - self._ended_at, self._ended_at + keep_s)
        return now >= self._ended_at + keep_s or not self._sender.kept

    # -- numbering and storing -------------------------------------------------------------------

    async def _store(self, type_: str, data: list[bytes]) -> None:
        async with self._order:
            if self._ended is not None:
                raise self._ended
            if self._end is not None:
                raise self._end[1]
            await self._bound_doubt()
            entries = [NewEntry(type_, self._at_ms(), item) for item in data]
            await self._put([*self._in_doubt, *entries])

    async def _bound_doubt(self) -> None:
        """Take nothing more while a backlog's worth of chunks is in doubt: memory is bounded."""
        if sum(len(entry.data) for entry in self._in_doubt) < self._producer.limits.bytes:
            return
        try:
            await self._put(self._in_doubt)
        except BrokerUnavailable as error:
            message = (
                f"not stored: {len(self._in_doubt)} chunks before it wait for an answer: {error}"
            )
            raise BackpressureError(message) from error

    async def _finish(self, type_: str, data: bytes, ended: RiverdeltaError) -> None:
        try:
            async with self._order:
                if self._ended is None:
                    self._want_end(type_, data, ended)
                    await self._store_end()
        except BaseException:
            # Cut off, perhaps while another task was pushing: the producer stores it later.
            if self._ended is None:
                self._want_end(type_, data, ended)
            raise

    def _want_end(self, type_: str, data: bytes, ended: RiverdeltaError) -> None:
        """From here on nothing can be pushed but this end; the first one stays."""
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

        What is in doubt goes first, under the numbers it had: stored before or only now, once.
        """
        try:
            await self._keep_trying(lambda: self._try_push(entries))
        except BackpressureError as error:
            # Never say "not stored" of what an earlier try, without an answer, may have stored.
            if self._in_doubt is entries:
                reason = f"no answer, then: {error}"
                raise self._producer.client.chats.unavailable(reason) from error
            raise

    async def _keep_trying(self, attempt: Callable[[], Awaitable[RiverdeltaError | None]]) -> None:
        """Repeat *attempt* while it returns an error, for ``push_wait_s``; then raise that."""
        deadline = time.monotonic() + self._producer.client.settings.push_wait_s
        waits = itertools.chain(_RETRY_S, itertools.repeat(_RETRY_S[-1]))
        while (refused := await attempt()) is not None:
            wait = next(waits)
            if self._producer.client.closed or time.monotonic() + wait > deadline:
                raise refused
            await asyncio.sleep(wait)

    async def _try_register(self) -> RiverdeltaError | None:
        try:
            await self._producer.register(self)
        except (BrokerUnavailable, ResponseError) as error:
            return self._passing(error)
        return None

    async def _try_open(self) -> RiverdeltaError | None:
        """One try. None: open. An error: not open, or in doubt; trying again may help."""
        try:
            reply = await self._sender.start()
        except (BrokerUnavailable, ResponseError) as error:
            return self._passing(error)
        if reply.status == "exists":
            message = f"message {self.id} exists in chat {self.chat_id}: it was opened before"
            raise self._give_up(MessageExists(message))
        self._opened = True
        self._sender.heard(reply)
        self._see_to_owner(reply)
        return None

    async def _try_push(self, entries: list[NewEntry]) -> RiverdeltaError | None:
        """One try. None: stored. An error: not stored, or in doubt; trying again may help."""
        # Until an answer comes (this call may be cancelled, too), all of them are in doubt: nothing
        # else may ever take their numbers, because this very push may still arrive.
        before, self._in_doubt = self._in_doubt, entries
        try:
            reply = await self._sender.push(entries)
        except BrokerUnavailable as error:
            return error
        except ResponseError as error:
            self._in_doubt = before
            return self._passing(error)
        if reply.status not in ("stored", "repeat"):
            self._in_doubt = before
            return await self._refused(reply)
        self._in_doubt = []
        self._see_to_owner(reply)
        return None

    def _passing(self, error: RedisError | RiverdeltaError) -> RiverdeltaError:
        """An error that may pass, in our words."""
        if isinstance(error, RiverdeltaError):
            return error
        if isinstance(error, OutOfMemoryError):
            return BackpressureError("Redis is out of memory (maxmemory): workers have to drain it")
        return self._producer.client.chats.unavailable(error)

    def _see_to_owner(self, reply: PushReply) -> None:
        if not reply.owner:
            self._producer.request_owner_soon(self.chat_id, reply.term)

    async def _refused(self, reply: PushReply) -> RiverdeltaError:
        """Say what a refusal means: return what may pass, raise what will not."""
        match reply.status:
            case "full":
                unread = reply.pushed - reply.processed
                who = f"worker {reply.owner}" if reply.owner else "no worker"
                message = f"chat {self.chat_id} has {unread} unread chunks ({who} has it)"
                return BackpressureError(message)
            case "stopped":
                await self._obey_stop(reply.stop)
                raise Stopped(reply.stop)
            case "hole":
                await self._fail_with_data_lost(reply.last)
                message = f"Redis forgot more of message {self.id} than could be sent again"
                raise self._give_up(MessageLost(message))
            case "ended":
                message = f"message {self.id} of chat {self.chat_id} has ended"
                raise self._give_up(MessageEnded(message))
            case _:
                message = f"Redis knows no message {self.id} of chat {self.chat_id} any more"
                raise self._give_up(MessageLost(message))

    async def _fail_with_data_lost(self, last: int) -> None:
        """Redis came back with less, and it is not here any more: what it has is not the reply."""
        self._sender.last, self._in_doubt = last, []
        self._sender.kept.release()
        self._ended, self._sender.is_ended = None, False
        lost = {"code": "data_lost", "detail": "Redis lost part of the reply"}
        self._end = None
        self._want_end("fail", clean_json(lost), MessageLost(f"message {self.id} lost data"))
        await self._store_end()

    def _give_up(self, error: RiverdeltaError) -> RiverdeltaError:
        """Refuse all that follows with *error*, too."""
        self._ended = error
        return error

    def _at_ms(self) -> int:
        return int((time.monotonic() - self._opened_at) * 1000)
