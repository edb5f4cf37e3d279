"""The live shape's load: many replies at once, each with a token every 20 ms, as providers send them."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Final

from bench.load import openai_reply

RATE: Final = 50
"""Tokens a second of one reply."""

_PERIOD_NS: Final = 1_000_000_000 // RATE
_STAMP: Final = re.compile(rb" (\d{10,})")
_WORD: Final = re.compile(rb'"content":" [^"]*"')

Send = Callable[[int, bytes], Awaitable[None]]
"""Pushes the given raw chunk into the chat of the given number."""


async def play(chats: int, send: Send) -> None:
    """
    Say ``ready``, wait for SIGUSR2, and send tokens into *chats* chats until cancelled.

    The text of each token is the time at which it was due, in nanoseconds of the monotonic clock, which
    all processes of a machine share. A reply that is late sends at once until it is on time again.
    Prints how many tokens were sent so far whenever SIGUSR1 comes.
    """
    sent = 0

    async def reply(number: int) -> None:
        nonlocal sent
        before, after = around_the_token(number)
        due = start + int(rng.random() * _PERIOD_NS)
        while True:
            wait_ns = due - time.monotonic_ns()
            if wait_ns > 0:
                await asyncio.sleep(wait_ns / 1e9)
            await send(number, b"%b %d%b" % (before, due, after))
            sent += 1
            due += _PERIOD_NS

    rng = random.Random(0)
    go = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: print(sent, flush=True))
    loop.add_signal_handler(signal.SIGUSR2, go.set)
    print("ready", flush=True)
    await go.wait()
    start = time.monotonic_ns()
    async with asyncio.TaskGroup() as group:
        for number in range(chats):
            group.create_task(reply(number))


def due_times(text: bytes) -> list[int]:
    """Read the stamps in the text, or the raw chunks, of some tokens."""
    return [int(stamp) for stamp in _STAMP.findall(text)]


def around_the_token(seed: int) -> tuple[bytes, bytes]:
    """Split a raw chunk where its token stands, so that making one costs next to nothing."""
    chunk = openai_reply(1, seed)[1]
    found = _WORD.search(chunk)
    if found is None:
        raise LookupError(f"no token in {chunk!r}")
    return chunk[: found.start()] + b'"content":"', b'"' + chunk[found.end() :]
