"""Messages that nothing was pushed to for too long."""

import asyncio
from typing import Any

import pytest

from riverdelta import (
    MessageEnded,
    Producer,
    Settings,
    Subscriber,
)
from riverdelta.broker.client import Client
from riverdelta_workers.attachment import Attachment
from riverdelta_workers.loops.producer_timeout import ProducerTimeout
from riverdelta_workers.pump import Pump
from tests.support.chats import outcome
from tests.support.local_workers import local_workers
from tests.support.reading import read_until_ends, view_of
from tests.support.servers import until

pytestmark = [
    pytest.mark.usefixtures("hasty"),
    pytest.mark.settings(lease_s=0.5, producer_lease_s=0.5, push_wait_s=0.3),
]


async def test_a_message_that_nothing_was_pushed_to_for_the_time_out_fails(
    settings: Settings, client: Client, subscriber: Subscriber
) -> None:
    """Its producer lives and checks on it all the time; the one beside it pushes now and then."""
    brief = settings.model_copy(update={"producer_timeout_s": 3.0})
    async with local_workers(brief), Producer(settings) as producer:
        silent = await producer.message("c", source="text", message_id="silent").__aenter__()
        slow = await producer.message("c", source="text", message_id="slow").__aenter__()
        await silent.push("last words")
        reading = asyncio.create_task(read_until_ends(subscriber, "c"))
        said = 0
        while not reading.done():
            await slow.push("x")
            said += 1
            await asyncio.wait((reading,), timeout=0.4)
        with pytest.raises(MessageEnded):
            await silent.push("late")
        await slow.end()
        view = view_of(await read_until_ends(subscriber, "c", ends=2))
    failed, completed = view.messages
    assert (failed["message"], failed["error"]) == (
        "silent",
        {"code": "producer_timeout", "detail": "nothing was pushed for 3 s"},
    )
    assert view.text("silent") == "last words"
    assert (completed["status"], view.text("slow")) == ("completed", "x" * said)


async def test_a_producer_that_waits_for_room_is_not_silent(
    settings: Settings, client: Client, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = settings.model_copy(
        update={"producer_timeout_s": 0.4, "max_backlog_chunks": 2, "push_wait_s": 10.0}
    )
    filtered, looks = Pump._filter, 0
    last_numbers = ProducerTimeout._last_numbers

    async def looked(silence: ProducerTimeout, attachment: Attachment) -> dict[str, int]:
        nonlocal looks
        looks += 1
        return await last_numbers(silence, attachment)

    async def slow(pump: Pump, attachment: Attachment, hot: Any, entries: Any) -> Any:
        if entries[0].type != "start":
            await until(more_than_twice)
        return await filtered(pump, attachment, hot, entries)

    async def more_than_twice() -> bool:
        return looks > 16  # eighths of the time-out

    monkeypatch.setattr(ProducerTimeout, "_last_numbers", looked)
    monkeypatch.setattr(Pump, "_filter", slow)
    async with local_workers(brief), Producer(brief) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            for word in ("a", "b", "c", "d"):
                await message.push(word)
        events = await read_until_ends(subscriber, "c")
    assert (view_of(events).text("m"), outcome(events)) == ("abcd", ("completed", None))
