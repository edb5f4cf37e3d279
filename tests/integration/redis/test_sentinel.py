"""Chats and queue behind real sentinels: primaries that die or stand still in mid-stream."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator

import pytest

from riverdelta import BrokerUnavailable, Producer, Settings, Subscriber
from riverdelta.broker.client import Client
from tests.support.clusters import Sentinels
from tests.support.local_workers import local_workers
from tests.support.marks import PRODUCER_LEASE_S
from tests.support.replies import streaming
from tests.support.servers import binaries, worker_processes

ENGINES = binaries()
ONE_ENGINE = pytest.mark.parametrize("watched", ["valkey"], indirect=True)
"""For what does not depend on the engine."""


@pytest.fixture(params=list(ENGINES))
async def watched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sentinels]:
    binary = ENGINES[request.param]
    if binary is None:
        pytest.skip("redis-server is not on PATH; .ci/run installs it")
    sentinels = Sentinels(binary, tmp_path_factory.mktemp(f"sentinel-{request.param}"))
    try:
        await sentinels.start()
        yield sentinels
    finally:
        sentinels.stop()


@pytest.fixture
def settings(watched: Sentinels) -> Settings:
    return Settings(
        redis_url=watched.url,
        key_prefix=f"t{secrets.token_hex(4)}",
        producer_lease_s=PRODUCER_LEASE_S,
    )


async def test_the_primary_is_killed_in_mid_stream(watched: Sentinels, settings: Settings) -> None:
    """Chats, queue and workers go over to the successor; what a replica had confirmed is all there."""
    replicated = settings.model_copy(update={"durability": "replicated"})
    async with (
        worker_processes(settings, 2),
        Producer(replicated) as producer,
        Subscriber(settings) as subscriber,
    ):
        async with streaming(
            producer, subscriber, [f"c{n}" for n in range(10)], pause_s=0.02
        ) as streams:
            primary = watched.primary()
            primary.kill()
            await streams.flow_again()
            assert watched.primary() is not primary
        # The queue went over, too: arq brings a new chat.
        async with streaming(producer, subscriber, ["new"], pause_s=0.02) as new:
            await new.flow_again()
    assert [r.chat_id for r in (*streams.replies, *new.replies) if not r.is_right()] == []


@ONE_ENGINE
async def test_the_primary_stands_still_in_mid_stream(
    watched: Sentinels, settings: Settings
) -> None:
    """It closes no connection and never wakes up: a command that waits for it times out, arq's loop too."""
    hasty = settings.model_copy(update={"command_timeout_s": 2.0, "durability": "replicated"})
    async with (
        local_workers(hasty),
        Producer(hasty) as producer,
        Subscriber(hasty) as subscriber,
    ):
        async with streaming(producer, subscriber, ["a", "b"], pause_s=0.02) as streams:
            watched.primary().freeze()
            await streams.flow_again()
        async with streaming(producer, subscriber, ["new"], pause_s=0.02) as new:
            await new.flow_again()
    assert [r.chat_id for r in (*streams.replies, *new.replies) if not r.is_right()] == []


@ONE_ENGINE
async def test_a_server_that_was_demoted_is_no_primary_whatever_sentinels_say(
    watched: Sentinels, settings: Settings
) -> None:
    primary, replica, _ = watched.servers
    async with Client(settings) as client:
        await client.chats.execute("SET", "k", "v")
        primary.call("REPLICAOF", "127.0.0.1", replica.port)
        with pytest.raises(BrokerUnavailable, match="read only replica"):
            await client.chats.execute("SET", "k", "v")
        with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{primary.port} is a replica"):
            await client.chats.execute("SET", "k", "v")
        primary.call("REPLICAOF", "NO", "ONE")
        await client.chats.execute("SET", "k", "v")


@ONE_ENGINE
async def test_errors_name_the_service_and_no_password(
    watched: Sentinels, settings: Settings
) -> None:
    for url, reason in (
        (watched.url.replace(watched.service, "unknown"), "No master found for 'unknown'"),
        (watched.url.replace(f":{watched.password}@", ":wrong-word@"), "invalid username-password"),
        (
            watched.url.replace("sentinel_password=of-", "sentinel_password=wrong-"),
            "No master found",
        ),
    ):
        with pytest.raises(BrokerUnavailable, match=reason) as caught:
            async with Client(settings.model_copy(update={"redis_url": url})):
                pass
        assert "at sentinels 127.0.0.1:" in str(caught.value)
        assert watched.password not in str(caught.value)
        assert "wrong-word" not in str(caught.value)


@ONE_ENGINE
async def test_arqs_own_worker_starts_behind_sentinels(
    watched: Sentinels, settings: Settings
) -> None:
    environment = os.environ | {
        "RIVERDELTA_REDIS_URL": settings.redis_url,
        "RIVERDELTA_KEY_PREFIX": settings.key_prefix,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "arq", "riverdelta_workers.WorkerSettings", env=environment
    )
    try:
        async with Producer(settings) as producer, Subscriber(settings) as subscriber:
            async with streaming(producer, subscriber, ["c"], pause_s=0.02) as streams:
                await streams.flow_again()
        assert streams.replies[0].is_right()
    finally:
        process.terminate()
        await process.wait()
