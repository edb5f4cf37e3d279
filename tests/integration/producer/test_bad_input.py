"""What users get wrong: reported clearly, and nothing that was accepted is lost."""

import asyncio

import pytest

from riverdelta import (
    BackpressureError,
    BrokerUnavailable,
    ChunkTooLarge,
    MessageEnded,
    MessageExists,
    Producer,
    ServerTooOld,
    Settings,
    SettingsError,
    Stopped,
    Subscriber,
)
from riverdelta.broker.client import Client
from riverdelta.broker.redis.executor import Endpoint
from tests.support.local_workers import local_workers
from tests.support.reading import BEGINNING, read_until_ends, view_of
from tests.support.servers import free_port, until


def test_an_unknown_source_names_the_known_ones(settings: Settings) -> None:
    async def ask() -> None:
        Producer(settings).message("c", source="telegraph")

    with pytest.raises(ValueError, match="openai-chat"):
        asyncio.run(ask())


@pytest.mark.parametrize("ids", [{"chat_id": "a b"}, {"message_id": "{m}"}, {"user": "ü"}])
async def test_an_id_outside_the_allowed_characters(
    ids: dict[str, str], producer: Producer
) -> None:
    options = {"chat_id": "c"} | ids
    with pytest.raises(ValueError, match="not a valid id"):
        producer.message(options.pop("chat_id"), source="text", **options)  # type: ignore[arg-type]  # str options


async def test_a_chunk_over_the_limit_is_refused_before_anything_is_sent(
    settings: Settings, subscriber: Subscriber
) -> None:
    small = settings.model_copy(update={"max_chunk_bytes": 10})
    async with local_workers(settings), Producer(small) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("fits")
            with pytest.raises(ChunkTooLarge, match="11 bytes"):
                await message.push("x" * 11)
            with pytest.raises(ChunkTooLarge):
                await message.push_many(["ok", "x" * 11])
            await message.push(" too")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "fits too"


