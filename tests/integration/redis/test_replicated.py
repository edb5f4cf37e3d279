"""``durability="replicated"``: push returns when a replica has it, and never says so without one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ResponseError

from riverdelta import BrokerUnavailable, NotReplicated, Producer, Settings, Subscriber
from riverdelta.broker.client import Client
from riverdelta.broker.redis.replicated import ReplicatedExecutor, _ReplicatedLink
from riverdelta.broker.store import scripts
from riverdelta.broker.store.scripts import PushLimits
from riverdelta.core.outgoing import NewEntry
from tests.support.clusters import Node
from tests.support.local_workers import local_workers
from tests.support.reading import read_until_ends, view_of
from tests.support.servers import binaries, until

ENGINES = binaries()
TIMEOUT_S = 2.0


class Pair:
    """A primary and its replica."""

    def __init__(self, primary: Node, replica: Node) -> None:
        self.primary = primary
        self.replica = replica
        self.settings = Settings(
            redis_url=primary.url,
            durability="replicated",
            command_timeout_s=TIMEOUT_S,
            push_wait_s=0.2,
        )

    def waits(self) -> int:
        """WAITs that the primary has executed."""
        stats = self.primary.call("INFO", "commandstats").decode().splitlines()
        calls = [line.split("calls=")[1].split(",")[0] for line in stats if "cmdstat_wait:" in line]
        return int(calls[0]) if calls else 0


@pytest.fixture(params=list(ENGINES))
async def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Pair]:
    binary = ENGINES[request.param]
    if binary is None:
        pytest.skip("redis-server is not on PATH; .ci/run installs it")
    folder = tmp_path_factory.mktemp(f"pair-{request.param}")
    options = ("--repl-diskless-sync-delay", "0")
    with (
        Node(binary, folder / "primary", *options) as primary,
        Node(binary, folder / "replica", *options) as replica,
    ):
        replica.call("REPLICAOF", "127.0.0.1", primary.port)

        primary.call("SET", "k", "v")

        async def linked() -> bool:
            # The first acknowledgement after a sync comes within a second; commands wait for it.
            _, offset, replicas = primary.role()
            return [int(acknowledged) for _, _, acknowledged in replicas] == [offset]

        await until(linked)
        yield Pair(primary, replica)


async def test_a_push_waits_for_the_replica_and_the_next_call_settles_it(pair: Pair) -> None:
    local = pair.settings.model_copy(update={"durability": "local"})
    async with (
        local_workers(local),
        Producer(pair.settings) as producer,
        Producer(local) as careless,
        Subscriber(local) as subscriber,
        careless.message("other", source="text") as other,
    ):
        reading = asyncio.create_task(read_until_ends(subscriber, "c"))
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("one ")
            pair.replica.freeze()
            await other.push("does not wait")
            with pytest.raises(NotReplicated, match=r"no replica confirmed that within 1\.2 s"):
                await message.push("two ")
            pair.replica.thaw()
            await message.push("three")
        assert view_of(await reading).text("m") == "one two three"


async def test_without_any_replica_opening_says_so(pair: Pair) -> None:
    pair.replica.kill()
    async with Producer(pair.settings) as producer:
        with pytest.raises(NotReplicated, match="see that one runs, or use durability=local"):
            await producer.message("c", source="text").__aenter__()


async def test_a_repeat_is_confirmed_only_by_a_replica_that_has_it(pair: Pair) -> None:
    """A repeat that wrote nothing would be: WAIT looks at what its own connection wrote."""

    async def push(client: Client) -> str:
        reply = await scripts.push(
            client.pushes,
            client.keys.chat("c"),
            producer="p",
            message_id="m",
            message_seq=2,
            entries=[NewEntry("chunk", 0, b"one")],
            limits=PushLimits(10, 1000),
        )
        return reply.status

    async def open_message(client: Client) -> str:
        reply = await scripts.open_message(
            client.pushes,
            client.keys.chat("c"),
            producer="p",
            message_id="m",
            opener="o",
            start=b"{}",
        )
        return reply.status

    async with Client(pair.settings) as client:
        assert await open_message(client) == "stored"
        assert await push(client) == "stored"
    async with Client(pair.settings) as client:
        assert await push(client) == "repeat"
        assert await open_message(client) == "repeat"
    pair.replica.freeze()
    for repeat in (push, open_message):
        async with Client(pair.settings) as client:
            with pytest.raises(NotReplicated):
                await repeat(client)
    pair.replica.thaw()


async def test_pushes_of_many_messages_share_a_wait(pair: Pair) -> None:
    calm = pair.settings.model_copy(update={"command_timeout_s": 100.0, "push_wait_s": 5.0})
    async with Producer(calm) as producer, contextlib.AsyncExitStack() as stack:
        messages = [
            await stack.enter_async_context(producer.message(f"c{number}", source="text"))
            for number in range(50)
        ]
        before = pair.waits()
        for _ in range(4):
            await asyncio.gather(*(message.push("x") for message in messages))
        assert pair.waits() - before <= 8, "200 pushes"


async def test_an_error_does_not_wait_and_cancelled_callers_leave_the_others_alone(
    pair: Pair,
) -> None:
    patient = pair.settings.model_copy(update={"command_timeout_s": 100.0})
    async with Client(patient) as client:
        pair.replica.freeze()
        writes = [asyncio.create_task(client.pushes.execute("INCR", "n")) for _ in range(10)]
        await asyncio.sleep(0)
        with pytest.raises(ResponseError, match="unknown command"):
            await client.pushes.execute("NOSUCHCOMMAND")
        for write in writes[::2]:
            write.cancel()
        pair.replica.thaw()
        replies = await asyncio.gather(*writes, return_exceptions=True)
        assert replies[1::2] == [2, 4, 6, 8, 10]
        assert all(isinstance(reply, asyncio.CancelledError) for reply in replies[::2])


async def test_a_reply_that_came_just_before_the_connection_failed_is_in_doubt(pair: Pair) -> None:
    """Its caller must learn that: no WAIT can be sent for it any more."""
    executor = ReplicatedExecutor(pair.primary.url, 5.0)
    link = await executor.connected()
    assert isinstance(link, _ReplicatedLink)
    link._is_waiting = True  # as while the WAIT of those before it is under way
    confirmed = link.send(("INCR", "n"))
    assert await link._held[0].reply == 1
    link._wire.end("gone")
    link._wait()  # as when that WAIT was answered in the same moment
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(confirmed, 1.0)
    await executor.aclose()
