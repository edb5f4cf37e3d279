"""Dead letters: shown to people and programs, and put back exactly once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from riverdelta import BrokerUnavailable, Message, Producer, Settings, Subscriber
from riverdelta.broker.client import Client
from riverdelta.broker.dead_letters import DeadLetter, read_dead_letters, requeue
from riverdelta.broker.store import scripts
from riverdelta.core.codecs.pieces import Piece
from riverdelta.core.codecs.plain import TextCodec
from tests.support.local_workers import local_workers
from tests.support.producers import stand_still
from tests.support.reading import BEGINNING, read_until_ends, view_of
from tests.support.servers import until
from tests.support.shell import Shell


class Bug:
    """A fold that breaks on what it does not like, until it is mended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mended = False
        decode = TextCodec.decode

        def fragile(codec: TextCodec, raw: bytes) -> list[Piece]:
            if not self.mended and raw.startswith(b"poison"):
                raise ZeroDivisionError("as if we had a bug")
            return decode(codec, raw)

        monkeypatch.setattr(TextCodec, "decode", fragile)


@pytest.fixture
def bug(monkeypatch: pytest.MonkeyPatch) -> Bug:
    return Bug(monkeypatch)


@pytest.fixture
async def message(
    bug: Bug, settings: Settings, producer: Producer, client: Client
) -> AsyncIterator[Message]:
    """An open message of ``a``, two dead letters and ``b``."""
    async with (
        local_workers(settings),
        producer.message("c", source="text", message_id="m") as opened,
    ):
        await opened.push_many(["a", "poison 1 ", "poison 2 ", "b"])
        await until_dead(client, 2)
        yield opened


async def until_dead(client: Client, count: int) -> None:
    async def there() -> bool:
        return len(await letters(client)) == count

    await until(there)


async def letters(client: Client) -> list[DeadLetter]:
    return [letter async for letter in read_dead_letters(client, "c")]


async def test_what_is_put_back_is_processed_once_at_the_end(
    message: Message, bug: Bug, client: Client, subscriber: Subscriber
) -> None:
    dead = await letters(client)
    assert [(d.code, d.message, d.type, d.data) for d in dead] == [
        ("fold_error", "m", "chunk", b"poison 1 "),
        ("fold_error", "m", "chunk", b"poison 2 "),
    ]
    bug.mended = True
    answers = await asyncio.gather(*(requeue(client, "c", letter) for letter in dead * 3))
    assert answers == ["requeued"] * 2 + ["absent"] * 4
    assert await letters(client) == []
    await message.push("c")
    await message.end()
    events = await read_until_ends(subscriber, "c", after=BEGINNING)
    assert view_of(events).text("m") == "abpoison 1 poison 2 c"


