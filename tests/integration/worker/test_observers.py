"""Observers: their calls while a message streams and after its end, whatever dies."""

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from riverdelta import (
    EndedMessage,
    Event,
    Observer,
    Pipeline,
    Producer,
    Settings,
    Stopped,
    Subscriber,
)
from riverdelta.broker.client import Client
from riverdelta.broker.store import scripts
from riverdelta_workers.pump import Pump
from tests.support.core.fold_tools import start
from tests.support.local_workers import local_workers
from tests.support.reading import BEGINNING, converse, read_until_ends, view_of
from tests.support.servers import DEADLINE_S, until, worker_processes

CALLS: dict[str, list[tuple[str, str, EndedMessage | Event]]] = defaultdict(list)
"""By key prefix, which each test has of its own: hook, message, and what it was given."""

FILE = "RD_TEST_CALLS"
"""Where an observer in a process of its own writes its calls."""
DIES = "RD_TEST_DIES"


class Recorder(Observer):
    """Remembers every call."""

    def __init__(self, prefix: str) -> None:
        self.received = CALLS[prefix]

    async def on_first_bytes(self, event: Event) -> None:
        self.received.append(("first", event.message or "", event))

    async def on_chunk(self, event: Event) -> None:
        self.received.append(("chunk", event.message or "", event))

    async def on_complete(self, ended: EndedMessage) -> None:
        self.received.append(("complete", ended.message_id, ended))

    async def on_error(self, ended: EndedMessage) -> None:
        self.received.append(("error", ended.message_id, ended))


def recording(settings: Settings) -> Pipeline:
    return Pipeline(observers=[Recorder(settings.key_prefix)])


def observed(settings: Settings, build: str, **changes: float) -> Settings:
    return settings.model_copy(update={"pipeline": f"{__name__}:{build}"} | changes)


def ends_of(prefix: str) -> list[tuple[str, str]]:
    return [(hook, mid) for hook, mid, _ in CALLS[prefix] if hook in ("complete", "error")]


async def outbox_of(client: Client, chat_id: str) -> dict[str, dict[str, object]]:
    flat = await client.chats.execute("HGETALL", client.keys.chat(chat_id).outbox)
    return {field: orjson.loads(value) for field, value in scripts.as_hash(flat).items()}


async def emptied(client: Client, chat_id: str) -> None:
    async def empty() -> bool:
        return not await outbox_of(client, chat_id)

    await until(empty)


async def say(producer: Producer, chat_id: str, *texts: str, message_id: str = "m") -> None:
    async with producer.message(chat_id, source="text", message_id=message_id) as message:
        for text in texts:
            await message.push(text)


async def open_of_a_dead_producer(client: Client, chat_id: str, message_id: str) -> None:
    """Leave behind what a producer that was killed leaves behind."""
    keys, queue = client.keys, client.queue
    await queue.execute("HSET", keys.producers, "dead", "1")
    await queue.execute("SADD", keys.producer_messages("dead"), f"{chat_id} {message_id}")
    await scripts.open_message(
        client.chats,
        keys.chat(chat_id),
        producer="dead",
        message_id=message_id,
        opener="o",
        start=start("text", producer="dead")[1],
    )


async def end_in_every_way(producer: Producer, subscriber: Subscriber, client: Client) -> None:
    await say(producer, "c", "one ", "two", message_id="completed")
    with contextlib.suppress(ZeroDivisionError):
        async with producer.message("c", source="text", message_id="failed") as message:
            await message.push("half a w")
            raise ZeroDivisionError
    with contextlib.suppress(Stopped):
        async with producer.message("c", source="text", message_id="stopped") as message:
            await message.push("enough")
            await subscriber.stop("c", "stopped", reason="a reader had enough")
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    await message.push("?")
    await open_of_a_dead_producer(client, "c", "lost")


