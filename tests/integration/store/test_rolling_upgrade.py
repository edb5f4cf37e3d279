"""A chat that a worker of an older version began, in the middle of two messages, is taken over."""

import asyncio
import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from riverdelta import ChatView, Producer, Settings, Subscriber
from riverdelta.broker import turns
from riverdelta.broker.client import Client
from riverdelta.broker.dispatch.attach_jobs import request_owner
from riverdelta.broker.store import scripts
from riverdelta.broker.store.fields import OPENED_FORMAT, STORED_FORMAT
from riverdelta.broker.store.head import read_head
from riverdelta.broker.store.scripts import PushLimits
from riverdelta.broker.store.snapshot import read_snapshot
from riverdelta.broker.store.turn_scripts import TurnStart
from riverdelta.broker.turns import NewTurn, encode_start
from riverdelta.core.errors import FormatTooNew
from riverdelta.core.fold import ChatFold
from riverdelta.core.outgoing import NewEntry
from riverdelta.core.state import Entry
from riverdelta_cli.commands.inspect import inspect_chat
from riverdelta_cli.session import Interrupt
from riverdelta_workers.pipeline import build_pipeline
from tests.support.core.fold_tools import NOW_MS, fold, start, view_of
from tests.support.local_workers import local_workers
from tests.support.reading import read_until_ends
from tests.support.upgrade_story import AFTER, BEFORE, CHAT, MESSAGES, Step

RECORDINGS = Path(__file__).parents[2] / "recordings" / "stored"
NAMES = ("format-1", "format-1-redact")


def settings_for(settings: Settings, name: str) -> Settings:
    return settings.model_copy(update={"redact": name.endswith("redact")})


async def restore(client: Client, name: str) -> None:
    """Store what the older version's worker left, as if this server had always had it."""
    for line in (RECORDINGS / f"{name}.jsonl").read_text("utf-8").splitlines():
        command, key, *args = json.loads(line)
        key = client.keys.prefix + key.removeprefix("rd")
        await client.chats.execute(command, key, *args)
    server = (await client.chats.execute("INFO", "server")).decode()
    replication = (await client.chats.execute("INFO", "replication")).decode()
    identity = {}
    for line in f"{server}\r\n{replication}".split("\r\n"):
        field, _, value = line.partition(":")
        identity[field] = value
    head = client.keys.chat(CHAT).head
    await client.chats.execute(
        "HSET", head, "run_id", identity["run_id"], "replid", identity["master_replid"]
    )


async def push(client: Client, steps: list[Step]) -> None:
    """Go on as the producer that opened the messages."""
    keys = client.keys.chat(CHAT)
    stored = scripts.as_hash(await client.chats.execute("HGETALL", keys.producers))
    for message_id, kind, data in steps:
        (field,) = (name for name in stored if name.endswith(f":{message_id}"))
        number = int(stored[field]) + 1
        stored[field] = str(number).encode()
        reply = await scripts.push(
            client.chats,
            keys,
            producer=field.partition(":")[0],
            message_id=message_id,
            message_seq=number,
            entries=[NewEntry(kind, 10_000, orjson.dumps(data))],
            limits=PushLimits(10_000, 1 << 30),
        )
        assert reply.status == "stored"


def whole(settings: Settings) -> list[Any]:
    """What readers have where one worker of this version folds the whole story."""
    opened = dict.fromkeys(message_id for message_id, _, _ in BEFORE)
    steps: list[tuple[str, str, bytes]] = []
    for message_id, kind, data in [*BEFORE, *AFTER]:
        if message_id in opened:
            del opened[message_id]
            steps.append((message_id, *start("chunks")))
        steps.append((message_id, kind, orjson.dumps(data)))
    entries = [
        Entry(number, message_id, kind, 10 * number, data)
        for number, (message_id, kind, data) in enumerate(steps, start=1)
    ]
    return list(view_of(fold([[e] for e in entries], pipeline=build_pipeline(settings))).messages)


