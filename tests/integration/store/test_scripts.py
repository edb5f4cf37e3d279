"""Each script held to the contract at its top, repeats and refusals first."""

import asyncio
import re
import secrets
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from redis.exceptions import ResponseError

from riverdelta import Settings
from riverdelta.broker.client import Client
from riverdelta.broker.redis.executor import Arg
from riverdelta.broker.redis.pubsub import ShardedPubSub
from riverdelta.broker.store import scripts
from riverdelta.broker.store.keys import ChatKeys
from riverdelta.broker.store.outbox import encode_call, field_of, read_calls
from riverdelta.broker.store.scripts import PushLimits, Refused
from riverdelta.core.changes import OwedCall
from riverdelta.core.outgoing import NewEntry, PushReply
from riverdelta.core.wake import parse_wake
from tests.support.servers import Server

LIMITS = PushLimits(100, 1_000_000)
_COUNTED = {"hget", "hmget", "hset", "hdel", "xadd", "xtrim", "del", "spublish", "exists"}


@pytest.fixture
def keys(client: Client) -> ChatKeys:
    return client.keys.chat("c")


async def push(
    client: Client, keys: ChatKeys, number: int, *texts: str, kind: str = "chunk", **options: Any
) -> PushReply:
    settings: dict[str, Any] = {"producer": "p", "message_id": "m", "limits": LIMITS} | options
    entries = [NewEntry(kind, 7, text.encode()) for text in texts]
    return await scripts.push(client.chats, keys, message_seq=number, entries=entries, **settings)


async def open_(client: Client, keys: ChatKeys, **options: str) -> PushReply:
    settings = {"producer": "p", "message_id": "m", "opener": "o"} | options
    return await scripts.open_message(client.chats, keys, start=b"{}", **settings)


async def opened(client: Client, keys: ChatKeys) -> None:
    assert (await open_(client, keys)).status == "stored"


async def stored(client: Client, keys: ChatKeys) -> list[tuple[bytes, bytes]]:
    return [(i, f[7]) for i, f in await client.chats.execute("XRANGE", keys.chunks, "-", "+")]


async def claimed(client: Client, keys: ChatKeys, term: int = 0, **options: Any) -> int:
    claim = await scripts.claim(
        client.chats, keys, worker_id="w", term_seen=term, new_epoch=secrets.token_hex(4), **options
    )
    assert claim is not None
    return claim.term


async def head(client: Client, keys: ChatKeys) -> dict[str, bytes]:
    return scripts.as_hash(await client.chats.execute("HGETALL", keys.head))


async def commit(
    client: Client,
    keys: ChatKeys,
    term: int,
    version: int,
    *events: str,
    ended: Sequence[str] = (),
) -> int | Refused:
    seq = int((await head(client, keys)).get("seq", 0))
    args: list[Arg] = [
        term,
        version,
        0,
        100,
        1,
        seq + 1,
        2,
        "seq",
        seq + len(events),
        len(events),
        *events,
        0,
        0,
        0,
        len(ended),
        *ended,
    ]
    every = [keys.head, keys.chunks, keys.deltas, keys.dead, keys.producers]
    return await scripts.commit(client.chats, every, args)


# -- push ----------------------------------------------------------------------------------------


async def test_push_stores_in_order_under_ids_without_a_clock(
    client: Client, keys: ChatKeys
) -> None:
    await opened(client, keys)
    reply = await push(client, keys, 2, "a", "b")
    assert reply == PushReply("stored", 3, 3, 0, "", 0, "")
    assert await stored(client, keys) == [(b"1-0", b"{}"), (b"2-0", b"a"), (b"3-0", b"b")]


async def test_push_repeated_stores_nothing_and_says_so(client: Client, keys: ChatKeys) -> None:
    await opened(client, keys)
    await push(client, keys, 2, "a", "b")
    again = await push(client, keys, 2, "a", "b")
    assert (again.status, again.last) == ("repeat", 3)
    assert (await open_(client, keys)).status == "repeat"
    assert len(await stored(client, keys)) == 3


async def test_push_that_overlaps_stores_the_rest(client: Client, keys: ChatKeys) -> None:
    await opened(client, keys)
    await push(client, keys, 2, "a")
    assert (await push(client, keys, 2, "a", "b")).status == "stored"
    assert [data for _, data in await stored(client, keys)] == [b"{}", b"a", b"b"]


