"""A server of each engine for the session, and settings with a key prefix of its own for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest

from riverdelta import Producer, Settings, Subscriber
from riverdelta.broker.client import Client
from riverdelta.broker.producer.caretaker import Caretaker
from riverdelta.broker.producer.delivery import Delivery
from tests.support.local_workers import local_workers
from tests.support.marks import own_settings
from tests.support.servers import Server, binaries

ENGINES = binaries()


@pytest.fixture(scope="session", params=list(ENGINES))
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that all tests of the session share: no test may kill it, flush it or fill it."""
    binary = ENGINES[request.param]
    if binary is None:
        pytest.skip("redis-server is not on PATH; .ci/run installs it")
    with Server(binary, tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Valkey server with AOF `always` for one test, to be killed and frozen."""
    folder = tmp_path_factory.mktemp("own")
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with Server(str(ENGINES["valkey"]), folder, *options) as running:
        yield running


@pytest.fixture
def forgetful_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one test that comes back with what it had at its last SAVE, if any."""
    with Server(str(ENGINES["valkey"]), tmp_path_factory.mktemp("forgetful")) as running:
        yield running


@pytest.fixture
def settings(server: Server, request: pytest.FixtureRequest) -> Settings:
    """A prefix of the test's own; leases and waits as its marker ``settings`` gives them."""
    return own_settings(request, server.url)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Producers look after their messages twenty times a second, and keep them only briefly."""
    monkeypatch.setattr(Caretaker, "every_s", 0.05)
    monkeypatch.setattr(Delivery, "keep_s", 0.1)


@pytest.fixture
async def workers(settings: Settings) -> AsyncIterator[None]:
    """One worker in the test's own process."""
    async with local_workers(settings):
        yield


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    async with Client(settings) as connected:
        yield connected


@pytest.fixture
async def producer(settings: Settings) -> AsyncIterator[Producer]:
    async with Producer(settings) as connected:
        yield connected


@pytest.fixture
async def subscriber(settings: Settings) -> AsyncIterator[Subscriber]:
    async with Subscriber(settings) as connected:
        yield connected