@pytest.mark.parametrize("name", NAMES)
async def test_replies_and_cards_of_an_older_worker_come_out_whole(
    name: str, settings: Settings, client: Client
) -> None:
    mine = settings_for(settings, name)
    await restore(client, name)
    keys = client.keys.chat(CHAT)
    at_takeover = await read_snapshot(client.chats, keys, CHAT, NOW_MS)
    half = {chunk["chunk"]: chunk for m in at_takeover.data["messages"] for chunk in m["chunks"]}
    assert list(half["open.3"]["outputs"]) == ["metric"]
    assert list(half["ended.0"]["outputs"]) == ["plan"]

    await push(client, AFTER)
    head = await read_head(client.chats, keys)
    assert head is not None
    async with Subscriber(mine) as subscriber, local_workers(mine):
        reader = asyncio.create_task(
            read_until_ends(subscriber, CHAT, ends=2, after=at_takeover.position)
        )
        await request_owner(client, CHAT, term=head.term)
        events = await reader
    assert (events[0].epoch, events[0].seq) == (head.epoch, head.seq + 1), "the log goes on"

    view = ChatView()
    for event in [at_takeover, *events]:
        view.apply(event)
    expected = whole(mine)
    assert view.messages == expected
    snapshot = await read_snapshot(client.chats, keys, CHAT, NOW_MS)
    assert snapshot.data["messages"] == expected
    assert {message["status"] for message in expected} == {"completed"}
    assert len(MESSAGES) == len(expected)


async def test_what_is_written_to_is_raised_to_the_new_format(
    settings: Settings, client: Client
) -> None:
    await restore(client, NAMES[0])
    keys = client.keys.chat(CHAT)

    async def fields(message_id: str, index: int) -> dict[str, bytes]:
        flat = await client.chats.execute("HGETALL", keys.chunk(message_id, index))
        return scripts.as_hash(flat)

    untouched = await fields("ended", 0)
    await push(client, AFTER)
    async with Subscriber(settings) as subscriber, local_workers(settings):
        await request_owner(client, CHAT, term=1)
        await read_until_ends(subscriber, CHAT, ends=3)
    assert await client.chats.execute("HGET", keys.head, "v") == str(STORED_FORMAT).encode()
    written = await fields("open", 3)
    assert written["v"] == str(STORED_FORMAT).encode()
    assert written["card_processor"] == b"metric"
    assert (await fields("ended", 0), untouched["card"]) == (untouched, b"plan")


@pytest.mark.parametrize("name", NAMES)
async def test_people_can_inspect_either_format(
    name: str, settings: Settings, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    await restore(client, name)
    interrupt = Interrupt()
    assert await inspect_chat(CHAT, settings=settings, as_json=True, interrupt=interrupt) == 0
    found = json.loads(capsys.readouterr().out)
    assert [message["message"] for message in found["messages"]] == list(MESSAGES)


async def test_a_claim_raises_the_format_and_never_lowers_it(client: Client) -> None:
    """A worker writes what its own version reads; one that is older must refuse the chat from then on."""
    keys = client.keys.chat("c")
    await scripts.open_message(
        client.chats, keys, producer="p", message_id="m", opener="o", start=start("text")[1]
    )

    async def stored() -> int:
        return int(await client.chats.execute("HGET", keys.head, "v"))

    assert await stored() == OPENED_FORMAT, "a worker of the format before may still take it"
    assert await scripts.claim(client.chats, keys, worker_id="w", term_seen=0, new_epoch="e")
    assert await stored() == STORED_FORMAT
    await client.chats.execute("HSET", keys.head, "v", STORED_FORMAT + 1)
    assert await scripts.claim(client.chats, keys, worker_id="w", term_seen=1, new_epoch="e")
    assert await stored() == STORED_FORMAT + 1
    with pytest.raises(FormatTooNew, match="upgrade"):
        await read_head(client.chats, keys)
    with pytest.raises(FormatTooNew, match="upgrade"):
        await read_snapshot(client.chats, keys, "c", NOW_MS)


async def test_a_worker_that_knows_no_adoption_writes_the_turn_as_its_start_says(
    settings: Settings, client: Client, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version before rejects the entry, and reads none of the fields that turns have more."""
    monkeypatch.delitem(ChatFold._CONTROLS, "adopt")
    data = encode_start(source="openai-chat", user="ann", metadata={}, replaces=())
    new = TurnStart("m", "ann", data, "queue", (), 600_000, 3, begins=True)
    assert (await turns.accept(client, NewTurn(CHAT, new))).status == "accepted"
    assert await client.chats.execute("HGET", client.keys.chat(CHAT).head, "v") == b"1"
    async with Subscriber(settings) as subscriber, local_workers(settings):
        await turns.attach(client, CHAT)
        async with producer.adopt(CHAT, "m", source="openai-chat", user="ann") as message:
            await message.push({"choices": [{"index": 0, "delta": {"content": "Hello"}}]})
        events = await read_until_ends(subscriber, CHAT)
    view = ChatView()
    for event in events:
        view.apply(event)
    assert (view.text("m"), view.messages[0]["status"]) == ("Hello", "completed")
    assert [event.data["code"] for event in events if event.type == "input.rejected"] == [
        "unknown_entry"
    ]
