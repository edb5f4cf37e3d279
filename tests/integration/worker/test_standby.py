"""A thread sends the heartbeat of a worker or producer whose event loop is busy."""

import time

import pytest
import redis

from riverdelta import Producer, Settings
from riverdelta.broker.client import Client
from tests.support.local_workers import local_workers
from tests.support.servers import DEADLINE_S

pytestmark = pytest.mark.settings(lease_s=2.0, producer_lease_s=2.0)


def hold_the_loop_until_it_beats(settings: Settings, members: str, member: str) -> None:
    """Block the event loop of this test, and with it the loop's own heartbeat, until the counter moves."""
    with redis.Redis.from_url(settings.effective_queue_url) as queue:
        before = queue.hget(members, member)
        assert before is not None
        deadline = time.monotonic() + DEADLINE_S
        while queue.hget(members, member) == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def hold_the_loop_of_a_dead_one(settings: Settings, members: str, member: str) -> None:
    """Remove a member, and block the event loop for a lease: its counter stays away."""
    with redis.Redis.from_url(settings.effective_queue_url) as queue:
        queue.hdel(members, member)
        end = time.monotonic() + settings.producer_lease_s
        while time.monotonic() < end:
            assert queue.hget(members, member) is None
            time.sleep(0.05)


async def test_a_worker_with_a_busy_loop_is_not_taken_for_dead(
    settings: Settings, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with local_workers(settings, 1) as (worker,):
        before = worker.worker_id
        hold_the_loop_until_it_beats(settings, client.keys.workers, before)
        assert f"{before}: the event loop is late" in caplog.text
    # A counter that the thread has raised: the worker deregisters all the same.
    assert await client.queue.execute("HLEN", client.keys.workers) == 0


async def test_a_producer_with_a_busy_loop_is_not_taken_for_dead(
    settings: Settings, client: Client
) -> None:
    async with Producer(settings) as producer:
        hold_the_loop_until_it_beats(settings, client.keys.producers, producer.id)


async def test_the_thread_registers_nobody(settings: Settings, client: Client) -> None:
    """Declared dead is declared dead, until the loop turns and registers again."""
    async with Producer(settings) as producer:
        hold_the_loop_of_a_dead_one(settings, client.keys.producers, producer.id)
