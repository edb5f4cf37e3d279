"""Holes that a hostile review found, on the side of workers and readers: each stays closed."""

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from riverdelta import BrokerUnavailable, Event, MessageLost, Producer, Settings, Subscriber
from riverdelta.broker.client import Client
from riverdelta.broker.producer.caretaker import Caretaker
from riverdelta.broker.redis.executor import Endpoint, Executor
from riverdelta.broker.store import scripts
from riverdelta_workers import jobs
from riverdelta_workers.loops import janitor, reaper
from riverdelta_workers.poison import CLAIMS_BEFORE_DEAD_LETTER
from riverdelta_workers.pump import Pump
from tests.support.local_workers import local_workers
from tests.support.producers import stand_still
from tests.support.reading import BEGINNING, read_until_ends, view_of
from tests.support.servers import Server, binaries, until

LEASE_S = 0.5
"""Short, so that what takes a lease takes a test half a second."""


@pytest.fixture
def forgetful_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one test that comes back with what it had at its last SAVE, if any."""
    with Server(str(binaries()["valkey"]), tmp_path_factory.mktemp("forgetful")) as running:
        yield running


@pytest.fixture
def settings(server: Server) -> Settings:
    return Settings(redis_url=server.url, key_prefix=f"t{secrets.token_hex(4)}", lease_s=LEASE_S)


def lose_first_reply(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """Let the first call of a script take effect, and lose its reply; the list grows by each reply."""
    script, replies = getattr(scripts, name), []

    async def call(*args: Any, **options: Any) -> Any:
        replies.append(await script(*args, **options))
        if len(replies) == 1:
            raise BrokerUnavailable("lost on the way back")
        return replies[-1]

    monkeypatch.setattr(scripts, name, call)
    return replies


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
        return fields.get("pushed") == fields.get("processed")

    await until(read)


async def until_beaten(client: Client, beats: int) -> None:
    """Wait until each listed worker's heart has beaten *beats* times more: time, as workers see it."""
    before = reaper._counters(await client.queue.execute("HGETALL", client.keys.workers))

    async def beaten() -> bool:
        now = reaper._counters(await client.queue.execute("HGETALL", client.keys.workers))
        return all(now[worker] >= counter + beats for worker, counter in before.items())

    await until(beaten)


def rejected(events: list[Event]) -> list[str]:
    return [event.data["code"] for event in events if event.type == "input.rejected"]


# -- claims and owners ---------------------------------------------------------------------------


