"""Servers that come back with less than they had acknowledged: what is missing is sent again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from riverdelta import (
    BrokerUnavailable,
    ChatView,
    Event,
    MessageEnded,
    MessageLost,
    Producer,
    Settings,
    Stopped,
    Subscriber,
)
from riverdelta.broker.client import Client
from riverdelta.broker.producer.caretaker import Caretaker
from riverdelta.broker.producer.delivery import Delivery
from riverdelta.broker.store import scripts
from riverdelta.core import fold
from tests.support.local_workers import local_workers
from tests.support.producers import registry_of, stand_still
from tests.support.reading import check_contiguous, read_until_ends, view_of
from tests.support.servers import DEADLINE_S, Server, binaries, until

LEASE_S = 0.5
"""Of producers and workers: what takes a lease takes a test half a second."""


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Producers look after their messages twenty times a second."""
    monkeypatch.setattr(Caretaker, "every_s", 0.05)


@pytest.fixture
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that comes back with what it had at its last SAVE, if any."""
    with Server(str(binaries()["valkey"]), tmp_path_factory.mktemp("forgetful")) as running:
        yield running


@pytest.fixture
def settings(forgetful: Server) -> Settings:
    return Settings(redis_url=forgetful.url, lease_s=LEASE_S, producer_lease_s=LEASE_S)


@pytest.fixture
async def workers(settings: Settings) -> AsyncIterator[None]:
    async with local_workers(settings, 2):
        yield


async def save(client: Client) -> None:
    await client.chats.execute("SAVE")


def fall_back(server: Server) -> None:
    server.kill()
    server.start()


async def until_read(client: Client, chat_id: str = "c") -> None:
    """Wait until nothing of the chat is unread."""

    async def read() -> bool:
        fields = await client.chats.execute("HGETALL", client.keys.chat(chat_id).head)
        head = scripts.as_hash(fields)
        return "pushed" in head and head["pushed"] == head["processed"]

    await until(read)


async def until_stored(subscriber: Subscriber, **messages: tuple[str, str]) -> None:
    """Wait until the chat's messages are these: status and text of each."""
    view = ChatView()

    async def stored() -> bool:
        nonlocal view
        with contextlib.suppress(BrokerUnavailable):
            view = view_of([await subscriber.snapshot("c")])
        return {
            m["message"]: (m["status"], view.text(m["message"])) for m in view.messages
        } == messages

    await until(stored)


class Reader:
    """Follows a chat from before the fall to the end, as a browser would."""

    def __init__(self, subscriber: Subscriber) -> None:
        self.events: list[Event] = []
        self._task = asyncio.create_task(self._read(subscriber))

    async def _read(self, subscriber: Subscriber) -> None:
        async with contextlib.aclosing(subscriber.events("c")) as stream:
            async for event in stream:
                self.events.append(event)

    @property
    def snapshots(self) -> int:
        return sum(event.type == "snapshot" for event in self.events)

    async def sees(self, text: str, message_id: str = "m", status: str = "open") -> None:
        async def seen() -> bool:
            assert not self._task.done() or self._task.result()
            messages = {m["message"]: m for m in view_of(self.events).messages}
            message = messages.get(message_id)
            return (
                message is not None
                and view_of(self.events).text(message_id) == text
                and message["status"] == status
            )

        await until(seen)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        check_contiguous(self.events)


# -- what is sent again --------------------------------------------------------------------------


