"""An end that could not be stored at once is stored later."""

import asyncio
from typing import Any

import pytest

from riverdelta import (
    BrokerUnavailable,
    Producer,
    Settings,
    Subscriber,
)
from riverdelta.broker.producer.delivery import Delivery
from riverdelta.broker.store import scripts
from tests.support.chats import outcome
from tests.support.local_workers import local_workers
from tests.support.reading import read_until_ends, view_of
from tests.support.servers import DEADLINE_S

pytestmark = [
    pytest.mark.usefixtures("hasty"),
    pytest.mark.settings(lease_s=0.5, producer_lease_s=0.5, push_wait_s=0.3),
]


@pytest.mark.parametrize("how", ["exception", "cancelled end"])
async def test_an_end_is_wanted_also_while_another_task_pushes(
    how: str, settings: Settings, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Delivery, "fail_wait_s", 0.1)
    script, away, back = scripts.push, asyncio.Event(), asyncio.Event()

    async def hang(*a: Any, **k: Any) -> Any:
        away.set()
        await back.wait()
        return await script(*a, **k)

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
        back.set()
        async with asyncio.timeout(DEADLINE_S):
            (message,) = view_of(await read_until_ends(subscriber, "c")).messages
    # Whose push was in doubt goes out once, before the end that was wanted.
    assert "".join(chunk["text"] for chunk in message["chunks"]) == "another task's"
    assert message["status"] == ("failed" if how == "exception" else "completed")


@pytest.mark.parametrize("how", ["by an exception", "by end", "by a cancelled end"])
async def test_an_end_that_could_not_be_stored_is_stored_later(
    how: str,
    settings: Settings,
    workers: None,
    subscriber: Subscriber,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Delivery, "fail_wait_s", 0.1)
    script, away, back = scripts.push, asyncio.Event(), asyncio.Event()

    async def lost(*args: Any, **options: Any) -> Any:
        away.set()
        if how == "by a cancelled end":
            await back.wait()
        raise BrokerUnavailable("away")

    async def talk() -> None:
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
            monkeypatch.setattr(scripts, "push", lost)
            if how == "by an exception":
                raise ZeroDivisionError

    async with Producer(settings) as producer:
        talking = asyncio.create_task(talk())
        await away.wait()
        if how == "by a cancelled end":
            talking.cancel()
        await asyncio.wait((talking,))
        monkeypatch.setattr(scripts, "push", script)
        back.set()
        events = await read_until_ends(subscriber, "c")
    failed = how == "by an exception"
    assert outcome(events) == (("failed", "producer_error") if failed else ("completed", None))
    assert view_of(events).text("m") == "x"
