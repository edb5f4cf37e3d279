"""A server that evicts keys is refused at the start, with a sentence that says what to set."""

import pytest

from riverdelta import Producer, Settings, SettingsError, Subscriber
from riverdelta.broker.client import Client
from tests.support.servers import Server


async def _set_policy(server: Server, policy: str) -> None:
    async with Client(Settings(redis_url=server.url, allow_eviction=True)) as client:
        await client.chats.execute("CONFIG", "SET", "maxmemory-policy", policy)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_an_evicting_server_is_refused(own_server: Server, policy: str) -> None:
    await _set_policy(own_server, policy)
    said = rf"evicts keys \(maxmemory-policy {policy}\).*noeviction.*RIVERDELTA_ALLOW_EVICTION"
    for opened in (Producer.from_url(own_server.url), Subscriber.from_url(own_server.url)):
        with pytest.raises(SettingsError, match=said):
            await opened.__aenter__()
    await _set_policy(own_server, "noeviction")
    async with Producer.from_url(own_server.url):
        pass


async def test_those_who_know_may_start_with_it(own_server: Server) -> None:
    await _set_policy(own_server, "allkeys-lru")
    settings = Settings(redis_url=own_server.url, allow_eviction=True)
    async with Producer(settings) as producer, producer.message("c1", source="text") as message:
        await message.push("kept for now")


async def test_the_queues_server_is_asked_too(own_server: Server, server: Server) -> None:
    await _set_policy(own_server, "allkeys-lru")
    settings = Settings(redis_url=server.url, queue_url=own_server.url)
    client = Client(settings)
    with pytest.raises(SettingsError, match="evicts keys"):
        await client.__aenter__()
    assert client.closed
