"""`/chats/post` through a whole gateway: every refusal, every end of a turn, every socket of the user."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from riverdelta import Settings, Subscriber
from riverdelta_gateway.posting.request import MAX_PROMPT_CHARS
from riverdelta_gateway.serve import Running, gateway_server
from riverdelta_gateway.settings import GatewaySettings
from riverdelta_gateway.turn import Turn
from riverdelta_gateway.turns.runner import TurnRunner
from tests.support.gateway.clients import Client, client
from tests.support.gateway.local_turns import (
    CALLS,
    local_turns,
    turn_queue,
    turn_settings,
    until_message,
)
from tests.support.local_workers import local_workers
from tests.support.servers import Server, binaries, until

SECRET = "0123456789abcdef0123456789abcdef"
POST = "/chats/post"


def token(user: str) -> str:
    claims = {"sub": user, "aud": "riverdelta", "exp": int(time.time()) + 600}
    return "?token=" + jwt.encode(claims, SECRET, "HS256")


@pytest.fixture
async def users_gateway(settings: Settings) -> AsyncIterator[Running]:
    """A gateway that knows its users by tokens."""
    gateway = GatewaySettings.model_validate({"token_secret": SECRET, "port": 0})
    async with gateway_server(settings, gateway) as running:
        yield running


async def begun(browser: Client) -> dict[str, Any]:
    """Give the next frame that is not the answer to a post."""
    while (frame := await browser.next())["event"] == "accepted":
        pass
    return frame


async def turn_frames(browser: Client, count: int = 1) -> list[dict[str, Any]]:
    """Collect the frames of turns until *count* turns are complete, or one is refused."""
    frames = []
    while count:
        frame = await begun(browser)
        if frame["route"] == POST:
            frames.append(frame)
            count -= frame["event"] in {"complete", "error"}
    return frames


async def post(browser: Client, **payload: Any) -> list[dict[str, Any]]:
    await browser.send(POST, payload)
    return await turn_frames(browser)


def names(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["event"] for frame in frames]


async def nothing_more(browser: Client) -> None:
    """The next frame is the answer to a question asked now."""
    answer = await browser.ask("/chats/list", {})
    assert answer["event"] == "chats"
    await browser.send("/chats/list", {}, request_id="last")
    assert (await browser.next()).get("request_id") == "last"


async def test_a_turn_is_sent_in_order_to_all_sockets_of_the_user_and_to_no_other(
    users_gateway: Running, settings: Settings
) -> None:
    url = users_gateway.url
    async with (
        local_workers(settings),
        local_turns(settings, backend="scripted"),
        client(url, token("anna")) as one,
        client(url, token("anna")) as two,
        client(url, token("bert")) as other,
    ):
        frames = await post(one, prompt="How are sales?")
        sent_two = await turn_frames(two)
        await nothing_more(other)
    assert sent_two == frames
    assert names(frames)[0] == "initializeChat"
    assert names(frames)[-1] == "complete"
    assert [names(frames).count(name) for name in ("initializeChat", "complete", "error")] == [
        1,
        1,
        0,
    ]
    assert {frame["send_method"] for frame in frames} == {"All"}
    assert {frame["sent_by"] for frame in frames} == {"anna"}
    first_title = names(frames).index("generatingTitle")
    last_reply = len(frames) - 1 - names(frames)[::-1].index("generatingResponseMessage")
    assert first_title < last_reply  # beside the reply, not behind it
    done = frames[-1]["payload"]
    assert (done["status"], done["title"]) == ("completed", "How are sales")
    assert {part["type"] for part in done["messages"][0]["reasoning_messages"]} == {
        "text",
        "pills",
        "files",
    }


@pytest.mark.parametrize(
    ("prompt", "status", "code"),
    [
        ("Hello", "completed", None),
        ("Hello FAIL", "failed", "provider_error"),
        ("Hello BUG", "failed", "producer_error"),
    ],
)
async def test_complete_comes_once_on_every_path(
    gateway: Running, settings: Settings, prompt: str, status: str, code: str | None
) -> None:
    async with local_workers(settings), local_turns(settings), client(gateway.url) as browser:
        frames = await post(browser, prompt=prompt)
        await nothing_more(browser)
    assert names(frames).count("complete") == 1
    last = frames[-1]
    (message,) = last["payload"]["messages"]
    assert (last["payload"]["status"], message["status"]) == (status, status)
    if code is None:
        assert (last["error"], message["error"]) == (None, None)
    else:
        assert message["error"]["code"] == code
        assert last["error"] == {
            "code": "INTERNAL_SERVER_ERROR",
            "message": message["error"]["detail"],
        }
        assert "The id of this error is" in last["error"]["message"]
        assert "secret" not in json.dumps(frames)


async def test_complete_comes_once_after_a_stop(gateway: Running, settings: Settings) -> None:
    async with local_workers(settings), local_turns(settings), client(gateway.url) as browser:
        await browser.send(POST, {"prompt": "Some words HANG"})
        first = await begun(browser)
        chat_id = first["payload"]["id"]
        answer = await browser.ask("/chats/stop", {"chat_id": chat_id})
        assert answer["payload"]["message_ids"] == [first["payload"]["message_id"]]
        frames = await turn_frames(browser)
        await nothing_more(browser)
    assert names(frames).count("complete") == 1
    assert frames[-1]["payload"]["status"] == "stopped"


@pytest.mark.parametrize(
    "by",
    [{"asset_type": "metric", "asset_id": "quarterly-revenue"}, {"metric_id": "quarterly-revenue"}],
)
async def test_an_asset_without_a_prompt_is_a_file_then_a_text_and_asks_no_model(
    gateway: Running, settings: Settings, by: dict[str, str]
) -> None:
    async with local_workers(settings), local_turns(settings), client(gateway.url) as browser:
        frames = await post(browser, **by)
        assert CALLS == []
        chat_id = frames[0]["payload"]["id"]
        again = await post(browser, chat_id=chat_id, dashboard_id="sales-overview")
    file, text = frames[-1]["payload"]["messages"][0]["response_messages"]
    assert (file["type"], file["file_ids"], text["type"]) == (
        "files",
        ["quarterly-revenue"],
        "text",
    )
    assert frames[-1]["payload"]["title"] == "Quarterly revenue"
    assert [name for name in names(frames) if name == "generatingReasoningMessage"] == []
    assert again[-1]["payload"]["title"] == "Quarterly revenue"
    assert len(again[-1]["payload"]["messages"]) == 2
    assert "generatingTitle" not in names(again)


async def test_an_asset_with_a_prompt_is_context(gateway: Running, settings: Settings) -> None:
    async with local_workers(settings), local_turns(settings), client(gateway.url) as browser:
        frames = await post(browser, prompt="ASSET", metric_id="quarterly-revenue")
    (message,) = frames[-1]["payload"]["messages"]
    assert message["response_messages"][0]["message"] == "Quarterly revenue"
    assert message["request_message"] == {
        "prompt": "ASSET",
        "asset_id": "quarterly-revenue",
        "asset_type": "metric",
    }


async def test_a_chat_goes_on_and_an_edited_message_replaces_what_followed(
    gateway: Running, settings: Settings
) -> None:
    async with local_workers(settings), local_turns(settings), client(gateway.url) as browser:
        first = await post(browser, prompt="One")
        chat_id = first[0]["payload"]["id"]
        second = await post(browser, prompt="Two", chat_id=chat_id)
        replaced = second[0]["payload"]["message_id"]
        third = await post(browser, prompt="HISTORY", chat_id=chat_id, message_id=replaced)
    first_shown, done = third[0]["payload"], third[-1]["payload"]
    prompts = [message["request_message"]["prompt"] for message in first_shown["messages"]]
    assert prompts == ["One", "HISTORY"]
    assert done["messages"][1]["response_messages"][0]["message"] == "user: One|assistant: One "


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"asset_id": "a"}, "BAD_REQUEST", "asset_type must be provided when asset_id is specified"),
    ({"asset_type": "metric"}, "BAD_REQUEST", "asset_id must be provided"),
    ({"asset_id": "a", "asset_type": "x"}, "BAD_REQUEST", "asset_type must be `metric` or"),
    ({"asset_id": "a", "asset_type": "metric"}, "NOT_FOUND", "asset_id: there is no metric"),
    ({"metric_id": "sales-overview"}, "NOT_FOUND", "metric_id: there is no metric"),
    ({"dashboard_id": "gone"}, "NOT_FOUND", "dashboard_id: there is no dashboard"),
    ({"metric_id": "a", "dashboard_id": "a"}, "BAD_REQUEST", "only one of"),
    ({}, "BAD_REQUEST", "prompt must not be empty"),
    ({"prompt": "  "}, "BAD_REQUEST", "prompt must not be empty"),
    ({"prompt": "x", "message_id": "m"}, "BAD_REQUEST", "chat_id must be provided when message_id"),
    ({"prompt": "x", "chat_id": "anna", "message_id": "m"}, "NOT_FOUND", "message_id: there is no"),
    ({"prompt": "x", "chat_id": "bert"}, "NOT_FOUND", "There is no such chat"),
    ({"prompt": "x", "chat_id": "nobody"}, "NOT_FOUND", "There is no such chat"),
    ({"prompt": "x" * (MAX_PROMPT_CHARS + 1)}, "BAD_REQUEST", "prompt must have"),
]


async def test_every_refusal_is_a_single_error_and_the_socket_stays_open(
    users_gateway: Running, settings: Settings, subscriber: Subscriber
) -> None:
    async with (
        local_workers(settings),
        local_turns(settings) as runner,
        client(users_gateway.url, token("anna")) as browser,
    ):
        for user in ("anna", "bert"):
            await runner.run(Turn(user, "m1", user, "Mine"))
            await until_message(subscriber, user, "m1")
        await turn_frames(browser)
        for payload, code, sentence in REFUSED:
            frames = await post(browser, **payload)
            assert names(frames) == ["error"], payload
            (frame,) = frames
            assert frame["send_method"] == "SenderOnly"
            assert frame["error"]["code"] == code, payload
            assert frame["error"]["message"].startswith(sentence), payload
        await browser.send("/chats/dance", {})
        odd = [await browser.next()]
        for text in ("{", "x" * 300_000, '{"route": 5}', '{"route": "/chats/post", "payload": []}'):
            await browser.connection.send(text)
            odd.append(await browser.next())
        assert [frame["error"]["code"] for frame in odd] == ["BAD_REQUEST"] * 5
        await nothing_more(browser)
        assert CALLS.count("began x") == 0
        assert names(await post(browser, prompt="Fine"))[-1] == "complete"


async def test_a_user_who_posts_too_often_learns_when_to_try_again(settings: Settings) -> None:
    gateway = GatewaySettings(dev=True, port=0, max_posts_per_minute=1)
    async with gateway_server(settings, gateway) as running, client(running.url) as browser:
        answer = await browser.ask(POST, {"prompt": "x"})
        assert answer["event"] == "accepted"
        refused = await browser.ask(POST, {"prompt": "x"})
    assert refused["error"]["code"] == "RATE_LIMITED"
    assert refused["error"]["retry_after_s"] > 0


async def test_a_turn_outlives_the_socket_and_the_gateway_that_took_it(settings: Settings) -> None:
    dev = GatewaySettings(dev=True, port=0)
    async with (
        local_workers(settings),
        local_turns(settings, backend="scripted", scripted_pace_ms=2),
        gateway_server(settings, dev) as stays,
        client(stays.url) as elsewhere,
    ):
        async with gateway_server(settings, dev) as goes, client(goes.url) as browser:
            await browser.send(POST, {"prompt": "How are sales?"})
            first = await begun(browser)
            assert first["event"] == "initializeChat"
        frames = await turn_frames(elsewhere)
    assert names(frames).count("initializeChat") == 1
    assert names(frames).count("complete") == 1
    assert frames[-1]["payload"]["status"] == "completed"
    assert frames[-1]["payload"]["message_id"] == first["payload"]["message_id"]


async def test_a_turn_that_arq_picks_again_after_its_end_is_not_sent_again(
    gateway: Running, settings: Settings
) -> None:
    async with local_workers(settings), local_turns(settings):
        async with client(gateway.url) as browser:
            first = (await post(browser, prompt="Once"))[0]["payload"]

            async def nobody_follows_it() -> bool:
                return not gateway.services.watches

            await until(nobody_follows_it)
            async with TurnRunner(settings, turn_settings()) as elsewhere:
                await elsewhere.run(Turn(first["id"], first["message_id"], "dev", "Once"))
            frames = await post(browser, prompt="Twice", chat_id=first["id"])
        assert first["message_id"] not in {frame["payload"]["message_id"] for frame in frames}
        assert CALLS.count("began Once") == 1


async def test_a_socket_that_comes_back_to_any_gateway_gets_the_turn_under_way(
    gateway: Running, settings: Settings
) -> None:
    async with local_workers(settings), local_turns(settings):
        async with client(gateway.url) as browser:
            await browser.send(POST, {"prompt": "Some words HANG"})
            first = (await begun(browser))["payload"]
        async with (
            gateway_server(settings, GatewaySettings(dev=True, port=0)) as other,
            client(gateway.url) as back,
            client(other.url) as elsewhere,
        ):
            came = [await browser.next() for browser in (back, elsewhere)]
            async with client(gateway.url) as second_tab:
                came.append(await second_tab.next())
                await back.ask("/chats/stop", {"chat_id": first["id"]})
                ends = [await turn_frames(one) for one in (back, elsewhere, second_tab)]
            for one in (back, elsewhere):
                await nothing_more(one)
    assert [frame["event"] for frame in came] == ["initializeChat"] * 3
    assert {frame["payload"]["message_id"] for frame in came} == {first["message_id"]}
    for frames in ends:
        assert names(frames).count("complete") == 1
        assert "initializeChat" not in names(frames)
        assert frames[-1]["payload"]["status"] == "stopped"


async def test_a_socket_that_came_while_redis_was_away_gets_turns_of_other_processes(
    tmp_path: Path,
) -> None:
    with Server(str(binaries()["valkey"]), tmp_path) as server:
        settings = Settings(redis_url=server.url, command_timeout_s=0.5)
        async with gateway_server(settings, GatewaySettings(dev=True, port=0)) as running:
            server.kill()
            async with client(running.url) as browser:
                assert (await browser.ask("/chats/list", {}))["event"] == "error"
                server.start()
                async with (
                    local_workers(settings),
                    local_turns(settings),
                    turn_queue(settings) as queue,
                ):
                    for chat_id in ("c1", "c2"):  # the first is looked up, the second announced
                        await queue.ask(Turn(chat_id, "m", "dev", "Words HANG"))
                        assert (await browser.next())["payload"]["id"] == chat_id
                        await browser.ask("/chats/stop", {"chat_id": chat_id})
                        assert names(await turn_frames(browser))[-1] == "complete"


async def test_error_frames_of_the_route_also_have_the_name_that_older_clients_know(
    gateway: Running,
) -> None:
    async with client(gateway.url) as browser:
        (refused,) = await post(browser, prompt=" ")
        other = await browser.ask("/chats/dance", {})
    assert (refused["event"], refused["alias"]) == ("error", "postThread")
    assert "alias" not in other
