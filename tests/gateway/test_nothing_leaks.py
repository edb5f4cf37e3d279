"""Plant a marker wherever a secret or an exception's text can enter, and search every byte that leaves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import orjson
import pytest

from riverdelta import Producer, Settings
from riverdelta.broker.client import Client as Redis
from riverdelta_gateway.routes.context import Context
from riverdelta_gateway.routes.table import ROUTES
from riverdelta_gateway.serve import Running, gateway_server
from riverdelta_gateway.settings import GatewaySettings
from tests.support.gateway.clients import client as open_client
from tests.support.gateway.leaks import (
    BACKEND,
    CATALOG,
    INTERNAL,
    PIPELINE,
    SECRET,
    escaped,
    found_in,
    provider_chunks,
)
from tests.support.gateway.local_turns import local_turns
from tests.support.gateway.tokens import SECRET as KEY
from tests.support.gateway.tokens import token
from tests.support.local_workers import local_workers
from tests.support.servers import until

CHAT = "chat-of-the-markers"
ABOUT: dict[str, Any] = dict.fromkeys(("conversation", "operation_name", "service_name"), INTERNAL)
MESSAGES = ("provider", "failed", "raised", "broken")
Outputs = dict[str, list[str]]


async def fails(_: Context) -> None:
    raise RuntimeError(INTERNAL)


@contextlib.asynccontextmanager
async def watched(running: Running, outputs: Outputs) -> AsyncIterator[Any]:
    """Collect every frame of a socket and every line of a stream while the block runs."""
    frames = outputs.setdefault("WebSocket", [])
    lines = outputs.setdefault("SSE", [])

    async def collect_frames() -> None:
        async for frame in browser.connection:
            frames.append(str(frame))  # read while they come

    async def collect_lines() -> None:
        async with session.stream("GET", f"/chats/{CHAT}/events") as answer:
            async for line in answer.aiter_lines():
                lines.append(line)  # read while they come

    headers = {"authorization": f"Bearer {token('ann')}"}
    async with (
        httpx2.AsyncClient(base_url=running.url, timeout=60, headers=headers) as session,
        open_client(running.url, f"?token={token('ann')}") as browser,
    ):
        tasks = [asyncio.create_task(collect_frames()), asyncio.create_task(collect_lines())]
        try:
            await browser.send("/chats/subscribe", {"chat_id": CHAT})
            yield browser, session
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def plant(producer: Producer) -> None:
    """Write the messages: a provider's, one that the producer fails, one that raises, one that breaks."""

    def message(id_: str, source: str) -> Any:
        return producer.message(CHAT, source=source, message_id=id_, user="ann", **ABOUT)

    async with message("provider", "openai-chat") as reply:
        for chunk in provider_chunks()[:-3]:
            await reply.push(chunk)
        await reply.push_tool_result("call_1", {"found": SECRET, SECRET: f"x\n{SECRET}"})
        await reply.annotate("title", {"title_chunk": f"On {SECRET[:8]}"})
        await reply.annotate("title", {"title_chunk": SECRET[8:]})
        await reply.annotate("title", {"title": f"On {SECRET}"})
        await reply.annotate(SECRET, [SECRET])
        for chunk in provider_chunks()[-3:]:
            await reply.push(chunk)
    async with message("failed", "text") as reply:
        await reply.push("x")
        await reply.fail(SECRET, f"It had {SECRET}")
    with contextlib.suppress(RuntimeError):
        async with message("raised", "text"):
            raise RuntimeError(INTERNAL)
    async with message("broken", "text") as reply:
        await reply.push("BREAK this")
        await reply.push("after it")
    async with message("calls", "chunks") as reply:
        call = {"chunk": "a", "kind": "tool_call", "format": "json", "tool_name": "search"}
        await reply.push({**call, "text": f'{{"a": "{escaped(SECRET)[:50]}'})
        await reply.push({**call, "text": f'{escaped(SECRET)[50:]}"}}'})


def title_part(line: str) -> str:
    """The part of a title in an event, or in a frame."""
    document = orjson.loads(line)
    of_frame, of_event = document.get("payload") or {}, document.get("data") or {}
    note = of_event.get("data")
    found = of_frame.get("title_chunk") or (
        note.get("title_chunk") if isinstance(note, dict) else None
    )
    return found or ""