async def test_push_past_a_hole_is_refused_so_that_nothing_overtakes(
    client: Client, keys: ChatKeys
) -> None:
    await opened(client, keys)
    reply = await push(client, keys, 3, "b")
    assert (reply.status, reply.last) == ("hole", 1)
    assert len(await stored(client, keys)) == 1


async def test_push_of_an_unknown_an_existing_and_an_ended_message(
    client: Client, keys: ChatKeys
) -> None:
    assert (await push(client, keys, 2, "a")).status == "unknown"
    assert await client.chats.execute("EXISTS", keys.head, keys.chunks) == 0
    await opened(client, keys)
    for producer in ("p", "q"):
        reply = await open_(client, keys, opener="x", producer=producer)
        assert reply.status == "exists"
    await client.chats.execute("HSET", keys.message("m"), "status", "completed")
    assert (await push(client, keys, 2, "a")).status == "ended"


async def test_push_refuses_chunks_past_either_limit_and_lets_ends_and_resends_pass(
    client: Client, keys: ChatKeys
) -> None:
    await opened(client, keys)
    await push(client, keys, 2, "aaaa")
    for limits in (PushLimits(2, 1_000), PushLimits(100, 6)):
        assert (await push(client, keys, 3, "b", limits=limits)).status == "full"
        assert (await push(client, keys, 2, "aaaa", limits=limits)).status == "repeat"
    assert (await push(client, keys, 2, "aaaa", "b", limits=PushLimits(2, 6))).status == "stored"
    assert (
        await push(client, keys, 4, "{}", kind="end", limits=PushLimits(2, 6))
    ).status == "stored"


async def test_push_after_a_stop_is_refused_and_its_end_is_not(
    client: Client, keys: ChatKeys
) -> None:
    await opened(client, keys)
    assert (
        await scripts.stop(client.chats, keys, message_id="m", reason="enough")
    ).status == "marked"
    assert (
        await scripts.stop(client.chats, keys, message_id="m", reason="later")
    ).status == "marked"
    reply = await push(client, keys, 2, "a")
    assert (reply.status, reply.stop) == ("stopped", "enough")
    assert (await push(client, keys, 2, "{}", kind="stop")).status == "stored"


async def test_push_wakes_the_owner_with_the_entries_while_they_are_few(
    client: Client, keys: ChatKeys
) -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()
    pubsub = await listening(client, keys.wake, received)
    await opened(client, keys)
    await claimed(client, keys)
    await push(client, keys, 2, "a\n", "ü")
    entries = parse_wake(await asyncio.wait_for(received.get(), 5))
    assert [(e.number, e.message, e.type, e.at_ms, e.data) for e in entries] == [
        (2, "m", "chunk", 7, b"a\n"),
        (3, "m", "chunk", 7, "ü".encode()),
    ]
    await push(client, keys, 4, "x" * (scripts.WAKE_PAYLOAD_BYTES + 1))
    assert await asyncio.wait_for(received.get(), 5) == b""
    await scripts.check(client.chats, keys, producer="p", message_id="m")
    assert await asyncio.wait_for(received.get(), 5) == b""
    await pubsub.aclose()


async def listening(client: Client, channel: str, received: asyncio.Queue[bytes]) -> ShardedPubSub:
    pubsub = ShardedPubSub(
        client.settings.redis_url,
        5.0,
        on_message=lambda _, payload: received.put_nowait(payload),
        on_gap=lambda _: None,
    )
    await pubsub.start()
    await pubsub.subscribe(channel)
    return pubsub


async def test_a_start_deletes_what_is_left_of_a_chat_without_a_head(
    client: Client, keys: ChatKeys
) -> None:
    await client.chats.execute("XADD", keys.chunks, "9-0", "old", "x")
    await client.chats.execute("XADD", keys.deltas, "9-0", "old", "x")
    await client.chats.execute("HSET", keys.producers, "p:m", "9")
    await opened(client, keys)
    assert await stored(client, keys) == [(b"1-0", b"{}")]
    assert await client.chats.execute("EXISTS", keys.deltas) == 0
    assert await client.chats.execute("EXISTS", keys.producers) == 0
    assert (await head(client, keys))["last.p:m"] == b"1"


