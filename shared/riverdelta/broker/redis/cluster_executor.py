"""
Send each command to the cluster node that has its key's slot, over one connection per primary.

All keys of a command are in one slot (they carry the same ``{chat}``). Chats of different shards share
only the map: while one shard has no primary, the others work as before.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any, Final

from redis.exceptions import ResponseError

from riverdelta.broker.redis.cluster import CONNECT_S, Cluster, redirect_of, slot_of
from riverdelta.broker.redis.executor import Executor
from riverdelta.broker.redis.urls import Address
from riverdelta.broker.redis.wire import Arg
from riverdelta.core.errors import BrokerUnavailable, RiverdeltaError

_PAUSES_S: Final = (0.0, 0.01, 0.02, 0.05, 0.1)
"""Waits before a command is sent again; none after the first redirection: one is usually enough."""


class ClusterExecutor:
    """
    Executes commands on the nodes of *cluster*.

    A command is sent again (after MOVED, ASK, TRYAGAIN, CLUSTERDOWN, or without a connection) only
    if it was certainly not executed, and for no longer than the command timeout; a connection that is
    lost under a command leaves it in doubt, as with one server.

    Args:
        cluster: The map; its creator closes it.
        node_class: Class that executes the commands of one node.
    """

    def __init__(self, cluster: Cluster, node_class: type[Executor] = Executor) -> None:
        self._cluster = cluster
        self._node_class = node_class
        self._nodes: dict[Address, Executor] = {}
        self._closings: set[asyncio.Task[None]] = set()
        self.closed = False
        cluster.on_change(self._drop_nodes)

    async def connect(self) -> None:
        """Read the cluster's map; raises as `Cluster.refresh`."""
        await self._cluster.refresh()

    async def execute(self, *args: Arg) -> Any:
        """Send one command and return its reply; see `Commands.execute`."""
        slot = slot_of(key_of(args))
        address = self._cluster.address_of(slot)
        node = None if address is None else self._nodes.get(address)
        link = None if node is None else node.live
        if address is None or link is None:
            return await self._persist(slot, args)
        try:
            return await link.send(args)
        except BrokerUnavailable:
            self._cluster.refresh_soon()
            raise
        except ResponseError as error:
            if redirect_of(error, address) is None:
                raise
        return await self._persist(slot, args)  # from the start, with retries

    def run_id_for(self, key: str) -> str | None:
        """``run_id`` of the node that has *key*; None while there is no connection to it."""
        address = self._cluster.address_of(slot_of(key))
        node = None if address is None else self._nodes.get(address)
        return None if node is None else node.run_id

    def unavailable(self, error: BaseException | str) -> BrokerUnavailable:
        """Make the error that the cluster cannot be used now, with its reason."""
        return self._cluster.unavailable(error)

    async def aclose(self) -> None:
        """Close all connections; commands under way fail with `BrokerUnavailable`."""
        self.closed = True
        await asyncio.gather(*(node.aclose() for node in self._nodes.values()), *self._closings)

    async def _persist(self, slot: int, args: tuple[Arg, ...]) -> Any:
        """Send a command to the node that has its slot, and again where it moved, until the timeout."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._cluster.command_timeout_s
        ask: Address | None = None
        pauses = itertools.chain(_PAUSES_S, itertools.repeat(_PAUSES_S[-1]))
        while True:
            try:
                return await self._try(slot, args, ask)
            except _NotExecuted as refused:
                if self.closed or loop.time() > deadline:
                    raise self.unavailable(refused) from refused
                ask = refused.ask
                if refused.look:
                    with contextlib.suppress(
                        RiverdeltaError
                    ):  # the command's own error is raised instead
                        await self._cluster.refresh()
            await asyncio.sleep(next(pauses))

    async def _try(self, slot: int, args: tuple[Arg, ...], ask: Address | None) -> Any:
        """Send a command once, to *ask* or to where the map has its slot."""
        address = ask or self._cluster.address_of(slot)
        if address is None:
            raise _NotExecuted(f"no node serves slot {slot}", look=True)
        try:
            async with asyncio.timeout(CONNECT_S):
                link = await self._node(address).connected()
        except (BrokerUnavailable, TimeoutError) as error:
            reason = str(error) or f"{address} does not answer"
            raise _NotExecuted(reason, look=True) from error
        try:
            return await (link.send(args) if ask is None else link.send_asking(args))
        except BrokerUnavailable:
            self._cluster.refresh_soon()
            raise
        except ResponseError as error:
            redirect = redirect_of(error, address)
            if redirect is None:
                raise
            if redirect.word == "MOVED":
                self._cluster.moved(redirect.slot, redirect.address)
            raise _NotExecuted(
                str(error),
                ask=redirect.address if redirect.word == "ASK" else None,
                look=redirect.word == "CLUSTERDOWN",
            ) from error

    def _node(self, address: Address) -> Executor:
        if self.closed:
            raise self.unavailable("this client was closed")
        node = self._nodes.get(address)
        if node is None:
            url = self._cluster.server_url(address)
            node = self._nodes[address] = self._node_class(url, self._cluster.command_timeout_s)
        return node

    def _drop_nodes(self) -> None:
        """Close the nodes that serve no slots any more; commands waiting for one go to its successor."""
        for address in self._nodes.keys() - self._cluster.primaries:
            closing = asyncio.create_task(self._nodes.pop(address).aclose())
            self._closings.add(closing)
            closing.add_done_callback(self._closings.discard)


class _NotExecuted(Exception):
    """
    A command had no effect; send it again.

    Attributes:
        ask: Address of the node to ask (after ASK); None: the node that has the slot.
        look: Read the map first.
    """

    def __init__(self, reason: str, *, ask: Address | None = None, look: bool) -> None:
        super().__init__(reason)
        self.ask = ask
        self.look = look


def key_of(args: tuple[Arg, ...]) -> str:
    """Find the first key of a command; knows the commands that this package sends."""
    match args[0]:
        case "EVALSHA" | "EVAL":
            key = args[3]
        case "XREAD":
            key = args[args.index("STREAMS") + 1]
        case "MEMORY":
            key = args[2]
        case _:
            key = args[1]
    return str(key)
