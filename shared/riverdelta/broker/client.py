"""What producers, readers and workers have in common: settings, keys, and the two connections."""

from __future__ import annotations

from typing import Self

from riverdelta.broker.connection import Executor
from riverdelta.broker.keys import Keys
from riverdelta.broker.settings import Settings


class Client:
    """
    The chats' Redis and the queue's; one connection where both are the same server.

    Attributes:
        chats: Executes what concerns a chat.
        queue: Executes what concerns workers, producers and arq.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings.key_prefix)
        timeout_s = settings.command_timeout_s
        self.chats = Executor(settings.redis_url, timeout_s)
        same = settings.effective_queue_url == settings.redis_url
        self.queue = self.chats if same else Executor(settings.effective_queue_url, timeout_s)

    async def __aenter__(self) -> Self:
        """
        Connect.

        Raises:
            BrokerUnavailable: A server is not there; start it, or correct the URL.
            ServerTooOld: Use Redis >= 7.0 or Valkey >= 7.2.
        """
        await self.chats.connected_run_id()
        await self.queue.connected_run_id()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close both connections."""
        await self.aclose()

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self.chats.closed

    async def aclose(self) -> None:
        """Close both connections; calls under way fail with `BrokerUnavailable`."""
        await self.chats.aclose()
        if self.queue is not self.chats:
            await self.queue.aclose()