@pytest.mark.parametrize("saved", ["nothing", "the start", "half"])
@pytest.mark.parametrize("then", ["pushes on", "is silent", "ends"])
async def test_a_reader_who_saw_what_was_lost_gets_a_snapshot_and_the_full_text(
    saved: str, then: str, forgetful: Server, settings: Settings, workers: None
) -> None:
    async with (
        Client(settings) as client,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        reader = Reader(subscriber)
        message = await producer.message("c", source="text", message_id="m").__aenter__()
        if saved == "the start":
            await until_read(client)
            await save(client)
        await message.push("one ")
        await message.push("two ")
        if saved == "half":
            await until_read(client)
            await save(client)
        await message.push_many(["three ", "four "])
        await reader.sees("one two three four ")
        before = reader.snapshots
        fall_back(forgetful)
        if then == "pushes on":
            await message.push("five")
        if then != "is silent":
            await message.end()
            status = "completed"
        else:
            status = "open"
        five = "five" if then == "pushes on" else ""
        await reader.sees("one two three four " + five, status=status)
        await until_stored(subscriber, m=(status, "one two three four " + five))
        await message.end()
        await reader.sees("one two three four " + five, status="completed")
        await reader.close()
        # One of the new log; and one of what is left, where the reader looks before all others.
        assert before < reader.snapshots <= before + 2


async def test_an_end_that_was_processed_and_forgotten_is_sent_again(
    forgetful: Server, settings: Settings, workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        Client(settings) as client,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        reader = Reader(subscriber)
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("kept ")
            await until_read(client)
            await save(client)
            await message.push("lost")
        await reader.sees("kept lost", status="completed")
        with monkeypatch.context() as patch:
            patch.setattr(Delivery, "is_due", lambda _: False)
            fall_back(forgetful)
            await until_stored(subscriber, m=("open", "kept "))
        await until_stored(subscriber, m=("completed", "kept lost"))
        await reader.sees("kept lost", status="completed")
        await reader.close()


async def test_every_message_of_a_chat_that_was_lost_comes_back_once(
    forgetful: Server, settings: Settings, workers: None
) -> None:
    """The ended ones are looked at rarely, and what the open one sends again must not hide them."""
    async with Producer(settings) as producer, Subscriber(settings) as subscriber:
        for name in ("a", "b"):
            async with producer.message("c", source="text", message_id=name) as message:
                await message.push(f"text of {name}")
        await read_until_ends(subscriber, "c", ends=2)
        message = await producer.message("c", source="text", message_id="open").__aenter__()
        await message.push_many(["x"] * 20)
        fall_back(forgetful)
        await message.push("y")
        await message.end()
        view = view_of(await read_until_ends(subscriber, "c", ends=3))
        texts = {m["message"]: view.text(m["message"]) for m in view.messages}
        assert texts == {"a": "text of a", "b": "text of b", "open": "x" * 20 + "y"}


async def test_what_is_in_doubt_when_the_server_forgets_goes_in_once(
    forgetful: Server, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, lossy = scripts.push, True

    async def push(*args: Any, **options: Any) -> Any:
        reply = await script(*args, **options)
        if lossy:
            raise BrokerUnavailable("lost on the way back")
        return reply

    monkeypatch.setattr(Delivery, "is_due", lambda _: False)
    brief = settings.model_copy(update={"push_wait_s": 0.1})
    async with Client(settings) as client, Producer(brief) as producer:
        message = await producer.message("c", source="text", message_id="m").__aenter__()
        await message.push("one ")
        await save(client)
        await message.push("two ")
        monkeypatch.setattr(scripts, "push", push)
        with pytest.raises(BrokerUnavailable):
            await message.push("three ")
        fall_back(forgetful)
        lossy = False
        await message.push("four")
        await message.end()
        async with local_workers(settings), Subscriber(settings) as subscriber:
            events = await read_until_ends(subscriber, "c")
    assert view_of(events).text("m") == "one two three four"


async def test_back_pressure_does_not_hold_up_what_is_sent_again(
    forgetful: Server, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = settings.model_copy(update={"max_backlog_chunks": 3, "push_wait_s": 5.0})
    async with Producer(settings) as other, Producer(tight) as producer:
        async with local_workers(settings):
            message = await producer.message("c", source="text", message_id="m").__aenter__()
            for number in range(9):
                await message.push(f"{number} ")
        with monkeypatch.context() as patch:
            patch.setattr(Delivery, "is_due", lambda _: False)
            fall_back(forgetful)
            async with other.message("c", source="text", message_id="n") as filling:
                await filling.push_many(["x"] * 5)
            await message.push("9 ")
        await message.end()
        async with local_workers(settings), Subscriber(settings) as subscriber:
            events = await read_until_ends(subscriber, "c", ends=2)
    assert view_of(events).text("m") == "".join(f"{n} " for n in range(10))


async def test_a_stop_on_a_server_that_forgot_ends_the_full_text(
    forgetful: Server, settings: Settings, workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        Client(settings) as client,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        message = await producer.message("c", source="text", message_id="m").__aenter__()
        await message.push("kept ")
        await until_read(client)
        await save(client)
        await message.push("lost")
        with monkeypatch.context() as patch:
            patch.setattr(Delivery, "is_due", lambda _: False)
            fall_back(forgetful)
            await until_stored(subscriber, m=("open", "kept "))
            assert await subscriber.stop("c", reason="enough") == ["m"]
            with pytest.raises(Stopped):
                await message.push("never shown")
        events = await read_until_ends(subscriber, "c")
    (stopped,) = view_of(events).messages
    assert (view_of(events).text("m"), stopped["status"]) == ("kept lost", "stopped")


async def test_a_server_that_forgets_again_and_again(
    forgetful: Server, settings: Settings, workers: None
) -> None:
    async with Producer(settings) as producer, Subscriber(settings) as subscriber:
        async with producer.message("c", source="text", message_id="m") as message:
            for number in range(5):
                await message.push(f"{number} ")
                fall_back(forgetful)
        text = view_of(await read_until_ends(subscriber, "c")).text("m")
    assert text == "0 1 2 3 4 "


# -- what is not ---------------------------------------------------------------------------------


async def test_what_no_longer_fits_fails_its_message_with_data_lost(
    forgetful: Server, settings: Settings, workers: None
) -> None:
    small = settings.model_copy(update={"resend_bytes": 2_000})
    async with Producer(small) as producer, Subscriber(settings) as subscriber:
        message = await producer.message("c", source="text", message_id="m").__aenter__()
        for _ in range(20):
            await message.push("x" * 100)
        assert registry_of(producer).resends.bytes <= 2_000
        fall_back(forgetful)
        with pytest.raises(MessageLost, match="more of message m"):
            await message.push("y")
        (lost,) = view_of(await read_until_ends(subscriber, "c")).messages
        assert lost["error"] is not None
        assert lost["error"]["code"] == "data_lost"


async def test_an_ended_message_whose_end_was_lost_for_good_fails(
    forgetful: Server, settings: Settings, workers: None
) -> None:
    """It was acknowledged as completed; but nobody must wait for ever for what nobody has."""
    async with (
        Client(settings) as client,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("kept ")
            await until_read(client)
            await save(client)
            await message.push("lost")
        await read_until_ends(subscriber, "c")
        message._delivery.kept._resends._max_bytes = 0
        async with producer.message("other", source="text") as other:
            await other.push("pushes what is kept out")
        fall_back(forgetful)
        await until_stored(subscriber, m=("failed", "kept "))
        (seen,) = view_of([await subscriber.snapshot("c")]).messages
        assert seen["error"] is not None
        assert seen["error"]["code"] == "data_lost"


async def test_what_others_ended_stays_ended(
    forgetful: Server, settings: Settings, workers: None
) -> None:
    async with (
        Client(settings) as client,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        message = await producer.message("c", source="text", message_id="m").__aenter__()
        await message.push("kept ")
        await until_read(client)
        await stand_still(producer)  # stands still, and is declared dead
        await read_until_ends(subscriber, "c")
        await save(client)
        fall_back(forgetful)
        with pytest.raises(MessageEnded):
            await message.push("y")
        (seen,) = view_of(await read_until_ends(subscriber, "c")).messages
        assert seen["error"] is not None
        assert seen["error"]["code"] == "producer_lost"


async def test_old_messages_that_a_chat_dropped_do_not_come_back(
    settings: Settings, workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold, "RECENT_MESSAGES", 2)
    async with Client(settings) as client, Producer(settings) as producer:
        for number in range(5):
            async with producer.message("c", source="text", message_id=f"m{number}") as message:
                await message.push("x")
        await until_read(client)
        looked = 0
        check = scripts.check

        async def counted(*args: Any, **options: Any) -> Any:
            nonlocal looked
            looked += 1
            return await check(*args, **options)

        monkeypatch.setattr(scripts, "check", counted)
        assert len(registry_of(producer).messages()) == 5

        async def all_looked_at() -> bool:
            for message in registry_of(producer).messages():
                assert isinstance(message, Delivery)
                message.outgoing._check_at = 0
            return looked > 15

        await until(all_looked_at)
        chat = await client.chats.execute("HMGET", client.keys.chat("c").head, "pushed", "messages")
        assert chat[0] == b"15"
        assert (b"m0" in chat[1], b"m4" in chat[1]) == (False, True)


async def test_chats_that_expired_do_not_come_back(settings: Settings) -> None:
    brief = settings.model_copy(update={"retention_s": 0.4, "idle_release_s": 0.0})
    async with (
        local_workers(brief),
        Client(settings) as client,
        Producer(brief) as producer,
        Subscriber(settings) as subscriber,
    ):
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
        await read_until_ends(subscriber, "c")

        async def gone() -> bool:
            return not await client.chats.execute("EXISTS", client.keys.chat("c").head)

        await until(gone)
        await asyncio.sleep(0.3)  # several looks of the caretaker
        assert await gone()
        assert registry_of(producer).messages() == []
        assert registry_of(producer).resends.bytes == 0


async def test_what_is_kept_goes_when_the_time_is_over(
    settings: Settings, workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Delivery, "keep_s", 0.3)
    async with Producer(settings) as producer, Subscriber(settings) as subscriber:
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
        await read_until_ends(subscriber, "c")
        assert registry_of(producer).resends.bytes > 0

        async def gone() -> bool:
            return registry_of(producer).resends.bytes == 0 and not registry_of(producer).messages()

        await until(gone)


# -- beside it -----------------------------------------------------------------------------------


async def test_a_queue_that_came_back_empty_learns_again_whose_a_message_is(
    forgetful: Server, own_server: Server
) -> None:
    """Else nobody would end it when its producer dies."""
    apart = Settings(
        redis_url=own_server.url,
        queue_url=forgetful.url,
        lease_s=LEASE_S,
        producer_lease_s=LEASE_S,
    )
    async with (
        local_workers(apart),
        Client(apart) as client,
        Producer(apart) as producer,
        Subscriber(apart) as subscriber,
    ):
        message = await producer.message("c", source="text", message_id="m").__aenter__()
        await message.push("x")
        listed = client.keys.producer_messages(producer.id)
        await client.queue.execute("DEL", listed)

        async def again() -> bool:
            return bool(await client.queue.execute("SMEMBERS", listed) == [b"c m"])

        await until(again)
        await stand_still(producer)
        (seen,) = view_of(await read_until_ends(subscriber, "c")).messages
        assert seen["error"] is not None
        assert seen["error"]["code"] == "producer_lost"


async def test_a_message_of_a_producer_that_is_long_gone_ends_again(
    forgetful: Server, own_server: Server
) -> None:
    """The server forgot that it had ended, and nobody lists its producer any more."""
    apart = Settings(
        redis_url=forgetful.url,
        queue_url=own_server.url,
        lease_s=LEASE_S,
        producer_lease_s=LEASE_S,
    )
    async with local_workers(apart), Client(apart) as client, Subscriber(apart) as subscriber:
        async with Producer(apart) as producer:
            async with producer.message("c", source="text", message_id="m") as message:
                await message.push("kept")
                await until_read(client)
                await save(client)
        await read_until_ends(subscriber, "c")
        fall_back(forgetful)
        async with Producer(apart) as another:
            async with another.message("c", source="text", message_id="n") as message:
                await message.push("wakes the owner")
            await until_stored(subscriber, m=("failed", "kept"), n=("completed", "wakes the owner"))


async def test_a_chat_whose_server_names_an_owner_of_old_gets_another(
    forgetful: Server, own_server: Server
) -> None:
    apart = Settings(redis_url=forgetful.url, queue_url=own_server.url, lease_s=LEASE_S)
    async with (
        Client(apart) as client,
        Producer(apart) as producer,
        Subscriber(apart) as subscriber,
    ):
        message = await producer.message("c", source="text", message_id="m").__aenter__()
        async with local_workers(apart):
            await message.push("kept ")
            await until_read(client)
            await save(client)
        async with local_workers(apart):
            await message.push("lost ")
            await until_read(client)
            fall_back(forgetful)
            await message.push("and more")
            await message.end()
            async with asyncio.timeout(DEADLINE_S):
                events = await read_until_ends(subscriber, "c")
    assert view_of(events).text("m") == "kept lost and more"


def outcome(events: list[Event]) -> tuple[str, str | None]:
    (message,) = view_of(events).messages
    error = message["error"]
    return message["status"], None if error is None else error["code"]


async def test_a_message_that_cannot_be_sent_again_fails_with_data_lost(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("forgetful")
    with Server(str(binaries()["valkey"]), folder) as server:
        settings = Settings(redis_url=server.url, lease_s=LEASE_S, resend_bytes=0)
        async with (
            Client(settings) as client,
            Producer(settings) as producer,
            Subscriber(settings) as subscriber,
        ):
            message = await producer.message("c", source="text", message_id="m").__aenter__()
            await message.push("kept")
            await client.chats.execute("SAVE")
            await message.push("lost")
            server.kill()
            server.start()
            with pytest.raises(MessageLost):
                await message.push("refused")
            with pytest.raises(MessageLost):
                await message.push("refused as well")
            async with local_workers(settings):
                events = await read_until_ends(subscriber, "c")
    assert view_of(events).text("m") == "kept"
    assert outcome(events) == ("failed", "data_lost")
