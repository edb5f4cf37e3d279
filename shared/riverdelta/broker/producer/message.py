"""The producer's side of one reply: push, annotate and end it."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from riverdelta.broker.producer.delivery import Delivery
from riverdelta.broker.producer.encode import clean_json, encode_chunk
from riverdelta.core.errors import ChunkTooLarge, MessageEnded
from riverdelta.core.stitch import OVERLAP_RULES, OnOverlap


class Message:
    """
    A reply in a chat. An async context manager; made by `Producer.message` or `Producer.adopt`.

    Leaving the block ends the message; leaving it by an exception fails it. Where that cannot be
    stored at once, the producer goes on trying. Calls may come from several tasks of one loop; they
    are stored in the order in which they were made.

    Attributes:
        id: Message id.
        chat_id: Chat id.
        user: Owner of the chat; None: none was named, and a chat that this message makes has no owner.
    """

    def __init__(self, delivery: Delivery, max_chunk_bytes: int) -> None:
        opening = delivery.opening
        self.id = opening.message_id
        self.chat_id = opening.chat_id
        self.user = opening.user
        self._delivery = delivery
        self._max_chunk_bytes = max_chunk_bytes
        self._text_source = opening.source.startswith("text")

    async def __aenter__(self) -> Self:
        """
        Open the message, so that a worker is attached before the provider's first token.

        Raises:
            MessageExists: The id was opened before, or another producer writes the turn; the reply is
                already under way.
            MessageEnded, Stopped, MessageLost: Of a turn only, see `Producer.adopt`.
            NotChatOwner: The chat exists, and is not this message's user's. Nothing was stored.
            BrokerUnavailable: Redis did not answer for ``push_wait_s``.
        """
        await self._delivery.open()
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
        else:
            await self._delivery.fail_by(exc)

    async def push(self, chunk: object) -> None:
        """
        Store one raw chunk; returns when Redis has it.

        Args:
            chunk: An object of the provider's SDK, a dict, a str or bytes, as the source encodes it.

        Raises:
            ChunkTooLarge: Over ``max_chunk_bytes``; nothing was sent.
            Stopped: A reader stopped the reply; end the provider's call.
            BackpressureError: The backlog stayed full for ``push_wait_s``; the chunk is not stored.
            MessageEnded: The message has ended, e.g. a worker found this producer dead.
            MessageLost: The server lost more of the message than this producer still had
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
        limit = self._max_chunk_bytes
        for data in raw:
            if len(data) > limit:
                message = f"chunk of {len(data)} bytes is over max_chunk_bytes ({limit}): nothing was sent"
                raise ChunkTooLarge(message)
        if raw:
            await self._delivery.store("chunk", raw)

    async def push_tool_result(self, tool_call_id: str, content: object) -> None:
        """
        Store the result of a tool call. Raises as `push`.

        Args:
            tool_call_id: The provider's id of the call.
            content: Text, or any JSON value.
        """
        result = {"tool_call_id": tool_call_id, "content": content}
        await self._delivery.store("tool_result", [clean_json(result)])

    async def annotate(self, name: str, data: object) -> None:
        """
        Add data of your own to the message: a title, a citation. Raises as `push`.

        Args:
            name: A later annotation of the same name replaces this one.
            data: Any JSON value.
        """
        await self._delivery.store("annotate", [clean_json({"name": name, "data": data})])

    async def restart(self, on_overlap: OnOverlap = "stitch") -> None:
        """
        Say that the provider's call is made again: push the new call's chunks after this.

        The step that is under way goes on, with the chunks that readers have. The new call's first text
        continues the step's first text, its second the second; so do reasoning, the calls of each tool,
        and every other kind of chunk. What readers get, with ``Hello, dear world`` delivered:

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
        call is a step of its own. Without a step under way there is nothing to continue: what was
        completed stays. A step is under way until its call is complete: with a finish reason alone it
        is not, as long as the provider's usage or last event may follow. With the source ``chunks``,
        chunks continue those of the same name, and what was ``done`` and is not said again stays. Of
        such chunks the last 64 are known, a million characters at most: do not push older ones again.

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
        await self._delivery.store("restart", [clean_json({"on_overlap": on_overlap})])

    async def end(self) -> None:
        """End the message; leaving the block does it. Nothing can be pushed after it."""
        await self._delivery.finish("end", b"{}", MessageEnded(f"message {self.id} was ended"))

    async def fail(self, code: str, detail: str) -> None:
        """Fail the message: *code* is for programs, *detail* for the people who read the reply."""
        ended = MessageEnded(f"message {self.id} was failed: {code}")
        await self._delivery.finish("fail", clean_json({"code": code, "detail": detail}), ended)

    async def release(self) -> bool:
        """
        Let an adopted turn wait for another producer; only while nothing but annotations was pushed.

        Returns:
            Whether it waits now: nothing can be pushed any more. False: end it, or it has ended.

        Raises:
            BrokerUnavailable: Redis did not answer; whether it waits is in doubt.
        """
        return await self._delivery.let_wait()

    async def check(self) -> None:
        """
        Obey a stop now, rather than at the next push or within a second; see `is_ended`.

        Raises:
            BrokerUnavailable: Redis did not answer; the producer checks again within a second.
        """
        await self._delivery.check()

    @property
    def is_ended(self) -> bool:
        """Whether its end is stored, by this producer or by a worker."""
        return self._delivery.is_ended
