"""The map of a cluster: which primary serves which slot."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from riverdelta.broker.redis.endpoint import Endpoint, reason_of
from riverdelta.broker.redis.urls import Address, several
from riverdelta.broker.redis.wire import close_connection
from riverdelta.core.errors import BrokerUnavailable, ServerTooOld, SettingsError

SLOTS: Final = 16384

CONNECT_S: Final = 1.0
"""Read the map again if connecting to a node takes this long: it may have been replaced."""

_ASKED_AT_ONCE: Final = 3
"""Nodes that are asked for the map together: one of them may be frozen."""
_ANSWER_S: Final = 2.0
_REFRESH_S: Final = 0.05
"""Least time between two reads of the map, however many callers ask."""

_KINDS: Final[dict[type[ResponseError], str]] = {
    MovedError: "MOVED",  # before ASK, whose child it is
    AskError: "ASK",
    TryAgainError: "TRYAGAIN",
    ClusterDownError: "CLUSTERDOWN",
}
"""redis-py's error classes for these replies. A plain connection gives their text instead."""

Ranges = list[tuple[int, int, Address]]


class Redirect(NamedTuple):
    """A node's reply instead of executing: *word*, and for MOVED and ASK the slot and its address."""

    word: str
    slot: int = -1
    address: Address = Address("", 0)


class Cluster:
    """
    The map of a cluster, as far as it is known; a command sent to the wrong node corrects it.

    Args:
        url: ``redis+cluster://...``.
        command_timeout_s: A node silent for this long counts as gone.

    Attributes:
        primaries: Nodes that serve slots.

    Raises:
        SettingsError: The URL cannot be used; the text says what it must be.
    """

    def __init__(self, url: str, command_timeout_s: float) -> None:
        read = several(url)
        if read is None or read.kind != "cluster":
            raise SettingsError(
                "Redis URL cannot be used: a cluster's begins with redis+cluster://"
            )
        self._url = read
        Endpoint(read.server(read.addresses[0]), command_timeout_s)  # checks the URL's options
        self.command_timeout_s = command_timeout_s
        self.primaries: frozenset[Address] = frozenset()
        self._slots: list[Address | None] = [None] * SLOTS
        self._refreshing: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")
        self._on_change: list[Callable[[], None]] = []
        self._closed = False

    def __str__(self) -> str:
        """Name the cluster for people."""
        return str(self._url)

    def unavailable(self, error: BaseException | str) -> BrokerUnavailable:
        """Make the error that the cluster cannot be used now, with its reason."""
        return BrokerUnavailable(f"Redis {self} cannot be used: {reason_of(error)}")

    def server_url(self, address: Address) -> str:
        """Return the URL of one node."""
        return self._url.server(address)

    def address_of(self, slot: int) -> Address | None:
        """Return the address of the node that serves *slot*; None: unknown."""
        return self._slots[slot]

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call *callback* after each change of the map."""
        self._on_change.append(callback)

    def moved(self, slot: int, address: Address) -> None:
        """Note the address of *slot* that a node gave, and read the whole map soon."""
        self._slots[slot] = address
        self.primaries |= {address}
        self.refresh_soon()

    def refresh_soon(self) -> None:
        """Read the map again, in the background."""
        self._refresh_task()

    async def refresh(self) -> None:
        """
        Read the map again; concurrent callers share one read.

        Raises:
            BrokerUnavailable: No node answered.
            ServerTooOld: Use Redis >= 7.0 or Valkey >= 7.2.
            SettingsError: A server answered that belongs to no cluster.
        """
        task = self._refresh_task()
        # Shared: a cancelled caller must not cancel the others.
        await asyncio.wait((task,))
        if task.cancelled():
            raise self.unavailable("this client was closed")
        task.result()

    async def aclose(self) -> None:
        """Stop reading the map."""
        self._closed = True
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait((self._refreshing,))

    def _refresh_task(self) -> asyncio.Task[None]:
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(), name="riverdelta-cluster-map")
            # Fetch its exception here: asyncio warns of one that no caller fetches.
            self._refreshing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._refreshing

    async def _refresh(self) -> None:
        try:
            if self._closed:
                raise self.unavailable("this client was closed")
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(0.0, self._asked_at + _REFRESH_S - loop.time()))
            self._asked_at = loop.time()
            self._adopt(await self._read_map())
        finally:
            self._refreshing = None

    async def _read_map(self) -> Ranges:
        known = random.sample(sorted(self.primaries), len(self.primaries))
        nodes = list(dict.fromkeys((*known, *self._url.addresses)))
        error: Exception = self.unavailable("it names no node")
        for first in range(0, len(nodes), _ASKED_AT_ONCE):
            asked = [
                asyncio.create_task(self._ask(node))
                for node in nodes[first : first + _ASKED_AT_ONCE]
            ]
            try:
                for answer in asyncio.as_completed(asked):
                    try:
                        return await answer
                    except (BrokerUnavailable, ServerTooOld, SettingsError) as failure:
                        error = failure
            finally:
                for task in asked:
                    task.cancel()
                await asyncio.gather(*asked, return_exceptions=True)
        raise error

    async def _ask(self, address: Address) -> Ranges:
        """Ask one node, over a new connection: an existing one may be stuck."""
        timeout_s = min(_ANSWER_S, self.command_timeout_s)
        endpoint = Endpoint(self.server_url(address), timeout_s)
        connection, _ = await endpoint.connect()
        try:
            async with asyncio.timeout(timeout_s):
                await connection.send_command("CLUSTER", "SLOTS")
                rows = await connection.read_response(disable_decoding=True)
        except ResponseError as error:
            if "cluster support disabled" in str(error):
                message = f"Redis at {address} belongs to no cluster: use redis:// instead"
                raise SettingsError(message) from error
            raise endpoint.unavailable(error) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise endpoint.unavailable(error) from error
        finally:
            await close_connection(connection)
        return [(first, last, _address(node, address)) for first, last, node, *_ in rows]

    def _adopt(self, ranges: Ranges) -> None:
        slots: list[Address | None] = [None] * SLOTS
        for first, last, address in ranges:
            slots[first : last + 1] = [address] * (last + 1 - first)
        if slots == self._slots:
            return
        self._slots = slots
        self.primaries = frozenset(address for _, _, address in ranges)
        for callback in self._on_change:
            callback()


def slot_of(key: str) -> int:
    """Return the slot of a key or shard channel: of the part in braces, if there is one."""
    return key_slot(key.encode())


def redirect_of(error: ResponseError, asked: Address) -> Redirect | None:
    """
    Decode why a node did not execute a command; None: *error* is no redirection.

    Args:
        error: The node's reply.
        asked: Address of that node; a redirection may leave out the host.
    """
    word, _, rest = str(error).partition(" ")
    for kind, its_word in _KINDS.items():
        if isinstance(error, kind):
            word, rest = its_word, str(error)  # redis-py removed the word
            break
    if word in ("TRYAGAIN", "CLUSTERDOWN"):
        return Redirect(word)
    if word not in ("MOVED", "ASK"):
        return None
    slot, where = rest.split(" ")[:2]
    host, _, port = where.rpartition(":")
    return Redirect(word, int(slot), Address(host or asked.host, int(port)))


def _address(node: list[Any], asked: Address) -> Address:
    """Read the address in a row of CLUSTER SLOTS; a row without a host means the node asked."""
    host = node[0].decode() if node[0] else ""
    return Address(host if host not in ("", "?") else asked.host, int(node[1]))
