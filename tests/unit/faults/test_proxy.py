"""The proxy between a process and the server: passes on, cuts, freezes, delays, delivers late."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from faults.proxy import Proxy
from tests.support.servers import until


class Echo:
    """A server that says everything twice, and remembers it."""

    def __init__(self) -> None:
        self.received = b""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1000):
                self.received += data
                writer.write(data * 2)
        writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    server = Echo()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    listener.close()
    await asyncio.sleep(0.01)  # the last connection's handler


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    between = Proxy(echo.port)
    await between.start()
    yield between
    await between.aclose()


async def connect(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"hi")
    assert await reader.readexactly(4) == b"hihi"
    return reader, writer


async def test_it_passes_everything_on_both_ways_and_the_end_too(proxy: Proxy, echo: Echo) -> None:
    reader, writer = await connect(proxy)
    big = b"x" * 300_000
    writer.write(big)
    assert await reader.readexactly(600_000) == big * 2
    writer.close()
    assert await reader.read() == b""


async def test_a_cut_resets_every_connection_and_new_ones_may_come(proxy: Proxy) -> None:
    (one, out), (other, other_out) = await connect(proxy), await connect(proxy)
    assert proxy.cut() == 2
    for reader in (one, other):
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
    _, third = await connect(proxy)
    for writer in (out, other_out, third):
        writer.close()


async def test_nothing_gets_through_a_frozen_connection_until_it_thaws(proxy: Proxy) -> None:
    reader, writer = await connect(proxy)
    freezing = asyncio.create_task(proxy.freeze(0.3))
    await asyncio.sleep(0)
    writer.write(b"a")
    reading = asyncio.create_task(reader.readexactly(2))
    done, _ = await asyncio.wait((reading, freezing), return_when=asyncio.FIRST_COMPLETED)
    assert reading not in done
    assert await reading == b"aa"
    await freezing
    writer.close()


async def test_new_connections_pass_by_old_ones_that_are_frozen(proxy: Proxy) -> None:
    _, old = await connect(proxy)
    freezing = asyncio.create_task(proxy.freeze(0.5, new_ones_too=False))
    await asyncio.sleep(0)
    _, new = await connect(proxy)
    assert not freezing.done()
    await freezing
    for writer in (old, new):
        writer.close()


async def test_what_a_sender_gave_up_on_arrives_late_all_the_same(proxy: Proxy, echo: Echo) -> None:
    _, writer = await connect(proxy)
    freezing = asyncio.create_task(proxy.freeze(0.3, new_ones_too=False, replies_too=False))
    await asyncio.sleep(0)
    writer.write(b"late")
    writer.close()
    await asyncio.sleep(0.1)
    assert echo.received == b"hi"
    await freezing

    async def arrived() -> bool:
        return echo.received == b"hilate"

    await until(arrived)


async def test_a_delay_delivers_everything_late_and_in_order(proxy: Proxy) -> None:
    reader, writer = await connect(proxy)
    delaying = asyncio.create_task(proxy.delay(0.2, 0.1))
    await asyncio.sleep(0)
    began = time.monotonic()
    writer.write(b"a")
    await asyncio.sleep(0.01)
    writer.write(b"b")
    assert await reader.readexactly(4) == b"aabb"
    assert time.monotonic() - began >= 0.2
    await delaying
    writer.close()


async def test_nobody_gets_in_where_it_does_not_admit(proxy: Proxy) -> None:
    proxy.admits = False
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