@pytest.mark.parametrize("opened_by_an_older_producer", [False, True])
async def test_the_last_number_of_a_message_outlives_its_end(
    client: Client, keys: ChatKeys, *, opened_by_an_older_producer: bool
) -> None:
    await opened(client, keys)
    if opened_by_an_older_producer:
        await client.chats.execute("HDEL", keys.head, "last.p:m")
        await client.chats.execute("HSET", keys.producers, "p:m", "1")
    await claimed(client, keys)
    assert (await push(client, keys, 2, "a", "b")).last == 3
    assert (await push(client, keys, 4, "{}", kind="end")).last == 4
    in_head = b"" if opened_by_an_older_producer else b"4"
    assert (await head(client, keys)).get("last.p:m", b"") == in_head
    assert await commit(client, keys, 1, 0, ended=("p:m",)) == 1
    assert "last.p:m" not in await head(client, keys)
    assert await client.chats.execute("HGETALL", keys.producers) == [b"p:m", b"4"]
    assert (await push(client, keys, 4, "{}", kind="end")).status == "repeat"
    assert (await scripts.check(client.chats, keys, producer="p", message_id="m")).last == 4


async def test_a_push_of_an_open_message_makes_five_calls(client: Client, keys: ChatKeys) -> None:
    """The hot path: one more call is two or three microseconds of Redis for every token."""
    await opened(client, keys)
    await claimed(client, keys)
    await push(client, keys, 2, "warm")
    assert await calls(client, push(client, keys, 3, "token")) == {
        "hmget": 2,
        "xadd": 1,
        "hset": 1,
        "spublish": 1,
    }


async def calls(client: Client, work: Coroutine[Any, Any, Any]) -> dict[str, int]:
    """Do *work*, and count the commands of its scripts."""

    async def counted() -> dict[str, int]:
        info = (await client.chats.execute("INFO", "commandstats")).decode()
        lines = re.findall(r"cmdstat_(\w+):calls=(\d+)", info)
        return {name: int(count) for name, count in lines if name in _COUNTED}

    before = await counted()
    await work
    after = await counted()
    return {name: n - before.get(name, 0) for name, n in after.items() if n > before.get(name, 0)}


async def test_check_tells_how_a_message_stands(client: Client, keys: ChatKeys) -> None:
    unknown = await scripts.check(client.chats, keys, producer="p", message_id="m")
    assert unknown == PushReply("unknown", 0, 0, 0, "", 0, "")
    await opened(client, keys)
    await push(client, keys, 2, "a")
    reply = await scripts.check(client.chats, keys, producer="p", message_id="m")
    assert reply == PushReply("open", 2, 2, 0, "", 0, "")


# -- ownership -----------------------------------------------------------------------------------


async def test_claim_is_compare_and_set_on_the_term(client: Client, keys: ChatKeys) -> None:
    assert (
        await scripts.claim(client.chats, keys, worker_id="w", term_seen=0, new_epoch="e") is None
    )
    assert await client.chats.execute("EXISTS", keys.head) == 0
    await opened(client, keys)
    first = await scripts.claim(client.chats, keys, worker_id="w1", term_seen=0, new_epoch="e1")
    assert first == (1, 1)
    assert (
        await scripts.claim(client.chats, keys, worker_id="w2", term_seen=0, new_epoch="e2") is None
    )
    second = await scripts.claim(client.chats, keys, worker_id="w2", term_seen=1, new_epoch="e2")
    assert second == (2, 2)
    now = await head(client, keys)
    assert (now["owner"], now["epoch"]) == (b"w2", b"e1")
    assert await commit(client, keys, 2, 0) == 1
    third = await scripts.claim(client.chats, keys, worker_id="w3", term_seen=2, new_epoch="e3")
    assert third == (3, 1), "a commit counts the claims again"
    await scripts.hand_over(client.chats, keys, term=3)
    fourth = await scripts.claim(client.chats, keys, worker_id="w4", term_seen=3, new_epoch="e4")
    assert fourth == (4, 1), "and so does a hand-over"
    await client.chats.execute("HSET", keys.head, "processed", "1")
    idle = await scripts.claim(client.chats, keys, worker_id="w5", term_seen=4, new_epoch="e5")
    assert idle == (5, 0), "nobody dies of what is not read"


async def test_claim_starts_a_new_epoch_on_another_server_or_when_asked_and_seq_goes_on(
    client: Client, keys: ChatKeys
) -> None:
    await opened(client, keys)
    await claimed(client, keys)
    before = await head(client, keys)
    await client.chats.execute("HSET", keys.head, "run_id", "another", "seq", "41")
    await claimed(client, keys, 1)
    other_server = await head(client, keys)
    assert other_server["epoch"] != before["epoch"]
    assert other_server["seq"] == b"41"
    await claimed(client, keys, 2, force_epoch=True, least_seq=50)
    asked = await head(client, keys)
    assert asked["epoch"] != other_server["epoch"]
    assert asked["seq"] == b"50"


