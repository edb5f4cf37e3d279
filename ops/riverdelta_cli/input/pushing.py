"""Push an input as one message, for `pipe` and `push`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from dataclasses import dataclass
from typing import Final

from riverdelta import ChunkTooLarge, Message, MessageEnded, Producer, RiverdeltaError
from riverdelta.core.tracker import Mode, OnMismatch
from riverdelta_cli.input.lines import LineCutter, batches, cutter_for, open_input
from riverdelta_cli.input.understanding import Understanding
from riverdelta_cli.output.say import say
from riverdelta_cli.session import cancel

_LOOK_S: Final = 0.1
_UPSTREAM_S: Final = 0.1
"""
Ctrl-C ends ``my-llm`` and us at once, and its end is the end of our input: the signal is on its way
when a pipe ends, and comes first if we wait a moment.
"""


@dataclass(frozen=True)
class Input:
    """
    What to push, and how.

    Attributes:
        file: A path, or ``-`` for stdin.
        pace_ms: Pause after each raw chunk. 0: as fast as it is read.
        mode: ``append`` or ``snapshot``. None: as the source means it.
    """

    file: str
    source: str
    pace_ms: int
    mode: Mode | None
    on_mismatch: OnMismatch

    def message(self, producer: Producer, chat_id: str, message_id: str | None) -> Message:
        """Prepare the message."""
        return producer.message(
            chat_id,
            source=self.source,
            message_id=message_id,
            mode=self.mode,
            on_mismatch=self.on_mismatch,
        )


class Feeder:
    """
    Push an input.

    Make it first: an input that cannot be read is found before anything else starts. It is never
    closed: a thread may still be reading it when the process ends.

    Attributes:
        chunks, bytes: Stored so far.
        understanding: Decodes the input as a worker does.
    """

    def __init__(self, what: Input) -> None:
        self._what = what
        self._descriptor = open_input(what.file)
        if os.isatty(self._descriptor):
            say("reading from this terminal; Ctrl-D ends the input")
        self.chunks = 0
        self.bytes = 0
        self.understanding = Understanding(what.source)

    async def feed(self, message: Message, max_chunk_bytes: int) -> None:
        """
        Push everything. Raises as `Message.push`, and as `lines.batches`.

        A stop is noticed while the input is silent, too. A chunk that is too large fails the message.
        """
        feeding = asyncio.create_task(self._feed(message, max_chunk_bytes), name="riverdelta-input")
        try:
            while not feeding.done() and not message.is_ended:
                await asyncio.wait((feeding,), timeout=_LOOK_S)
            if feeding.done():
                feeding.result()
            else:
                await message.push(b"")  # refused; the error tells how it ended
        except ChunkTooLarge as error:
            await message.fail("chunk_too_large", str(error))
            raise
        finally:
            await cancel(feeding)

    async def _feed(self, message: Message, max_chunk_bytes: int) -> None:
        what = self._what
        cutter = cutter_for(what.source, what.mode, max_chunk_bytes)
        async with contextlib.aclosing(batches(self._descriptor, cutter)) as found:
            async for batch in found:
                self._read(batch, cutter)
                if what.pace_ms:
                    for chunk in batch:
                        await self._push(message, [chunk])
                        await asyncio.sleep(what.pace_ms / 1000)
                else:
                    await self._push(message, batch)
        if stat.S_ISFIFO(os.fstat(self._descriptor).st_mode):
            await asyncio.sleep(_UPSTREAM_S)

    def _read(self, batch: list[bytes], cutter: LineCutter | None) -> None:
        for chunk in batch:
            self.understanding.read(chunk, cutter.numbers.popleft() if cutter else None)

    async def _push(self, message: Message, batch: list[bytes]) -> None:
        await message.push_many(batch)
        self.chunks += len(batch)
        self.bytes += sum(map(len, batch))


async def end(message: Message) -> None:
    """
    End a message whose input has ended.

    Raises:
        Stopped, MessageEnded, MessageLost: A reader or a worker ended it before.
    """
    with contextlib.suppress(RiverdeltaError):  # Redis is away: the end is stored when it is back
        await message.check()  # obey a stop that was not noticed yet
    if message.is_ended:
        await message.push(b"")  # refused; the error tells how it ended
    await message.end()
    with contextlib.suppress(MessageEnded):  # by us; anything else came in between
        await message.push(b"")
