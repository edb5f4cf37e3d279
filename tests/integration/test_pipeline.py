"""A pipeline of one's own, between raw chunks and readers."""

import pytest

from riverdelta import Pipeline, Producer, Settings
from riverdelta.broker.client import Client
from tests.integration.local_workers import local_workers
from tests.integration.servers import until


def second(settings: Settings) -> Pipeline:
    assert settings.pipeline
    return Pipeline(version="2")


async def test_a_worker_that_takes_over_a_message_of_another_version_says_so_once(
    settings: Settings, producer: Producer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    keys = client.keys.chat("c")

    async def said(text: str) -> None:
        await message.push(text)

        async def committed() -> bool:
            head = await client.chats.execute("HMGET", keys.head, "pushed", "processed")
            return bool(head[0] == head[1])

        await until(committed)

    async with producer.message("c", source="text", message_id="m") as message:
        async with local_workers(settings):
            await said("one ")
        own = settings.model_copy(update={"pipeline": f"{__name__}:second"})
        async with local_workers(own) as (pump,):
            await said("two ")
            pump._doubt_all()
            await said("three")
            async with producer.message("c", source="text", message_id="m2") as other:
                await other.push("new")
                await said("")
        warnings = [
            record.getMessage() for record in caplog.records if "pipeline" in record.message
        ]
        assert warnings == [
            "chat c: message m was begun by pipeline version '', and goes on with '2'"
        ]
    stored = [await client.chats.execute("HGET", keys.message(m), "pipeline") for m in ("m", "m2")]
    assert stored == [b"", b"2"]
