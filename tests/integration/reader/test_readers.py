"""Readers that come before, in the middle and after; positions that hold, and some that do not."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from riverdelta import (
    ChatView,
    Event,
    InvalidPositionError,
    MessageEnded,
    Producer,
    Settings,
    Subscriber,
)
from riverdelta.broker.client import Client
from riverdelta.broker.reader.feed import MAX_EVENTS
from tests.support.local_workers import local_workers
from tests.support.reading import BEGINNING, check_contiguous, read_until_ends, view_of
from tests.support.servers import DEADLINE_S, until


async def take(subscriber: Subscriber, chat: str, count: int, after: str | None) -> list[Event]:
    events: list[Event] = []
    async with (
        asyncio.timeout(DEADLINE_S),
        contextlib.aclosing(subscriber.events(chat, after)) as stream,
    ):
        async for event in stream:
            events.append(event)
            if len(events) == count:
                break
    check_contiguous(events)
    return events


async def test_before_in_the_middle_and_after_give_the_same_text(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    async with local_workers(settings):
        before = asyncio.create_task(read_until_ends(subscriber, "c"))
        async with producer.message("c", source="text", message_id="m") as message:
            for number in range(100):
                await message.push(f"{number} ")

            async def half_way() -> bool:
                head = client.keys.chat("c").head
                return int(await client.chats.execute("HGET", head, "processed") or 0) > 50

            await until(half_way)
            middle = asyncio.create_task(read_until_ends(subscriber, "c"))
            for number in range(100, 200):
                await message.push(f"{number} ")
                if number % 10 == 0:
                    await asyncio.sleep(0.005)
        runs = [await before, await middle, await read_until_ends(subscriber, "c")]
    expected = "".join(f"{number} " for number in range(200))
    views = [view_of(events).messages for events in runs]
    assert [view_of(events).text("m") for events in runs] == [expected] * 3
    assert views[0] == views[1] == views[2]
    assert [events[0].type for events in runs] == ["snapshot"] * 3
    assert [len(events) for events in runs][2] == 1


async def test_resuming_at_every_position_gives_exactly_what_follows_it(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    async with local_workers(settings):
        async with producer.message("c", source="text") as message:
            for number in range(15):
                await message.push(f"{number} ")
                await asyncio.sleep(0.002)
        whole = await take(subscriber, "c", 1, None)
        log = await take(subscriber, "c", whole[0].seq, f"{whole[0].epoch}:0")
        assert [event.seq for event in log] == list(range(1, whole[0].seq + 1))
        for known in range(len(log) - 1):
            rest = await take(subscriber, "c", len(log) - known - 1, log[known].position)
            assert [event.raw for event in rest] == [event.raw for event in log[known + 1 :]]


async def test_resuming_at_the_end_waits_for_what_comes(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    async with local_workers(settings):
        async with producer.message("c", source="text", message_id="one"):
            pass
        last = (await read_until_ends(subscriber, "c"))[-1]
        waiting = asyncio.create_task(take(subscriber, "c", 1, last.position))
        async with producer.message("c", source="text", message_id="two"):
            (first,) = await waiting
        assert (first.type, first.seq, first.message) == ("message.started", last.seq + 1, "two")


@pytest.mark.parametrize("kind", ["another epoch", "of the future", "another chat's", "trimmed"])
async def test_a_void_position_gives_a_snapshot(
    kind: str, settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    async with local_workers(settings):
        for chat in ("c", "other"):
            async with producer.message(chat, source="text", message_id="m") as message:
                await message.push("text")
        end = (await read_until_ends(subscriber, "c"))[-1]
        elsewhere = (await read_until_ends(subscriber, "other"))[-1]
        if kind == "trimmed":
            await client.chats.execute("XTRIM", client.keys.chat("c").deltas, "MINID", "4-0")
        after = {
            "another epoch": f"deadbeef:{end.seq}",
            "of the future": f"{end.epoch}:{end.seq + 1}",
            "another chat's": f"{elsewhere.epoch}:1",
            "trimmed": f"{end.epoch}:1",
        }[kind]
        (snapshot,) = await take(subscriber, "c", 1, after)
    assert snapshot.type == "snapshot"
    assert snapshot.position == end.position
    assert view_of([snapshot]).text("m") == "text"


async def test_what_never_was_a_position_is_an_error(subscriber: Subscriber) -> None:
    with pytest.raises(InvalidPositionError):
        await anext(subscriber.events("c", "nonsense"))


async def test_a_slow_reader_holds_little_and_misses_nothing(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    """It takes nothing while thousands of events pass; then it reads them from the log."""
    async with local_workers(settings):
        stream = subscriber.events("c")
        first = await anext(stream)
        async with producer.message("c", source="chunks", message_id="m") as message:
            # Two chunks in turn: their deltas do not merge, so that there are many events.
            many = [{"chunk": "ab"[i % 2], "kind": "text", "text": f"{i} "} for i in range(3_000)]
            for i in range(0, len(many), 100):
                await message.push_many(many[i : i + 100])
        await read_until_ends(subscriber, "c")
        feeds = subscriber._reader._feeds._feeds
        assert max(len(feed) for of_chat in feeds.values() for feed in of_chat) <= MAX_EVENTS
        events = [first]
        async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(stream):
            async for event in stream:
                events.append(event)
                if event.ends_message:
                    break
    check_contiguous(events)
    assert [event.type for event in events].count("snapshot") == 1
    assert view_of(events).text("m").count(" ") == 3_000


async def test_a_snapshot_at_any_time_is_the_reduction_of_the_events_before_it(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    view, checked = ChatView(), 0
    async with local_workers(settings):
        reading = asyncio.create_task(read_until_ends(subscriber, "c"))
        snapshots = []
        async with producer.message("c", source="chunks") as message:
            for i in range(60):
                kind = ("text", "reasoning", "tool_call")[i % 3]
                await message.push({"chunk": kind, "kind": kind, "text": f"{i}é "})
                if i % 5 == 0:
                    await message.annotate("note", {"i": i})
                    snapshots.append(await subscriber.snapshot("c"))
        for event in await reading:
            view.apply(event)
            for snapshot in snapshots:
                if event.type != "snapshot" and snapshot.position == event.position:
                    assert snapshot.data["messages"] == view.messages
                    checked += 1
    assert checked > 0


async def test_a_long_snapshot_is_made_in_a_thread_and_a_short_one_is_not(
    settings: Settings,
    producer: Producer,
    subscriber: Subscriber,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    in_thread = asyncio.to_thread

    async def counted(work: Callable[..., Any], *args: Any) -> Any:
        calls.append(args[0])
        return await in_thread(work, *args)

    monkeypatch.setattr(asyncio, "to_thread", counted)
    texts = {"short": "é" * 1000, "long": "é" * 400_000}
    async with local_workers(settings):
        for chat, text in texts.items():
            async with producer.message(chat, source="text", message_id="m") as message:
                await message.push(text)
            await read_until_ends(subscriber, chat)
            calls.clear()
            assert view_of([await subscriber.snapshot(chat)]).text("m") == text
            assert calls == ([] if chat == "short" else ["long"])


async def test_readers_of_one_chat_share_one_subscription(
    settings: Settings, subscriber: Subscriber, client: Client
) -> None:
    streams = [subscriber.events("c") for _ in range(3)]
    for stream in streams:
        await anext(stream)
    channel = client.keys.chat("c").deltas
    assert await client.chats.execute("PUBSUB", "SHARDNUMSUB", channel) == [channel.encode(), 1]
    for stream in streams:
        await stream.aclose()

    async def left() -> bool:
        return bool(
            await client.chats.execute("PUBSUB", "SHARDNUMSUB", channel) == [channel.encode(), 0]
        )

    await until(left)


async def test_a_chat_id_used_again_after_expiry_is_a_new_log(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    brief = settings.model_copy(update={"retention_s": 0.2, "idle_release_s": 0.0})
    async with local_workers(brief):
        async with producer.message("c", source="text", message_id="old") as message:
            await message.push("old text")
        old = (await read_until_ends(subscriber, "c"))[-1]

        async def gone() -> bool:
            found = await client.chats.execute("KEYS", f"{client.keys.prefix}:{{c}}*")
            return bool(found == [])

        await until(gone)
        waiting = asyncio.create_task(read_until_ends(subscriber, "c", after=old.position))
        async with producer.message("c", source="text", message_id="new") as message:
            await message.push("new text")
        events = await waiting
    assert events[0].type == "snapshot"
    assert events[-1].epoch != old.epoch
    assert view_of(events).text("new") == "new text"
    assert [message["message"] for message in view_of(events).messages] == ["new"]


async def test_rollup_merges_more_and_never_holds_the_first_text_up(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    wide = settings.model_copy(update={"rollup_ms": 200})
    async with local_workers(wide):
        reading = asyncio.create_task(read_until_ends(subscriber, "c", after=BEGINNING))
        async with producer.message("c", source="text", message_id="m") as message:
            for number in range(50):
                await message.push(f"{number} ")
                await asyncio.sleep(0.005)
        events = await reading
    deltas = [event for event in events if event.type == "chunk.delta"]
    took_ms = deltas[-1].ts - deltas[0].ts  # on a busy machine the pushes take longer
    assert len(deltas) <= took_ms / 200 + 3
    assert deltas[0].data["text"].startswith("0 ")
    assert view_of(events).text("m") == "".join(f"{number} " for number in range(50))


async def test_a_message_that_replaces_others_takes_their_place_for_every_reader(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    async with local_workers(settings):
        live = asyncio.create_task(read_until_ends(subscriber, "c", ends=3))
        async with producer.message("c", source="text", message_id="first") as first:
            await first.push("kept")
        still_open = producer.message("c", source="text", message_id="second")
        await still_open.__aenter__()
        await still_open.push("to be replaced")
        async with producer.message(
            "c", source="text", message_id="third", replaces=["second"], metadata={"why": "better"}
        ) as third:
            await third.push("instead")

            async def seen() -> bool:
                snapshot = await subscriber.snapshot("c")
                return "third" in [message["message"] for message in snapshot.data["messages"]]

            await until(seen)
            with pytest.raises(MessageEnded):
                await still_open.push("too late")
        events = await live
        snapshot = await subscriber.snapshot("c")
    assert view_of(events).messages == snapshot.data["messages"]
    assert [message["message"] for message in snapshot.data["messages"]] == ["first", "third"]
    assert snapshot.data["messages"][1]["metadata"] == {"why": "better"}
    with pytest.raises(ValueError, match="replaces"):
        producer.message("c", source="text", replaces=["{x}"])
