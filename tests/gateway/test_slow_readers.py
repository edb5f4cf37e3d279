"""A client that reads nothing costs a bounded number of bytes, and nobody else anything."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from riverdelta import Producer, Settings
from riverdelta_gateway.serve import Running, gateway_server
from riverdelta_gateway.settings import GatewaySettings
from riverdelta_gateway.socket import Socket
from tests.support.gateway.clients import Client, client, view_of
from tests.support.local_workers import local_workers
from tests.support.servers import until

PAUSE_S = float(os.environ.get("RIVERDELTA_TEST_PAUSE_S", "1"))
"""How long it reads nothing. For the full minute: RIVERDELTA_TEST_PAUSE_S=60."""
TOTAL_BYTES = 5_000_000
DELTA_BYTES = 5_000
ENVELOPE_BYTES = 200
SMALL_BUFFER = 4096
_log = logging.getLogger(__name__)


@asynccontextmanager
async def slow_client(running: Running) -> AsyncIterator[tuple[Client, Socket]]:
    """A client with small buffers on both sides, and the gateway's end of it."""
    address = urlsplit(running.url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    sock.connect((address.hostname, address.port))
    known = set(running.services.sockets.of_user("dev"))
    async with client(running.url, sock=sock, close_timeout=0.2, ping_interval=None) as slow:
        (theirs,) = set(running.services.sockets.of_user("dev")) - known
        accepted = theirs._protocol.transport.get_extra_info("socket")
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        yield slow, theirs


@pytest.mark.timeout(PAUSE_S + 180)
async def test_five_megabytes_pass_a_client_that_reads_nothing(
    gateway: Running, settings: Settings, producer: Producer
) -> None:
    limits = gateway.services.gateway
    held: list[int] = []
    async with (
        local_workers(settings),
        client(gateway.url) as fast,
        slow_client(gateway) as (slow, theirs),
    ):
        await fast.subscribe("c")
        await slow.subscribe("c")
        slow.connection.transport.pause_reading()
        began = time.monotonic()
        received = asyncio.create_task(fast.until_end(), name="fast")
        deltas = TOTAL_BYTES // DELTA_BYTES
        async with producer.message("c", source="text", message_id="m") as message:
            for number in range(deltas):
                await message.push(f"{number:06}".ljust(DELTA_BYTES, "."))
                held.append(theirs.unsent_bytes)
                pause_s = began + PAUSE_S * (number + 1) / deltas - time.monotonic()
                await asyncio.sleep(max(0, pause_s))
        events = await received
        assert len(view_of(events).text("m")) == deltas * DELTA_BYTES
        # Beside what queues and what the buffer takes: the frame that made the buffer full.
        frame = max(len(event.raw) for event in events) + ENVELOPE_BYTES
        assert max(held) <= limits.max_queued_bytes + limits.max_unsent_bytes + frame
        assert max(held) > limits.max_queued_bytes / 2, "it never queued: the test shows nothing"
        slow.connection.transport.resume_reading()
        late = await slow.until_end()
        assert view_of(late).text("m") == view_of(events).text("m")
        assert [event.type for event in late].count("snapshot") >= 2
    _log.info("for %g s at most %d bytes were held for it", PAUSE_S, max(held))


async def test_a_client_that_takes_no_byte_is_cut_off_after_a_while(
    settings: Settings, producer: Producer
) -> None:
    limits = GatewaySettings(dev=True, port=0, stall_timeout_s=0.5, max_unsent_bytes=1024)
    async with (
        local_workers(settings),
        gateway_server(settings, limits) as running,
        slow_client(running) as (slow, _),
    ):
        await slow.subscribe("c")
        slow.connection.transport.pause_reading()
        async with producer.message("c", source="text") as message:
            await message.push("x" * 1_000_000)

        async def gone() -> bool:
            return not running.services.sockets.of_user("dev")

        await until(gone)


async def test_a_client_that_leaves_its_answers_unread_is_asked_no_more(
    settings: Settings,
) -> None:
    limits = GatewaySettings(dev=True, port=0, max_queued_bytes=20_000, max_unsent_bytes=1024)
    async with (
        gateway_server(settings, limits) as running,
        slow_client(running) as (slow, theirs),
    ):
        slow.connection.transport.pause_reading()

        async def ask() -> None:
            for _ in range(20_000):
                await slow.send("/chats/list", {}, request_id="x" * 100)

        asking = asyncio.create_task(ask())

        async def full() -> bool:
            return theirs.session.queued_bytes > limits.max_queued_bytes // 2

        await until(full)
        for _ in range(50):
            await asyncio.sleep(0.01)
            assert theirs.unsent_bytes <= limits.max_queued_bytes + 100_000
        assert not theirs.session.closed
        asking.cancel()
        slow.connection.transport.resume_reading()
        assert (await slow.next())["event"] == "chats"


async def test_a_client_without_a_pong_is_gone(settings: Settings) -> None:
    limits = GatewaySettings(dev=True, port=0, ping_interval_s=0.1, pong_timeout_s=0.3)
    async with gateway_server(settings, limits) as running, client(running.url) as alive:
        async with slow_client(running) as (dead, theirs):
            dead.connection.transport.pause_reading()

            async def gone() -> bool:
                return theirs not in running.services.sockets.of_user("dev")

            await until(gone)
        assert (await alive.ask("/chats/list", {}))["event"] == "chats"


async def test_nothing_is_left_of_a_client_that_goes_while_it_is_waited_for(
    settings: Settings,
) -> None:
    limits = GatewaySettings(dev=True, port=0, max_queued_bytes=20_000, max_unsent_bytes=1024)
    async with (
        gateway_server(settings, limits) as running,
        slow_client(running) as (slow, theirs),
    ):
        slow.connection.transport.pause_reading()

        async def ask() -> None:
            while True:
                await slow.send("/chats/list", {}, request_id="x" * 100)

        asking = asyncio.create_task(ask())

        async def waits() -> bool:
            return theirs.session.queued_bytes > limits.max_queued_bytes // 2

        await until(waits)
        asking.cancel()
        slow.connection.transport.abort()

        async def gone() -> bool:
            return not running.services.sockets.of_user("dev")

        await until(gone)


FLOOD_BYTES = 64 * 1024 * 1024


async def _raw_socket(
    running: Running,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Socket]:
    """Open a WebSocket by hand, to send what no client library sends."""
    address = urlsplit(running.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    writer.write(
        f"GET /ws HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")

    async def there() -> bool:
        return bool(running.services.sockets.of_user("dev"))

    await until(there)
    (theirs,) = running.services.sockets.of_user("dev")
    return reader, writer, theirs


def _frame(first_byte: int, data: bytes) -> bytes:
    return bytes((first_byte, 0x80 | len(data))) + bytes(4) + data  # the mask is 0


async def test_pings_whose_answers_are_not_read_cost_a_bounded_number_of_bytes(
    settings: Settings,
) -> None:
    limits = GatewaySettings(dev=True, port=0, stall_timeout_s=2, max_unsent_bytes=4096)
    async with gateway_server(settings, limits) as running:
        reader, writer, theirs = await _raw_socket(running)
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # no answer is taken
        pings, held, sent = _frame(0x89, b"x" * 125) * 500, [0], 0
        protocol = theirs._protocol
        while sent < FLOOD_BYTES and theirs in running.services.sockets.of_user("dev"):
            writer.write(pings)
            sent += len(pings)
            try:
                await asyncio.wait_for(writer.drain(), 0.2)
            except TimeoutError:
                pass  # nothing of it is read any more
            except ConnectionError:
                break
            if not protocol.disconnected:
                held.append(protocol.unsent_bytes)

        async def gone() -> bool:
            return not running.services.sockets.of_user("dev")

        await until(gone)
        writer.close()
    _log.info("of %d bytes of pings at most %d were held", sent, max(held))
    assert max(held) < 1024 * 1024


async def test_a_message_in_endless_empty_fragments_closes_its_socket(settings: Settings) -> None:
    limits = GatewaySettings(dev=True, port=0)
    async with gateway_server(settings, limits) as running:
        reader, writer, theirs = await _raw_socket(running)
        writer.write(_frame(0x01, b"{") + _frame(0x00, b"") * 2000)
        await asyncio.wait_for(writer.drain(), 60)
        data = await asyncio.wait_for(reader.read(1 << 16), 60)
        assert data[:4] == b"\x88" + data[1:2] + (1009).to_bytes(2, "big")
        assert len(theirs._protocol.frames) <= 1024
        writer.close()