async def everything_that_leaves(settings: Settings, producer: Producer, redis: Redis) -> Outputs:
    outputs: Outputs = {}
    options = {"token_secret": KEY, "port": 0, "max_posts_per_minute": 1000}
    gateway = GatewaySettings.model_validate(options)
    async with (
        local_workers(settings),
        local_turns(settings, backend=BACKEND),
        gateway_server(settings, gateway, routes={**ROUTES, "/fails": fails}) as running,
    ):
        async with producer.message(CHAT, source="text", message_id="first", user="ann", **ABOUT):
            pass
        async with watched(running, outputs) as (browser, session):
            await plant(producer)
            await browser.send("/fails", {})
            for prompt in ("well", "REFUSED", "BUG"):
                await browser.send("/chats/post", {"chat_id": CHAT, "prompt": prompt})
                id_ = f"chat-of-prompt-{prompt}"
                said = {"id": prompt, "role": "user", "parts": [{"type": "text", "text": prompt}]}
                answer = await session.post("/api/chat", json={"id": id_, "messages": [said]})
                outputs[f"POST /api/chat {prompt}"] = [answer.text]
                assert '"type":"finish"' in answer.text or '"type":"error"' in answer.text
            asset = {"chat_id": CHAT, "asset_id": "a", "asset_type": "metric"}
            await browser.send("/chats/post", asset)
            for path in (f"/chats/{CHAT}", f"/api/chat/{CHAT}", f"/api/chat/{CHAT}/stream"):
                answer = await session.get(path)
                outputs[f"GET {path}"] = [answer.text]
            said = {"id": "p", "role": "user", "parts": [{"type": "text", "text": "x"}]}
            body = {"id": CHAT, "messages": [said], "asset_id": "a", "asset_type": "metric"}
            answer = await session.post("/api/chat", json=body)
            assert answer.status_code == 500
            outputs["errors"] = [answer.text]

            async def all_ended() -> bool:
                ends = {"message.completed", "message.failed"}
                seen = [line for line in outputs["SSE"] if any(end in line for end in ends)]
                asked = [f for f in outputs["WebSocket"] if '"event":"complete"' in f]
                return len(seen) >= len(MESSAGES) + 4 and len(asked) >= 3

            await until(all_ended)
            answer = await session.get(f"/chats/{CHAT}")
            outputs["snapshot at the end"] = [answer.text]
    log = await redis.chats.execute("XRANGE", redis.keys.chat(CHAT).deltas, "-", "+")
    outputs["the log in Redis"] = [fields[1].decode() for _, fields in log]
    for place in ("the log in Redis", "WebSocket"):  # readers join the parts of a title
        outputs[f"titles of {place}"] = ["".join(map(title_part, outputs[place]))]
        assert "On " in outputs[f"titles of {place}"][0]
    return outputs


@pytest.fixture
def leaky(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Settings:
    monkeypatch.setenv("RIVERDELTA_TURNS_ASSET_CATALOG", CATALOG)
    return settings.model_copy(update={"pipeline": PIPELINE, "redact": True, "sections": True})


async def test_nothing_that_leaves_has_a_secret_or_the_text_of_an_exception(
    leaky: Settings, producer: Producer, client: Redis
) -> None:
    outputs = await everything_that_leaves(leaky, producer, client)
    types = {orjson.loads(event)["type"] for event in outputs["the log in Redis"]}
    assert types >= {
        *("input.rejected", "step.failed", "message.failed", "processor.failed"),
        *("message.annotated", "chunk.failed", "step.completed", "chunk.output"),
    }
    assert found_in(outputs) == {}


@pytest.mark.parametrize("door", [{"redact": False}, {"failure_texts": True}], ids=str)
async def test_the_search_finds_what_an_open_door_lets_out(
    leaky: Settings, producer: Producer, client: Redis, door: dict[str, bool]
) -> None:
    outputs = await everything_that_leaves(leaky.model_copy(update=door), producer, client)
    assert {"WebSocket", "SSE", "the log in Redis", "snapshot at the end"} <= set(found_in(outputs))