async def test_a_reply_that_was_lost_leaves_nothing_to_do_twice(
    message: Message,
    bug: Bug,
    client: Client,
    subscriber: Subscriber,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = scripts.requeue

    async def lost(*args: Any, **options: Any) -> Any:
        await script(*args, **options)
        raise BrokerUnavailable("lost on the way back")

    bug.mended = True
    first, _ = await letters(client)
    with monkeypatch.context() as patch:
        patch.setattr(scripts, "requeue", lost)
        with pytest.raises(BrokerUnavailable):
            await requeue(client, "c", first)
    assert [await requeue(client, "c", d) for d in [first, *await letters(client)]] == [
        "absent",
        "requeued",
    ]
    await message.end()
    events = await read_until_ends(subscriber, "c", after=BEGINNING)
    assert view_of(events).text("m") == "abpoison 1 poison 2 "


async def test_what_is_not_mended_comes_back_as_another_letter(
    message: Message, client: Client
) -> None:
    before = await letters(client)
    assert [await requeue(client, "c", letter) for letter in before] == ["requeued"] * 2

    async def back() -> bool:
        after = await letters(client)
        return [d.data for d in after] == [d.data for d in before] and after != before

    await until(back)


@pytest.mark.parametrize("state", ["completed", "stopping", "unknown"])
async def test_where_it_cannot_go_back_nothing_is_done(
    state: str, message: Message, client: Client, subscriber: Subscriber
) -> None:
    dead = await letters(client)
    keys = client.keys.chat("c")
    if state == "completed":
        await message.end()
        await read_until_ends(subscriber, "c")
    elif state == "stopping":
        await client.chats.execute("HSET", keys.message("m"), "stop", "enough")
    else:
        await client.chats.execute("DEL", keys.message("m"))
    pushed = await client.chats.execute("HGET", keys.head, "pushed")
    assert [await requeue(client, "c", letter) for letter in dead] == [state] * 2
    assert await letters(client) == dead
    assert await client.chats.execute("HGET", keys.head, "pushed") == pushed


async def test_a_letter_that_is_put_back_finds_an_owner(
    bug: Bug, settings: Settings, producer: Producer, client: Client, subscriber: Subscriber
) -> None:
    """The workers were upgraded meanwhile: nobody has the chat."""
    async with producer.message("c", source="text", message_id="m") as message:
        async with local_workers(settings):
            await message.push("poison ")
            await until_dead(client, 1)
        await stand_still(producer)  # or its check would ask for an owner
        await client.queue.execute("DEL", client.keys.waiting, client.keys.queue)
        bug.mended = True
        (letter,) = await letters(client)
        assert await requeue(client, "c", letter) == "requeued"
        async with local_workers(settings):
            await message.end()
            events = await read_until_ends(subscriber, "c")
    assert view_of(events).text("m") == "poison "


async def test_many_large_letters_are_read_a_few_at_a_time(client: Client) -> None:
    dead = client.keys.chat("c").dead
    for number in range(50):
        flat = ("code", "x", "detail", "y", "message", "m", "type", "chunk", "data", number)
        await client.chats.execute("XADD", dead, "*", *flat)
    assert [letter.data for letter in await letters(client)] == [b"%d" % n for n in range(50)]


async def test_the_command(
    message: Message, bug: Bug, settings: Settings, client: Client, tmp_path: Path
) -> None:
    shell = Shell(tmp_path)

    async def dead(*arguments: str) -> tuple[int, str, str]:
        done = await asyncio.to_thread(
            lambda: shell.run(
                "dead",
                *arguments,
                RIVERDELTA_REDIS_URL=settings.redis_url,
                RIVERDELTA_KEY_PREFIX=settings.key_prefix,
            )
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    code, out, _ = await dead("c")
    assert code == 0
    assert "chunk of message m (open), 9 bytes" in out
    assert "fold_error: ZeroDivisionError: as if we had a bug" in out
    assert "  poison 2" in out

    code, out, _ = await dead("c", "--json")
    printed = [orjson.loads(line) for line in out.splitlines()]
    assert [(t["data"], t["status"], t["bytes"]) for t in printed] == [
        ("poison 1 ", "open", 9),
        ("poison 2 ", "open", 9),
    ]

    bug.mended = True
    code, out, err = await dead("c", "--requeue", "--json")
    assert (code, [orjson.loads(line)["outcome"] for line in out.splitlines()]) == (
        0,
        ["requeued"] * 2,
    )
    assert "2 dead letters put back, 0 left" in err
    code, out, err = await dead("c", "--requeue")
    assert (code, out) == (0, "")
    assert "no dead letters" in err

    bug.mended = False
    await message.push("poison \x1b[31m\udcff")
    await until_dead(client, 1)
    await message.end()
    assert (await dead("absent"))[0] == 1

    async def ended() -> bool:
        return (await dead("c", "--requeue"))[0] == 1

    await until(ended)
    code, out, err = await dead("c", "--requeue")
    assert "left here: its message has completed" in out
    assert "\x1b" not in out
    assert "0 dead letters put back, 1 left" in err