async def test_hooks_are_called_in_order_and_one_of_the_last_two(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    ways = {"completed": "complete", "failed": "error", "stopped": "complete", "lost": "error"}
    async with local_workers(observed(settings, "recording", producer_lease_s=1.0)):
        await end_in_every_way(producer, subscriber, client)
        events = await read_until_ends(subscriber, "c", ends=4, after=BEGINNING)
        await emptied(client, "c")
    received = CALLS[settings.key_prefix]
    snapshot = await subscriber.snapshot("c")
    for mid, way in ways.items():
        calls = [(hook, what) for hook, message_id, what in received if message_id == mid]
        chunks = [event for event in events if event.message == mid and event.chunk]
        delta = next((i for i, event in enumerate(chunks) if event.type == "chunk.delta"), None)
        expected = [("chunk", event.raw) for event in chunks]
        if delta is not None:
            expected.insert(delta, ("first", chunks[delta].raw))
        live, (hook, ended) = calls[:-1], calls[-1]
        assert [(name, what.raw) for name, what in live if isinstance(what, Event)] == expected
        assert (hook, len(live)) == (way, len(expected)), mid
        assert isinstance(ended, EndedMessage)
        (end,) = (event for event in events if event.message == mid and event.ends_message)
        assert orjson.loads(ended.end.raw) == orjson.loads(end.raw)
        assert (ended.chat_id, ended.attempt, ended.status) == ("c", 1, end.type.partition(".")[2])
        assert [ended.message] == [m for m in snapshot.data["messages"] if m["message"] == mid]
    reasons = {mid: what.end.data for _, mid, what in received if isinstance(what, EndedMessage)}
    assert reasons["lost"]["code"] == "producer_lost"
    assert reasons["stopped"]["reason"] == "a reader had enough"


class Mortal(Observer):
    """In a process of its own: may be killed after the end's commit, and before the hook."""

    def __init__(self) -> None:
        self._file, self._dies = Path(os.environ[FILE]), DIES in os.environ

    def _write(self, hook: str, **what: object) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps({"hook": hook} | what) + "\n")

    async def on_chunk(self, event: Event) -> None:
        if self._dies and event.type == "chunk.completed":
            self._write("dying")
            os.kill(os.getpid(), signal.SIGKILL)

    async def on_complete(self, ended: EndedMessage) -> None:
        text = ended.message["chunks"][0]["text"]
        self._write("complete", attempt=ended.attempt, text=text, end=ended.end.type)

    async def on_error(self, ended: EndedMessage) -> None:
        self._write("error", attempt=ended.attempt)


def mortal(_: Settings) -> Pipeline:
    return Pipeline(observers=[Mortal()])


