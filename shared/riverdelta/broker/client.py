"""The client that producers, readers and workers share: settings, keys and connections."""

from __future__ import annotations

from typing import Self

from riverdelta.broker.redis.cluster import Cluster
from riverdelta.broker.redis.cluster_executor import ClusterExecutor
from riverdelta.broker.redis.cluster_pubsub import ClusterPubSub
from riverdelta.broker.redis.commands import Commands
from riverdelta.broker.redis.endpoint import endpoint_of
from riverdelta.broker.redis.eviction import refuse_eviction
from riverdelta.broker.redis.executor import Executor
from riverdelta.broker.redis.pubsub import OnGap, OnMessage, PubSub, ShardedPubSub
from riverdelta.broker.redis.replicated import ReplicatedExecutor
from riverdelta.broker.redis.urls import is_cluster
from riverdelta.broker.settings import Settings
from riverdelta.broker.store.keys import Keys


class Client:
    """
    Connections to the chats' Redis and the queue's; one connection if both are the same server.

    Attributes:
        chats: Executes commands on chats.
        pushes: Executes a producer's writes; returns when each is as safe as ``durability`` says.
        queue: Executes commands on the lists of workers and producers, and on arq's queue.

    Raises:
        SettingsError: A URL cannot be used, or the queue's is missing.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings.key_prefix)
        url, queue_url = settings.redis_url, settings.effective_queue_url
        self._cluster = Cluster(url, settings.command_timeout_s) if is_cluster(url) else None
        self.chats = self._executor(Executor)
        replicated = settings.durability == "replicated"
        self.pushes = self._executor(ReplicatedExecutor) if replicated else self.chats
        same = queue_url == url
        self.queue = self.chats if same else Executor(queue_url, settings.command_timeout_s)

    def _executor(self, node_class: type[Executor]) -> Commands:
        if self._cluster is not None:
            return ClusterExecutor(self._cluster, node_class)
        return node_class(self.settings.redis_url, self.settings.command_timeout_s)

    def pubsub(self, *, on_message: OnMessage, on_gap: OnGap) -> PubSub:
        """Make a `PubSub` on the chats' Redis; close it before this client."""
        if self._cluster is not None:
            return ClusterPubSub(self._cluster, on_message=on_message, on_gap=on_gap)
        return ShardedPubSub(
            self.settings.redis_url,
            self.settings.command_timeout_s,
            on_message=on_message,
            on_gap=on_gap,
        )

    async def __aenter__(self) -> Self:
        """
        Connect.

        Raises:
            BrokerUnavailable: A server cannot be reached; start it, or correct the URL.
            ServerTooOld: Use Redis >= 7.0 or Valkey >= 7.2.
            SettingsError: A server evicts keys; set its maxmemory-policy to noeviction.
        """
        for executor in self._executors():
            await executor.connect()
        if not self.settings.allow_eviction:
            try:
                for url in await self._server_urls():
                    await refuse_eviction(endpoint_of(url, self.settings.command_timeout_s))
            except BaseException:
                await self.aclose()
                raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        await self.aclose()

    async def ping(self) -> None:
        """
        Check that the chats' Redis answers; of a cluster, one node.

        Raises:
            BrokerUnavailable: It does not answer; start it, or try again later.
        """
        if self._cluster is not None:
            await self._cluster.refresh()
        else:
            await self.chats.execute("PING")

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self.chats.closed

    async def aclose(self) -> None:
        """Close all connections; calls under way fail with `BrokerUnavailable`."""
        for executor in self._executors():
            await executor.aclose()
        if self._cluster is not None:
            await self._cluster.aclose()

    async def _server_urls(self) -> list[str]:
        """Name the servers that hold chats or the queue."""
        settings = self.settings
        if self._cluster is None:
            return list({settings.redis_url, settings.effective_queue_url})
        if not self._cluster.primaries:
            await self._cluster.refresh()
        nodes = [self._cluster.server_url(address) for address in self._cluster.primaries]
        return [*nodes, settings.effective_queue_url]

    def _executors(self) -> list[Commands]:
        return list({id(each): each for each in (self.chats, self.pushes, self.queue)}.values())


def name_of(url: str) -> str:
    """
    Name the servers of *url* for people; never shows the password.

    Raises:
        SettingsError: It cannot be used; the text says what is expected and never quotes the URL.
    """
    return str(Cluster(url, 1.0) if is_cluster(url) else endpoint_of(url, 1.0))
