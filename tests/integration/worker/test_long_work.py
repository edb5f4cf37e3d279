"""No input stalls a worker: other chats go on while one of them has a long step."""

import asyncio

from riverdelta import Producer, Settings, Subscriber
from riverdelta_workers.long_work import LONG_BYTES
from tests.support import blocking
from tests.support.local_workers import local_workers
from tests.support.reading import read_until_ends, view_of


async def test_a_chat_goes_on_while_the_fold_of_another_is_under_way(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    """The long fold waits for the other chat's end: on the event loop, neither would ever end."""
    blocking.reached.clear()
    blocking.go_on.clear()
    text = "x" * (LONG_BYTES + 1)
    with_filter = settings.model_copy(update={"pipeline": "tests.support.blocking:build"})
    async with local_workers(with_filter):
        async with producer.message("long", source="text", message_id="m") as message:
            await message.push(text)
        assert await asyncio.to_thread(blocking.reached.wait, 60)
        async with producer.message("innocent", source="text", message_id="m") as message:
            await message.push("hello")
        events = await read_until_ends(subscriber, "innocent")
        assert view_of(events).text("m") == "hello"
        blocking.go_on.set()
        events = await read_until_ends(subscriber, "long")
    assert view_of(events).text("m") == text
