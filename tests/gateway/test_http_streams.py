"""Streams over HTTP: heartbeats, limits, and ends that never look like the end of the reply."""

import asyncio
import contextlib
import io
import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from riverdelta import Producer, Settings, Subscriber
from riverdelta_gateway.routes.ai_sdk import CUT
from riverdelta_gateway.serve import Running, gateway_server
from riverdelta_gateway.settings import GatewaySettings
from tests.support.gateway.local_turns import until_message
from tests.support.gateway.tokens import WITH_TOKENS, token
from tests.support.local_workers import local_workers
from tests.support.servers import Server, binaries, until

STREAMS = ["/chats/c/events", "/api/chat/c/stream"]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


@contextlib.asynccontextmanager
async def gateway_with(settings: Settings, **limits: Any) -> AsyncIterator[Running]:
    gateway = GatewaySettings.model_validate({"dev": True, "port": 0} | limits)
    async with gateway_server(settings, gateway) as running:
        yield running


@contextlib.asynccontextmanager
async def open_reply(settings: Settings, producer: Producer, **more: Any) -> AsyncIterator[None]:
    """Chat `c` with a reply that has a word and goes on."""
    async with local_workers(settings), Subscriber(settings) as subscriber:
        message = await producer.message("c", source="text", message_id="m", **more).__aenter__()
        await message.push("word ")
        await until_message(subscriber, "c", "m", text="word")
        yield
        await message.end()


async def until_text(response: aiohttp.ClientResponse, text: bytes) -> None:
    async with asyncio.timeout(20):
        async for line in response.content:
            if text in line:
                return
    raise AssertionError("the stream ended before")


async def test_heartbeats_come_while_another_message_streams_in_the_chat(
    settings: Settings, producer: Producer, http: aiohttp.ClientSession
) -> None:
    async def chatter() -> None:
        async with producer.message("c", source="text", message_id="other") as other:
            while True:
                await other.push("more ")
                await asyncio.sleep(0.02)

    async with (
        open_reply(settings, producer),
        gateway_with(settings, sse_heartbeat_s=0.5) as running,
    ):
        async with http.get(f"{running.url}/api/chat/c/stream") as response:
            await until_text(response, b"word")
            talking = asyncio.create_task(chatter())
            try:
                for _ in range(2):
                    await until_text(response, b": still here")
            finally:
                talking.cancel()
                await asyncio.gather(talking, return_exceptions=True)