async def test_commit_is_refused_to_an_old_term_and_on_an_old_version(
    client: Client, keys: ChatKeys
) -> None:
    await opened(client, keys)
    await claimed(client, keys)
    assert await commit(client, keys, 1, 0, '{"seq":1}') == 1
    assert await commit(client, keys, 1, 0, '{"seq":1}') == Refused(1, 1, "w")
    await claimed(client, keys, 1)
    assert await commit(client, keys, 1, 1, '{"seq":2}') == Refused(2, 1, "w")
    log = await client.chats.execute("XRANGE", keys.deltas, "-", "+")
    assert log == [[b"1-0", [b"event", b'{"seq":1}']]]


async def test_commit_publishes_what_it_logs(client: Client, keys: ChatKeys) -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()
    pubsub = await listening(client, keys.deltas, received)
    await opened(client, keys)
    await claimed(client, keys)
    await commit(client, keys, 1, 0, "one", "two")
    assert [await asyncio.wait_for(received.get(), 5) for _ in range(2)] == [b"one", b"two"]
    await pubsub.aclose()


async def test_release_only_when_nothing_is_left_to_do(client: Client, keys: ChatKeys) -> None:
    await opened(client, keys)
    await client.chats.execute("HSET", keys.producers, "p:ended", "3")
    await claimed(client, keys)

    async def release(term: int = 1) -> str:
        return await scripts.release(
            client.chats, keys, [keys.message("m")], term=term, retention_ms=60_000, trim=True
        )

    assert await release() == "busy"
    await client.chats.execute("HSET", keys.head, "processed", "1", "open", "m")
    assert await release() == "busy"
    await client.chats.execute("HSET", keys.head, "open", "")
    assert await release(7) == "refused"
    assert await release() == "released"
    assert await release() == "refused", "the reply was lost: it is over all the same"
    assert await client.chats.execute("HGET", keys.head, "owner") == b""
    for key in (keys.head, keys.message("m"), keys.producers):
        assert 0 < await client.chats.execute("PTTL", key) <= 60_000
    await claimed(client, keys, 1)
    assert await client.chats.execute("PTTL", keys.head) == -1
    assert await scripts.persist(client.chats, keys, [keys.message("m")], term=2)
    assert await client.chats.execute("PTTL", keys.message("m")) == -1
    assert not await scripts.persist(client.chats, keys, [], term=1)


async def test_an_outbox_holds_the_release_and_is_settled_by_its_owner_only(
    client: Client, keys: ChatKeys
) -> None:
    await opened(client, keys)
    await claimed(client, keys)
    await client.chats.execute("HSET", keys.head, "processed", "1", "open", "")
    call, other = (OwedCall("m", name, b'{"seq":9}') for name in ("Archive", "Mail"))
    for owed in (call, other):
        await client.chats.execute("HSET", keys.outbox, field_of(owed), encode_call(owed))

    async def outbox() -> list[OwedCall]:
        flat = await client.chats.execute("HGETALL", keys.outbox)
        return read_calls(scripts.as_hash(flat))

    async def release() -> str:
        return await scripts.release(client.chats, keys, [], term=1, retention_ms=60_000, trim=True)

    again = call._replace(tries=2, error="away")
    assert await release() == "busy"
    assert not await scripts.try_again(client.chats, keys, again, term=7)
    assert not await scripts.settle(client.chats, keys, call, term=7)
    assert await outbox() == [call, other]
    assert await scripts.try_again(client.chats, keys, again, term=1)
    assert await outbox() == [again, other]
    for _ in range(2):
        assert await scripts.settle(client.chats, keys, call, term=1)
    assert not await scripts.try_again(client.chats, keys, again, term=1), "it is settled"
    assert await release() == "busy"
    assert await scripts.settle(client.chats, keys, other, term=1, given_up="tired")
    assert await client.chats.execute("HGET", keys.message("m"), "gave_up.Mail") == b"tired"
    gone = other._replace(message_id="gone")
    assert await scripts.settle(client.chats, keys, gone, term=1, given_up="tired")
    assert await client.chats.execute("EXISTS", keys.message("gone"), keys.outbox) == 0
    assert await release() == "released"


