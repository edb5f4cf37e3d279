"""Connect to a server: by its URL, or by asking sentinels for its address."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any, Final

from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from riverdelta.broker.redis.urls import SeveralUrl, several
from riverdelta.broker.redis.wire import close_connection
from riverdelta.core.errors import BrokerUnavailable, ServerTooOld, SettingsError

_MIN_VERSION: Final = (7, 0)
"""First Redis with sharded pub/sub and script flags. Every Valkey reports 7.2.4 here."""

_SENTINEL_ANSWERS_S: Final = 1.0
"""A sentinel silent for this long is skipped; any other can answer."""

_UNUSABLE: Final = (
    "Redis URL cannot be used: it must be redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss://... "
    "(with TLS), unix://PATH, redis+sentinel://... or redis+cluster://..."
)


class Endpoint:
    """
    One server, read from a URL; makes connections to it.

    Raises:
        SettingsError: The URL cannot be used; the text says what it may be.
    """

    def __init__(self, url: str, command_timeout_s: float) -> None:
        try:
            options: dict[str, Any] = dict(parse_url(url))
        except ValueError:
            # The reason may quote the URL, and so the password.
            raise SettingsError(_UNUSABLE) from None
        self._class: type[Connection] = options.pop("connection_class", Connection)
        self._options = options
        self.command_timeout_s = command_timeout_s

    def __str__(self) -> str:
        """Name the server for people: never the password."""
        if "path" in self._options:
            return str(self._options["path"])
        return f"{self._options.get('host', 'localhost')}:{self._options.get('port', 6379)}"

    async def connect(self) -> tuple[Connection, str]:
        """
        Open a connection and check the server.

        Returns:
            The connection, and the ``run_id`` of the server behind it.

        Raises:
            BrokerUnavailable: No server, no answer, or wrong credentials.
            ServerTooOld: It answered, and lacks what riverdelta needs.
        """
        return await self._open(self._options)

    async def _open(self, options: dict[str, Any]) -> tuple[Connection, str]:
        connection = self._class(
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=self.command_timeout_s,
            **options,
        )
        try:
            async with asyncio.timeout(self.command_timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call]  # redis-py 5
                await self._check(connection)
                await connection.send_command("INFO", "server")
                info = await connection.read_response()
        except (RedisError, OSError, TimeoutError, RuntimeError) as error:
            # RuntimeError: uvloop raises it when redis-py writes to a connection that was just reset.
            await close_connection(connection)
            raise self.unavailable(error) from error
        except asyncio.CancelledError:
            await close_connection(connection)
            raise
        facts = parse_info(info)
        version = facts.get("redis_version", "0")
        if tuple(int(part) for part in version.split(".")[:2]) < _MIN_VERSION:
            await close_connection(connection)
            message = f"Redis at {self} is version {version}: use Redis >= 7.0 or Valkey >= 7.2"
            raise ServerTooOld(message)
        return connection, facts.get("run_id", "")

    async def _check(self, connection: Connection) -> None:
        """Raise a RedisError if *connection* leads to the wrong server."""

    def unavailable(self, error: BaseException | str) -> BrokerUnavailable:
        """Make the error that this server cannot be used now, with its reason."""
        if isinstance(error, TimeoutError) and not str(error):
            error = f"no answer within {self.command_timeout_s:g} s"
        message = f"Redis at {self} cannot be used: {reason_of(error)}"
        return BrokerUnavailable(message)


class SentinelEndpoint(Endpoint):
    """
    The current primary of a service; its sentinels are asked at each connect.

    No subscription to the sentinels is needed: a demotion closes the old primary's connections, and
    the connection to a frozen primary is closed after the command timeout.
    """

    def __init__(self, url: SeveralUrl, command_timeout_s: float) -> None:
        super().__init__(url.server(url.addresses[0]), command_timeout_s)
        self._url = url

    def __str__(self) -> str:
        """Name the service for people."""
        return str(self._url)

    async def connect(self) -> tuple[Connection, str]:
        """Open a connection to the current primary; raises as `Endpoint.connect`."""
        sentinels = make_sentinels(self._url, min(_SENTINEL_ANSWERS_S, self.command_timeout_s))
        try:
            host, port = await sentinels.discover_master(self._url.service)
        except RedisError as error:
            raise self.unavailable(error) from error
        finally:
            await close_sentinels(sentinels)
        return await self._open(self._options | {"host": host, "port": port})

    async def _check(self, connection: Connection) -> None:
        """Check the role: sentinels may still name a server that was demoted."""
        await connection.send_command("ROLE")
        role = (await connection.read_response(disable_decoding=True))[0]
        if role != b"master":
            message = f"{connection.host}:{connection.port} is a replica"
            raise RedisError(message)


def endpoint_of(url: str, command_timeout_s: float) -> Endpoint:
    """
    Make the endpoint of a URL that leads to one server at a time.

    Raises:
        SettingsError: The URL cannot be used, or names a cluster.
    """
    many = several(url)
    if many is None:
        return Endpoint(url, command_timeout_s)
    if many.kind == "cluster":
        raise SettingsError("Redis URL cannot be used: a cluster is not a single server")
    return SentinelEndpoint(many, command_timeout_s)


def make_sentinels(url: SeveralUrl, timeout_s: float, **server_options: Any) -> Sentinel:
    """Make redis-py's client for the sentinels of *url*; close it with `close_sentinels`."""
    options: dict[str, Any] = dict(parse_url(url.sentinel(url.addresses[0])))
    options |= {
        "ssl": options.pop("connection_class", Connection) is SSLConnection,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
    }
    del options["host"], options["port"]
    return Sentinel(url.addresses, sentinel_kwargs=options, **server_options)  # type: ignore[no-untyped-call]  # redis-py 5


async def close_sentinels(sentinels: Sentinel) -> None:
    """Close the connections of *sentinels*."""
    for client in sentinels.sentinels:
        await client.aclose()


def reason_of(error: BaseException | str) -> str:
    """Return what went wrong, without the address: redis-py and asyncio each add it to their texts."""
    cause = error.__context__ if isinstance(error, RedisError) else error
    if isinstance(cause, ConnectionError | FileNotFoundError) and cause.errno is not None:
        return os.strerror(cause.errno)  # asyncio's own text differs
    if isinstance(cause, socket.gaierror) and cause.strerror is not None:
        return cause.strerror
    return str(error) or type(error).__name__


def parse_info(info: bytes | str) -> dict[str, str]:
    """Read the lines of an answer to INFO."""
    text = info.decode() if isinstance(info, bytes) else info
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}