def takes_nothing(url: str, path: str) -> socket.socket:
    """A client that asks for a stream and never reads."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    return client


@pytest.mark.parametrize(
    ("limits", "life_s"), [({"stall_timeout_s": 1.0}, 3600), ({}, 3)], ids=["stalled", "expired"]
)
async def test_a_client_that_takes_nothing_loses_its_place(
    settings: Settings,
    producer: Producer,
    http: aiohttp.ClientSession,
    limits: dict[str, float],
    life_s: float,
) -> None:
    tokens = WITH_TOKENS.model_copy(update={"max_sockets_per_user": 1, "shutdown_s": 0.2, **limits})
    async with (
        open_reply(settings, producer, user="ann"),
        producer.message("c", source="text", message_id="big", user="ann") as big,
        gateway_server(settings, tokens) as running,
    ):
        short = token("ann", exp=time.time() + life_s)
        url = f"{running.url}/chats/c/events?token="
        with contextlib.closing(takes_nothing(running.url, f"/chats/c/events?token={short}")):

            async def answers(status: int) -> bool:
                async with http.get(url + token("ann")) as response:
                    return response.status == status

            await until(lambda: answers(429))
            for _ in range(300):
                await big.push("x" * 20_000)
            await until(lambda: answers(200))


async def test_a_head_request_is_answered_and_over(
    settings: Settings, producer: Producer, http: aiohttp.ClientSession
) -> None:
    async with open_reply(settings, producer), gateway_with(settings) as running:
        reader, writer = await asyncio.open_connection(*_address(running.url))
        async with asyncio.timeout(20):
            for path in (*STREAMS, "/healthz"):
                writer.write(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head
        writer.close()
        assert not running.services.connections.count("dev")


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


async def test_a_stream_that_the_process_cuts_never_looks_complete(
    settings: Settings, producer: Producer, http: aiohttp.ClientSession
) -> None:
    async with open_reply(settings, producer):
        async with gateway_with(settings) as running:
            sse, ui = [await http.get(running.url + path) for path in STREAMS]
            await until_text(sse, b"word")
            await until_text(ui, b"word")
        with pytest.raises(aiohttp.ClientPayloadError):
            await sse.read()
        assert (await ui.read()).endswith(CUT)


async def test_a_stream_that_its_token_cuts_never_looks_complete(
    settings: Settings, producer: Producer, http: aiohttp.ClientSession
) -> None:
    async with (
        open_reply(settings, producer, user="ann"),
        gateway_server(settings, WITH_TOKENS) as running,
    ):
        short = token("ann", exp=time.time() + 3)
        sse, ui = [await http.get(f"{running.url}{path}?token={short}") for path in STREAMS]
        with pytest.raises(aiohttp.ClientPayloadError):
            await sse.read()
        assert (await ui.read()).endswith(CUT)


def test_the_last_words_of_a_cut_are_an_error_and_no_end() -> None:
    assert json.loads(CUT.removeprefix(b"data: "))["type"] == "error"
    assert b"[DONE]" not in CUT


async def test_nothing_between_may_hold_a_stream_back(
    settings: Settings, producer: Producer, http: aiohttp.ClientSession
) -> None:
    async with open_reply(settings, producer), gateway_with(settings) as running:
        for path in STREAMS:
            async with http.get(running.url + path) as response:
                assert response.headers["cache-control"] == "no-cache, no-transform"
                assert response.headers["x-accel-buffering"] == "no"


async def test_streams_reconnect_at_different_times(
    gateway: Running, http: aiohttp.ClientSession
) -> None:
    waits = set()
    for _ in range(8):
        async with http.get(f"{gateway.url}/chats/c/events") as response:
            waits.add(int((await response.content.readline()).removeprefix(b"retry: ")))
    assert len(waits) > 1
    assert min(waits) >= 500
    assert max(waits) <= 1500


@pytest.mark.parametrize(
    ("last_id", "first"),
    [
        ({"headers": {"Last-Event-ID": "of another server"}}, "snapshot"),
        ({"params": {"lastEventId": "42"}}, "snapshot"),
        ({"params": {"lastEventId": "POSITION"}}, "step.started"),
        ({"params": {"after": "x", "lastEventId": "POSITION"}}, "step.started"),
    ],
)
async def test_an_id_that_is_no_position_gets_a_snapshot(
    settings: Settings,
    producer: Producer,
    http: aiohttp.ClientSession,
    last_id: dict[str, dict[str, str]],
    first: str,
) -> None:
    async with open_reply(settings, producer), gateway_with(settings) as running:
        epoch = (await running.services.subscriber.snapshot("c")).epoch
        asked: Any = json.loads(json.dumps(last_id).replace("POSITION", f"{epoch}:1"))
        async with http.get(f"{running.url}/chats/c/events", **asked) as response:
            assert response.status == 200
            async for line in response.content:
                if line.startswith(b"data: "):
                    assert json.loads(line.removeprefix(b"data: "))["type"] == first
                    break


async def test_without_redis_every_route_says_when_to_try_again(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    with Server(str(binaries()["valkey"]), tmp_path) as server:
        settings = Settings(redis_url=server.url, command_timeout_s=1.0)
        async with gateway_with(settings, sse_heartbeat_s=0.2) as running:
            open_ = await http.get(f"{running.url}/chats/c/events")
            await until_text(open_, b"snapshot")
            server.kill()
            asked = {"id": "c", "messages": [_said("Hi")]}
            for method, path, body in (
                ("GET", "/healthz", None),
                ("GET", "/chats/c", None),
                ("GET", "/chats/c/events", None),
                ("POST", "/chats/c/stop", {}),
                ("GET", "/api/chat/c", None),
                ("GET", "/api/chat/c/stream", None),
                ("POST", "/api/chat/c/stop", {}),
                ("POST", "/api/chat", asked),
            ):
                async with http.request(method, running.url + path, json=body) as response:
                    assert response.status == 503, path
                    assert int(response.headers["retry-after"]) > 0
                    document = await response.json()
                    assert document["error"]["code"] == "INTERNAL_SERVER_ERROR"
            await until_text(open_, b": still here")
            open_.close()


def _said(text: str) -> dict[str, Any]:
    return {"id": "u1", "role": "user", "parts": [{"type": "text", "text": text}]}


async def test_the_history_of_use_chat_is_limited_as_a_body_and_its_prompt_as_a_prompt(
    settings: Settings, http: aiohttp.ClientSession
) -> None:
    async with gateway_with(settings, max_body_bytes=1_000_000) as running:
        for history, prompt, status in (
            (600, "Hi", 200),
            (0, "x" * 100_001, 400),
            (2000, "Hi", 400),
        ):
            messages = [_said("y" * 1000)] * history + [_said(prompt)]
            body = io.BytesIO(json.dumps({"id": "aB3dE6gH9jK2mN5p", "messages": messages}).encode())
            async with http.post(f"{running.url}/api/chat", data=body) as response:
                assert response.status == status, (history, status)


async def test_an_idle_connection_is_kept_as_long_as_its_setting_says(settings: Settings) -> None:
    assert GatewaySettings().keep_alive_s > 60
    ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with (
        gateway_with(settings) as long,
        gateway_with(settings, keep_alive_s=1) as short,
        asyncio.timeout(20),
    ):
        kept, to_kept = await asyncio.open_connection(*_address(long.url))
        dropped, to_dropped = await asyncio.open_connection(*_address(short.url))
        for reader, writer in ((kept, to_kept), (dropped, to_dropped)):
            writer.write(ask)
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        assert await dropped.read() == b""
        to_kept.write(ask)
        assert (await kept.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        to_kept.close()
        to_dropped.close()
