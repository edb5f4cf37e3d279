"""A wake that cannot be read is a reason to read the stream."""

import pytest

from riverdelta import Producer, Settings, Subscriber
from riverdelta.broker.client import Client
from tests.support.chats import until_owned
from tests.support.local_workers import local_workers
from tests.support.reading import read_until_ends, view_of

pytestmark = pytest.mark.settings(lease_s=0.5)


@pytest.mark.parametrize(
    "junk", [b"hello", b"\xff\n", b"7\nm chunk", b"7\n\xff chunk 0 1\nx", b"1"]
)
async def test_junk_on_a_wake_channel_is_a_reason_to_read_the_stream(
    junk: bytes, settings: Settings, client: Client, subscriber: Subscriber
) -> None:
    async with local_workers(settings) as (pump,), Producer(settings) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            await until_owned(client, pump)
            await client.chats.execute("SPUBLISH", client.keys.chat("c").wake, junk)
            await message.push("x")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "x"
