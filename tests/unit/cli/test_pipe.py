"""How `riverdelta pipe` waits for its worker."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from riverdelta import BrokerUnavailable
from riverdelta_cli.commands.pipe import wait_for_worker
from riverdelta_cli.errors import NOT_DONE, CliError


def counts(looks: int) -> Callable[[], Awaitable[int]]:
    """Count no worker at that many looks, half of which get no answer at all."""
    left = looks

    async def count() -> int:
        nonlocal left
        left -= 1
        if left > 0 and left % 2:
            raise BrokerUnavailable("no answer")
        return int(left < 0)

    return count


async def test_it_waits_however_often_it_has_to_look() -> None:
    failed = asyncio.get_running_loop().create_future()
    await wait_for_worker(counts(20_000), failed, pause_s=0)
    assert not failed.done()


async def test_it_waits_no_longer_when_there_will_be_no_worker() -> None:
    failed: asyncio.Future[CliError] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(wait_for_worker(counts(10**9), failed, pause_s=0))
    await asyncio.sleep(0)
    failed.set_result(CliError("the worker was killed", NOT_DONE))
    with pytest.raises(CliError, match="the worker was killed") as raised:
        await waiting
    assert raised.value.exit_code == NOT_DONE
