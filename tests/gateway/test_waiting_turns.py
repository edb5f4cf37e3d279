"""A turn is real from the moment it is accepted: everyone sees it, and it ends exactly once."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from riverdelta import Settings, Subscriber
from riverdelta.broker import turns as accepted_turns
from riverdelta.broker.client import Client as Redis
from riverdelta.core.errors import BrokerUnavailable
from riverdelta.core.events import SnapshotMessage
from riverdelta_gateway.parts import reply_text
from riverdelta_gateway.serve import Running, gateway_server
from riverdelta_gateway.settings import GatewaySettings
from riverdelta_gateway.turn import turn_message_id, turn_of
from riverdelta_gateway.turns.queue import TurnQueue
from tests.support.gateway.ai_sdk_client import fold_parts, parts_of
from tests.support.gateway.clients import Client, client
from tests.support.gateway.local_turns import (
    CALLS,
    local_turns,
    turn_process,
    until_message,
)
from tests.support.local_workers import local_workers
from tests.support.servers import DEADLINE_S, until

POST = "/chats/post"
CHAT = "aB3dE6gH9jK2mN5p"


def asked(text: str, id_: str = "u1", **more: Any) -> dict[str, Any]:
    message = {"id": id_, "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"id": CHAT, "messages": [message], "trigger": "submit-message", **more}


@contextlib.asynccontextmanager
async def http(gateway: Running) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=DEADLINE_S) as session:
        yield session


@contextlib.asynccontextmanager
async def gateway_with(settings: Settings, **limits: Any) -> AsyncIterator[Running]:
    chosen = GatewaySettings.model_validate({"dev": True, "port": 0} | limits)
    async with gateway_server(settings, chosen) as running:
        yield running


async def accepted(browser: Client, **payload: Any) -> dict[str, Any]:
    answer = await browser.ask(POST, payload)
    assert answer["event"] == "accepted", answer
    return dict(answer["payload"])


async def messages_of(subscriber: Subscriber, chat_id: str = CHAT) -> list[SnapshotMessage]:
    return list((await subscriber.snapshot(chat_id)).data["messages"])


def prompts(messages: list[SnapshotMessage]) -> list[str]:
    return [(turn_of(message["metadata"]) or {})["prompt"] for message in messages]


# -- seen while it waits -------------------------------------------------------------------------


async def test_a_waiting_turn_is_seen_by_a_reload_a_second_tab_the_list_and_a_snapshot(
    gateway: Running, settings: Settings
) -> None:
    async with local_workers(settings), client(gateway.url) as browser, http(gateway) as session:
        answer = await accepted(browser, prompt="Some words")
        assert answer["position"] == 0
        chat_id, message_id = answer["chat_id"], answer["message_id"]
        async with client(gateway.url) as second_tab:
            await second_tab.subscribe(chat_id)
            async for event in second_tab.events():
                if event.type == "message.started" or event.data.get("messages"):
                    break
        listed = await browser.ask("/chats/list", {})
        assert [chat["chat_id"] for chat in listed["payload"]["chats"]] == [chat_id]
        snapshot = (await session.get(f"/chats/{chat_id}")).json()
        (message,) = snapshot["data"]["messages"]
        assert (message["message"], message["status"]) == (message_id, "open")
        assert message["metadata"]["turn"]["prompt"] == "Some words"
        (question, reply) = (await session.get(f"/api/chat/{chat_id}")).json()["messages"]
        assert question["parts"] == [{"type": "text", "text": "Some words"}]
        assert reply["parts"] == [{"type": "step-start"}]
        async with session.stream("GET", f"/api/chat/{chat_id}/stream") as resumed:
            assert resumed.status_code == 200
            async with local_turns(settings):
                parts = fold_parts(parts_of(await resumed.aread()))
    assert parts["id"] == message_id
    assert parts["parts"][0]["text"] == "Some words "


async def test_a_turn_can_be_resumed_and_stopped_before_any_worker_has_read_of_it(
    gateway: Running, settings: Settings, subscriber: Subscriber
) -> None:
    async with http(gateway) as session:
        async with session.stream("POST", "/api/chat", json=asked("Words")) as response:
            assert response.status_code == 200
            async with session.stream("GET", f"/api/chat/{CHAT}/stream") as resumed:
                assert resumed.status_code == 200
                stopped = (await session.post(f"/api/chat/{CHAT}/stop")).json()
                assert stopped["message_ids"] == [turn_message_id(CHAT, "u1", 0)]
                async with local_workers(settings):
                    ends = [
                        fold_parts(parts_of(await one.aread()))["end"]["type"]
                        for one in (response, resumed)
                    ]
        assert ends == ["abort", "abort"]
    (message,) = await messages_of(subscriber)
    assert message["status"] == "stopped"


async def test_a_stop_ends_a_turn_that_waits_and_no_model_is_asked(
    gateway: Running, settings: Settings
) -> None:
    async with local_workers(settings), client(gateway.url) as browser:
        answer = await accepted(browser, prompt="Never asked")
        chat_id, message_id = answer["chat_id"], answer["message_id"]
        stopped = await browser.ask("/chats/stop", {"chat_id": chat_id})
        assert stopped["payload"]["message_ids"] == [message_id]
        async with local_turns(settings):
            names = []
            while "complete" not in names:
                frame = await browser.next()
                names.append(frame["event"])
            assert frame["payload"]["status"] == "stopped"
            later = await accepted(browser, prompt="Asked", chat_id=chat_id)
            while (frame := await browser.next())["event"] != "complete":
                pass
            assert frame["payload"]["message_id"] == later["message_id"]
            assert [call for call in CALLS if call.startswith("began")] == ["began Asked"]


async def test_the_answer_to_a_post_comes_before_every_frame_of_its_turn(
    gateway: Running,
    settings: Settings,
    subscriber: Subscriber,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accept = accepted_turns.accept

    async def slow(redis: Redis, turn: accepted_turns.NewTurn) -> Any:
        """Return once readers have the turn, and the gateway could have sent it."""
        answer = await accept(redis, turn)
        await accepted_turns.attach(redis, turn.chat_id)
        await until_message(subscriber, turn.chat_id, turn.start.message_id, text="")
        await asyncio.sleep(0.2)
        return answer

    async with local_workers(settings), client(gateway.url) as browser:
        first = await accepted(browser, prompt="One")
        while (await browser.next())["event"] != "initializeChat":
            pass
        monkeypatch.setattr(accepted_turns, "accept", slow)
        await browser.send(POST, {"prompt": "Two", "chat_id": first["chat_id"]})
        frames = [await browser.next() for _ in range(2)]
    assert [frame["event"] for frame in frames] == ["accepted", "initializeChat"]


# -- once ----------------------------------------------------------------------------------------


async def test_the_same_prompt_posted_twice_at_once_is_one_reply(
    gateway: Running, settings: Settings, subscriber: Subscriber
) -> None:
    async with local_workers(settings), local_turns(settings), http(gateway) as session:
        replies = await asyncio.gather(
            *(session.post("/api/chat", json=asked("Some words")) for _ in range(5))
        )
        folded = [fold_parts(parts_of(reply.content)) for reply in replies]
        assert [one["parts"][0]["text"] for one in folded] == ["Some words "] * 5
        assert len(await messages_of(subscriber)) == 1
        assert CALLS.count("began Some words") == 1


async def test_the_same_prompt_while_it_is_answered_is_the_same_reply_unless_it_is_regenerated(
    gateway: Running, settings: Settings, subscriber: Subscriber
) -> None:
    first = turn_message_id(CHAT, "u1", 0)
    async with local_workers(settings), local_turns(settings), http(gateway) as session:
        running = asyncio.create_task(session.post("/api/chat", json=asked("Words HANG")))
        await until_message(subscriber, CHAT, first, text="Words")
        async with session.stream("POST", "/api/chat", json=asked("Words HANG")) as repeat:
            another = await session.post(
                "/api/chat", json=asked("Words", trigger="regenerate-message")
            )
            assert fold_parts(parts_of(another.content))["end"]["type"] == "finish"
            bodies = [(await running).content, await repeat.aread()]
        both = [fold_parts(parts_of(body)) for body in bodies]
        assert both[0] == both[1]
        assert both[0]["id"] == first
        (message,) = await messages_of(subscriber)
        assert message["message"] == turn_message_id(CHAT, "u1", 1)
        assert CALLS.count("began Words HANG") == 1


async def test_a_socket_that_repeats_a_post_gets_the_same_answer(
    gateway: Running, settings: Settings, subscriber: Subscriber
) -> None:
    async with local_workers(settings), client(gateway.url) as browser:
        chat = (await accepted(browser, prompt="One"))["chat_id"]
        once = await accepted(browser, prompt="Two", chat_id=chat, prompt_id="p")
        assert once["position"] == 1
        assert await accepted(browser, prompt="Two", chat_id=chat, prompt_id="p") == once
        async with local_turns(settings):
            await until_message(subscriber, chat, once["message_id"])
    assert prompts(await messages_of(subscriber, chat)) == ["One", "Two"]


# -- nobody takes it -----------------------------------------------------------------------------


async def test_a_turn_that_nobody_takes_fails_at_every_client_exactly_once(
    settings: Settings, subscriber: Subscriber
) -> None:
    async with (
        local_workers(settings),
        gateway_with(settings, turn_wait_s=0.5) as gateway,
        client(gateway.url) as one,
        client(gateway.url) as two,
        http(gateway) as session,
    ):
        reply = fold_parts(parts_of((await session.post("/api/chat", json=asked("x"))).content))
        assert reply["end"]["type"] == "error"
        assert reply["end"]["errorText"].startswith("No process was free to write this reply")
        for browser in (one, two):
            ends: list[dict[str, Any]] = []
            while not ends:
                frame = await browser.next()
                ends += [frame] if frame["event"] == "complete" else []
            await browser.send("/chats/list", {}, request_id="last")
            while (frame := await browser.next()).get("request_id") != "last":
                ends += [frame] if frame["event"] == "complete" else []
            (end,) = ends
            assert end["payload"]["status"] == "failed"
            assert end["error"]["message"].startswith("No process was free")
        async with local_turns(settings):  # its job is still there
            await accepted_of(gateway, "later")
        (message, _) = await messages_of(subscriber)
        assert message["error"] is not None
        assert message["error"]["code"] == "not_started"
        assert "began x" not in CALLS


async def accepted_of(gateway: Running, prompt: str) -> None:
    """Post to the chat, and wait for the reply."""
    async with http(gateway) as session:
        reply = await session.post("/api/chat", json=asked(prompt, prompt))
        assert fold_parts(parts_of(reply.content))["end"]["type"] == "finish"


# -- a second question ---------------------------------------------------------------------------


async def test_a_second_question_waits_and_sees_the_first_and_its_reply(
    gateway: Running, settings: Settings, subscriber: Subscriber
) -> None:
    async with local_workers(settings), local_turns(settings), client(gateway.url) as browser:
        first = await accepted(browser, prompt="Some words HANG")
        chat = first["chat_id"]
        await until_message(subscriber, chat, first["message_id"], text="words")
        second = await accepted(browser, prompt="HISTORY", chat_id=chat)
        third = await accepted(browser, prompt="Third", chat_id=chat)
        assert [one["position"] for one in (first, second, third)] == [0, 1, 2]
        await browser.ask("/chats/stop", {"chat_id": chat, "message_id": third["message_id"]})
        assert CALLS == ["began Some words HANG"]
        await browser.ask("/chats/stop", {"chat_id": chat, "message_id": first["message_id"]})
        reply = await until_message(subscriber, chat, second["message_id"])
        assert reply_text(reply) == "user: Some words HANG|assistant: Some words "
    statuses = [message["status"] for message in await messages_of(subscriber, chat)]
    assert statuses == ["stopped", "completed", "stopped"]


async def test_a_second_question_is_refused_where_the_policy_says_so(
    settings: Settings, subscriber: Subscriber
) -> None:
    async with (
        local_workers(settings),
        local_turns(settings),
        gateway_with(settings, second_question="reject") as gateway,
        http(gateway) as session,
        client(gateway.url) as browser,
    ):
        first = await accepted(browser, prompt="Some words HANG")
        chat = first["chat_id"]
        await until_message(subscriber, chat, first["message_id"], text="words")
        refused = await browser.ask(POST, {"prompt": "Two", "chat_id": chat})
        assert (refused["event"], refused["error"]["code"]) == ("error", "BAD_REQUEST")
        over_http = await session.post("/api/chat", json=asked("Two") | {"id": chat})
        assert over_http.status_code == 409
        assert prompts(await messages_of(subscriber, chat)) == ["Some words HANG"]
        edited = await browser.ask(
            POST, {"prompt": "Edited", "chat_id": chat, "message_id": first["message_id"]}
        )
        assert edited["event"] == "accepted", "an edit replaces the reply that is open"
        await until_message(subscriber, chat, edited["payload"]["message_id"])
    assert prompts(await messages_of(subscriber, chat)) == ["Edited"]


async def test_a_second_question_stops_the_first_where_the_policy_says_so(
    settings: Settings, subscriber: Subscriber
) -> None:
    async with (
        local_workers(settings),
        local_turns(settings),
        gateway_with(settings, second_question="interrupt") as gateway,
        client(gateway.url) as browser,
    ):
        first = await accepted(browser, prompt="Some words HANG")
        chat = first["chat_id"]
        await until_message(subscriber, chat, first["message_id"], text="words")
        second = await accepted(browser, prompt="HISTORY", chat_id=chat)
        reply = await until_message(subscriber, chat, second["message_id"])
    assert reply_text(reply) == "user: Some words HANG|assistant: Some words "
    (stopped, _) = await messages_of(subscriber, chat)
    assert stopped["stop_reason"] == "interrupted by the next question"


async def test_too_many_questions_of_a_chat_are_refused(
    gateway: Running, subscriber: Subscriber
) -> None:
    async with client(gateway.url) as browser:
        chat = (await accepted(browser, prompt="0"))["chat_id"]
        for number in range(1, 20):
            await accepted(browser, prompt=str(number), chat_id=chat)
        refused = await browser.ask(POST, {"prompt": "20", "chat_id": chat})
    assert refused["error"]["code"] == "RATE_LIMITED"
    assert refused["error"]["retry_after_s"] > 0


# -- processes that end --------------------------------------------------------------------------


async def test_a_turns_process_killed_before_it_adopted_leaves_the_turn_to_another(
    gateway: Running, settings: Settings, subscriber: Subscriber, client_of_redis: Redis
) -> None:
    async with local_workers(settings), client(gateway.url) as browser:
        answer = await accepted(browser, prompt="Words")
        chat, message = answer["chat_id"], answer["message_id"]
        job = client_of_redis.keys.turn_job(chat, message)

        async def queued() -> bool:
            return bool(await client_of_redis.queue.execute("EXISTS", f"arq:job:{job}"))

        await until(queued)
        # As a process leaves it that picked the job and died: the mark is there for some seconds.
        await client_of_redis.queue.execute("SET", f"arq:in-progress:{job}", 1, "PX", 300)
        async with local_turns(settings):
            reply = await until_message(subscriber, chat, message)
    assert (reply["status"], reply_text(reply)) == ("completed", "Words ")


@pytest.mark.parametrize("prompt", ["HANG", "Words HANG"])
async def test_a_turns_process_killed_after_it_adopted_fails_the_turn_once(
    settings: Settings, subscriber: Subscriber, client_of_redis: Redis, prompt: str
) -> None:
    quick = settings.model_copy(update={"producer_lease_s": 1.0})
    async with (
        local_workers(quick),
        gateway_with(quick) as gateway,
        client(gateway.url) as browser,
    ):
        with turn_process(quick) as process:
            answer = await accepted(browser, prompt=prompt)
            chat, message = answer["chat_id"], answer["message_id"]
            key = client_of_redis.keys.chat(chat).message(message)

            async def adopted() -> bool:
                return bool(await client_of_redis.chats.execute("HGET", key, "turn") == b"running")

            await until(adopted)
            if "Words" in prompt:
                await until_message(subscriber, chat, message, text="Words")
            process.send_signal(signal.SIGKILL)
        ends: list[dict[str, Any]] = []
        while not ends:
            frame = await browser.next()
            ends += [frame] if frame["event"] == "complete" else []
    assert ends[0]["payload"]["messages"][0]["error"]["code"] == "producer_lost"


async def test_sigterm_leaves_what_was_not_sent_to_another_process(
    settings: Settings, subscriber: Subscriber
) -> None:
    async with (
        local_workers(settings),
        gateway_with(settings) as gateway,
        client(gateway.url) as browser,
    ):
        with turn_process(settings, drain_s=0.5) as process:
            first = await accepted(browser, prompt="Words HANG")
            chat = first["chat_id"]
            await until_message(subscriber, chat, first["message_id"], text="Words")
            second = await accepted(browser, prompt="Queued", chat_id=chat)
            other = await accepted(browser, prompt="HANG")
            async with Redis(settings) as redis:
                for chat_id, one in ((chat, second), (other["chat_id"], other)):
                    key = redis.keys.chat(chat_id).message(one["message_id"])

                    async def adopted(key: str = key) -> bool:
                        return bool(await redis.chats.execute("HGET", key, "turn") == b"running")

                    await until(adopted)
                process.terminate()
                assert await asyncio.to_thread(process.wait, DEADLINE_S) == 0
                key = redis.keys.chat(other["chat_id"]).message(other["message_id"])
                assert await redis.chats.execute("HGET", key, "turn") == b"waiting"
        failed = await until_message(subscriber, chat, first["message_id"])
        assert failed["error"] is not None
        assert failed["error"]["code"] == "turn_interrupted"
        async with local_turns(settings):
            reply = await until_message(subscriber, chat, second["message_id"])
            assert reply_text(reply) == "Queued "

            async def began() -> bool:
                return "began HANG" in CALLS

            await until(began)
            await subscriber.stop(other["chat_id"])
            await until_message(subscriber, other["chat_id"], other["message_id"])


# -- Redis cut -----------------------------------------------------------------------------------


async def test_a_redis_that_is_away_between_acceptance_and_job_delays_the_turn_only(
    gateway: Running,
    settings: Settings,
    subscriber: Subscriber,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asks, tries = TurnQueue.ask, 0

    async def cut(queue: TurnQueue, turn: Any) -> None:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise BrokerUnavailable("cut")
        await asks(queue, turn)

    monkeypatch.setattr(TurnQueue, "ask", cut)
    async with local_workers(settings), local_turns(settings), client(gateway.url) as browser:
        answer = await accepted(browser, prompt="Words")
        reply = await until_message(subscriber, answer["chat_id"], answer["message_id"])
    assert (reply["status"], tries) == ("completed", 3)


@pytest.mark.parametrize("stored", [True, False])
async def test_a_post_whose_acceptance_got_no_answer_is_refused_and_ends(
    gateway: Running,
    settings: Settings,
    subscriber: Subscriber,
    monkeypatch: pytest.MonkeyPatch,
    stored: bool,
) -> None:
    accept, chats = accepted_turns.accept, []

    async def cut(redis: Redis, turn: accepted_turns.NewTurn) -> Any:
        chats.append(turn.chat_id)
        if stored:
            await accept(redis, turn)
        raise BrokerUnavailable("cut")

    monkeypatch.setattr(accepted_turns, "accept", cut)
    async with local_workers(settings), local_turns(settings), client(gateway.url) as browser:
        refused = await browser.ask(POST, {"prompt": "Words"})
        assert refused["error"]["code"] == "INTERNAL_SERVER_ERROR"
        (chat,) = chats
        if stored:

            async def ended() -> bool:
                messages = await messages_of(subscriber, chat)
                return bool(messages) and messages[0]["status"] == "stopped"

            await until(ended)
        else:
            assert await messages_of(subscriber, chat) == []
        assert CALLS == []


async def test_what_a_refused_post_leaves(settings: Settings, client_of_redis: Redis) -> None:
    async def names() -> list[bytes]:
        pattern = f"{settings.key_prefix}:*"
        found = await client_of_redis.chats.execute("KEYS", pattern)
        return [name for name in found if b":bucket:" not in name]

    async with gateway_with(settings) as gateway, client(gateway.url) as browser:
        before = await names()
        for payload in ({"prompt": "x", "chat_id": "nobodys"}, {"prompt": " "}):
            assert (await browser.ask(POST, payload))["event"] == "error"
        assert await names() == before


def test_ids_of_turns_differ_with_the_chat_the_prompt_and_the_number() -> None:
    ids = {
        turn_message_id(chat, prompt, number)
        for chat in ("c", "c2")
        for prompt in ("p", "p2")
        for number in range(3)
    }
    assert len(ids) == 12
    assert {len(one) for one in ids} == {34}


@pytest.fixture
async def client_of_redis(settings: Settings) -> AsyncIterator[Redis]:
    async with Redis(settings) as connected:
        yield connected
