"""Everything that takes part in a run: one server, and children that each reach it by a proxy."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

from faults.processes import Child, Nursery, Report
from faults.proxy import Proxy
from riverdelta import Settings
from riverdelta.broker.client import Client
from riverdelta_cli.embedded import EmbeddedServer

SIZES: Final = {"worker": 3, "producer": 3, "reader": 2}
"""Children of each role."""

SETTINGS: Final[dict[str, Any]] = {
    "command_timeout_s": 1.2,  # below the lease: what is frozen is given up by one who is alive
    "idle_release_s": 2.0,  # so that chats are given up and taken again all the time
}
_READY_S: Final = 30.0
_POLL_S: Final = 0.02

Slot = tuple[str, int]


class Cast:
    """
    Server, proxies and children. An async context manager.

    Args:
        folder: For the server's data and the children's logs.
        on_report: Gets what children say.
        on_surprise: Called with a child that ended although nobody wanted it to.
        sabotage: What children are to break.

    Attributes:
        server: The server itself.
        client: Straight to it, past every proxy.
        children: The child in each place now.
        proxies: The way of each place to the server.
    """

    def __init__(
        self,
        folder: Path,
        on_report: Callable[[Child, Report], None],
        on_surprise: Callable[[Child], None],
        *,
        sabotage: str | None = None,
    ) -> None:
        self.server = EmbeddedServer(folder / "server", persist=True)
        self.children: dict[Slot, Child] = {}
        self.proxies: dict[Slot, Proxy] = {}
        self.clocks: dict[Slot, float] = {}
        self._slots = [(role, number) for role, size in SIZES.items() for number in range(size)]
        self._started = dict.fromkeys(self._slots, 0)
        self._folder = folder
        self._on_report = on_report
        self._on_surprise = on_surprise
        self._sabotage = sabotage
        self._watching: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """
        Start everything, workers first; returns when all are ready.

        Raises:
            TimeoutError: The machine is too slow, or something does not start.
        """
        for name in ("server", "logs"):
            (self._folder / name).mkdir()
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self.server)
            client = Client(Settings(redis_url=self.server.url))
            self.client = await stack.enter_async_context(client)
            await self.set_policy("always")
            self._nursery = Nursery()
            stack.callback(self._nursery.close)
            stack.push_async_callback(self._end_all)
            for slot in self._slots:
                proxy = self.proxies[slot] = Proxy(self.server.port)
                await proxy.start()
                await self.start(*slot)
            await self._all_ready()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End everything."""
        await self._stack.aclose()

    async def _all_ready(self) -> None:
        started = list(self.children.values())
        ready = await asyncio.gather(*(self.ready(child) for child in started))
        late = [child.name for child, is_ready in zip(started, ready, strict=True) if not is_ready]
        if late:
            raise TimeoutError(f"not ready in {_READY_S:g} s: {', '.join(late)}")

    async def _end_all(self) -> None:
        await asyncio.gather(*(child.end() for child in self.children.values()))
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*(proxy.aclose() for proxy in self.proxies.values()))

    async def set_policy(self, policy: str) -> None:
        """Set ``appendfsync``: ``always`` or ``everysec``."""
        await self.client.chats.execute("CONFIG", "SET", "appendfsync", policy)

    def command_log(self) -> Path:
        """Path of the file that the server appends its commands to."""
        return max((self._folder / "server" / "appendonlydir").glob("*.incr.aof"))

    async def start(self, role: str, number: int) -> Child:
        """Put a new child in a place; the one before must have been killed, or is on its way out."""
        slot = (role, number)
        child = Child(role, number, self._started[slot])
        self._started[slot] += 1
        settings = SETTINGS | {"redis_url": f"redis://127.0.0.1:{self.proxies[slot].port}"}
        spec = {
            "settings": settings,
            "clock_s": self.clocks.get(slot, 0.0),
            "sabotage": self._sabotage,
            "log": str(self._folder / "logs" / f"{child.name}.log"),
        }
        await child.start(self._nursery, spec, self._on_report)
        self.children[slot] = child
        watching = asyncio.create_task(self._watch(child))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)
        return child

    async def _watch(self, child: Child) -> None:
        await child.gone()
        if not child.wanted:
            self._on_surprise(child)

    async def ready(self, child: Child) -> bool:
        """Wait until *child* may be given work; False: it ended before."""
        deadline = time.monotonic() + _READY_S
        while child.alive and time.monotonic() < deadline:
            if child.role == "worker" and child.ids and not child.ready.is_set():
                beats = await self.client.queue.execute(
                    "HEXISTS", self.client.keys.workers, child.ids[-1]
                )
                if beats:
                    child.ready.set()
            if child.ready.is_set():
                return True
            await asyncio.sleep(_POLL_S)
        return False

    def living(self, role: str) -> list[Child]:
        """Children of a role that are ready and run, in the order of their places."""
        return [
            child
            for (at, _), child in sorted(self.children.items())
            if at == role and child.alive and child.ready.is_set() and not child.wanted
        ]
