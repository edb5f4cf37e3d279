"""Every attack that was tried on the Redis users of ops/redis-users.sh, as each of them."""

import subprocess
import threading
from collections.abc import Iterator

import pytest
import redis
from redis.exceptions import NoPermissionError, ResponseError

from tests.support.packaging import compose
from tests.support.packaging.deployment import redis_server, variables_of_operations
from tests.support.servers import DEADLINE_S, Server, binaries

pytestmark = pytest.mark.packaging

ENGINES = {name: path for name, path in binaries().items() if path}
ROLES = ("worker", "turns", "gateway", "backend")

ON_THE_SERVER = (
    *("CONFIG GET *", "CONFIG SET maxmemory 1", "CONFIG REWRITE", "ACL LIST", "ACL SETUSER x on"),
    *("FLUSHALL", "FLUSHDB", "SWAPDB 0 1", "SHUTDOWN NOSAVE", "SAVE", "BGSAVE", "BGREWRITEAOF"),
    *("REPLICAOF 127.0.0.1 1", "FAILOVER", "MIGRATE 127.0.0.1 1 k 0 1"),
    *("FUNCTION LOAD x", "FUNCTION LIST", "FCALL f 0"),
    *("SCRIPT FLUSH", "SCRIPT KILL", "SCRIPT LOAD x", "MONITOR", "SLOWLOG GET", "LATENCY LATEST"),
    *("CLIENT LIST", "CLIENT KILL TYPE normal", "CLIENT PAUSE 1", "CLIENT TRACKING ON BCAST"),
    *("KEYS *", "SCAN 0", "RANDOMKEY", "PUBSUB CHANNELS", "PUBSUB SHARDCHANNELS", "PSUBSCRIBE *"),
    *("CLUSTER RESET", "RESTORE shop:{c} 0 x", "SORT shop:{c}:dead BY rd:* GET rd:*"),
)
"""Commands that reach beyond a role's own keys."""

OTHER_KEYS = {
    # Ids may contain ":", so that one key may look like another.
    "gateway": (
        "HSETNX shop:{a:msg:b} user mallory",
        "DEL shop:{a:msg:b}",
        "XADD shop:{a:chunks} * a b",
        "HSETNX shop:{a}:msg user mallory",
        # What `redact` hides from readers.
        "XRANGE shop:{c}:chunks - +",
        "XRANGE shop:{c}:dead - +",
        "HGETALL shop:{c}:outbox",
        "SSUBSCRIBE shop:{c}:wake",
        "HSETNX shop:{c}:chunk:msg:b.0 text.0 x",
        "HSET shop:user:anna:bucket:x:chats c 0",
        "HSET shop:user:anna:bucket:posts:chats c 0",
        "HSET shop:{c}:user:anna:bucket:posts at 0",
        "HGETALL rd:{shop:{c}:msg:m",
        "SSUBSCRIBE xshop:{c}:deltas",
        "ZREVRANGE rd:user:anna:chats 0 -1",
    ),
    "worker": ("ZADD shop:user:anna:chats 0 c", "HGETALL xshop:{c}", "ZADD shop:turns 0 x"),
    "turns": ("HGETALL xshop:{c}", "HSET shop:workers w 1", "GET arq:job:other:turn:c:m"),
    "backend": ("HGETALL xshop:{c}", "ZADD shop:turns 0 x", "HSET shop:user:anna:bucket:posts a 0"),
}


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    made = variables_of_operations(tmp_path_factory.mktemp("env"))
    return made | {"RIVERDELTA_KEY_PREFIX": "shop"}


@pytest.fixture(scope="module", params=ENGINES)
def server(
    request: pytest.FixtureRequest,
    variables: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(f"roles-{request.param}")
    with redis_server(ENGINES[request.param], folder, variables) as running:
        yield running


def as_user(server: Server, variables: dict[str, str], user: str) -> redis.Redis:
    name = "RIVERDELTA_REDIS_PASSWORD"
    if user != "default":
        name = f"RIVERDELTA_REDIS_{user.upper()}_PASSWORD"
    return redis.Redis(port=server.port, username=user, password=variables[name])


@pytest.mark.parametrize("user", ROLES)
def test_no_role_reaches_beyond_its_keys(
    server: Server, variables: dict[str, str], user: str
) -> None:
    with as_user(server, variables, user) as connected:
        for command in (*ON_THE_SERVER, *OTHER_KEYS[user]):
            with pytest.raises(NoPermissionError):
                connected.execute_command(*command.split())
                pytest.fail(f"{user} may {command}")


@pytest.mark.parametrize("user", ROLES)
def test_a_script_may_do_no_more_than_its_caller(
    server: Server, variables: dict[str, str], user: str
) -> None:
    with as_user(server, variables, user) as connected:
        for command in ("FLUSHALL", "KEYS *", "GET rd:x", "SCAN 0", *OTHER_KEYS[user]):
            words = ", ".join(f"'{word}'" for word in command.split())
            with pytest.raises(
                ResponseError,
                match=r"NOPERM|ACL failure|can't run this|not allowed from script|can't access",
            ):
                connected.eval(f"return redis.call({words})", 0)


@pytest.mark.parametrize("user", ROLES)
def test_a_script_that_never_ends_is_ended_by_the_health_check(
    server: Server, variables: dict[str, str], user: str
) -> None:
    """What `+eval` leaves: SECURITY.md says so."""
    service = compose.services(variables)["redis"]
    kind, command = service["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    check = command.replace("$$", "$").replace("redis-cli", f"redis-cli -p {server.port}")
    environment = compose.environment_of(service, variables)
    ended: list[str] = []

    def attack() -> None:
        with as_user(server, variables, user) as connected:
            try:
                connected.eval("while true do end", 0)
            except ResponseError as error:
                ended.append(str(error))

    attacker = threading.Thread(target=attack)
    attacker.start()
    while attacker.is_alive():  # as the engine does, again and again
        checked = subprocess.run(
            ["sh", "-c", check], env=environment, timeout=DEADLINE_S, check=False
        )
        attacker.join(0.1)
    assert checked.returncode == 1
    (error,) = ended
    assert "killed by user" in error.lower()
    subprocess.run(["sh", "-c", check], env=environment, timeout=DEADLINE_S, check=True)
