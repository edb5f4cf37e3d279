"""Turns through Redis, a worker and arq's queue of turns: every way they can end, and who may die."""

import asyncio
import logging
import signal
import time

import pytest

from riverdelta import Settings, Subscriber
from riverdelta.broker.client import Client
from riverdelta.core.events import SnapshotMessage
from riverdelta_gateway.parts import reply_text
from riverdelta_gateway.turn import Turn, title_of
from riverdelta_gateway.turns import worker
from riverdelta_gateway.turns.queue import TurnQueue, arq_pool
from tests.support.gateway.local_turns import (
    CALLS,
    local_turns,
    turn_process,
    turn_queue,
    until_message,
)
from tests.support.local_workers import local_workers
from tests.support.servers import DEADLINE_S, until

USER = "dev"


async def reply_to(
    queue: TurnQueue, subscriber: Subscriber, prompt: str | None, message_id: str, **turn: str
) -> SnapshotMessage:
    await queue.ask(Turn("c", message_id, USER, prompt, **turn))  # type: ignore[arg-type]  # a type
    return await until_message(subscriber, "c", message_id)


async def messages_of(subscriber: Subscriber) -> list[SnapshotMessage]:
    snapshot = await subscriber.snapshot("c")
    return list(snapshot.data["messages"])


async def test_a_turn_a_title_and_a_second_turn_with_its_history(
    settings: Settings, subscriber: Subscriber
) -> None:
    async with local_workers(settings), local_turns(settings), turn_queue(settings) as queue:
        first = await reply_to(queue, subscriber, "Hello there", "m1")
        assert (first["status"], reply_text(first)) == ("completed", "Hello there ")
        assert "user" not in first["metadata"]  # readers do not get it
        second = await reply_to(queue, subscriber, "HISTORY", "m2")
        assert reply_text(second) == "user: Hello there|assistant: Hello there "
        assert title_of([first]) == title_of([second]) == "A title"
        assert second["annotations"] == []


async def test_a_turn_that_replaces_what_followed_a_message(
    settings: Settings, subscriber: Subscriber
) -> None:
    async with local_workers(settings), local_turns(settings), turn_queue(settings) as queue:
        for message_id in ("m1", "m2", "m3"):
            await reply_to(queue, subscriber, f"This is {message_id}", message_id)
        again = await reply_to(queue, subscriber, "HISTORY", "m4", from_message="m2")
        assert reply_text(again) == "user: This is m1|assistant: This is m1 "
        ids = [message["message"] for message in await messages_of(subscriber)]
        assert ids == ["m1", "m4"]
        assert title_of(await messages_of(subscriber)) == "A title"


@pytest.mark.parametrize("prompt", ["Tell me UNTITLED please", "Tell me BADTITLE please"])
async def test_a_title_that_fails_does_not_harm_the_reply(
    settings: Settings, subscriber: Subscriber, prompt: str
) -> None:
    async with local_workers(settings), local_turns(settings), turn_queue(settings) as queue:
        message = await reply_to(queue, subscriber, prompt, "m")
    assert (message["status"], reply_text(message)) == ("completed", f"{prompt} ")
    assert title_of([message]) == (None if "BADTITLE" in prompt else "Tell me UNTITLED please")


async def test_a_title_that_hangs_does_not_hold_the_end_of_the_reply(
    settings: Settings, subscriber: Subscriber
) -> None:
    async with (
        local_workers(settings),
        local_turns(settings, title_timeout_s=3600, title_grace_s=0.1),
        turn_queue(settings) as queue,
    ):
        message = await reply_to(queue, subscriber, "Tell me SLOWTITLE please", "m")
    assert message["status"] == "completed"
    assert title_of([message]) == "Tell me SLOWTITLE please"


