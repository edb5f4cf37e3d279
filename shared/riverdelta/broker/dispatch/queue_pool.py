"""Connection pools to the queue's Redis for users of arq; with sentinels or without."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import RedisError

from riverdelta.broker.redis.endpoint import close_sentinels, make_sentinels
from riverdelta.broker.redis.urls import SeveralUrl, several
from riverdelta.broker.settings import Settings


@contextlib.asynccontextmanager
async def open_queue_pool(settings: Settings) -> AsyncIterator[ConnectionPool]:
    """
    Open a pool; it connects at need, and is closed at the end.

    A server silent for ``command_timeout_s`` counts as gone: arq only polls, and without a timeout it
    would wait forever for a frozen server that another has replaced.
    """
    timeout_s = settings.command_timeout_s
    pool = queue_pool(settings, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
    try:
        yield pool
    finally:
        with contextlib.suppress(RedisError, OSError):
            await pool.disconnect(inuse_connections=True)
            if isinstance(pool, SentinelConnectionPool):
                await close_sentinels(pool.sentinel_manager)


def queue_pool(settings: Settings, **options: Any) -> ConnectionPool:
    """Make a pool; *options* are those of redis-py's connections."""
    url = several(settings.effective_queue_url)
    if url is None:
        return ConnectionPool.from_url(settings.effective_queue_url, **options)
    return _pool_behind(url, settings.command_timeout_s, options)


def _pool_behind(url: SeveralUrl, timeout_s: float, options: dict[str, Any]) -> ConnectionPool:
    server: dict[str, Any] = dict(parse_url(url.server(url.addresses[0])))
    server["ssl"] = server.pop("connection_class", Connection) is SSLConnection
    del server["host"], server["port"]
    make_pool: Callable[..., ConnectionPool] = SentinelConnectionPool  # redis-py 5 has no types
    return make_pool(url.service, make_sentinels(url, timeout_s), **server, **options)
