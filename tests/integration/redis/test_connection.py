"""The one connection that everybody shares: order, cancelled callers, servers that go away."""

import asyncio
import contextlib
import time
from collections.abc import Collection
from typing import Any

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import ResponseError

from riverdelta import BrokerUnavailable, Settings
from riverdelta.broker.client import Client
from riverdelta.broker.redis import wire as wire_module
from riverdelta.broker.redis.executor import Endpoint, Executor
from riverdelta.broker.redis.pubsub import ShardedPubSub
from tests.support.servers import Server, until


@pytest.fixture(params=["hiredis", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to pack and to read: a chat backend may have no hiredis."""
    if request.param == "python":
        monkeypatch.setattr(wire_module, "_hiredis_pack", None)
        monkeypatch.setattr(wire_module, "_HiredisReader", None)
    return str(request.param)


async def test_replies_go_to_whoever_asked_also_when_others_were_cancelled(
    parser: str, settings: Settings
) -> None:
    async with Client(settings) as client:
        asks = [asyncio.create_task(client.chats.execute("ECHO", str(i))) for i in range(500)]
        await asyncio.sleep(0)
        for ask in asks[::3]:
            ask.cancel()
        answers = await asyncio.gather(*asks, return_exceptions=True)
    for number, answer in enumerate(answers):
        if number % 3 == 0:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert answer == str(number).encode()


async def test_an_error_reply_is_its_callers_only(parser: str, settings: Settings) -> None:
    async with Client(settings) as client:
        results = await asyncio.gather(
            client.chats.execute("ECHO", "a"),
            client.chats.execute("NOSUCHCOMMAND"),
            client.chats.execute("ECHO", b"\xff\x00"),
            return_exceptions=True,
        )
    assert results[0] == b"a"
    assert isinstance(results[1], ResponseError)
    assert results[2] == b"\xff\x00"


async def test_a_server_that_refuses_the_connection_is_away(
    parser: str, settings: Settings
) -> None:
    """As redis-py counts it: `LOADING`, `NOAUTH`. Never a reply to a command."""
    async with Client(settings) as client:
        with pytest.raises(BrokerUnavailable, match="invalid username"):
            await client.chats.execute("AUTH", "nobody", "nothing")
        assert await client.chats.execute("ECHO", "again") == b"again"


async def test_a_server_that_became_a_replica_is_away(parser: str, own_server: Server) -> None:
    async with Client(Settings(redis_url=own_server.url)) as client:
        await client.chats.execute("REPLICAOF", "127.0.0.1", own_server.port)
        with pytest.raises(BrokerUnavailable, match="read only replica"):
            await client.chats.execute("SET", "k", "v")
        assert client.chats.run_id_for("k") is None, "the next command connects again"
        await client.chats.execute("REPLICAOF", "NO", "ONE")
        await client.chats.execute("SET", "k", "v")


async def test_large_replies_and_many_at_once(parser: str, settings: Settings) -> None:
    big = b"x" * 3_000_000
    async with Client(settings) as client:
        answers = await asyncio.gather(*(client.chats.execute("ECHO", big) for _ in range(5)))
    assert all(answer == big for answer in answers)


async def test_a_thousand_callers_learn_of_a_servers_death_and_go_on_after_it(
    parser: str, own_server: Server
) -> None:
    async with Client(Settings(redis_url=own_server.url)) as client:

        async def ask(number: int) -> bytes:
            while True:
                with contextlib.suppress(BrokerUnavailable):
                    return bytes(await client.chats.execute("ECHO", str(number)))
                await asyncio.sleep(0.05)

        asking = asyncio.gather(*(ask(number) for number in range(1_000)))
        await asyncio.sleep(0)
        own_server.kill()
        await asyncio.sleep(0.2)
        own_server.start()
        assert await asking == [str(number).encode() for number in range(1_000)]


async def test_a_server_that_stands_still_is_given_up_after_the_time_out(
    parser: str, own_server: Server
) -> None:
    async with Client(Settings(redis_url=own_server.url, command_timeout_s=0.3)) as client:
        own_server.freeze()
        asked_at = asyncio.get_running_loop().time()
        results = await asyncio.gather(
            *(client.chats.execute("ECHO", str(i)) for i in range(10)), return_exceptions=True
        )
        assert all(isinstance(result, BrokerUnavailable) for result in results)
        assert asyncio.get_running_loop().time() - asked_at < 2.0
        own_server.thaw()
        # What the old connection still answers belongs to nobody.
        assert await client.chats.execute("ECHO", "new") == b"new"


async def test_a_closed_client_says_so(parser: str, settings: Settings) -> None:
    executor = Executor(settings.redis_url, 5.0)
    await executor.execute("PING")
    await executor.aclose()
    with pytest.raises(BrokerUnavailable, match="closed"):
        await executor.execute("PING")


class Listener:
    """Pub/sub that records what it receives."""

    def __init__(self, url: str, command_timeout_s: float = 5.0) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.gaps = 0
        self.pubsub = ShardedPubSub(
            url,
            command_timeout_s,
            on_message=lambda channel, payload: self.received.append((channel, payload)),
            on_gap=self._gap,
        )

    def _gap(self, _channels: Collection[str]) -> None:
        self.gaps += 1

    async def receives(self, payload: bytes) -> None:
        async def received() -> bool:
            return payload in [data for _, data in self.received]

        await until(received)


async def test_pubsub_receives_again_after_its_connection_was_cut(
    parser: str, settings: Settings, client: Client
) -> None:
    listener, channel = Listener(settings.redis_url), f"{settings.key_prefix}:ch"
    await listener.pubsub.start()
    await listener.pubsub.subscribe(channel)
    await client.chats.execute("SPUBLISH", channel, "one")
    await listener.receives(b"one")
    gaps = listener.gaps
    assert listener.pubsub._link is not None
    await listener.pubsub._link.wire._connection.disconnect(nowait=True)

    async def back() -> bool:
        return listener.gaps > gaps

    await until(back)
    await client.chats.execute("SPUBLISH", channel, "two")
    await listener.receives(b"two")
    await listener.pubsub.aclose()


async def test_pubsub_notices_a_server_that_stands_still(parser: str, own_server: Server) -> None:
    listener = Listener(own_server.url, command_timeout_s=1.0)
    await listener.pubsub.start()
    await listener.pubsub.subscribe("ch")
    own_server.freeze()

    async def lost() -> bool:
        return listener.pubsub._link is None

    await until(lost)
    own_server.thaw()

    async def back() -> bool:
        return listener.pubsub._link is not None and listener.gaps > 0

    await until(back)
    async with Client(Settings(redis_url=own_server.url)) as client:
        await client.chats.execute("SPUBLISH", "ch", "again")
        await listener.receives(b"again")
    assert [payload for _, payload in listener.received] == [b"again"]
    await listener.pubsub.aclose()


async def test_pubsub_tries_ever_more_rarely_while_the_server_is_away(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener(own_server.url)
    await listener.pubsub.start()
    tried_at: list[float] = []
    connect = listener.pubsub._endpoint.connect

    async def try_connect() -> tuple[Connection, str]:
        tried_at.append(time.monotonic())
        return await connect()

    monkeypatch.setattr(listener.pubsub._endpoint, "connect", try_connect)
    own_server.kill()

    async def tried() -> bool:
        return len(tried_at) >= 4

    await until(tried)
    assert tried_at[3] - tried_at[0] >= 0.1 + 0.2 + 0.4
    own_server.start()

    async def back() -> bool:
        return listener.pubsub._link is not None

    await until(back)
    await listener.pubsub.aclose()


async def test_a_subscription_that_is_refused_is_tried_again(
    parser: str, settings: Settings, client: Client
) -> None:
    """As by a server that does not let this user subscribe, yet."""
    listener, channel = Listener(settings.redis_url), f"{settings.key_prefix}:ch"
    await listener.pubsub.start()
    await listener.pubsub.subscribe(channel)
    gaps = listener.gaps
    assert listener.pubsub._link is not None
    listener.pubsub._link.wire.send("SSUBSCRIBE")  # without a channel: an error

    async def back() -> bool:
        return listener.gaps > gaps

    await until(back)
    await client.chats.execute("SPUBLISH", channel, "here")
    await listener.receives(b"here")
    await listener.pubsub.aclose()


async def test_leaving_and_joining_a_channel_quickly(
    parser: str, settings: Settings, client: Client
) -> None:
    listener, channel = Listener(settings.redis_url), f"{settings.key_prefix}:ch"
    await listener.pubsub.start()
    gaps = listener.gaps
    for _ in range(50):
        await listener.pubsub.subscribe(channel)
        await listener.pubsub.unsubscribe(channel)
    await listener.pubsub.subscribe(channel)
    await client.chats.execute("SPUBLISH", channel, "here")
    await listener.receives(b"here")
    assert listener.gaps <= gaps + 1, "no reconnect was needed"
    await listener.pubsub.aclose()


async def test_a_subscription_that_the_server_ended_is_made_again(
    parser: str, settings: Settings, client: Client
) -> None:
    """As a primary does that was demoted, or a slot that moved."""
    listener, channel = Listener(settings.redis_url), f"{settings.key_prefix}:ch"
    await listener.pubsub.start()
    await listener.pubsub.subscribe(channel)
    assert listener.pubsub._link is not None
    listener.pubsub._link.wire.send("SUNSUBSCRIBE", channel)
    gaps = listener.gaps

    async def back() -> bool:
        return listener.gaps > gaps

    await until(back)
    await client.chats.execute("SPUBLISH", channel, "here")
    await listener.receives(b"here")
    await listener.pubsub.aclose()


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
