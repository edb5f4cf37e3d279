"""A chat has one owner: what is shown, sent and written for a user is checked when it happens."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from riverdelta import Producer, Settings
from riverdelta.broker.client import Client as Redis
from riverdelta_gateway.access import ChatAccess
from riverdelta_gateway.serve import Running, gateway_server
from riverdelta_gateway.settings import GatewaySettings
from tests.support.gateway.ai_sdk_client import parts_of
from tests.support.gateway.clients import Client
from tests.support.gateway.clients import client as open_client
from tests.support.gateway.local_turns import local_turns
from tests.support.gateway.tokens import SECRET, token
from tests.support.local_workers import local_workers
from tests.support.servers import until

ROUNDS = 20
NOT_FOUND = "There is no such chat."
USERS = ("anna", "bert")


@contextlib.asynccontextmanager
async def users_gateway(settings: Settings) -> AsyncIterator[Running]:
    limits = {"token_secret": SECRET, "port": 0, "max_posts_per_minute": 10_000}
    limits |= {"max_sockets_per_user": 1_000}
    async with gateway_server(settings, GatewaySettings.model_validate(limits)) as running:
        yield running


@contextlib.asynccontextmanager
async def http(running: Running, user: str) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"authorization": f"Bearer {token(user)}"}
    async with httpx2.AsyncClient(base_url=running.url, timeout=60, headers=headers) as session:
        yield session


@contextlib.asynccontextmanager
async def frames_of(running: Running, user: str) -> AsyncIterator[tuple[list[str], Client]]:
    """Collect every frame that a socket of *user* gets."""
    frames: list[str] = []

    async def collect() -> None:
        async for frame in browser.connection:
            frames.append(str(frame))  # noqa: PERF401  # read while they come

    async with open_client(running.url, f"?token={token(user)}") as browser:
        collecting = asyncio.create_task(collect())
        try:
            yield frames, browser
        finally:
            collecting.cancel()
            await asyncio.gather(collecting, return_exceptions=True)


def asked(chat: str, text: str) -> dict[str, Any]:
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"id": chat, "messages": [message]}


async def race(sessions: dict[str, httpx2.AsyncClient], chat: str) -> dict[str, list[bytes]]:
    """Both users post to one new id at once; return every byte that each of them gets."""
    got: dict[str, list[bytes]] = {user: [] for user in USERS}

    async def ask(user: str) -> bool:
        session = sessions[user]
        answer = await session.post("/api/chat", json=asked(chat, f"of-{user} secret"))
        got[user].append(answer.content)
        if answer.status_code == 404:
            return False
        assert answer.status_code == 200, answer.text
        ends = [part["type"] for part in parts_of(answer.content)][-1:]
        assert ends in (["finish"], ["error"]), answer.text
        return ends == ["finish"]

    won = dict(zip(USERS, await asyncio.gather(*map(ask, USERS)), strict=True))
    assert sorted(won.values()) == [False, True], "one of them has the chat"
    for user in USERS:
        for path, refused in ((f"/chats/{chat}", 404), (f"/api/chat/{chat}/stream", 204)):
            answer = await sessions[user].get(path)
            assert answer.headers["x-content-type-options"] == "nosniff"
            got[user].append(answer.content)
            if not won[user]:
                assert answer.status_code == refused
        if not won[user]:
            answer = await sessions[user].get(f"/chats/{chat}/events")
            assert (answer.status_code, answer.json()["error"]["message"]) == (404, NOT_FOUND)
    return got


async def test_two_users_who_post_to_one_new_id_see_nothing_of_each_other(
    settings: Settings,
) -> None:
    async with (
        local_workers(settings),
        local_turns(settings),
        users_gateway(settings) as running,
        http(running, "anna") as anna,
        http(running, "bert") as bert,
        frames_of(running, "anna") as (annas, _),
        frames_of(running, "bert") as (berts, _),
    ):
        sessions = {"anna": anna, "bert": bert}
        got: dict[str, list[str]] = {"anna": annas, "bert": berts}
        for _ in range(ROUNDS):
            for user, answers in (await race(sessions, secrets.token_hex(8))).items():
                got[user] += [answer.decode() for answer in answers]
    for user, other in (("anna", "bert"), ("bert", "anna")):
        assert [text for text in got[user] if f"of-{other}" in text] == []
    assert any("of-anna" in text for text in annas + berts), "sockets were watching"


async def test_readers_of_a_chat_get_nothing_of_its_next_life_under_another_user(
    settings: Settings, producer: Producer, client: Redis
) -> None:
    pieces: list[bytes] = []

    async def read() -> None:
        async with anna.stream("GET", "/chats/c/events") as response:
            async for piece in response.aiter_bytes():
                pieces.append(piece)  # noqa: PERF401  # read while they come

    async def both_have(text: str) -> None:
        async def arrived() -> bool:
            return text in "".join(frames) and text.encode() in b"".join(pieces)

        await until(arrived)

    async with (
        users_gateway(settings) as running,
        http(running, "anna") as anna,
        frames_of(running, "anna") as (frames, browser),
    ):
        async with (
            local_workers(settings),
            producer.message("c", source="text", user="anna") as message,
        ):
            await message.push("for Anna")
            await browser.send("/chats/subscribe", {"chat_id": "c"})
            reading = asyncio.create_task(read())
            await both_have("for Anna")
        keys = await client.chats.execute("KEYS", f"{settings.key_prefix}:{{c}}*")
        await client.chats.execute("DEL", *keys)
        async with local_workers(settings):
            async with producer.message("c", source="text", user="bert") as message:
                await message.push("for Bert")
            await both_have(NOT_FOUND)
        await reading
    assert "for Bert" not in "".join(frames)
    assert b"for Bert" not in b"".join(pieces)
    assert b"event: error" in b"".join(pieces)


async def test_a_stop_is_checked_where_it_is_written(
    settings: Settings, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the check before says: the chat may become another user's between it and the write."""

    async def passes(*_: object) -> None:
        pass

    monkeypatch.setattr(ChatAccess, "check_readable", passes)
    async with (
        local_workers(settings),
        users_gateway(settings) as running,
        http(running, "bert") as bert,
        frames_of(running, "bert") as (frames, browser),
        producer.message("annas-chat", source="text", message_id="m", user="anna") as message,
    ):
        await message.push("x")
        for path in ("/chats/annas-chat/stop", "/api/chat/annas-chat/stop"):
            answer = await bert.post(path, json={})
            assert answer.json()["message_ids"] == []
        await browser.send("/chats/stop", {"chat_id": "annas-chat", "message_id": "m"})
        await until(lambda: _has(frames, '"message_ids":[]'))
        await message.push("it goes on")


async def _has(frames: list[str], text: str) -> bool:
    return any(text in frame for frame in frames)