async def test_a_worker_killed_between_the_end_and_the_hook_leaves_it_to_another(
    settings: Settings,
    producer: Producer,
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message has ended, so nothing but its outbox brings the chat another owner."""
    file = tmp_path / "received"
    monkeypatch.setenv(FILE, str(file))
    monkeypatch.setenv(DIES, "1")
    own = observed(settings, "mortal")
    async with worker_processes(own, 1) as workers:
        monkeypatch.delenv(DIES)
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("to the ")
            await message.push("end")
        assert await asyncio.to_thread(workers.processes[0].wait, DEADLINE_S) == -signal.SIGKILL
        head = scripts.as_hash(await client.chats.execute("HGETALL", client.keys.chat("c").head))
        assert (head["open"], head["pushed"]) == (b"", head["processed"]), "the end was committed"
        assert (await outbox_of(client, "c"))["m Mortal"]["tries"] == 1
        await workers.start(1)
        await emptied(client, "c")
        workers.processes.pop(0)
    end = {"text": "to the end", "end": "message.completed"}
    received = [json.loads(line) for line in file.read_text().splitlines()]
    assert received == [{"hook": "dying"}, {"hook": "complete", "attempt": 2} | end]


class Careless(Observer):
    """Hangs or raises, as the chat's name says."""

    async def on_chunk(self, event: Event) -> None:
        if event.chat.startswith("hangs"):
            await asyncio.Event().wait()
        if event.chat.startswith("raises"):
            raise ZeroDivisionError


def careless(settings: Settings) -> Pipeline:
    return Pipeline(observers=[Careless(), Recorder(settings.key_prefix)])


async def test_an_observer_that_hangs_or_raises_slows_no_other_chat_and_its_own_once(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    texts = [f"{number} " for number in range(100)]
    async with local_workers(observed(settings, "careless", observer_timeout_s=0.7)) as (pump,):
        async with contextlib.AsyncExitStack() as stack:
            for chat in ("hangs", "hangs-too", "raises"):
                opening = producer.message(chat, source="text", message_id="m")
                message = await stack.enter_async_context(opening)
                await message.push_many(texts)
            await converse(producer, subscriber, "well")
        for chat in ("hangs", "hangs-too", "raises"):
            events = await read_until_ends(subscriber, chat, after=BEGINNING)
            assert view_of(events).text("m") == "".join(texts)
            await emptied(client, chat)
        assert pump.observers.live_failures == 3, "silenced for the message after the first"
    chunks = [what for hook, _, what in CALLS[settings.key_prefix] if hook == "chunk"]
    assert {event.chat for event in chunks if isinstance(event, Event)} >= {"hangs", "raises"}
    assert len(ends_of(settings.key_prefix)) == 4


class Flaky(Observer):
    """Fails as often as the chat's name says."""

    def __init__(self) -> None:
        self.attempts: dict[str, list[int]] = defaultdict(list)

    async def on_complete(self, ended: EndedMessage) -> None:
        self.attempts[ended.chat_id].append(ended.attempt)
        if ended.attempt <= int(ended.chat_id.removeprefix("fails-")):
            raise ConnectionError("the archive is away")


FLAKY: dict[str, Flaky] = {}


def flaky(settings: Settings) -> Pipeline:
    FLAKY[settings.key_prefix] = Flaky()
    return Pipeline(observers=[FLAKY[settings.key_prefix], Recorder(settings.key_prefix)])


@contextlib.asynccontextmanager
async def flaky_worker(settings: Settings) -> AsyncIterator[Pump]:
    own = observed(settings, "flaky", observer_tries=4, observer_pause_s=0.02, idle_release_s=0.0)
    async with local_workers(own) as (pump,):
        yield pump


async def test_a_hook_that_fails_is_called_again_and_no_other_hook_is(
    settings: Settings, producer: Producer, client: Client
) -> None:
    async with flaky_worker(settings) as pump:
        await say(producer, "fails-3", "x")
        await released(client, "fails-3")
        assert (pump.observers.outbox.failures, pump.observers.outbox.given_up) == (3, 0)
    assert FLAKY[settings.key_prefix].attempts["fails-3"] == [1, 2, 3, 4]
    assert ends_of(settings.key_prefix) == [("complete", "m")]
    assert await client.chats.execute("HKEYS", client.keys.chat("fails-3").outbox) == []


async def test_a_hook_that_always_fails_is_given_up_and_says_so(
    settings: Settings, producer: Producer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    chat = "fails-99"
    async with flaky_worker(settings) as pump:
        await say(producer, chat, "x")
        await released(client, chat)
        assert pump.observers.outbox.given_up == 1
    assert FLAKY[settings.key_prefix].attempts[chat] == [1, 2, 3, 4]
    stored_error = await client.chats.execute(
        "HGET", client.keys.chat(chat).message("m"), "gave_up.Flaky"
    )
    said = "4 tries, the last one: ConnectionError: the archive is away"
    assert stored_error.decode() == said
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert errors == [f"chat {chat}: end of message m for observer Flaky failed for good: {said}"]


async def released(client: Client, chat_id: str) -> None:
    head = client.keys.chat(chat_id).head

    async def given_up() -> bool:
        owner, processed = await client.chats.execute("HMGET", head, "owner", "processed")
        return processed not in (None, b"0") and owner == b""

    await until(given_up)


class Patient(Observer):
    """Waits until it is let go on; counts how often it was called."""

    def __init__(self) -> None:
        self.calls = 0
        self.go_on = asyncio.Event()

    async def on_complete(self, ended: EndedMessage) -> None:
        self.calls += 1
        await self.go_on.wait()


PATIENT: dict[str, Patient] = {}


def patient(settings: Settings) -> Pipeline:
    PATIENT[settings.key_prefix] = Patient()
    return Pipeline(observers=[PATIENT[settings.key_prefix]])


async def called(settings: Settings) -> Patient:
    async def once() -> bool:
        return PATIENT[settings.key_prefix].calls == 1

    await until(once)
    return PATIENT[settings.key_prefix]


async def test_a_chat_is_neither_released_nor_expires_before_its_outbox_is_empty(
    settings: Settings, producer: Producer, client: Client
) -> None:
    keys = client.keys.chat("c")
    own = observed(settings, "patient", idle_release_s=0.0)
    async with local_workers(own) as (pump,):
        await say(producer, "c", "x")
        observer = await called(settings)
        (attachment,) = pump._chats.values()
        attachment.idle_since = 0.0
        await pump.release_idle()
        # What memory forgets, the script knows.
        answer = await scripts.release(
            client.chats, keys, [], term=attachment.term, retention_ms=60_000, trim=True
        )
        assert answer == "busy"
        assert await client.chats.execute("HGET", keys.head, "owner") == pump.worker_id.encode()
        assert await client.chats.execute("PTTL", keys.outbox) == -1
        assert list(await outbox_of(client, "c")) == ["m Patient"]
        observer.go_on.set()
        await released(client, "c")
        assert observer.calls == 1
    assert await client.chats.execute("EXISTS", keys.outbox) == 0
    assert await client.chats.execute("PTTL", keys.head) > 0


async def test_a_hook_under_way_does_not_hold_up_the_hand_over_and_is_called_again(
    settings: Settings, producer: Producer, client: Client
) -> None:
    async with local_workers(observed(settings, "patient")):
        await say(producer, "c", "x")
        first = await called(settings)
    async with local_workers(observed(settings, "patient")):
        second = await called(settings)
        assert second is not first
        assert (await outbox_of(client, "c"))["m Patient"]["tries"] == 2
        second.go_on.set()
        await emptied(client, "c")


async def test_a_hook_that_is_nearly_done_comes_through_before_the_hand_over(
    settings: Settings, producer: Producer, client: Client
) -> None:
    async with local_workers(observed(settings, "patient")):
        await say(producer, "c", "x")
        observer = await called(settings)
        asyncio.get_running_loop().call_later(0.05, observer.go_on.set)
    assert await outbox_of(client, "c") == {}
    assert observer.calls == 1


async def test_a_live_hook_does_not_hold_up_the_hand_over(
    settings: Settings, producer: Producer, client: Client
) -> None:
    async with local_workers(observed(settings, "careless", observer_timeout_s=3_600.0)) as (pump,):
        async with producer.message("hangs", source="text", message_id="m") as message:
            await message.push("x")

            async def hanging() -> bool:
                return any(a.observer_calls and a.observer_calls.live for a in pump._chats.values())

            await until(hanging)
    async with local_workers(observed(settings, "recording")):

        async def ended() -> bool:
            return ends_of(settings.key_prefix) == [("complete", "m")]

        await until(ended)


@pytest.mark.parametrize("build", [None, "recording"])
async def test_without_observers_nothing_is_written_or_asked_for_them(
    settings: Settings,
    producer: Producer,
    client: Client,
    build: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one, there are two scripts more for each message: read it, and remove the call."""
    own = settings if build is None else observed(settings, build)
    async with local_workers(own) as (pump,):
        sent: list[tuple[object, ...]] = []
        real = pump.client.chats.execute

        async def execute(*command: object) -> object:
            if any("{c}" in str(part) for part in command):
                sent.append(command)
            return await real(*command)  # type: ignore[arg-type]  # passed on as it came

        async def all_done() -> bool:
            left = [a for a in pump._chats.values() if not (a.task or a.has_work or a.owes)]
            head = client.keys.chat("c").head
            pushed, processed = await client.chats.execute("HMGET", head, "pushed", "processed")
            return len(left) == 1 and bool(pushed == processed)

        await say(producer, "c", "before", message_id="before")
        await until(all_done)
        monkeypatch.setattr(pump.client.chats, "execute", execute)
        await say(producer, "c", "x")
        await until(all_done)
        monkeypatch.undo()
    commits = [c for c in sent if c[:2] == ("EVALSHA", scripts._commit._sha)]
    others = [c for c in sent if c not in commits and c[0] == "EVALSHA"]
    assert commits
    if build is None:
        assert {command[0] for command in sent if command not in commits} <= {"XREAD"}
        assert not any("outbox" in str(part) for command in sent for part in command)
    else:
        assert len(others) == 2
        assert ends_of(settings.key_prefix) == [("complete", "before"), ("complete", "m")]
