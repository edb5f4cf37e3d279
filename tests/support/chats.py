"""One chat, as its hash and its readers show it; and waiting for what a test needs of it."""

from riverdelta import (
    Event,
    Producer,
)
from riverdelta.broker.client import Client
from riverdelta.broker.store import members, scripts
from riverdelta_workers.pump import Pump
from tests.support.reading import view_of
from tests.support.servers import until


async def say(producer: Producer, text: str, message_id: str = "m") -> None:
    async with producer.message("c", source="text", message_id=message_id) as message:
        await message.push(text)


async def head(client: Client) -> dict[str, str]:
    fields = await client.chats.execute("HGETALL", client.keys.chat("c").head)
    return {name: value.decode() for name, value in scripts.as_hash(fields).items()}


async def until_owned(client: Client, pump: Pump) -> None:
    async def owned() -> bool:
        return (await head(client)).get("owner") == pump.worker_id and "c" in pump._chats

    await until(owned)


async def until_idle(client: Client) -> None:
    """Wait until the chat has nothing unread."""

    async def read() -> bool:
        fields = await head(client)
        return "pushed" in fields and fields["pushed"] == fields.get("processed")

    await until(read)


async def until_beaten(client: Client, beats: int) -> None:
    """Wait until each listed worker's heart has beaten *beats* times more: time, as workers see it."""
    before = await members.read_workers(client.queue, client.keys)

    async def beaten() -> bool:
        now = await members.read_workers(client.queue, client.keys)
        return all(now[worker] >= counter + beats for worker, counter in before.items())

    await until(beaten)


def rejected(events: list[Event]) -> list[str]:
    return [event.data["code"] for event in events if event.type == "input.rejected"]


async def listed(client: Client, producer: Producer) -> set[bytes]:
    return set(await client.queue.execute("SMEMBERS", client.keys.producer_messages(producer.id)))


def outcome(events: list[Event]) -> tuple[str, str | None]:
    (message,) = view_of(events).messages
    error = message["error"]
    return message["status"], None if error is None else error["code"]


async def beat_of(client: Client, producer: Producer) -> int:
    return int(await client.queue.execute("HGET", client.keys.producers, producer.id))
