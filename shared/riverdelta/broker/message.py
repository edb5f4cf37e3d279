"""One reply being pushed: opens, numbers its entries, pushes each exactly once, ends."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Self

import orjson
from redis.exceptions import OutOfMemoryError, ResponseError

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
"""How long leaving a block by an exception may take to say so; then the producer's lease does."""

_log = logging.getLogger("riverdelta.producer")


class Message:
    """
    A reply in a chat. An async context manager; made by `Producer.message`.

    Leaving the block ends the message; leaving it by an exception fails it. Calls may come from
    several tasks of one loop; they are stored in the order in which they were made.

    Attributes:
        id: Message id.
        chat_id: Chat id.
    """

    def __init__(self, producer: Producer, chat_id: str, message_id: str, start: bytes) -> None:
        self.id = message_id
        self.chat_id = chat_id
        self._producer = producer
        self._keys = producer.client.keys.chat(chat_id)
        self._start = start
        self._text_source = orjson.loads(start)["source"].startswith("text")
        self._opener = producer.new_token()
        self._opened_at = 0.0
        self._last = 0
        self._in_doubt: list[NewEntry] = []
        self._order = asyncio.Lock()
        self._ended: RiverdeltaError | None = None
        self._open = False
        self._abandoned: BaseException | None = None

    # -- what users call -------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """
        Open the message, so that a worker is attached before the provider's first token.

        Raises:
            MessageExists: The id was opened before; the reply is already under way.
            BrokerUnavailable: Redis did not answer for ``push_wait_s``.
        """
        self._opened_at = time.monotonic()
        await self._producer.register(self)
        try:
            await self._store("start", [self._start])
        except MessageExists:
            await self._producer.forget(self)
            raise
        except BaseException as error:
            # It may be open all the same: the producer's next checks end it.
            self._abandoned = error
            raise
        self._open = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the message, or fail it with ``producer_error`` if *exc* leaves the block."""
        if self._ended is not None:
            return
        if exc is None:
            await self.end()
            return
        try:
            async with asyncio.timeout(_FAIL_WAIT_S):
                # The class only: an exception's text may hold what no reader must see.
                await self.fail("producer_error", type(exc).__name__)
        except (RiverdeltaError, TimeoutError) as error:
            _log.warning("could not fail message %s of chat %s: %s", self.id, self.chat_id, error)

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
            MessageLost: The server forgot the message.
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
        await self._store(
            "tool_result", [_json({"tool_call_id": tool_call_id, "content": content})]
        )

    async def annotate(self, name: str, data: object) -> None:
        """Add something of the backend's own to the message: a title, a citation. Any JSON value."""
        await self._store("annotate", [_json({"name": name, "data": data})])

    async def end(self) -> None:
        """End the message; leaving the block does it. Nothing can be pushed after it."""
        await self._finish("end", {}, MessageEnded(f"message {self.id} was ended"))

    async def fail(self, code: str, detail: str) -> None:
        """Fail the message: *code* is for programs, *detail* for the people who read the reply."""
        ended = MessageEnded(f"message {self.id} was failed: {code}")
        await self._finish("fail", {"code": code, "detail": detail}, ended)

    # -- what the producer's caretaker calls -----------------------------------------------------

    @property
    def is_ended(self) -> bool:
        """Whether nothing more can be pushed."""
        return self._ended is not None

    async def check(self) -> PushReply:
        """Ask how the message stands; obey a stop; see that somebody has the chat."""
        reply = await scripts.check(
            self._producer.client.chats,
            self._keys,
            producer=self._producer.id,
            message_id=self.id,
        )
        if self._abandoned is not None:
            await self.fail("producer_error", type(self._abandoned).__name__)
        elif reply.stop and self._ended is None and self._open:
            async with self._order:
                await self._obey_stop(reply.stop)
        if not reply.owner and reply.pushed > reply.processed:
            await self._producer.request_owner(self.chat_id, reply.term)
        return reply

    # -- numbering and storing -------------------------------------------------------------------

    async def _finish(self, type_: str, data: Mapping[str, str], ended: MessageEnded) -> None:
        async with self._order:
            if self._ended is not None:
                return
            await self._store_next(type_, [_json(data)])
            self._ended = ended

    async def _store(self, type_: str, data: list[bytes]) -> None:
        async with self._order:
            await self._store_next(type_, data)

    async def _store_next(self, type_: str, data: list[bytes]) -> None:
        """Push entries under the next numbers until they are stored, or must not be."""
        if self._ended is not None:
            raise self._ended
        at_ms = int((time.monotonic() - self._opened_at) * 1000)
        # What is in doubt goes first, under the numbers it had: stored before or only now, once.
        entries = [*self._in_doubt, *(NewEntry(type_, at_ms, item) for item in data)]
        deadline = time.monotonic() + self._producer.client.settings.push_wait_s
        waits = itertools.chain(_RETRY_S, itertools.repeat(_RETRY_S[-1]))
        while (refused := await self._try_store(entries)) is not None:
            wait = next(waits)
            if time.monotonic() + wait > deadline:
                raise self._in_doubt_because(refused) if self._in_doubt is entries else refused
            await asyncio.sleep(wait)

    def _in_doubt_because(self, refused: RiverdeltaError) -> RiverdeltaError:
        """Never say "not stored" of what an earlier try, without an answer, may have stored."""
        if isinstance(refused, BrokerUnavailable):
            return refused
        return self._producer.client.chats.endpoint.unavailable(f"no answer, then: {refused}")

    async def _try_store(self, entries: list[NewEntry]) -> RiverdeltaError | None:
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
                opener=self._opener,
            )
        except BrokerUnavailable as error:
            if producer.client.closed:
                raise
            return error
        except OutOfMemoryError:
            self._in_doubt = before
            return BackpressureError("Redis is out of memory (maxmemory): workers have to drain it")
        except ResponseError as error:
            self._in_doubt = before
            return producer.client.chats.endpoint.unavailable(error)
        if reply.status not in ("stored", "repeat"):
            self._in_doubt = before
            return await self._refused(reply)
        self._in_doubt = []
        self._last += len(entries)
        if not reply.owner:
            producer.request_owner_soon(self.chat_id, reply.term)
        return None

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
            case "exists":
                message = f"message {self.id} exists in chat {self.chat_id}: it was opened before"
                raise MessageExists(message)
            case "ended":
                raise self._give_up(
                    MessageEnded(f"message {self.id} of chat {self.chat_id} has ended")
                )
            case status:
                message = f"Redis forgot message {self.id} of chat {self.chat_id} ({status})"
                raise self._give_up(MessageLost(message))

    def _give_up(self, error: RiverdeltaError) -> RiverdeltaError:
        """Refuse all that follows with *error*, too."""
        self._ended = error
        return error

    async def _obey_stop(self, reason: str) -> None:
        """End the message because a reader asked for it. The caller holds the order."""
        if self._ended is None:
            await self._store_next("stop", [_json({"reason": reason})])
            self._ended = Stopped(reason)


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
    return _json(chunk)


def _json(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        # orjson refuses lone surrogates; the standard library spells them, and the codec joins them.
        return json.dumps(value, allow_nan=False).encode()


def start_data(**options: Any) -> bytes:  # JSON values
    """Spell what opens a message."""
    return _json(options)
