"""Refuse a server that evicts keys: it would take a hash of a chat and leave the others."""

from __future__ import annotations

import asyncio
from typing import Final

from redis.exceptions import RedisError

from riverdelta.broker.redis.endpoint import Endpoint, parse_info
from riverdelta.broker.redis.wire import close_connection
from riverdelta.core.errors import SettingsError

_NO_EVICTION: Final = "noeviction"


async def refuse_eviction(endpoint: Endpoint) -> None:
    """
    Ask a server for its policy at `maxmemory`, over a connection of its own.

    Raises:
        BrokerUnavailable: It cannot be reached.
        ServerTooOld: It lacks what riverdelta needs.
        SettingsError: It evicts keys. The text says what to set.
    """
    connection, _ = await endpoint.connect()
    try:
        async with asyncio.timeout(endpoint.command_timeout_s):
            await connection.send_command("INFO", "memory")
            info = await connection.read_response()
    except (RedisError, OSError, TimeoutError) as error:
        raise endpoint.unavailable(error) from error
    finally:
        await close_connection(connection)
    policy = parse_info(info).get("maxmemory_policy", _NO_EVICTION)
    if policy != _NO_EVICTION:
        message = (
            f"Redis at {endpoint} evicts keys (maxmemory-policy {policy}), which would take parts of "
            "chats: set maxmemory-policy noeviction there, or RIVERDELTA_ALLOW_EVICTION=true if chats "
            "may be lost"
        )
        raise SettingsError(message)
