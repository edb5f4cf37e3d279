"""What a second look at the first holes found beside them."""

import asyncio
import gc
import subprocess
import sys
import time
import warnings
from typing import Any

import pytest

from riverdelta import (
    BrokerUnavailable,
    MessageLost,
    Producer,
    RiverdeltaError,
    Settings,
    Subscriber,
)
from riverdelta.broker.client import Client
from riverdelta.broker.producer.delivery import Delivery
from riverdelta.broker.store import members, scripts
from riverdelta.core.wake import parse_wake
from riverdelta_workers.pump import Pump
from tests.support.local_workers import local_workers
from tests.support.producers import stand_still
from tests.support.reading import read_until_ends, view_of
from tests.support.servers import Server, binaries, until


async def until_idle(client: Client) -> None:
    async def read() -> bool:
        h = scripts.as_hash(await client.chats.execute("HGETALL", client.keys.chat("c").head))
        return h.get("pushed") == h.get("processed") and "pushed" in h

    await until(read)


async def test_an_owner_notices_that_the_server_fell_back_behind_it(tmp_path: Any) -> None:
    with Server(str(binaries()["valkey"]), tmp_path) as srv:
        s = Settings(redis_url=srv.url, resend_bytes=0)
        async with local_workers(s), Client(s) as c, Producer(s) as p, Subscriber(s) as sub:
            m = await p.message("c", source="text", message_id="m").__aenter__()
            await m.push("kept")
            await until_idle(c)
            await c.chats.execute("SAVE")
            await m.push("lost")
            await until_idle(c)
            srv.kill()
            srv.start()
            with pytest.raises(MessageLost):
                await m.push("refused")
            async with asyncio.timeout(5):
                events = await read_until_ends(sub, "c")
    error = view_of(events).messages[0]["error"]
    assert error is not None
    assert error["code"] == "data_lost"


async def test_a_chat_of_the_future_is_tried_once_a_lease(
    settings: Settings, client: Client
) -> None:
    s = settings.model_copy(update={"lease_s": 0.8})
    async with Producer(s) as p:
        async with p.message("c", source="text", message_id="m") as m:
            await m.push("x")
        await client.chats.execute("HSET", client.keys.chat("c").head, "v", "99")
        async with local_workers(s, 2) as pumps:

            async def tried() -> bool:
                return sum(pump.attached for pump in pumps) >= 4

            began = time.monotonic()
            await until(tried)
            took_s = time.monotonic() - began
        await client.chats.execute("HSET", client.keys.chat("c").head, "v", "1")
    assert took_s > 2 * 0.8, f"4 claims took {took_s:.2f} s"  # 3 leases lie between 4 claims


@pytest.mark.parametrize("how", ["exception", "cancelled end"])
async def test_an_end_is_wanted_also_while_another_task_pushes(
    how: str, settings: Settings, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Delivery, "fail_wait_s", 0.1)
    script, away = scripts.push, asyncio.Event()

    async def hang(*a: Any, **k: Any) -> Any:
        away.set()
        await asyncio.Event().wait()

    async def talk(p: Producer) -> None:
        async with p.message("c", source="text", message_id="m") as m:
            monkeypatch.setattr(scripts, "push", hang)
            other.append(asyncio.create_task(m.push("another task's")))
            await away.wait()
            if how == "exception":
                raise ZeroDivisionError

    other: list[asyncio.Task[None]] = []
    async with local_workers(settings), Producer(settings) as p:
        t = asyncio.create_task(talk(p))
        await away.wait()
        await asyncio.wait((t,), timeout=0.3)
        t.cancel()
        await asyncio.wait((t,))
        other[0].cancel()
        await asyncio.wait(other)
        monkeypatch.setattr(scripts, "push", script)
        async with asyncio.timeout(5):
            (message,) = view_of(await read_until_ends(subscriber, "c")).messages
    # Whose push was in doubt goes out once, before the end that was wanted.
    assert "".join(chunk["text"] for chunk in message["chunks"]) == "another task's"
    assert message["status"] == ("failed" if how == "exception" else "completed")


@pytest.mark.parametrize("junk", [rb"7\nm chunk 0 -14\n", rb"7\nm chunk 0 -1\n"])
def test_a_wake_with_a_negative_size_does_not_hang_the_worker(junk: bytes) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "from riverdelta.core.wake import parse_wake\n"
        f"try: parse_wake(b'{junk.decode()}')\n"
        "except ValueError: pass\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=3, check=False).returncode == 0


def test_a_wake_that_is_cut_is_not_an_entry() -> None:
    with pytest.raises(ValueError, match="entry of a wake"):
        parse_wake(b"7\nm chunk 0 10\nshort")