async def test_a_chat_whose_claims_reply_was_lost_is_found_again(
    settings: Settings, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = lose_first_reply(monkeypatch, "claim")
    async with local_workers(settings, 2), Producer(settings) as producer:
        await say(producer, "x")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "x"
    assert len(claims) == 2


async def test_a_chat_whose_releases_reply_was_lost_has_an_owner_when_it_goes_on(
    settings: Settings, client: Client, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases = lose_first_reply(monkeypatch, "release")
    hasty = settings.model_copy(update={"idle_release_s": 0.0})
    async with local_workers(hasty) as (pump,), Producer(settings) as producer:
        await say(producer, "one")

        async def released() -> bool:
            return bool(releases)

        await until(released)
        async with producer.message("c", source="text", message_id="n") as message:
            await until_owned(client, pump)
            await message.push("two")
        events = await read_until_ends(subscriber, "c", ends=2)
    assert view_of(events).text("n") == "two"


async def test_a_claim_of_a_worker_that_is_declared_dead_meanwhile_is_made_up_for(
    settings: Settings, client: Client, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = scripts.claim
    workers: list[Pump] = []
    buried: list[str] = []

    async def claim(*args: Any, worker_id: str, **options: Any) -> Any:
        if buried:
            return await script(*args, worker_id=worker_id, **options)
        buried.append(worker_id)
        (pump,) = (pump for pump in workers if pump.worker_id == worker_id)
        counter = int(await client.queue.execute("HGET", client.keys.workers, worker_id))
        await scripts.bury(client.queue, client.keys, worker_id=worker_id, counter=counter)
        claimed = await script(*args, worker_id=worker_id, **options)
        await pump.start_anew()  # as its heartbeat does, before the claim's reply is looked at
        return claimed

    monkeypatch.setattr(scripts, "claim", claim)
    async with local_workers(settings, 2) as pumps, Producer(settings) as producer:
        workers += pumps
        await say(producer, "x")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "x"


async def test_workers_outlive_a_queue_that_came_back_empty(
    settings: Settings, forgetful_server: Server, client: Client, subscriber: Subscriber
) -> None:
    """It forgot who lives and who has what: all count as dead, and nobody lists their chats."""
    apart = settings.model_copy(update={"queue_url": forgetful_server.url})
    async with local_workers(apart, 2) as pumps, Producer(apart) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
            await until_idle(client)
            ids = {pump.worker_id for pump in pumps}
            forgetful_server.kill()
            forgetful_server.start()

            async def new() -> bool:
                return ids.isdisjoint(pump.worker_id for pump in pumps)

            await until(new)
            await message.push("y")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "xy"


async def test_nobody_is_declared_dead_because_the_chats_server_stands_still(
    own_server: Server, forgetful_server: Server
) -> None:
    """Hearts beat on the queue's server; the chats' one answers nobody for more than every lease."""
    settings = Settings(
        redis_url=own_server.url,
        queue_url=forgetful_server.url,
        lease_s=LEASE_S,
        producer_lease_s=1.5,
        idle_release_s=0.2,
    )
    async with (
        local_workers(settings, 2) as pumps,
        Client(settings) as client,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
            async with producer.message("idle", source="text") as other:
                await other.push("to be released while nobody answers")
            await until_idle(client)
            ids = [pump.worker_id for pump in pumps]
            producers = client.keys.producers
            beats = int(await client.queue.execute("HGET", producers, producer.id))
            own_server.freeze()

            async def beaten() -> bool:
                now = await client.queue.execute("HGET", producers, producer.id)
                return int(now or 0) >= beats + 3  # a second apart

            await until(beaten)
            await until_beaten(client, 5)
            own_server.thaw()
            await message.push("y")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "xy"
        assert [pump.worker_id for pump in pumps] == ids


# -- what counts as a killer ---------------------------------------------------------------------


async def test_rolling_restarts_with_something_unread_kill_nothing(
    settings: Settings, client: Client, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis takes no commits, and one worker after the other is told to end."""
    commit = scripts.commit

    async def refused(*_: Any) -> int:
        raise BrokerUnavailable("no commits today")

    async with Producer(settings) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            async with local_workers(settings):
                await message.push("before ")
                await until_idle(client)
            await message.push("innocent")
            monkeypatch.setattr(scripts, "commit", refused)
            for _ in range(CLAIMS_BEFORE_DEAD_LETTER + 1):
                async with local_workers(settings) as (pump,):
                    await until_owned(client, pump)
            monkeypatch.setattr(scripts, "commit", commit)
        async with local_workers(settings):
            events = await read_until_ends(subscriber, "c", after=BEGINNING)
    assert (view_of(events).text("m"), rejected(events)) == ("before innocent", [])


async def test_workers_that_die_with_a_quiet_chat_do_not_count(
    settings: Settings, client: Client, subscriber: Subscriber
) -> None:
    keys = client.keys.chat("c")
    async with Producer(settings) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            async with local_workers(settings):
                await message.push("before ")
                await until_idle(client)
            for _ in range(CLAIMS_BEFORE_DEAD_LETTER + 1):
                term = int((await head(client))["term"])
                await scripts.claim(
                    client.chats, keys, worker_id="dead", term_seen=term, new_epoch="e"
                )
            await message.push("innocent")
        async with local_workers(settings):
            events = await read_until_ends(subscriber, "c", after=BEGINNING)
    assert (view_of(events).text("m"), rejected(events)) == ("before innocent", [])


async def test_a_chat_of_the_future_is_passed_on_and_left_whole(
    settings: Settings, client: Client, subscriber: Subscriber
) -> None:
    """Old workers pass it on until an upgraded one comes; those claims killed nobody."""
    key = client.keys.chat("c").head
    async with Producer(settings) as producer:
        await say(producer, "innocent")
        await client.chats.execute("HSET", key, "v", "99")
        async with local_workers(settings, 2) as pumps:

            async def tried() -> bool:
                return sum(pump.attached for pump in pumps) > CLAIMS_BEFORE_DEAD_LETTER

            await until(tried)
        await client.chats.execute("HSET", key, "v", "1")
        async with local_workers(settings):
            events = await read_until_ends(subscriber, "c", after=BEGINNING)
    assert (view_of(events).text("m"), rejected(events)) == ("innocent", [])


# -- background loops ----------------------------------------------------------------------------


async def test_a_server_that_loads_its_data_ends_no_loop(
    own_server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOADING is an error reply that stands for no connection: it must not become a result."""
    monkeypatch.setattr(Caretaker, "every_s", 0.1)
    settings = Settings(redis_url=own_server.url, lease_s=LEASE_S)
    async with (
        local_workers(settings),
        Client(settings) as client,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
            # Redis answers between 1,024 commands of the AOF, and is to do so a few times.
            fill = "for i = 1, 12000 do redis.call('SET', 'filler:' .. i, 'x') end"
            await client.chats.execute("EVAL", fill, 0)
            loops = [t for t in asyncio.all_tasks() if t.get_name() in LOOPS]
            own_server.kill()
            own_server._command += ["--key-load-delay", "50"]  # µs for each
            starting = asyncio.create_task(asyncio.to_thread(own_server.start))
            await message.push("y")
            await starting
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "xy"
        assert sorted(loop.get_name() for loop in loops) == LOOPS
        assert [loop for loop in loops if loop.done()] == []
    warnings = [r.getMessage() for r in caplog.records if "loading the dataset" in r.getMessage()]
    for who in ("heartbeat", "reaper", "producer"):
        assert any(warning.startswith(who) for warning in warnings), f"{who} never met it"


BEATING = ["heartbeat", "janitor", "producer-beat", "producer-care", "pubsub", "pubsub", "reaper"]
LOOPS = [f"riverdelta-{name}" for name in BEATING]


async def test_one_chat_that_cannot_be_read_does_not_keep_the_reaper_from_the_others(
    settings: Settings, client: Client, subscriber: Subscriber
) -> None:
    await client.chats.execute("SET", client.keys.chat("bad").head, "not a hash")
    await client.queue.execute("ZADD", client.keys.waiting, 0, "bad")
    await client.queue.execute("HSET", client.keys.workers, "dead", 1)
    await client.queue.execute("SADD", client.keys.worker_chats("dead"), "bad")
    hasty = settings.model_copy(update={"producer_lease_s": LEASE_S})
    async with Producer(settings) as producer:
        await producer.message("c", source="text", message_id="m").__aenter__()
        await stand_still(producer)  # dies
        async with local_workers(hasty):
            events = await read_until_ends(subscriber, "c")
    error = view_of(events).messages[0]["error"]
    assert error is not None
    assert error["code"] == "producer_lost"


@pytest.mark.parametrize(
    "junk", [b"hello", b"\xff\n", b"7\nm chunk", b"7\n\xff chunk 0 1\nx", b"1"]
)
async def test_junk_on_a_wake_channel_is_a_reason_to_read_the_stream(
    junk: bytes, settings: Settings, client: Client, subscriber: Subscriber
) -> None:
    async with local_workers(settings) as (pump,), Producer(settings) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            await until_owned(client, pump)
            await client.chats.execute("SPUBLISH", client.keys.chat("c").wake, junk)
            await message.push("x")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "x"


async def test_full_workers_do_not_fill_the_queue_and_never_take_too_many(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, slots, held = 5, 2, []
    monkeypatch.setattr(janitor, "_PERIOD_S", 0.05)
    monkeypatch.setattr(jobs, "_MAX_JOBS", slots)  # a full worker holds as many, and arq lists them
    update_room = Pump._update_room

    def note(pump: Pump) -> None:
        held.append(len(pump._chats) + len(pump._attaching))
        update_room(pump)

    monkeypatch.setattr(Pump, "_update_room", note)
    tight = settings.model_copy(update={"max_chats": 1, "idle_release_s": 0.0})
    async with local_workers(tight) as (pump,), Producer(settings) as producer:
        messages = {f"c{i}": producer.message(f"c{i}", source="text") for i in range(count)}
        for message in messages.values():
            await message.__aenter__()
        await until_beaten(client, 16)  # four leases
        assert await client.queue.execute("ZCARD", client.keys.queue) <= count - 1 + slots
        for _ in range(2):
            (owned,) = pump.chats
            await messages.pop(owned).end()

            async def other(before: str = owned) -> bool:
                return pump.chats not in ([], [before])

            await until(other)
        for message in messages.values():
            await message.end()

        async def done() -> bool:
            return not await client.queue.execute("EXISTS", client.keys.waiting, client.keys.queue)

        await until(done)
    assert max(held) == 1


# -- servers that come back with less ------------------------------------------------------------


async def test_positions_of_what_the_server_lost_are_never_used_again(
    forgetful_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit was published and its reply lost; then the server fell back to the version before it."""
    settings = Settings(redis_url=forgetful_server.url, resend_bytes=0)
    script = scripts.commit
    fallen: list[Event] = []
    async with (
        local_workers(settings),
        Client(settings) as client,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        message = await producer.message("c", source="text", message_id="m").__aenter__()
        await message.push("kept")
        await until_idle(client)
        await client.chats.execute("SAVE")
        stream = subscriber.events("c")
        assert view_of([await anext(stream)]).text("m") == "kept"

        async def commit(*args: Any) -> Any:
            reply = await script(*args)
            if not fallen:
                fallen.append(await anext(stream))
                forgetful_server.kill()
                forgetful_server.start()
                raise BrokerUnavailable("lost on the way back")
            return reply

        monkeypatch.setattr(scripts, "commit", commit)
        await message.push("LOST")

        async def fell() -> bool:
            return bool(fallen)

        await until(fell)
        await stream.aclose()
        async with Producer(settings) as another:
            await say(another, "hello", "n")
        await read_until_ends(subscriber, "c")
        resumed = await anext(subscriber.events("c", after=fallen[0].position))
        assert fallen[0].data["text"] == "LOST"
        assert (resumed.type, view_of([resumed]).text("n")) == ("snapshot", "hello")
        with pytest.raises(MessageLost):
            await message.end()


# -- connections and readers ---------------------------------------------------------------------


async def test_all_who_need_a_connection_share_one_attempt_and_its_failure(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts, connect = [], Endpoint.connect

    async def counted(endpoint: Endpoint) -> Any:
        attempts.append(endpoint)
        return await connect(endpoint)

    monkeypatch.setattr(Endpoint, "connect", counted)
    executor = Executor(own_server.url, 0.2)
    own_server.freeze()
    results = await asyncio.gather(
        *(executor.execute("PING") for _ in range(30)), return_exceptions=True
    )
    assert {type(result) for result in results} == {BrokerUnavailable}
    assert len(attempts) == 1
    own_server.thaw()
    assert await executor.execute("PING") == b"PONG"
    await executor.aclose()


async def test_closing_while_it_connects_leaves_no_connection(own_server: Server) -> None:
    executor = Executor(own_server.url, 2.0)
    own_server.freeze()
    asking = asyncio.create_task(executor.execute("PING"))
    await asyncio.sleep(0)  # it asks, and the attempt begins
    assert executor._connecting is not None
    await executor.aclose()
    with pytest.raises(BrokerUnavailable, match="closed"):
        await asking
    own_server.thaw()
    assert executor.run_id is None


async def test_a_reader_is_not_cancelled_by_another_ones_time_out(own_server: Server) -> None:
    settings = Settings(redis_url=own_server.url, command_timeout_s=0.4)
    async with Subscriber(settings) as subscriber:

        async def read(after_s: float) -> None:
            await asyncio.sleep(after_s)
            await anext(subscriber.events("c"))

        own_server.freeze()
        results = await asyncio.gather(read(0.0), read(0.2), return_exceptions=True)
        own_server.thaw()
    assert [type(result) for result in results] == [BrokerUnavailable] * 2


async def test_open_iterators_end_when_their_subscriber_is_closed(settings: Settings) -> None:
    async with Subscriber(settings) as subscriber:
        streams = [subscriber.events("c") for _ in range(3)]
        for stream in streams:
            assert (await anext(stream)).type == "snapshot"
        waiting = asyncio.gather(*(anext(stream) for stream in streams), return_exceptions=True)
    async with asyncio.timeout(3):
        results = await waiting
    assert [type(result) for result in results] == [BrokerUnavailable] * 3