async def test_a_new_message_takes_the_expiry_off_a_released_chat(
    client: Client, keys: ChatKeys
) -> None:
    await opened(client, keys)
    await client.chats.execute("HSET", keys.producers, "p:ended", "3")
    await client.chats.execute("PEXPIRE", keys.head, 60_000)
    await client.chats.execute("PEXPIRE", keys.producers, 60_000)
    await open_(client, keys, opener="o2", message_id="m2")
    assert await client.chats.execute("PTTL", keys.head) == -1
    assert await client.chats.execute("PTTL", keys.producers) == -1


async def test_hand_over_gives_up_in_the_middle(client: Client, keys: ChatKeys) -> None:
    await opened(client, keys)
    await claimed(client, keys)
    assert not await scripts.hand_over(client.chats, keys, term=7)
    assert await scripts.hand_over(client.chats, keys, term=1)
    assert (await head(client, keys))["owner"] == b""


async def test_stop_of_what_is_not_open(client: Client, keys: ChatKeys) -> None:
    assert (await scripts.stop(client.chats, keys, message_id="m", reason="r")).status == "absent"
    assert await client.chats.execute("EXISTS", keys.message("m")) == 0
    await opened(client, keys)
    await client.chats.execute("HSET", keys.message("m"), "status", "completed")
    assert (await scripts.stop(client.chats, keys, message_id="m", reason="r")).status == "ended"


async def test_snapshot_of_nothing_is_empty(client: Client, keys: ChatKeys) -> None:
    assert await scripts.snapshot(client.chats, keys, [keys.message("m")]) == [{}, {}]


# -- the queue's side ----------------------------------------------------------------------------


async def test_beats_count_and_a_removed_worker_notices(client: Client) -> None:
    workers, chats = client.keys.workers, client.keys.worker_chats("w")
    assert await scripts.beat(client.queue, workers, "w", first=False) is None
    assert await scripts.beat(client.queue, workers, "w", first=True) == 1
    assert await scripts.beat(client.queue, workers, "w", first=False) == 2
    await client.queue.execute("SADD", chats, "c1", "c2")
    assert await scripts.remove_worker(client.queue, client.keys, worker_id="w", counter=1) is None
    freed = await scripts.remove_worker(client.queue, client.keys, worker_id="w", counter=2)
    assert sorted(freed or []) == ["c1", "c2"]
    assert await scripts.remove_worker(client.queue, client.keys, worker_id="w", counter=2) is None
    assert await scripts.beat(client.queue, workers, "w", first=False) is None
    waiting = await client.queue.execute("ZRANGE", client.keys.waiting, 0, -1, "WITHSCORES")
    assert waiting == [b"c1", b"0", b"c2", b"0"]
    assert await client.queue.execute("EXISTS", chats) == 0


async def test_a_dead_producer_is_removed_once(client: Client) -> None:
    await scripts.beat(client.queue, client.keys.producers, "p", first=True)
    await client.queue.execute("SADD", client.keys.producer_messages("p"), "c m")
    assert not await scripts.remove_producer(client.queue, client.keys, producer_id="p", counter=9)
    assert await scripts.remove_producer(client.queue, client.keys, producer_id="p", counter=1)
    assert not await scripts.remove_producer(client.queue, client.keys, producer_id="p", counter=1)
    left = (client.keys.producers, client.keys.producer_messages("p"))
    assert await client.queue.execute("EXISTS", *left) == 0


async def test_scripts_survive_an_emptied_script_cache(client: Client, keys: ChatKeys) -> None:
    await opened(client, keys)
    await client.chats.execute("SCRIPT", "FLUSH", "SYNC")
    assert (await push(client, keys, 2, "a")).status == "stored"


async def test_a_full_server_refuses_pushes_and_takes_commits(own_server: Server) -> None:
    async with Client(Settings(redis_url=own_server.url)) as client:
        keys = client.keys.chat("c")
        await opened(client, keys)
        await push(client, keys, 2, "x" * 500_000)
        await claimed(client, keys)
        await client.chats.execute("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(ResponseError, match="maxmemory"):
            await push(client, keys, 3, "y")
        assert (await push(client, keys, 3, "{}", kind="end")).status == "stored"
        assert await commit(client, keys, 1, 0, '{"seq":1}') == 1
        assert await scripts.hand_over(client.chats, keys, term=1)
