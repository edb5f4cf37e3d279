"""One reply being pushed: opens, numbers its entries, pushes each exactly once, ends."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final, Self

import orjson
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from riverdelta.broker import scripts
from riverdelta.broker.scripts import NewEntry, PushReply
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

if TYPE_CHECKING:
    from types import TracebackType

    from riverdelta.broker.producer import Producer

_RETRY_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
"""Waits between tries of a refused push: soon at first, because a busy worker catches up in ms."""

_FAIL_WAIT_S: Final = 2.0
"""How long leaving a block by an exception may take to say so; then the producer's caretaker does."""

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
        self._start = start
        self._text_source = orjson.loads(start)["source"].startswith("text")
        self._opener = producer.new_token()
        self._opened_at = 0.0
        self._order = asyncio.Lock()
        self._opened = False
        self._last = 1
        self._in_doubt: list[NewEntry] = []
        self._end: tuple[NewEntry, RiverdeltaError] | None = None
        self._ended: RiverdeltaError | None = None

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
            MessageLost: The server forgot some of the message; it was failed with ``data_lost``.
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

    async def check(self) -> bool:
        """
        Ask how the message stands, and do what is due.

        Obeys a stop, stores an end that could not be stored before, sees that somebody has the chat.

        Returns:
            Whether it is over, and needs no more care.
        """
        reply = await scripts.check(
            self._producer.client.chats,
            self._keys,
            producer=self._producer.id,
            message_id=self.id,
        )
        if self._ended is None and not self._order.locked():
            async with self._order:
                if self._end is not None:
                    await self._store_end()
                elif reply.stop and self._opened:
                    await self._obey_stop(reply.stop)
        if not reply.owner and reply.pushed > reply.processed:
            await self._producer.request_owner(self.chat_id, reply.term)
        return reply.status != "open" and (self._opened or self._ended is not None)

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
        self._ended = ended

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
                raise self._producer.client.chats.endpoint.unavailable(reason) from error
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
        producer = self._producer
        try:
            reply = await scripts.open_message(
                producer.client.chats,
                self._keys,
                producer=producer.id,
                message_id=self.id,
                opener=self._opener,
                start=self._start,
                user=self.user or "",
            )
        except (BrokerUnavailable, ResponseError) as error:
            return self._passing(error)
        if reply.status == "exists":
            message = f"message {self.id} exists in chat {self.chat_id}: it was opened before"
            raise self._give_up(MessageExists(message))
        self._opened = True
        self._see_to_owner(reply)
        return None

    async def _try_push(self, entries: list[NewEntry]) -> RiverdeltaError | None:
        """One try. None: stored. An error: not stored, or in doubt; trying again may help."""
        producer = self._producer
        # Until an answer comes (this call may be cancelled, too), all of them are in doubt: nothing
        # else may ever take their numbers, because this very push may still arrive.
        before, self._in_doubt = self._in_doubt, entries
        try:
            reply = await scripts.push(
                producer.client.chats,
                self._keys,
                producer=producer.id,
                message_id=self.id,
                number=self._last + 1,
                entries=entries,
                limits=producer.limits,
            )
        except BrokerUnavailable as error:
            return error
        except ResponseError as error:
            self._in_doubt = before
            return self._passing(error)
        if reply.status not in ("stored", "repeat"):
            self._in_doubt = before
            return await self._refused(reply)
        self._in_doubt = []
        self._last += len(entries)
        self._see_to_owner(reply)
        return None

    def _passing(self, error: RedisError | RiverdeltaError) -> RiverdeltaError:
        """An error that may pass, in our words."""
        if isinstance(error, RiverdeltaError):
            return error
        if isinstance(error, OutOfMemoryError):
            return BackpressureError("Redis is out of memory (maxmemory): workers have to drain it")
        return self._producer.client.chats.endpoint.unavailable(error)

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
                raise self._give_up(MessageLost(f"Redis forgot some of message {self.id}"))
            case "ended":
                message = f"message {self.id} of chat {self.chat_id} has ended"
                raise self._give_up(MessageEnded(message))
            case _:
                message = f"Redis forgot message {self.id} of chat {self.chat_id}"
                raise self._give_up(MessageLost(message))

    async def _fail_with_data_lost(self, last: int) -> None:
        """Redis came back with less than it had acknowledged: what it has is not the reply."""
        self._last, self._in_doubt = last, []
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


def encode_chunk(chunk: object, *, text_source: bool) -> bytes:
    """
    Spell a raw chunk as bytes: as it is, or as JSON.

    Raises:
        TypeError: It cannot be spelled; a caller bug.
    """
    if isinstance(chunk, str):
        # Half a surrogate pair is legal here: its other half may come with the next chunk.
        return chunk.encode("utf-8", "surrogatepass")
    if isinstance(chunk, bytes | bytearray | memoryview):
        return bytes(chunk)
    if text_source:
        message = f"a text source takes str or bytes, not {type(chunk).__name__}"
        raise TypeError(message)
    dump = getattr(chunk, "model_dump_json", None)  # what the openai and anthropic SDKs hand out
    if dump is not None:
        return str(dump(exclude_unset=True)).encode()
    try:
        return orjson.dumps(chunk)
    except TypeError:
        # orjson refuses lone surrogates; spelled as escapes, the codec joins them.
        return json.dumps(chunk, allow_nan=False).encode()


def clean_json(value: object) -> bytes:
    """
    Spell a value of the backend's own as JSON; half a surrogate pair becomes U+FFFD.

    Raises:
        TypeError: It is no JSON value; a caller bug.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def producer_error(error: BaseException) -> bytes:
    """Say what left a block. The class only: an exception's text may hold what no reader must see."""
    return clean_json({"code": "producer_error", "detail": type(error).__name__})
