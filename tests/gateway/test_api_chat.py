"""The AI SDK's endpoints: what `useChat` sends is understood, resumed, stopped, refused."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from riverdelta import Settings, Subscriber
from riverdelta_gateway.errors import RequestError
from riverdelta_gateway.posting.request import AssetRef
from riverdelta_gateway.routes.api_chat import read_chat_request
from riverdelta_gateway.serve import Running, gateway_server
from riverdelta_gateway.settings import GatewaySettings
from riverdelta_gateway.turn import Turn
from tests.support.gateway.ai_sdk_client import fold_parts, parts_of
from tests.support.gateway.local_turns import CALLS, local_turns, turn_queue, until_message
from tests.support.local_workers import local_workers
from tests.support.servers import DEADLINE_S

CHAT = "aB3dE6gH9jK2mN5p"
"""An id as the AI SDK makes it."""


def said(text: str, id_: str = "u1", role: str = "user") -> dict[str, Any]:
    return {"id": id_, "role": role, "parts": [{"type": "text", "text": text}]}


def asked(text: str, id_: str = "u1", chat: str = CHAT, **more: Any) -> dict[str, Any]:
    return {"id": chat, "messages": [said(text, id_)], "trigger": "submit-message", **more}


@contextlib.asynccontextmanager
async def http(gateway: Running) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=DEADLINE_S) as session:
        yield session


async def post(session: httpx2.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    response = await session.post("/api/chat", json=body)
    assert response.status_code == 200, response.text
    assert response.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert response.headers["content-type"].startswith("text/event-stream")
    return fold_parts(parts_of(response.content))


async def test_a_post_streams_the_reply(gateway: Running, settings: Settings) -> None:
    async with local_workers(settings), local_turns(settings), http(gateway) as session:
        message = await post(session, asked("Hello there"))
        assert message["parts"] == [{"type": "text", "text": "Hello there ", "state": "done"}]
        assert message["end"]["type"] == "finish"
        failed = await post(session, asked("Words FAIL", "u2"))
        assert failed["end"]["type"] == "error"
        assert failed["end"]["errorText"].startswith("The model is not well. The id of this")


async def test_a_prompt_sent_again_or_edited_replaces_its_turn(
    gateway: Running, settings: Settings
) -> None:
    async with local_workers(settings), local_turns(settings), http(gateway) as session:
        await post(session, asked("One"))
        await post(session, asked("Two", "u2"))
        await post(session, asked("Three", "u3"))
        again = await post(session, asked("HISTORY", "u2", trigger="regenerate-message"))
        assert again["parts"][0]["text"] == "user: One|assistant: One "
        document = (await session.get(f"/chats/{CHAT}")).json()
    prompts = [m["metadata"]["turn"]["prompt"] for m in document["data"]["messages"]]
    assert prompts == ["One", "HISTORY"]


async def test_resuming_replays_the_live_message_and_nothing_else(
    gateway: Running, settings: Settings, subscriber: Subscriber
) -> None:
    async with local_workers(settings), local_turns(settings), http(gateway) as session:
        assert (await session.get(f"/api/chat/{CHAT}/stream")).status_code == 204
        await post(session, asked("Before"))
        first = asyncio.create_task(post(session, asked("Some words HANG", "u2")))
        live = await _live(subscriber)
        await until_message(subscriber, CHAT, live, text="words")
        async with session.stream("GET", f"/api/chat/{CHAT}/stream") as resumed:
            assert resumed.status_code == 200
            stopped = await session.post(f"/api/chat/{CHAT}/stop")
            assert stopped.json()["message_ids"] == [live]
            replay = fold_parts(parts_of(await resumed.aread()))
        assert replay == await first
        assert replay["id"] == live
        assert replay["parts"][0]["text"] == "Some words "
        assert replay["end"]["type"] == "abort"


async def test_a_reply_that_ended_while_its_client_was_away_is_resumed_for_a_minute(
    gateway: Running, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with local_workers(settings), local_turns(settings), http(gateway) as session:
        await post(session, asked("Before"))
        seen = await post(session, asked("While away", "u2"))
        resumed = await session.get(f"/api/chat/{CHAT}/stream")
        assert fold_parts(parts_of(resumed.content)) == seen
        later_ns = time.time_ns() + 61 * 10**9
        monkeypatch.setattr(time, "time_ns", lambda: later_ns)
        assert (await session.get(f"/api/chat/{CHAT}/stream")).status_code == 204


async def test_a_chat_is_read_as_ui_messages(gateway: Running, settings: Settings) -> None:
    async with local_workers(settings), local_turns(settings), http(gateway) as session:
        assert (await session.get(f"/api/chat/{CHAT}")).status_code == 404
        await post(session, asked("Some words"))
        failed = await post(session, asked("Words FAIL", "u2"))
        document = (await session.get(f"/api/chat/{CHAT}")).json()
    assert document["id"] == CHAT
    asked_, reply, _, broken = document["messages"]
    assert asked_ == {
        "id": "u1",
        "role": "user",
        "parts": [{"type": "text", "text": "Some words"}],
    }
    assert (reply["role"], reply["parts"][0]) == ("assistant", {"type": "step-start"})
    assert reply["parts"][1] == {"type": "text", "text": "Some words ", "state": "done"}
    assert "metadata" not in reply
    assert broken["id"] == failed["id"]
    assert broken["metadata"]["status"] == "failed"
    assert broken["metadata"]["error"]["detail"] == failed["end"]["errorText"]


async def _live(subscriber: Subscriber) -> str:
    async with asyncio.timeout(DEADLINE_S):
        async for event in subscriber.events(CHAT):
            if event.type == "message.started" and event.message is not None:
                return event.message
            if event.type == "snapshot":
                for message in event.data["messages"]:
                    if message["status"] == "open":
                        return str(message["message"])
    raise AssertionError("events never end")


async def test_a_client_that_hangs_up_does_not_end_the_reply(
    gateway: Running, settings: Settings, subscriber: Subscriber
) -> None:
    async with (
        local_workers(settings),
        local_turns(settings, backend="scripted", scripted_pace_ms=2),
        http(gateway) as session,
    ):
        async with session.stream("POST", "/api/chat", json=asked("How are sales?")) as response:
            async for line in response.aiter_lines():
                if "text-delta" in line:
                    break
        live = (await subscriber.snapshot(CHAT)).data["messages"][0]["message"]
        message = await until_message(subscriber, CHAT, live)
        assert message["status"] == "completed"


async def test_what_is_refused(gateway: Running, settings: Settings) -> None:
    async with http(gateway) as session:
        for body, status, sentence in (
            (asked("x", metric_id="gone"), 404, "metric_id: there is no metric with this id"),
            (asked(" "), 400, "prompt must not be empty unless an asset is specified"),
            (asked("x", chat="{}"), 400, "chat_id must have 1 to 128"),
            (asked("x", chat="guessed"), 400, "the id of a new chat must have 16"),
        ):
            response = await session.post("/api/chat", json=body)
            assert response.status_code == status
            assert response.json()["error"]["message"].startswith(sentence)
        assert (await session.get("/api/chat/{}/stream")).status_code == 400
        assert (await session.post("/api/chat", content=b"{")).status_code == 400


@pytest.mark.parametrize(
    "limit", [{"max_sockets_per_user": 1}, {"max_posts_per_minute": 1}], ids=["place", "posts"]
)
async def test_a_post_refused_for_a_limit_writes_nothing(
    settings: Settings, subscriber: Subscriber, limit: dict[str, int]
) -> None:
    limits = GatewaySettings.model_validate({"dev": True, "port": 0} | limit)
    async with (
        gateway_server(settings, limits) as running,
        http(running) as session,
        session.stream("POST", "/api/chat", json=asked("First HANG")) as first,
    ):
        assert first.status_code == 200
        for n in range(3):
            refused = await session.post("/api/chat", json=asked("Refused", f"r{n}", f"{CHAT}{n}"))
            assert refused.status_code == 429
        async with turn_queue(settings) as queue:
            await queue.ask(Turn("c", "last", "dev", "Last"))
        async with local_workers(settings), local_turns(settings):
            await until_message(subscriber, "c", "last")
            assert {call for call in CALLS if call.startswith("began")} == {
                "began First HANG",
                "began Last",
            }


READABLE: list[tuple[dict[str, Any], tuple[str | None, str | None, AssetRef | None]]] = [
    (asked("Hi"), ("u1", "Hi", None)),
    (asked("Hi", ""), (None, "Hi", None)),
    ({"id": "c", "message": said("Hi")}, ("u1", "Hi", None)),
    (
        {"id": "c", "messages": [said("old"), said("reply", "a", "assistant"), said("new", "u2")]},
        ("u2", "new", None),
    ),
    (asked("Hi", metric_id="m"), ("u1", "Hi", AssetRef("metric", "m", "metric_id"))),
    (
        {"id": "c", "messages": [{"role": "user", "parts": said("Hi")["parts"] * 2}]},
        (None, "Hi\nHi", None),
    ),
]


@pytest.mark.parametrize(("body", "expected"), READABLE)
def test_what_use_chat_sends(
    body: dict[str, Any], expected: tuple[str | None, str | None, AssetRef | None]
) -> None:
    post, prompt_id = read_chat_request(body)
    assert post.chat_id == body["id"]
    assert (prompt_id, post.prompt, post.asset) == expected


UNREADABLE: list[tuple[dict[str, Any], str]] = [
    ({"messages": [said("Hi")]}, "id must be a string"),
    ({"id": "c"}, "messages must end with one of role `user`"),
    ({"id": "c", "messages": []}, "messages must end with one of role `user`"),
    ({"id": "c", "messages": "Hi"}, "messages must end with one of role `user`"),
    ({"id": "c", "messages": [said("Hi", role="assistant")]}, "messages must end with one of role"),
    ({"id": "c", "messages": [{"role": "user"}]}, "the parts of a message must be a list"),
    (
        {"id": "c", "messages": [{"role": "user", "parts": [{"type": "file", "url": "x"}]}]},
        "the parts of a message must be of type `text`",
    ),
    ({"id": "c", "messages": [said("") | {"id": 5}]}, "prompt must not be empty"),
    ({"id": "c", "messages": [said("Hi") | {"id": 5}]}, "the id of a message must be a string"),
    (asked("", metric_id="m"), "messages must end with one that has a text"),
    (asked("Hi", asset_id="m"), "asset_type must be provided when asset_id is specified"),
]


@pytest.mark.parametrize(("body", "sentence"), UNREADABLE)
def test_what_use_chat_cannot_mean(body: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError) as refusal:
        read_chat_request(body)
    assert refusal.value.code == "BAD_REQUEST"
    assert refusal.value.message.startswith(sentence)
