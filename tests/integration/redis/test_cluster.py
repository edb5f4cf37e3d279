"""Chats on a real cluster: primaries that die, stand still, swap roles or give slots away."""

import asyncio
import contextlib
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from riverdelta import BrokerUnavailable, Producer, Settings, SettingsError, Subscriber
from riverdelta.broker.client import Client
from riverdelta.broker.redis.cluster import slot_of
from tests.support.clusters import PRIMARIES, TestCluster
from tests.support.local_workers import local_workers
from tests.support.marks import PRODUCER_LEASE_S
from tests.support.producers import registry_of
from tests.support.replies import streaming
from tests.support.servers import Server, binaries, until, worker_processes
from tests.support.shell import Shell, one_line

ENGINES = binaries()
ONE_ENGINE = pytest.mark.parametrize("running", ["valkey"], indirect=True)
"""For what does not depend on the engine."""
MESSAGES = 50


@pytest.fixture(scope="module", params=list(ENGINES))
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestCluster, Server]]:
    """A cluster for the chats and a server for the queue."""
    binary = ENGINES[request.param]
    if binary is None:
        pytest.skip("redis-server is not on PATH; .ci/run installs it")
    folder: Path = tmp_path_factory.mktemp(f"cluster-{request.param}")
    cluster = TestCluster(binary, folder)
    with Server(binary, folder) as queue:
        try:
            cluster.start()
            asyncio.run(cluster.form())
            yield cluster, queue
        finally:
            cluster.stop()


@pytest.fixture
async def cluster(running: tuple[TestCluster, Server]) -> TestCluster:
    """The cluster, whole again after what other tests did to it."""
    await running[0].whole()
    return running[0]


@pytest.fixture
def settings(cluster: TestCluster, running: tuple[TestCluster, Server]) -> Settings:
    return Settings(
        redis_url=cluster.url,
        queue_url=running[1].url,
        key_prefix=f"t{secrets.token_hex(4)}",
        producer_lease_s=PRODUCER_LEASE_S,
    )


async def test_a_primary_is_killed_while_fifty_messages_stream(
    cluster: TestCluster, settings: Settings
) -> None:
    """What was acknowledged as replicated is all there, nobody hangs, other shards go on meanwhile."""
    victim, *others = (node for node in cluster.nodes if node.is_primary())
    share = MESSAGES // PRIMARIES
    hit = cluster.chats_on(victim, MESSAGES - 2 * share, "hit")
    spared = [chat for node in others for chat in cluster.chats_on(node, share, "spared")]
    replica = cluster.replica_of(victim)
    replicated = settings.model_copy(update={"durability": "replicated"})
    async with (
        worker_processes(settings, 2),
        Producer(replicated) as producer,
        Subscriber(settings) as subscriber,
        streaming(producer, subscriber, hit + spared, pause_s=0.1) as streams,
    ):
        assert len(streams.replies) == MESSAGES
        await streams.all_saw(15)  # every chat has its worker, and everything is warm
        await streams.all_saw(40)
        killed_at = time.monotonic()
        victim.kill()
        await streams.all_saw_what_began_after(killed_at, spared)
        await cluster.promoted(replica)
        promoted_at = time.monotonic()
        victim.start()  # as its supervisor would: without a replica nothing can be acknowledged
        await streams.all_saw_what_began_after(promoted_at)
    assert [reply.chat_id for reply in streams.replies if not reply.is_right()] == []


async def test_primary_and_replica_swap_roles_in_mid_stream(
    cluster: TestCluster, settings: Settings
) -> None:
    """The demoted one keeps its connections open and ends subscriptions unasked."""
    primary = cluster.primary_of("swap")
    other = next(node for node in cluster.nodes if node.is_primary() and node is not primary)
    chats = [*cluster.chats_on(primary, 5, "swap"), *cluster.chats_on(other, 5, "spared")]
    replica = cluster.replica_of(primary)
    async with (
        local_workers(settings, 2),
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
        streaming(producer, subscriber, chats, pause_s=0.02) as streams,
    ):
        replica.call("CLUSTER", "FAILOVER")
        await cluster.promoted(replica)
        await streams.flow_again()
        assert not primary.is_primary()
    # It might have had less: only the chats of that shard begin a new log.
    assert [len(reply.epochs) for reply in streams.replies] == [2] * 5 + [1] * 5
    assert [reply.chat_id for reply in streams.replies if not reply.is_right()] == []


