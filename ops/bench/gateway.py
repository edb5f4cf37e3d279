"""From publish to socket: the gateway against a bare relay of the same fan-out, same server library."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

from bench.fan_in import Reader, connect, subscription
from bench.loop import run
from bench.playing import role
from bench.result import Row, quantile, row
from bench.server import BenchServer
from riverdelta.broker.redis.executor import Executor
from riverdelta.broker.store.keys import Keys
from riverdelta.core.events import encode_event

_CHATS: Final = 100
_SOCKETS_PER_CHAT: Final = 10
_PAUSE_S: Final = (0.002, 0.006)
_TIMEOUT_S: Final = 30.0
_EPOCH: Final = "bench"


def measure(server: BenchServer, *, quick: bool) -> tuple[list[Row], list[str]]:
    """Measure the gateway's rows."""
    blocks, each = (2, 100) if quick else (7, 1000)
    server.unpin()
    with role("gateway", server.url) as (_, ours), role("fan-out", server.url) as (_, rival):
        pairs = run(_blocks(server.url, ours, rival, blocks, each))
    rows = [
        row(
            f"publish to socket, {name}",
            "bare relay, same server",
            "us",
            [(quantile(mine, q), quantile(theirs, q)) for mine, theirs in pairs],
            at_most=at_most,
        )
        for name, q, at_most in (("p50", 0.5, 1.5), ("p99", 0.99, None))
    ]
    what = (
        f"gateway: {_CHATS} chats with {_SOCKETS_PER_CHAT} sockets each; every socket got every delta,"
        f" in order; {blocks} blocks of {each} deltas, one of some chat every 2 to 6 ms"
    )
    return rows, [
        what,
        "gateway: publisher and sockets in this process, gateway and relay each in its own, none pinned",
    ]


async def _blocks(
    redis_url: str, ours: str, rival: str, blocks: int, each: int
) -> list[tuple[list[float], list[float]]]:
    """Measure in turns; µs of every delivery, ours and the rival's, a pair a block."""
    executor = Executor(redis_url, _TIMEOUT_S)
    sides = []
    for name, url in (("ours", ours), ("rival", rival)):
        chats = [f"{name}-{number}" for number in range(_CHATS)]
        asks = subscription if name == "ours" else str.encode
        readers = await connect(url, chats * _SOCKETS_PER_CHAT, asks)
        sides.append(_Side(executor, chats, readers))
    results = []
    for block in range(blocks + 1):
        mine, theirs = [await side.block(each) for side in sides]
        if block:  # the first one warms up
            results.append((mine, theirs))
    for side in sides:
        for reader in side.readers:
            reader.close()
    await executor.aclose()
    return results


class _Side:
    """One contender: its chats, and the sockets that follow them."""

    def __init__(self, executor: Executor, chats: list[str], readers: list[Reader]) -> None:
        self.readers = readers
        self._executor = executor
        self._seqs = dict.fromkeys(chats, 0)
        self._keys = Keys()

    async def block(self, count: int) -> list[float]:
        """Publish *count* deltas; µs of each delivery, when all have been made."""
        for reader in self.readers:
            reader.delays_us.clear()
        for _ in range(count):
            await asyncio.sleep(random.uniform(*_PAUSE_S))
            await self._publish(random.choice(list(self._seqs)))
        deadline = time.monotonic() + _TIMEOUT_S
        expected = count * _SOCKETS_PER_CHAT
        while sum(len(reader.delays_us) for reader in self.readers) < expected:
            if time.monotonic() > deadline:
                raise TimeoutError("not every socket got every delta")
            await asyncio.sleep(0.05)
        return [delay for reader in self.readers for delay in reader.delays_us]

    async def _publish(self, chat: str) -> None:
        """Do what a commit does for its readers: head, log, channel."""
        self._seqs[chat] = seq = self._seqs[chat] + 1
        keys = self._keys.chat(chat)
        text = f"{time.perf_counter_ns()} and about as many words as a token of a model has"
        event = encode_event(
            seq=seq,
            epoch=_EPOCH,
            chat=chat,
            message="m",
            chunk="m.0",
            type_="chunk.delta",
            ts_ms=0,
            data={"offset": 0, "text": text},
        )
        execute = self._executor.execute
        await asyncio.gather(
            execute("HSET", keys.head, "epoch", _EPOCH, "seq", seq),
            execute("XADD", keys.deltas, f"{seq}-0", "event", event),
            execute("SPUBLISH", keys.deltas, event),
        )