async def test_a_gateway_whose_clock_is_ahead_delays_no_reply(
    settings: Settings, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with local_workers(settings), local_turns(settings), arq_pool(settings) as pool:
        # The job is stamped by the gateway's clock, and picked by the one of the turns process.
        monkeypatch.setattr("arq.connections.timestamp_ms", lambda: int(ahead_s() * 1000))
        queue = TurnQueue(pool, settings, now_s=ahead_s)
        message = await reply_to(queue, subscriber, "Words", "m")
    assert message["status"] == "completed"


def ahead_s() -> float:
    return time.time() + 600


async def test_errors_are_safe_sentences_with_an_id_that_the_log_knows(
    settings: Settings, subscriber: Subscriber, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with local_workers(settings), local_turns(settings), turn_queue(settings) as queue:
        message = await reply_to(queue, subscriber, "Well FAIL", "m")
        bug = await reply_to(queue, subscriber, "Well BUG", "m2")
    error = message["error"]
    assert error is not None
    assert (message["status"], error["code"]) == ("failed", "provider_error")
    assert error["detail"].startswith("The model is not well. The id of this error is ")
    error_id = error["detail"].rstrip(".").rpartition(" ")[2]
    (record,) = [record for record in caplog.records if error_id in record.getMessage()]
    assert "secret 123" in caplog.text
    assert record.exc_info is not None
    assert bug["error"] == {"code": "producer_error", "detail": "ZeroDivisionError"}
    assert reply_text(message) == "Well "


async def test_a_stop_ends_the_reply_and_closes_the_providers_call(
    settings: Settings, subscriber: Subscriber
) -> None:
    async with local_workers(settings), local_turns(settings), turn_queue(settings) as queue:
        await queue.ask(Turn("c", "m", USER, "Some words HANG"))
        await until_message(subscriber, "c", "m", text="words")
        assert CALLS == ["began Some words HANG"]
        assert await subscriber.stop("c") == ["m"]
        message = await until_message(subscriber, "c", "m")
        assert (message["status"], reply_text(message)) == ("stopped", "Some words ")

        async def closed() -> bool:
            return "ended Some words HANG" in CALLS

        await until(closed)


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"provider_silence_s": 0.3}, "provider_timeout"),
        ({"turn_timeout_s": 0.3}, "turn_timeout"),
    ],
)
async def test_a_reply_that_takes_too_long_fails(
    settings: Settings, subscriber: Subscriber, limits: dict[str, float], code: str
) -> None:
    async with (
        local_workers(settings),
        local_turns(settings, **limits),
        turn_queue(settings) as queue,
    ):
        message = await reply_to(queue, subscriber, "Words HANG", "m")
    assert message["error"] is not None
    assert message["error"]["code"] == code
    assert reply_text(message) == "Words "


async def test_an_asset_is_opened_without_a_prompt_and_is_context_with_one(
    settings: Settings, subscriber: Subscriber
) -> None:
    about = {"asset_type": "metric", "asset_id": "quarterly-revenue"}
    async with local_workers(settings), local_turns(settings), turn_queue(settings) as queue:
        opened = await reply_to(queue, subscriber, None, "m1", **about)
        assert CALLS == []
        assert opened["status"] == "completed"
        assert title_of([opened]) == "Quarterly revenue"
        card = opened["chunks"][0]["outputs"]["metric"]
        assert (card["status"], card["file_ids"]) == ("completed", ["quarterly-revenue"])
        assert "date_trunc" in card["files"]["quarterly-revenue"]["file"]["text"]
        asked = await reply_to(queue, subscriber, "ASSET", "m2", **about)
        assert reply_text(asked) == "Quarterly revenue"
        after = await reply_to(queue, subscriber, "HISTORY", "m3")
        assert "date_trunc" in reply_text(after)
        gone = await reply_to(queue, subscriber, None, "m4", asset_type="metric", asset_id="gone")
        assert gone["error"] is not None
        assert gone["error"]["code"] == "asset_gone"


async def test_a_turn_runs_once_however_often_it_is_asked_for(
    settings: Settings, subscriber: Subscriber
) -> None:
    turn = Turn("c", "m", USER, "Once")
    async with local_workers(settings), turn_queue(settings) as queue:
        for _ in range(3):
            await queue.ask(turn)
        async with local_turns(settings) as one, local_turns(settings) as two:
            await until_message(subscriber, "c", "m")
            await queue.ask(turn)
            await asyncio.gather(one.run(turn), two.run(turn))
            assert CALLS.count("began Once") == 1


