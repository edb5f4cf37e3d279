"""A provider call that is made again, through Redis: over any take-over, beside stops and ends."""

import itertools
import signal

import pytest

from riverdelta import MessageEnded, Producer, Settings, Stopped, Subscriber
from riverdelta.broker.client import Client
from riverdelta.broker.store.snapshot import read_snapshot
from riverdelta.core.events import SnapshotChunk
from riverdelta_workers.pipeline import build_pipeline
from tests.support.core.fold_tools import ARGUMENTS, chunk, control, start
from tests.support.core.restart_tools import AGAIN, BEGIN, RESULT, STOP, Steps, call, restart, texts
from tests.support.core.secrets_tools import SECRET, TEXT
from tests.support.local_workers import local_workers
from tests.support.owner import Owner
from tests.support.reading import BEGINNING, read_until_ends, view_of
from tests.support.servers import until, worker_processes

STORY = "".join(f"Line {n} of a story that goes on. " for n in range(40))


async def test_a_retry_over_workers_that_are_killed_in_the_middle_of_it(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    """Each worker dies while it holds text back; no reader gets a character twice."""
    keys = client.keys.chat("c")

    async def all_processed() -> bool:
        pushed, processed = await client.chats.execute("HMGET", keys.head, "pushed", "processed")
        return bool(pushed == processed)

    async with worker_processes(settings, 1) as workers:
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push(STORY[:700])
            await message.restart()
            for at in (0, 300):
                await message.push(STORY[at : at + 300])
                await until(all_processed)
                owner = workers.processes[-1]
                await workers.start(1)
                owner.send_signal(signal.SIGKILL)
            await message.push(STORY[600:])
        events = await read_until_ends(subscriber, "c", after=BEGINNING)
    assert view_of(events).text("m") == STORY
    assert "".join(event.data["text"] for event in events if event.type == "chunk.delta") == STORY
    assert "chunk.reset" not in [event.type for event in events]
    assert view_of(events).messages == (await subscriber.snapshot("c")).data["messages"]


async def test_rules_ends_and_stops(settings: Settings) -> None:
    async with (
        local_workers(settings),
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        async with producer.message("c", source="text", message_id="m") as message:
            with pytest.raises(ValueError, match="'guess' is unknown: use one of stitch, append"):
                await message.restart("guess")  # type: ignore[arg-type]  # what is tested
            await message.push("Hello, dear")
            await message.restart()
            await message.push("Hello, ")
            await message.end()
            with pytest.raises(MessageEnded):
                await message.restart()
        stopped = producer.message("c", source="text", message_id="n")
        async with stopped:
            await stopped.push("Hello, dear")
            await stopped.restart("stitch")
            await subscriber.stop("c", "n", reason="enough")
            with pytest.raises(Stopped):
                while True:
                    await stopped.restart()
        view = view_of(await read_until_ends(subscriber, "c", ends=2, after=BEGINNING))
    assert (view.text("m"), view.text("n")) == ("Hello, ", "Hello, dear")
    assert view.message("n")["status"] == "stopped"


@pytest.mark.parametrize("rule", ["stitch", "append", "reset"])
async def test_one_batch_leaves_what_many_do(rule: str, client: Client) -> None:
    """A card that a result completed, and that is void by the end of the same batch."""
    owner = Owner(client, "c")
    other = ARGUMENTS.replace("sales", "costs")
    result = control("tool_result", tool_call_id="old", content=RESULT)
    steps = [start("anthropic"), BEGIN, *call(0, "old", ARGUMENTS), result, restart(rule)]
    steps += [AGAIN, *call(0, "new", other), *STOP, control("end")]
    entries = await owner.push(steps)
    await owner.claim()
    events = await owner.commit(await owner.load(), entries)
    snapshot = await read_snapshot(client.chats, owner.keys, "c", 0)
    assert snapshot.data["messages"] == view_of(events).messages
    outputs = [chunk["outputs"] for chunk in view_of(events).messages[0]["chunks"]]
    assert [bool(output) for output in outputs] == [rule == "append", False, True]


async def shown_over_take_overs(client: Client, chat_id: str, steps: Steps) -> list[SnapshotChunk]:
    """Fold *steps* with redact, a new owner at each; the chunks readers have, none sent twice."""
    pipeline = build_pipeline(client.settings.model_copy(update={"redact": True}))
    owner = Owner(client, chat_id, pipeline)
    entries = await owner.push(steps)
    await owner.claim()
    events = []
    for entry in entries:
        hot = await owner.load()
        events += await owner.commit(hot, [entry])
    assert not any(event.type == "chunk.reset" for event in events)
    added = [event.data["text"] for event in events if event.type == "chunk.delta"]
    (message,) = view_of(events).messages
    assert sum(map(len, added)) == sum(len(chunk["text"]) for chunk in message["chunks"])
    assert not any(SECRET in chunk["text"] for chunk in message["chunks"])
    return message["chunks"]


@pytest.mark.parametrize("source", ["text", "text-snapshot"])
@pytest.mark.parametrize("cut", [10, 22, 30, 50, len(TEXT)])
async def test_with_redact_a_new_owner_at_every_entry_repeats_nothing(
    source: str, cut: int, client: Client
) -> None:
    def said(text: str) -> Steps:
        pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
        return texts(*(itertools.accumulate(pieces) if source == "text-snapshot" else pieces))

    begin, end = start(source), control("end")
    plain = await shown_over_take_overs(client, "plain", [begin, *said(TEXT), end])
    retried = [begin, *said(TEXT[:cut]), restart(), *said(TEXT), end]
    assert await shown_over_take_overs(client, "again", retried) == plain


@pytest.mark.parametrize("mode", ["append", "snapshot"])
async def test_with_redact_so_does_a_chunk_that_had_ended(mode: str, client: Client) -> None:
    """Source `chunks`: only there texts so far have an end before their step has."""
    pieces = [TEXT[at : at + 7] for at in range(0, len(TEXT), 7)]
    if mode == "snapshot":
        pieces = list(itertools.accumulate(pieces))
    said = [chunk({"chunk": "a", "mode": mode, "text": piece}) for piece in pieces]
    done = [*said, chunk({"chunk": "a", "done": True})]
    plain = [start("chunks"), *done, control("end")]
    retried = [start("chunks"), *done, restart(), *done, control("end")]
    shown = await shown_over_take_overs(client, "plain", plain)
    assert await shown_over_take_overs(client, "again", retried) == shown
