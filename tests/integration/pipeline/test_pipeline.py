"""A pipeline of one's own, between raw chunks and readers, and one that changes while messages are open."""

from typing import Any

import pytest

from riverdelta import Message, Pipeline, Producer, Settings, Subscriber, TextFilter
from riverdelta.broker.client import Client
from tests.support.local_workers import local_workers
from tests.support.reading import BEGINNING, read_until_ends, view_of
from tests.support.servers import until


class Dashes(TextFilter):
    def feed(self, delta: str) -> str:
        return delta.replace("—", "-")


class Picky(Dashes):
    """Holds nothing back, and cannot read what others held back."""

    def load(self, state: dict[str, Any]) -> None:
        raise KeyError("mine")


class Forgetful(Dashes):
    """Remembers what cannot be written down."""

    def dump(self) -> dict[str, Any]:
        return {"seen": object()}


def forgetful(_: Settings) -> Pipeline:
    return Pipeline().with_filter(Forgetful)


def second(settings: Settings) -> Pipeline:
    assert settings.pipeline
    return Pipeline(version="2")


def dashes(_: Settings) -> Pipeline:
    return Pipeline().with_filter(Dashes)


def picky(_: Settings) -> Pipeline:
    return Pipeline().with_filter(Picky)


def made_by(settings: Settings, build: str) -> Settings:
    return settings.model_copy(update={"pipeline": f"{__name__}:{build}"})


async def say(client: Client, message: Message, text: str) -> None:
    """Push *text*, and return when it is committed."""
    await message.push(text)
    head = client.keys.chat("c").head

    async def committed() -> bool:
        pushed, processed = await client.chats.execute("HMGET", head, "pushed", "processed")
        return bool(pushed == processed)

    await until(committed)


async def test_a_worker_that_takes_over_a_message_of_another_version_says_so_once(
    settings: Settings, producer: Producer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    keys = client.keys.chat("c")
    async with producer.message("c", source="text", message_id="m") as message:
        async with local_workers(settings):
            await say(client, message, "one ")
        async with local_workers(made_by(settings, "second")) as (pump,):
            await say(client, message, "two ")
            pump._doubt([keys.wake])
            await say(client, message, "three")
            async with producer.message("c", source="text", message_id="m2") as other:
                await say(client, other, "new")
        said = [entry.getMessage() for entry in caplog.records if "pipeline" in entry.message]
        assert said == ["chat c: message m began with pipeline version '' and continues with '2'"]
    stored = [await client.chats.execute("HGET", keys.message(m), "pipeline") for m in ("m", "m2")]
    assert stored == [b"", b"2"]


async def test_a_filter_that_comes_in_mid_message_leaves_what_was_shown(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    async with producer.message("c", source="text", message_id="m") as message:
        async with local_workers(settings):
            await say(client, message, "one — ")
        async with local_workers(made_by(settings, "dashes")):
            await say(client, message, "two — ")
    async with local_workers(made_by(settings, "dashes")):
        events = await read_until_ends(subscriber, "c", after=BEGINNING)
    offsets = [event.data["offset"] for event in events if event.type == "chunk.delta"]
    snapshot = await subscriber.snapshot("c")
    assert (offsets, view_of(events).text("m")) == ([0, 6], "one — two - ")
    assert view_of([snapshot]).text("m") == "one — two - "


async def test_a_filter_that_cannot_read_what_another_held_back_goes_on_without_it(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    async with producer.message("c", source="text", message_id="m") as message:
        async with local_workers(settings.model_copy(update={"redact": True})):
            await say(client, message, "to eva@exam")
        async with local_workers(made_by(settings, "picky")):
            await say(client, message, " — or not")
    async with local_workers(made_by(settings, "picky")):
        events = await read_until_ends(subscriber, "c", after=BEGINNING)
    assert view_of(events).text("m") == "to  - or not"
    assert events[-1].type == "message.completed"


async def test_a_filter_whose_memory_cannot_be_written_makes_dead_letters_and_the_chat_goes_on(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    async with local_workers(made_by(settings, "forgetful")):
        async with producer.message("c", source="text", message_id="m") as message:
            await say(client, message, "one")
            await say(client, message, "two")
        events = await read_until_ends(subscriber, "c", after=BEGINNING)
    assert events[-1].type == "message.completed"
    rejected = [event.data["code"] for event in events if event.type == "input.rejected"]
    assert rejected == ["fold_error"] * 2
    dead = await client.chats.execute("XRANGE", client.keys.chat("c").dead, "-", "+")
    assert [fields[9] for _, fields in dead] == [b"one", b"two"]