async def test_the_default_limit_is_a_mebibyte(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    async with local_workers(settings):
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x" * 1024 * 1024)
            with pytest.raises(ChunkTooLarge):
                await message.push("x" * (1024 * 1024 + 1))
        assert len(view_of(await read_until_ends(subscriber, "c")).text("m")) == 1024 * 1024


async def test_a_message_id_that_exists(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    async with local_workers(settings), Producer(settings) as other:
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("one")
            for again in (producer, other):
                with pytest.raises(MessageExists, match="m exists"):
                    await again.message("c", source="text", message_id="m").__aenter__()
            await message.push(" two")
        with pytest.raises(MessageExists):
            await producer.message("c", source="text", message_id="m").__aenter__()
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "one two"


async def test_chunks_that_are_no_json_are_dead_letters_and_the_message_goes_on(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    def content(text: str) -> dict[str, object]:
        return {"id": "1", "choices": [{"index": 0, "delta": {"content": text}}]}

    async with local_workers(settings):
        async with producer.message("c", source="openai-chat", message_id="m") as message:
            await message.push(content("a"))
            await message.push("{not json")
            await message.push(content("b"))
        events = await read_until_ends(subscriber, "c", after=BEGINNING)
        dead = await client.chats.execute("XRANGE", client.keys.chat("c").dead, "-", "+")
    rejected = [event.data["code"] for event in events if event.type == "input.rejected"]
    assert rejected == ["invalid_json"]
    assert view_of(events).text("m") == "ab"
    fields = dict(zip(dead[0][1][::2], dead[0][1][1::2], strict=True))
    assert fields[b"data"] == b"{not json"
    assert fields[b"code"] == b"invalid_json"
    assert events[-1].type == "message.completed"


async def test_objects_for_a_text_source_are_a_bug(settings: Settings, producer: Producer) -> None:
    async with local_workers(settings), producer.message("c", source="text") as message:
        with pytest.raises(TypeError, match="str or bytes"):
            await message.push({"text": "x"})


async def test_pushing_after_the_end(settings: Settings, producer: Producer) -> None:
    async with local_workers(settings):
        message = producer.message("c", source="text")
        async with message:
            await message.end()
            with pytest.raises(MessageEnded):
                await message.push("late")


async def test_an_exception_in_the_block_fails_the_message_without_its_text(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    async with local_workers(settings):
        with pytest.raises(RuntimeError, match="secret"):
            async with producer.message("c", source="text") as message:
                await message.push("partial")
                raise RuntimeError("secret")
        events = await read_until_ends(subscriber, "c")
    (message_view,) = view_of(events).messages
    assert message_view["error"] == {"code": "producer_error", "detail": "RuntimeError"}


async def test_a_reader_stops_a_reply(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    async with local_workers(settings):
        reading = asyncio.create_task(read_until_ends(subscriber, "c"))
        with pytest.raises(Stopped, match="enough"):
            async with producer.message("c", source="text", message_id="m") as message:
                await message.push("partial")

                async def stoppable() -> bool:
                    return await subscriber.stop("c", reason="enough") == ["m"]

                await until(stoppable)
                await message.push("never shown")
        events = await reading
        assert await subscriber.stop("c") == []
    assert events[-1].type == "message.stopped"
    assert events[-1].data == {"reason": "enough"}
    assert view_of(events).text("m") == "partial"


async def test_a_stop_ends_a_reply_whose_provider_is_silent(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    async with (
        local_workers(settings),
        producer.message("c", source="text", message_id="m") as message,
    ):
        await message.push("partial")
        await subscriber.stop("c", "m")
        events = await read_until_ends(subscriber, "c")
        assert view_of(events).messages[0]["status"] == "stopped"
        with pytest.raises(Stopped):
            await message.push("late")


async def test_a_full_backlog_makes_push_wait_and_then_raise_but_a_message_can_always_end(
    settings: Settings, subscriber: Subscriber
) -> None:
    tight = settings.model_copy(update={"max_backlog_chunks": 5, "push_wait_s": 0.2})
    async with Producer(tight) as producer:
        message = producer.message("c", source="text", message_id="m")
        async with message:
            for number in range(4):
                await message.push(str(number))
            with pytest.raises(BackpressureError, match="no worker has it"):
                await message.push("too much")
        async with local_workers(settings):
            assert view_of(await read_until_ends(subscriber, "c")).text("m") == "0123"


async def test_push_waits_for_room_and_goes_on(settings: Settings, subscriber: Subscriber) -> None:
    tight = settings.model_copy(update={"max_backlog_bytes": 1000})
    async with Producer(tight) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x" * 1000)
            waiting = asyncio.create_task(message.push("y"))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            async with local_workers(settings):
                await waiting
                await message.end()
                assert view_of(await read_until_ends(subscriber, "c")).text("m") == "x" * 1000 + "y"


@pytest.mark.parametrize("url", ["nonsense", "http://localhost", "redis://localhost:port"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(SettingsError, match="Redis URL"):
        Endpoint(url, 1.0)


async def test_a_server_that_is_not_there_is_one_clear_error_without_the_password() -> None:
    port = free_port()
    with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{port}") as caught:
        await Producer.from_url(f"redis://:hunter2@127.0.0.1:{port}").__aenter__()
    assert "hunter2" not in str(caught.value)
    assert caught.value.retry


async def test_a_server_that_is_too_old_is_said_at_the_start() -> None:
    """A listener that answers as Redis 6.2 does: no such server is to be had here."""

    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line.strip().upper() == b"INFO":
                info = b"# Server\r\nredis_version:6.2.14\r\nrun_id:abc\r\n"
                writer.write(b"$%d\r\n%s\r\n" % (len(info), info))
            elif line.strip().upper() == b"CLIENT":
                writer.write(b"+OK\r\n")
        writer.close()

    listener = await asyncio.start_server(old, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    with pytest.raises(ServerTooOld, match=r"6\.2\.14.*Redis >= 7\.0"):
        await Producer.from_url(f"redis://127.0.0.1:{port}").__aenter__()
    listener.close()
    await listener.wait_closed()


async def test_half_a_surrogate_pair_anywhere_does_not_cost_the_entry(
    settings: Settings, workers: None, subscriber: Subscriber
) -> None:
    """A cut emoji in what is not text of the reply: it becomes U+FFFD, and everything is readable."""
    cut = "cut \ud83d"
    async with Producer(settings) as producer:
        async with producer.message("c", source="text", metadata={cut: cut}) as message:
            await message.push_tool_result("t1", cut)
            await message.annotate(cut, {cut: [cut]})
            await message.fail("tool_error", cut)
        events = await read_until_ends(subscriber, "c", after=BEGINNING)
    assert [event.type for event in events if event.type == "input.rejected"] == []
    (seen,) = view_of(events).messages
    assert events[0].data["metadata"] == {"cut �": "cut �"}
    assert seen["chunks"][0]["text"] == "cut �"
    assert seen["annotations"] == [{"name": "cut �", "data": {"cut �": ["cut �"]}}]
    assert seen["error"] == {"code": "tool_error", "detail": "cut �"}