async def test_a_primary_stands_still_in_mid_stream(
    cluster: TestCluster, settings: Settings
) -> None:
    """Nothing says so but its silence; thawed, it still takes itself for the primary for a moment."""
    primary = cluster.primary_of("still")
    chats = cluster.chats_on(primary, 5, "still")
    replica = cluster.replica_of(primary)
    replicated = settings.model_copy(update={"durability": "replicated"})
    async with (
        local_workers(settings, 2),
        Producer(replicated) as producer,
        Subscriber(settings) as subscriber,
        streaming(producer, subscriber, chats, pause_s=0.02) as streams,
    ):
        primary.freeze()
        await cluster.promoted(replica)
        primary.thaw()
        await streams.flow_again()
    assert [reply.chat_id for reply in streams.replies if not reply.is_right()] == []


async def test_the_slot_of_a_live_chat_moves_in_mid_stream(
    cluster: TestCluster, settings: Settings
) -> None:
    source = cluster.primary_of("moves")
    target = next(node for node in cluster.nodes if node.is_primary() and node is not source)
    stays = cluster.chats_on(source, 1, "stays")
    async with (
        local_workers(settings, 2),
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
        streaming(producer, subscriber, ["moves", *stays], pause_s=0.02) as streams,
    ):
        steps = 0
        for _ in cluster.migrate(slot_of("{moves}"), source, target):
            steps += 1
            await asyncio.sleep(0.05)
        assert steps > 5, "its keys moved one by one, under way"
        await streams.flow_again()
        assert cluster.primary_of("moves") is target
    assert [reply.chat_id for reply in streams.replies if not reply.is_right()] == []


async def test_a_key_that_moved_is_found_while_its_slot_is_still_moving(
    cluster: TestCluster, settings: Settings
) -> None:
    source = cluster.primary_of("asked")
    target = next(node for node in cluster.nodes if node.is_primary() and node is not source)
    async with Client(settings) as client:
        head = client.keys.chat("asked").head
        await client.chats.execute("HSET", head, "a", 1)
        moving = cluster.migrate(slot_of(head), source, target)
        next(moving)
        assert await client.chats.execute("HGET", head, "a") == b"1"
        next(moving)
        answers = (client.chats.execute("HINCRBY", head, "a", 1) for _ in range(50))
        assert sorted(await asyncio.gather(*answers)) == list(range(2, 52))
        assert source.call("CLUSTER", "COUNTKEYSINSLOT", slot_of(head)) == 0
        for _ in moving:
            pass
        assert await client.chats.execute("HGET", head, "a") == b"51"


@ONE_ENGINE
async def test_a_primary_that_stands_still_is_noticed_by_its_silence(
    cluster: TestCluster, settings: Settings
) -> None:
    primary = cluster.primary_of("silent")
    replica = cluster.replica_of(primary)
    received: list[bytes] = []
    gaps: list[str] = []
    async with Client(settings) as client:
        channel = client.keys.chat("silent").deltas
        pubsub = client.pubsub(on_message=lambda _, data: received.append(data), on_gap=gaps.extend)
        await pubsub.start()
        await pubsub.subscribe(channel)
        primary.freeze()
        await cluster.promoted(replica)

        async def receives() -> bool:
            await asyncio.to_thread(replica.call, "SPUBLISH", channel, "here")
            return bool(received)

        await until(receives)
        assert gaps == [channel]
        await pubsub.aclose()


@ONE_ENGINE
async def test_whoever_waits_for_a_node_that_was_replaced_learns_it_at_once(
    cluster: TestCluster, settings: Settings
) -> None:
    primary = cluster.primary_of("waits")
    replica = cluster.replica_of(primary)
    received: list[bytes] = []
    async with Client(settings.model_copy(update={"command_timeout_s": 3_600.0})) as client:
        keys = client.keys.chat("waits")
        pubsub = client.pubsub(
            on_message=lambda _, data: received.append(data), on_gap=lambda _: None
        )
        await pubsub.start()
        await pubsub.subscribe(keys.deltas)
        await client.chats.execute("HGET", keys.head, "a")
        primary.freeze()
        asked = asyncio.create_task(client.chats.execute("HGET", keys.head, "a"))
        await cluster.promoted(replica)

        async def notified() -> bool:
            # As whoever asks for another chat of a node that is gone.
            await client.chats.connect()
            return asked.done()

        with pytest.raises(BrokerUnavailable):
            await until(notified)
            await asked
        assert await client.chats.execute("HGET", keys.head, "a") is None
        await pubsub.subscribe(client.keys.chat("waits").wake)  # known to be settled by now
        await client.chats.execute("SPUBLISH", keys.deltas, "here")

        async def receives() -> bool:
            return bool(received)

        await until(receives)
        await pubsub.aclose()


