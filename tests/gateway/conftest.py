"""A gateway in the test's own process, and clients that speak its protocol."""

from collections.abc import AsyncIterator, Iterator

import pytest

from riverdelta import Producer, Settings, Subscriber
from riverdelta.broker.client import Client
from riverdelta_gateway.serve import Running, gateway_server
from riverdelta_gateway.settings import GatewaySettings
from tests.support.marks import own_settings
from tests.support.servers import Server, binaries


@pytest.fixture(scope="session")
def gateway_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that all gateway tests share: the engines' differences are tested elsewhere."""
    with Server(str(binaries()["valkey"]), tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def settings(gateway_redis: Server, request: pytest.FixtureRequest) -> Settings:
    return own_settings(request, gateway_redis.url)


@pytest.fixture
async def producer(settings: Settings) -> AsyncIterator[Producer]:
    async with Producer(settings) as connected:
        yield connected


@pytest.fixture
async def gateway(settings: Settings) -> AsyncIterator[Running]:
    """A gateway without tokens."""
    async with gateway_server(settings, GatewaySettings(dev=True, port=0)) as running:
        yield running


@pytest.fixture
async def subscriber(settings: Settings) -> AsyncIterator[Subscriber]:
    async with Subscriber(settings) as connected:
        yield connected


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    async with Client(settings) as connected:
        yield connected
