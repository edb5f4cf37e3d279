"""Sharded pub/sub with a cluster: one connection per primary; each channel is subscribed at its slot's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Final

from redis.exceptions import RedisError, ResponseError

from riverdelta.broker.redis.cluster import CONNECT_S, Cluster, redirect_of, slot_of
from riverdelta.broker.redis.endpoint import Endpoint
from riverdelta.broker.redis.pubsub import BACKOFF_S, STEADY_S, OnGap, OnMessage, PubSub
from riverdelta.broker.redis.pubsub_link import PubSubLink
from riverdelta.broker.redis.urls import Address
from riverdelta.core.errors import BrokerUnavailable, RiverdeltaError, ServerTooOld

_PAUSES_S: Final = (0.0, *BACKOFF_S)

_log = logging.getLogger("riverdelta.pubsub")


class ClusterPubSub(PubSub):
    """
    `PubSub` with the nodes of *cluster*.

    A channel that loses its connection (the node died or is frozen, was demoted, lost the slot)
    becomes unassigned; while there are unassigned channels, a task reads the map and subscribes each
    at the primary of its slot. Channels of other shards are not affected.
    """

    def __init__(self, cluster: Cluster, *, on_message: OnMessage, on_gap: OnGap) -> None:
        super().__init__(cluster.command_timeout_s, on_message, on_gap)
        self._cluster = cluster
        self._links: dict[Address, PubSubLink] = {}
        self._link_of: dict[str, PubSubLink] = {}
        self._unassigned: set[str] = set()
        self._settler: asyncio.Task[None] | None = None
        self._closings: set[asyncio.Task[None]] = set()
        self._attempts = 0
        self._settled_at = float("-inf")
        self._closed = False
        cluster.on_change(self._follow_map)

    async def start(self) -> None:
        """Read the map; connections are made for channels."""
        await self._cluster.refresh()

    async def aclose(self) -> None:
        """Stop listening and close."""
        self._closed = True
        if self._settler is not None:
            self._settler.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._settler
        links, self._links = self._links, {}
        await asyncio.gather(*(link.aclose() for link in links.values()), *self._closings)
        await super().aclose()

    def run_id_for(self, channel: str) -> str | None:
        """``run_id`` of the node that *channel* is subscribed at; None while there is none."""
        current = self._link_of.get(channel)
        return None if current is None else current.run_id

    def unavailable(self, reason: str) -> BrokerUnavailable:
        """Make the error that the cluster cannot be used now, with its reason."""
        return self._cluster.unavailable(reason)

    def _ask_for(self, channel: str) -> None:
        link = self._link_for(channel)
        if link is None:
            self._reassign((channel,))
        else:
            self._link_of[channel] = link
            link.subscribe((channel,))

    def _leave(self, channel: str) -> None:
        self._unassigned.discard(channel)
        current = self._link_of.pop(channel, None)
        if current is not None:
            current.unsubscribe(channel)

    def on_dropped(self, link: PubSubLink, channel: str) -> None:
        """Reassign the channel to another connection."""
        if self._link_of.get(channel) is link:
            self._reassign((channel,))

    def on_error(self, link: PubSubLink, error: RedisError) -> None:
        """Reassign the channels of a slot that moved; on any other error, connect again."""
        address = next((where for where, known in self._links.items() if known is link), None)
        redirect = (
            redirect_of(error, address)
            if isinstance(error, ResponseError) and address is not None
            else None
        )
        if redirect is None or redirect.word != "MOVED":
            link.end(error)
            return
        self._cluster.moved(redirect.slot, redirect.address)
        for channel in link.leaving:
            if slot_of(channel) == redirect.slot:
                link.has_left(channel)  # the error was the reply to a late SUNSUBSCRIBE
        here = [channel for channel, current in self._link_of.items() if current is link]
        self._reassign([channel for channel in here if slot_of(channel) == redirect.slot])

    def on_end(self, link: PubSubLink) -> None:
        """Reassign all channels of this link."""
        lost = [address for address, known in self._links.items() if known is link]
        if not lost:
            return  # closed by ourselves
        del self._links[lost[0]]
        closing = asyncio.create_task(link.aclose())
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)
        channels = [channel for channel, current in self._link_of.items() if current is link]
        _log.warning("pub/sub connection to %s lost: %s", lost[0], link.ended)
        self._reassign(channels)

    def _reassign(self, channels: Iterable[str]) -> None:
        for channel in channels:
            if self._link_of.pop(channel, None) is not None:
                self._missing.add(channel)
        self._unassigned.update(channels)
        if self._unassigned and self._settler is None and not self._closed:
            self._settler = asyncio.create_task(self._settle(), name="riverdelta-pubsub-settle")

    def _follow_map(self) -> None:
        """Reassign the channels whose slots moved; the server ends their old subscriptions itself."""
        self._reassign(
            [
                channel
                for channel, current in self._link_of.items()
                if self._link_for(channel) is not current
            ]
        )

    async def _settle(self) -> None:
        """Subscribe each unassigned channel at the primary of its slot."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._settled_at > STEADY_S:
            self._attempts = 0
        try:
            while self._unassigned:
                await asyncio.sleep(_PAUSES_S[min(self._attempts, len(_PAUSES_S) - 1)])
                self._attempts += 1
                with contextlib.suppress(RiverdeltaError):
                    await self._cluster.refresh()
                addresses = {self._cluster.address_of(slot_of(name)) for name in self._unassigned}
                await asyncio.gather(
                    *(self._open(address) for address in addresses if address is not None)
                )
                self._subscribe_unassigned()
        finally:
            self._settled_at = loop.time()
            self._settler = None

    async def _open(self, address: Address) -> None:
        """Connect to *address*, if there is no link yet and its server answers."""
        if address in self._links:
            return
        timeout_s = min(CONNECT_S, self._timeout_s)
        endpoint = Endpoint(self._cluster.server_url(address), timeout_s)
        with contextlib.suppress(BrokerUnavailable, ServerTooOld):
            connection, run_id = await endpoint.connect()
            link = self._links[address] = PubSubLink(
                connection,
                run_id,
                self,
                lambda channel, payload: self._received(link, channel, payload),
            )

    def _subscribe_unassigned(self) -> None:
        """Subscribe the unassigned channels that there is a link for."""
        assigned: dict[PubSubLink, list[str]] = {}
        for channel in self._unassigned:
            link = self._link_for(channel)
            if link is not None:
                assigned.setdefault(link, []).append(channel)
        for link, channels in assigned.items():
            self._unassigned.difference_update(channels)
            self._link_of.update(dict.fromkeys(channels, link))
            link.subscribe(channels)

    def _link_for(self, channel: str) -> PubSubLink | None:
        address = self._cluster.address_of(slot_of(channel))
        return None if address is None else self._links.get(address)

    def _received(self, link: PubSubLink, channel: str, payload: bytes) -> None:
        # A node that was replaced and does not know it may publish what its successor never had.
        if self._link_of.get(channel) is link:
            self._on_message(channel, payload)
