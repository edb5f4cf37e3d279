"""Gateways die and restart; replies and readers go on."""

import asyncio
from pathlib import Path

import pytest

from riverdelta import Producer, Settings
from riverdelta_gateway.close_codes import CloseCode
from tests.support.gateway.clients import client, view_of
from tests.support.gateway.processes import GatewayProcess
from tests.support.local_workers import local_workers

WORDS = [f"word{number} " for number in range(200)]


async def push_slowly(producer: Producer, begun: asyncio.Event) -> None:
    async with producer.message("c", source="text", message_id="m") as message:
        for number, word in enumerate(WORDS):
            await message.push(word)
            if number == 20:
                begun.set()
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("how", ["kill -9", "SIGTERM"])
async def test_a_client_goes_on_at_another_gateway_where_it_was(
    how: str, settings: Settings, producer: Producer, tmp_path: Path
) -> None:
    begun = asyncio.Event()
    with (
        GatewayProcess(settings, tmp_path, "--dev") as first,
        GatewayProcess(settings, tmp_path, "--dev") as second,
    ):
        async with local_workers(settings):
            async with client(first.url) as browser:
                await browser.subscribe("c")
                reply = asyncio.create_task(push_slowly(producer, begun))
                await begun.wait()
                ending = asyncio.create_task(asyncio.to_thread(end, first, how))
                events, code = await browser.until_closed()
                await ending
            assert code == (CloseCode.RESTARTING if how == "SIGTERM" else None)
            assert not reply.done()
            async with client(second.url) as browser:
                await browser.subscribe("c", events[-1].position)
                rest = await browser.until_end()
            await reply
    assert rest[0].type != "snapshot"
    assert view_of(events + rest).text("m") == "".join(WORDS)
    assert rest[-1].type == "message.completed"
    assert "Traceback" not in first.log + second.log


def end(gateway: GatewayProcess, how: str) -> None:
    if how == "SIGTERM":
        assert gateway.terminate() == 0
    else:
        gateway.kill()


async def test_a_client_that_takes_no_close_frame_is_cut_off_in_time(
    settings: Settings, producer: Producer, tmp_path: Path
) -> None:
    brief = {"RIVERDELTA_GATEWAY_SHUTDOWN_S": "0.3", "RIVERDELTA_GATEWAY_MAX_UNSENT_BYTES": "1024"}
    with GatewayProcess(settings, tmp_path, "--dev", **brief) as gateway:
        async with local_workers(settings), client(gateway.url, close_timeout=0.2) as stuck:
            await stuck.subscribe("c")
            stuck.connection.transport.pause_reading()
            async with producer.message("c", source="text") as message:
                for _ in range(20):  # more than the kernel's buffers take
                    await message.push("x" * 900_000)
            async with client(gateway.url) as healthy:
                await healthy.subscribe("c")
                await healthy.until_end()
            assert await asyncio.to_thread(gateway.terminate) == 0
        assert " ERROR " not in gateway.log
