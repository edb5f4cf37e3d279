"""Pushes an input as one message: what `pipe` and `push` have in common."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass

from riverdelta import Message, Producer
from riverdelta.core.tracker import Mode, OnMismatch
from riverdelta_cli.errors import say
from riverdelta_cli.lines import batches, cutter_for, open_input


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
    Pushes an input.

    Make it first of all: input that cannot be read is found before anything else starts. It is
    never closed: a thread may be reading it still when the command, and so the process, ends.

    Attributes:
        chunks, bytes: What was stored so far.
    """

    def __init__(self, what: Input) -> None:
        self._what = what
        self._descriptor = open_input(what.file)
        if os.isatty(self._descriptor):
            say("reading from this terminal; Ctrl-D ends the input")
        self.chunks = 0
        self.bytes = 0

    async def feed(self, message: Message, max_chunk_bytes: int) -> None:
        """Push everything. Raises as `Message.push`, and as `lines.batches`."""
        what = self._what
        cutter = cutter_for(what.source, what.mode, max_chunk_bytes)
        async with contextlib.aclosing(batches(self._descriptor, cutter)) as found:
            async for batch in found:
                if what.pace_ms:
                    for chunk in batch:
                        await self._push(message, [chunk])
                        await asyncio.sleep(what.pace_ms / 1000)
                else:
                    await self._push(message, batch)

    async def _push(self, message: Message, batch: list[bytes]) -> None:
        await message.push_many(batch)
        self.chunks += len(batch)
        self.bytes += sum(map(len, batch))
