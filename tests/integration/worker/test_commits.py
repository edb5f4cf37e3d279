"""Commits whose reply was lost."""

import asyncio
from typing import Any

import pytest

from riverdelta import BrokerUnavailable, Producer, Settings, Subscriber
from riverdelta.broker.store import scripts
from tests.support.local_workers import local_workers
from tests.support.reading import read_until_ends, view_of
from tests.support.servers import until

pytestmark = pytest.mark.settings(lease_s=0.5)


@pytest.mark.parametrize("when", ["before the next commit", "after the next commit"])
async def test_a_commit_whose_reply_was_lost_and_that_lands_late(
    when: str, settings: Settings, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that a cut connection left under way: whichever comes first, the other is refused."""
    script = scripts.commit
    under_way: list[tuple[Any, ...]] = []
    refused: list[bool] = []

    async def land() -> None:
        while under_way:
            refused.append(isinstance(await script(*under_way.pop()), scripts.Refused))

    lost = 0

    async def commit(*args: Any) -> Any:
        nonlocal lost
        if lost < 3 and not under_way:
            lost += 1
            under_way.append(args)
            raise BrokerUnavailable("no answer")
        if when == "before the next commit":
            await land()
        reply = await script(*args)
        await land()
        return reply

    monkeypatch.setattr(scripts, "commit", commit)
    async with local_workers(settings) as (pump,), Producer(settings) as producer:
        reading = asyncio.create_task(read_until_ends(subscriber, "c"))
        async with producer.message("c", source="text", message_id="m") as message:
            for number in range(20):
                await message.push(f"{number} ")
                await asyncio.sleep(0.005)
        events = await reading
        late_won = when == "before the next commit"

        async def landed() -> bool:
            return refused == [not late_won] * lost and pump.refused_commits == lost * late_won

        await until(landed)
        assert lost > 0
    assert view_of(events).text("m") == "".join(f"{number} " for number in range(20))
