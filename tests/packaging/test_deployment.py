"""The services of docker-compose.yml as their Redis users: each works, and may do no more than it does."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from riverdelta import Producer, Settings, Stopped, Subscriber
from tests.support.gateway.clients import Client, client
from tests.support.gateway.tokens import token
from tests.support.packaging.deployment import Deployment, redis_server, variables_of_operations
from tests.support.packaging.environment import Environment
from tests.support.servers import DEADLINE_S, Server, binaries, until

pytestmark = pytest.mark.packaging

PREFIX = "shop"
USER = "anna"
ENGINES = {name: path for name, path in binaries().items() if path}


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    made = variables_of_operations(tmp_path_factory.mktemp("env"))
    # Another than the default, to see that it is everywhere.
    return made | {"RIVERDELTA_KEY_PREFIX": PREFIX}


@pytest.fixture(scope="module", params=ENGINES)
def server(
    request: pytest.FixtureRequest,
    variables: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(f"redis-{request.param}")
    with redis_server(ENGINES[request.param], folder, variables) as running:
        yield running


@pytest.fixture
def deployment(
    image: Environment, server: Server, variables: dict[str, str], tmp_path: Path
) -> Deployment:
    return Deployment(image, server, variables, tmp_path)


def query(user: str, secret: str) -> str:
    return "?token=" + token(user, key=secret)


async def posted(browser: Client, prompt: str) -> dict[str, Any]:
    """Ask for a reply, and give the chat as it is when that is complete."""
    await browser.send("/chats/post", {"prompt": prompt})
    while True:
        frame = await browser.next()
        assert frame["error"] is None, frame
        if frame["event"] == "complete":
            return dict(frame["payload"])


async def stop_a_second_question(browser: Client, chat_id: str) -> None:
    """Ask twice at once: the second turn waits for the first; stop both."""
    for prompt in ("And costs?", "And profits?"):
        await browser.send("/chats/post", {"prompt": prompt, "chat_id": chat_id})
    await browser.send("/chats/stop", {"chat_id": chat_id})
    events: list[str] = []
    while events.count("complete") < 2:
        frame = await browser.next()
        assert frame["error"] is None, frame
        events.append(frame["event"])
    assert (events.count("accepted"), events.count("stopping")) == (2, 1)


async def stop_the_backend(deployment: Deployment, browser: Client) -> None:
    """A chat backend writes; a reader reads on from the log, and stops it."""
    settings = Settings(redis_url=deployment.redis_url("backend"), key_prefix=PREFIX)
    async with (
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
        producer.message("c1", source="text", user=USER) as message,
    ):
        await message.push("one ")
        async for event in subscriber.events("c1", after=None):
            if event.type != "snapshot" or event.data["messages"]:
                break
        await browser.subscribe("c1", after=event.position)
        await message.push("two ")
        async for event in browser.events():
            if "two" in event.raw.decode():
                break
        answer = await browser.ask("/chats/stop", {"chat_id": "c1"})
        assert answer["error"] is None, answer

        async def stopped() -> bool:
            try:
                await message.push("three ")
            except Stopped:
                return True
            return False

        await until(stopped)


async def test_every_role_works_and_ends_when_asked_to(
    deployment: Deployment, variables: dict[str, str]
) -> None:
    names = ("workers", "turns", "gateway")
    secret = variables["RIVERDELTA_GATEWAY_TOKEN_SECRET"]
    with ExitStack() as stack:
        processes = {name: stack.enter_context(deployment.running(name)) for name in names}
        admin = stack.enter_context(redis.Redis.from_url(deployment.redis_url("default")))

        async def healthy() -> bool:
            return await asyncio.to_thread(deployment.is_healthy, "gateway")

        await until(healthy)
        async with client(deployment.gateway_url, query(USER, secret)) as browser:
            chat = await posted(browser, "How are sales?")
            assert chat["status"] == "completed", chat
            await stop_a_second_question(browser, chat["id"])
            await stop_the_backend(deployment, browser)
            listed = await browser.ask("/chats/list", {})
            chats = {entry["chat_id"] for entry in listed["payload"]["chats"]}
            assert chats == {"c1", chat["id"]}
            for name, process in processes.items():  # with a socket open, and a chat owned
                process.terminate()
                assert await asyncio.to_thread(process.wait, DEADLINE_S) == 0, name
        # Nothing was refused on the way, not even where nobody would notice.
        assert admin.acl_log() == []


FORBIDDEN = {
    "gateway": (
        "CONFIG GET *",
        "FLUSHALL",
        "KEYS *",
        "SCAN 0",
        "SCRIPT FLUSH",
        "CLIENT KILL TYPE normal",
        "CLIENT TRACKING ON BCAST",
        "DEL shop:{c}",
        "HDEL shop:{c} user",
        "HSETNX shop:{c} user mallory",
        "HSET shop:{c}:chunk:m.0 text.0 x",
        "HSET shop:{c}:producers p:m 1",
        "XADD shop:{c}:deltas * a b",
        "XADD shop:{c}:dead * a b",
        "XTRIM shop:{c}:chunks MAXLEN 0",
        "XRANGE rd:{c}:deltas - +",
        "SPUBLISH shop:{c}:deltas x",
        "SSUBSCRIBE rd:{c}:deltas",
        "SSUBSCRIBE shop:worker",
        "ZRANGE shop:waiting 0 -1",
        "SPUBLISH shop:wake x",
        "HGETALL shop:workers",
        "SADD shop:producer:p:messages m",
        "GET arq:job:shop:turn:c:m",
        "GET arq:job:shop:attach:c:0:0",
    ),
    "backend": (
        "ACL LIST",
        "FLUSHALL",
        "SCAN 0",
        "FUNCTION LIST",
        "PUBSUB SHARDCHANNELS",
        "HGETALL rd:{c}",
        "SSUBSCRIBE rd:{c}:deltas",
        "SPUBLISH rd:{c}:deltas x",
        "HDEL shop:workers w",
        "ZADD shop:turns 0 x",
        "GET arq:job:shop:turn:c:m",
    ),
    "turns": ("CONFIG GET *", "FLUSHDB", "HGETALL rd:{c}", "HDEL shop:workers w"),
    "worker": (
        "CONFIG SET requirepass x",
        "FLUSHALL",
        "SHUTDOWN",
        "HGETALL rd:{c}",
        "ZADD shop:turns 0 x",
        "ZADD shop:user:anna:chats 0 c",
        "GET arq:job:rd:attach:c:1:1",
    ),
}


@pytest.mark.parametrize("user", FORBIDDEN)
def test_a_role_may_do_no_more_than_it_does(deployment: Deployment, user: str) -> None:
    with redis.Redis.from_url(deployment.redis_url(user)) as connected:
        assert connected.ping()
        for command in FORBIDDEN[user]:
            with pytest.raises(NoPermissionError):
                connected.execute_command(*command.split())
        # A script is no way round.
        with pytest.raises(ResponseError, match=r"NOPERM|ACL failure|can't run this"):
            connected.eval("return redis.call('FLUSHALL')", 0)


def test_nobody_comes_in_without_a_password(deployment: Deployment, server: Server) -> None:
    with redis.Redis(port=server.port) as connected, pytest.raises(AuthenticationError):
        connected.ping()
    worker = deployment.redis_url("worker").replace("worker:", "gateway:")
    with redis.Redis.from_url(worker) as connected, pytest.raises(AuthenticationError):
        connected.ping()
