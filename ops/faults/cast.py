"""The processes of a run: one server, and children that each connect through a proxy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

from faults.processes import Child, Nursery, Report
from faults.proxy import Proxy
from riverdelta import Settings
from riverdelta.broker.client import Client
from riverdelta.core.errors import BrokerUnavailable
from riverdelta_cli.processes.embedded import EmbeddedServer

SIZES: Final = {"worker": 3, "producer": 3, "reader": 2}
"""Children of each role."""

SETTINGS: Final[dict[str, Any]] = {
    "command_timeout_s": 1.2,  # below the lease: live clients abandon a frozen server
    "idle_release_s": 2.0,  # so that chats are released and claimed all the time
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
        on_surprise: Called with a child that ended without an order.
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
        self.server = EmbeddedServer(folder / "server", persist=True, tcp=True)
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
        """Start everything, and return when all are ready. Raises as `put`."""
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
            await asyncio.gather(*(self.put(*slot) for slot in self._slots))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End everything."""
        await self._stack.aclose()

    async def end(self, *roles: str) -> None:
        """End every child that plays one of *roles*."""
        await asyncio.gather(
            *(child.end() for (role, _), child in self.children.items() if role in roles)
        )

    async def _end_all(self) -> None:
        await self.end(*SIZES)
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*(proxy.aclose() for proxy in self.proxies.values()))

    async def set_policy(self, policy: str) -> None:
        """Set ``appendfsync``: ``always`` or ``everysec``."""
        await self.ask("CONFIG", "SET", "appendfsync", policy)

    def command_log(self) -> Path:
        """Path of the file that the server appends its commands to."""
        return max((self._folder / "server" / "appendonlydir").glob("*.incr.aof"))

    async def ask(self, *args: str) -> Any:
        """
        Ask the server itself, as often as it takes: it may be on its way up.

        Raises:
            TimeoutError: It did not come up.
        """
        async with asyncio.timeout(_READY_S):
            while True:
                with contextlib.suppress(BrokerUnavailable):
                    return await self.client.chats.execute(*args)
                await asyncio.sleep(_POLL_S)

    async def put(self, role: str, number: int) -> Child:
        """
        Put a new child in a place, and return when it is ready for work.

        One that finds no server at its start ends, and is started again, as a supervisor would. The
        one before must have been killed, or is on its way out.

        Raises:
            TimeoutError: The machine is too slow, or something does not start.
        """
        async with asyncio.timeout(_READY_S):
            while True:
                child = await self._start((role, number))
                while child.alive:
                    if await self._is_ready(child):
                        return child
                    await asyncio.sleep(_POLL_S)

    async def _start(self, slot: Slot) -> Child:
        child = Child(*slot, self._started[slot])
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
        if child.ready.is_set() and not child.wanted:
            self._on_surprise(child)
            await self.put(child.role, child.slot)

    async def _is_ready(self, child: Child) -> bool:
        """Whether *child* reported that it is ready; of a worker: whether its heartbeat is listed."""
        if child.role != "worker":
            return child.ready.is_set()
        if not child.ids or not await self.ask("HEXISTS", self.client.keys.workers, child.ids[-1]):
            return False
        child.ready.set()
        return True

    def living(self, role: str) -> list[Child]:
        """Children of a role that are ready and run, in the order of their places."""
        return [
            child
            for (at, _), child in sorted(self.children.items())
            if at == role and child.alive and child.ready.is_set() and not child.wanted
        ]