async def test_junk_on_the_channel_of_deltas_does_not_end_readers(
    settings: Settings, subscriber: Subscriber, client: Client
) -> None:
    async with local_workers(settings), Producer(settings) as p:
        async with p.message("c", source="text", message_id="m") as m:
            reading = asyncio.create_task(read_until_ends(subscriber, "c"))

            async def subscribed() -> bool:
                return bool(
                    await client.chats.execute(
                        "PUBSUB", "SHARDNUMSUB", client.keys.chat("c").deltas
                    )
                    != [client.keys.chat("c").deltas.encode(), 0]
                )

            await until(subscribed)
            await m.push("x")
            await client.chats.execute("SPUBLISH", client.keys.chat("c").deltas, "hello")
            await m.push("y")
        assert view_of(await reading).text("m") == "xy"


async def test_one_message_that_cannot_be_failed_does_not_keep_a_dead_producers_others_open(
    settings: Settings, client: Client, subscriber: Subscriber
) -> None:
    s = settings.model_copy(update={"producer_lease_s": 0.5})
    for i in range(5):
        await client.chats.execute("SET", client.keys.chat(f"bad{i}").message("m"), "not a hash")
    async with Producer(settings) as p:
        for i in range(5):
            await client.queue.execute("SADD", client.keys.producer_messages(p.id), f"bad{i} m")
        await p.message("c", source="text", message_id="m").__aenter__()
        await stand_still(p)
        async with local_workers(s), asyncio.timeout(5):
            (message,) = view_of(await read_until_ends(subscriber, "c")).messages
    assert message["error"] is not None
    assert message["error"]["code"] == "producer_lost"


async def test_an_id_that_could_not_be_listed_can_be_opened_later(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = members.add_messages

    async def away(*_: Any) -> None:
        raise BrokerUnavailable("away")

    monkeypatch.setattr(members, "add_messages", away)
    async with Producer(settings.model_copy(update={"push_wait_s": 0.05})) as p:
        with pytest.raises(BrokerUnavailable):
            await p.message("c", source="text", message_id="m").__aenter__()
        monkeypatch.setattr(members, "add_messages", add)
        async with p.message("c", source="text", message_id="m") as m:
            await m.push("x")


async def test_opening_on_a_full_server_is_our_error_after_push_wait(own_server: Server) -> None:
    s = Settings(redis_url=own_server.url, push_wait_s=0.1)
    async with Producer(s) as p, Client(s) as c:
        await c.chats.execute("CONFIG", "SET", "maxmemory", "1mb")
        with pytest.raises(RiverdeltaError):
            await p.message("c", source="text", message_id="m").__aenter__()
        await c.chats.execute("CONFIG", "SET", "maxmemory", "0")


async def test_an_orphaned_claim_leaves_no_subscription(
    settings: Settings, client: Client, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = scripts.claim
    pumps: list[Pump] = []
    buried: list[str] = []

    async def claim(*args: Any, worker_id: str, **options: Any) -> Any:
        if buried:
            return await script(*args, worker_id=worker_id, **options)
        buried.append(worker_id)
        (pump,) = (pump for pump in pumps if pump.worker_id == worker_id)
        counter = int(await client.queue.execute("HGET", client.keys.workers, worker_id))
        await scripts.bury(client.queue, client.keys, worker_id=worker_id, counter=counter)
        claimed = await script(*args, worker_id=worker_id, **options)
        await pump.start_anew()
        return claimed

    monkeypatch.setattr(scripts, "claim", claim)
    s = settings.model_copy(update={"lease_s": 0.5})
    async with local_workers(s, 2) as ws, Producer(s) as p:
        pumps += ws
        async with p.message("c", source="text", message_id="m") as m:
            await m.push("x")
        await read_until_ends(subscriber, "c")
        for pump in ws:
            assert set(pump._pubsub._wanted) == {client.keys.chat(c).wake for c in pump.chats}


async def test_stopping_a_full_worker_leaves_no_connection(settings: Settings) -> None:
    s = settings.model_copy(update={"max_chats": 1, "lease_s": 0.3})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for run in range(4):
            async with local_workers(s) as (pump,), Producer(s) as p:
                for i in range(5):
                    await p.message(f"c{run}-{i}", source="text").__aenter__()

                async def full() -> bool:
                    return bool(pump.chats)

                await until(full)
                await asyncio.sleep(0.5)
        await asyncio.sleep(0.1)
        gc.collect()
    assert [str(w.message) for w in caught if "unclosed" in str(w.message)] == []