async def test_a_killed_turn_ends_with_its_lease_and_is_not_run_again(
    settings: Settings, subscriber: Subscriber, client: Client
) -> None:
    quick = settings.model_copy(update={"producer_lease_s": 1.0})
    async with local_workers(quick), turn_queue(quick) as queue:
        with turn_process(quick) as process:
            await queue.ask(Turn("c", "m", USER, "Words HANG"))
            await until_message(subscriber, "c", "m", text="Words")
            process.send_signal(signal.SIGKILL)
        message = await until_message(subscriber, "c", "m")
        assert message["error"] is not None
        assert message["error"]["code"] == "producer_lost"
        # arq's mark of the dead process is in the way of its job, for seconds: as if they were over.
        await client.queue.execute("DEL", f"arq:in-progress:{client.keys.turn_job('c', 'm')}")
        async with local_turns(quick):

            async def done() -> bool:
                return not await client.queue.execute("ZCARD", client.keys.turns)

            await until(done)
            assert CALLS == []


async def test_sigterm_lets_replies_end_and_fails_those_that_do_not(
    settings: Settings, subscriber: Subscriber
) -> None:
    async with local_workers(settings), turn_queue(settings) as queue:
        with turn_process(settings, drain_s=0.5) as process:
            await queue.ask(Turn("c", "m", USER, "Words HANG"))
            await until_message(subscriber, "c", "m", text="Words")
            process.terminate()
            message = await until_message(subscriber, "c", "m")
            assert process.wait(DEADLINE_S) == 0
    assert message["error"] is not None
    assert message["error"]["code"] == "turn_interrupted"


async def test_arq_that_cancels_its_jobs_does_not_end_their_turns(
    settings: Settings, subscriber: Subscriber
) -> None:
    turn = Turn("c", "m", USER, "Words HANG")
    async with local_workers(settings), local_turns(settings) as runner:
        job = asyncio.create_task(runner.run(turn))
        await until_message(subscriber, "c", "m", text="Words")
        job.cancel()  # it does that whenever it loses its Redis
        await asyncio.gather(job, return_exceptions=True)
        again = asyncio.create_task(runner.run(turn))  # and picks them again afterwards
        await asyncio.sleep(0)
        assert CALLS == ["began Words HANG"]
        await subscriber.stop("c", "m")
        await again
        stopped = await until_message(subscriber, "c", "m")
        assert stopped["status"] == "stopped"


async def test_a_mark_on_a_picked_job_lasts_for_seconds_and_is_renewed(
    settings: Settings, subscriber: Subscriber, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "REPICK_S", 0.9)
    mark = f"arq:in-progress:{client.keys.turn_job('c', 'm')}"
    async with local_workers(settings), turn_queue(settings) as queue, local_turns(settings):
        await queue.ask(Turn("c", "m", USER, "Words HANG"))
        await until_message(subscriber, "c", "m", text="Words")
        lasts_ms = [await client.queue.execute("PTTL", mark)]

        async def renewed() -> bool:
            lasts_ms.append(await client.queue.execute("PTTL", mark))
            return bool(lasts_ms[-1] > lasts_ms[-2] > 0)  # on a busy machine it may lapse first

        await until(renewed)
        assert max(lasts_ms) <= 900
        await subscriber.stop("c")
        await until_message(subscriber, "c", "m")


async def test_a_chat_of_another_user_is_not_written_to(
    settings: Settings, subscriber: Subscriber
) -> None:
    async with local_workers(settings), local_turns(settings) as runner:
        await runner.run(Turn("c", "m1", "anna", "Mine"))
        await until_message(subscriber, "c", "m1")
        await runner.run(Turn("c", "m2", "bert", "Mine now"))
        assert [message["message"] for message in await messages_of(subscriber)] == ["m1"]
        assert CALLS.count("began Mine now") == 0