@ONE_ENGINE
async def test_scripts_reach_a_node_that_has_forgotten_them(
    cluster: TestCluster, settings: Settings
) -> None:
    async with (
        Producer(settings) as producer,
        producer.message("c", source="text") as message,
    ):
        await message.push("one")
        cluster.primary_of("c").call("SCRIPT", "FLUSH")
        await message.push("two")
        head = registry_of(producer).client.keys.chat("c").head
        assert await registry_of(producer).client.chats.execute("HGET", head, "pushed") == b"3"


@ONE_ENGINE
async def test_a_shard_without_a_primary_costs_the_others_nothing_and_says_so(
    cluster: TestCluster, settings: Settings
) -> None:
    hasty = settings.model_copy(update={"command_timeout_s": 0.5})
    async with Client(hasty) as client:
        victim = cluster.primary_of("gone")
        keys = client.keys.chat("gone")
        replica = cluster.replica_of(victim)
        await client.chats.execute("HSET", keys.head, "a", 1)
        victim.kill()
        replica.kill()
        with pytest.raises(BrokerUnavailable):
            await client.chats.execute("HGET", keys.head, "a")
        with pytest.raises(BrokerUnavailable, match="cluster"):
            await client.chats.execute("HGET", keys.head, "a")
        (other, *_) = cluster.chats_on(
            next(n for n in cluster.nodes if n.answers() and n.role()[0] == b"master"), 1, "x"
        )
        assert await client.chats.execute("HGET", client.keys.chat(other).head, "a") is None
        await cluster.whole()

        async def back() -> bool:
            with contextlib.suppress(BrokerUnavailable):
                return bool(await client.chats.execute("HGET", keys.head, "a") == b"1")
            return False

        await until(back)


@ONE_ENGINE
async def test_a_server_that_is_no_cluster_says_what_to_use(
    running: tuple[TestCluster, Server],
) -> None:
    url = running[1].url.replace("redis://", "redis+cluster://")
    with pytest.raises(SettingsError, match="belongs to no cluster: use redis://"):
        async with Client(Settings(redis_url=url, queue_url=running[1].url)):
            pass


@ONE_ENGINE
def test_every_command_works_over_a_cluster(
    running: tuple[TestCluster, Server], shell: Shell
) -> None:
    cluster, queue = running
    asyncio.run(cluster.whole())
    settings = Settings(redis_url=cluster.url, queue_url=queue.url, key_prefix="cli")
    url = ("--redis-url", cluster.url)
    there = {"RIVERDELTA_QUEUE_URL": queue.url, "RIVERDELTA_KEY_PREFIX": "cli"}
    missing = shell.run("inspect", *url)
    assert "set RIVERDELTA_QUEUE_URL" in one_line(missing.stderr)

    async def reply() -> list[subprocess.CompletedProcess[bytes]]:
        async with worker_processes(settings):
            return [
                await asyncio.to_thread(shell.run, *command, *url, stdin=stdin, **there)
                for command, stdin in (
                    (("push", "c", "--source", "text"), b"hello\n"),
                    (("tail", "c", "--until-end", "--json"), b""),
                    (("inspect", "c", "--json"), b""),
                    (("inspect", "--json"), b""),
                    (("stop", "c"), b""),
                )
            ]

    pushed, tailed, one, everything, stopped = asyncio.run(reply())
    assert [done.returncode for done in (pushed, tailed, one, everything)] == [0] * 4
    assert b"hello" in tailed.stdout
    found = orjson.loads(one.stdout)
    assert (found["pushed"], found["backlog"]) == (found["processed"], 0)
    assert len(orjson.loads(everything.stdout)["workers"]) == 1
    assert stopped.returncode == 1, "nothing was open"
