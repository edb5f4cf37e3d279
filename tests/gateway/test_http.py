"""Chats over plain HTTP."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from riverdelta import Event, Producer, Settings
from riverdelta_gateway.serve import Running, gateway_server
from riverdelta_gateway.settings import GatewaySettings
from tests.support.gateway.clients import view_of
from tests.support.gateway.tokens import WITH_TOKENS, token
from tests.support.local_workers import local_workers
from tests.support.servers import DEADLINE_S, until


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


async def sse(response: aiohttp.ClientResponse) -> AsyncGenerator[tuple[str, Event], None]:
    """Read a stream as an EventSource does."""
    fields: dict[str, str] = {}
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        elif "data" in fields:
            yield fields["id"], Event(fields["data"].encode())
            fields = {}


async def until_end(response: aiohttp.ClientResponse) -> list[Event]:
    events = []
    async with contextlib.aclosing(sse(response)) as stream:
        async for position, event in stream:
            assert position == event.position
            events.append(event)
            if event.ends_message:
                break
    return events


async def test_events_come_as_sse_and_an_id_resumes(
    gateway: Running, settings: Settings, producer: Producer, http: aiohttp.ClientSession
) -> None:
    url = f"{gateway.url}/chats/c/events"
    async with local_workers(settings), http.get(url) as response:
        assert response.content_type == "text/event-stream"
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("line\none")
            await message.push(" two")
        events = await until_end(response)
        assert view_of(events).text("m") == "line\none two"
        for name, where in (("header", {"Last-Event-ID": events[2].position}), ("query", {})):
            query = f"?after={events[2].position}" if name == "query" else ""
            async with http.get(url + query, headers=where) as again:
                assert view_of(events[:3] + await until_end(again)).text("m") == "line\none two"


async def test_a_quiet_stream_has_a_heartbeat_and_is_cut_with_the_process(
    settings: Settings, http: aiohttp.ClientSession
) -> None:
    limits = GatewaySettings(dev=True, port=0, sse_heartbeat_s=0.05)
    async with gateway_server(settings, limits) as running:
        response = await http.get(f"{running.url}/chats/c/events")
        async with asyncio.timeout(DEADLINE_S):
            while (await response.content.readline()) != b": still here\n":
                pass
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_stream_whose_client_is_gone_gives_its_place_back(
    settings: Settings, http: aiohttp.ClientSession
) -> None:
    limits = GatewaySettings(dev=True, port=0, sse_heartbeat_s=0.05, max_sockets_per_user=1)
    async with gateway_server(settings, limits) as running:
        url = f"{running.url}/chats/c/events"
        response = await http.get(url)
        async with http.get(url) as second:
            assert second.status == 429
            assert (await second.json())["error"]["code"] == "RATE_LIMITED"
        response.close()

        async def free() -> bool:
            async with http.get(url) as third:
                return third.status == 200

        await until(free)


async def test_a_snapshot_and_a_stop(
    gateway: Running, settings: Settings, producer: Producer, http: aiohttp.ClientSession
) -> None:
    chat = f"{gateway.url}/chats/c"
    async with local_workers(settings):
        message = producer.message("c", source="text", message_id="m")
        await message.__aenter__()
        await message.push("so far")

        async def shown() -> bool:
            async with http.get(chat) as response:
                document = await response.json()
            return [
                m["chunks"][0]["text"] for m in document["data"]["messages"] if m["chunks"]
            ] == ["so far"]

        await until(shown)
        async with http.post(f"{chat}/stop", json={"message_id": "m"}) as response:
            assert await response.json() == {"chat_id": "c", "message_ids": ["m"]}
        async with http.post(f"{chat}/stop") as response:
            assert response.status == 200


def answers() -> Iterator[Any]:
    ann, bob = (
        {"Authorization": f"Bearer {token('ann')}"},
        {"Authorization": f"Bearer {token('bob')}"},
    )
    yield pytest.param(("GET", "/chats/c", {}, None), (401, "UNAUTHORIZED"), id="no-token")
    yield pytest.param(
        ("GET", "/chats/c/events", {}, None), (401, "UNAUTHORIZED"), id="no-token-sse"
    )
    yield pytest.param(("GET", "/chats/c", bob, None), (404, "NOT_FOUND"), id="anothers")
    yield pytest.param(("POST", "/chats/c/stop", bob, None), (404, "NOT_FOUND"), id="anothers-stop")
    yield pytest.param(("GET", "/chats/absent", ann, None), (404, "NOT_FOUND"), id="absent")
    yield pytest.param(("GET", "/chats/a%20b", ann, None), (400, "BAD_REQUEST"), id="no-id")
    yield pytest.param(
        ("GET", "/chats/c/events?after=x", ann, None), (400, "BAD_REQUEST"), id="no-place"
    )
    yield pytest.param(("POST", "/chats/c/stop", ann, "[1]"), (400, "BAD_REQUEST"), id="no-object")
    yield pytest.param(("POST", "/chats/c/stop", ann, "{"), (400, "BAD_REQUEST"), id="no-json")
    large = json.dumps({"x": "y" * 300_000})
    yield pytest.param(("POST", "/chats/c/stop", ann, large), (400, "BAD_REQUEST"), id="large")
    yield pytest.param(("DELETE", "/chats/c", ann, None), (400, "BAD_REQUEST"), id="no-method")
    yield pytest.param(("GET", "/api/chat", ann, None), (400, "BAD_REQUEST"), id="no-get")
    evil = ann | {"Origin": "http://evil.example"}
    yield pytest.param(("GET", "/chats/c", evil, None), (403, "UNAUTHORIZED"), id="foreign-page")


@pytest.mark.parametrize(("request_", "answer"), list(answers()))
async def test_errors_are_documents(
    settings: Settings,
    producer: Producer,
    http: aiohttp.ClientSession,
    request_: tuple[str, str, dict[str, str], str | None],
    answer: tuple[int, str],
) -> None:
    method, path, headers, body = request_
    await producer.message("c", source="text", message_id="m", user="ann").__aenter__()
    async with (
        gateway_server(settings, WITH_TOKENS) as running,
        http.request(method, running.url + path, headers=headers, data=body) as response,
    ):
        assert (response.status, (await response.json())["error"]["code"]) == answer


async def test_health_is_whether_redis_answers(
    gateway: Running, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{gateway.url}/healthz") as response:
        assert await response.json() == {"status": "ok", "sockets": 0, "chats": 0}


async def test_the_page_is_at_the_root_and_nothing_elsewhere(
    gateway: Running, http: aiohttp.ClientSession
) -> None:
    async with http.get(gateway.url) as response:
        assert response.content_type == "text/html"
    for path in ("/no/such/path", "/..%2f..%2fapp.py"):
        async with http.get(gateway.url + path) as response:
            assert (await response.json())["error"]["code"] == "NOT_FOUND"
