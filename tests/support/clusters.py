"""Real clusters and sentinels, started by the tests on free loopback ports."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from riverdelta.broker.redis.cluster import SLOTS, slot_of
from tests.support.servers import Server, until

NODE_TIMEOUT_MS = 1500
PRIMARIES = 3


class Node(Server):
    """A server that answers the test's own commands."""

    def __init__(self, binary: str, folder: Path, *options: str) -> None:
        folder.mkdir()
        super().__init__(binary, folder, *options)

    password: str | None = None

    def call(self, *args: str | int) -> Any:
        """Send one command; a connection error if the node does not answer within a second."""
        connection = redis.Connection(  # type: ignore[no-untyped-call]  # redis-py 5
            port=self.port, socket_timeout=1.0, password=self.password
        )
        try:
            connection.send_command(*args)  # type: ignore[no-untyped-call]  # redis-py 5
            return connection.read_response()  # type: ignore[no-untyped-call]
        finally:
            connection.disconnect()  # type: ignore[no-untyped-call]

    def answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            return bool(self.call("PING"))
        return False

    def role(self) -> list[Any]:
        return list(self.call("ROLE"))

    def is_primary(self) -> bool:
        return bool(self.role()[0] == b"master")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


class TestCluster:
    """
    Three primaries with a replica each. One whose nodes were killed or frozen can be made whole.

    Slots that nobody serves cost nobody else anything (``cluster-require-full-coverage no``).
    """

    __test__ = False

    def __init__(self, binary: str, folder: Path) -> None:
        self.nodes = [
            Node(
                binary,
                folder / str(number),
                *("--cluster-enabled", "yes", "--cluster-port", str(bus_port)),
                *("--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
                *(
                    "--cluster-require-full-coverage",
                    "no",
                    "--cluster-replica-validity-factor",
                    "0",
                ),
                *("--appendonly", "yes", "--appendfsync", "no"),
                *("--repl-diskless-sync-delay", "0"),
            )
            for number, bus_port in enumerate(free_ports(2 * PRIMARIES))
        ]
        self.url = "redis+cluster://" + ",".join(node.address for node in self.nodes[:4])

    def start(self) -> None:
        for node in self.nodes:
            node.start()

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()

    async def form(self) -> None:
        """Make them one cluster."""
        for number, node in enumerate(self.nodes):
            node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for one, other in itertools.combinations(self.nodes, 2):
            bus = int(other.call("CONFIG", "GET", "cluster-port")[1])
            one.call("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
        share = SLOTS // PRIMARIES + 1
        for number, node in enumerate(self.nodes[:PRIMARIES]):
            last = min(SLOTS, (number + 1) * share) - 1
            node.call("CLUSTER", "ADDSLOTSRANGE", number * share, last)

        async def acquainted() -> bool:
            return all(len(known(node)) == len(self.nodes) for node in self.nodes)

        await until(acquainted)
        for primary, replica in zip(self.nodes[:3], self.nodes[3:], strict=True):
            replica.call("CLUSTER", "REPLICATE", primary.call("CLUSTER", "MYID"))
        await self.whole()

    async def whole(self) -> None:
        """Start and thaw what was killed or frozen; wait for three primaries with a replica each."""
        for node in self.nodes:
            if node.process.poll() is not None:
                node.start()
            node.thaw()

        async def is_whole() -> bool:
            try:
                roles = [node.role() for node in self.nodes]
                infos = [node.call("CLUSTER", "INFO").decode() for node in self.nodes]
            except (redis.RedisError, OSError):
                return False
            linked = [role for role in roles if role[0] == b"slave" and role[3] == b"connected"]
            served = [role for role in roles if role[0] == b"master" and len(role[2]) == 1]
            return (
                len(linked) == len(served) == PRIMARIES
                and all("cluster_state:ok" in info for info in infos)
                and all("cluster_slots_fail:0" in info for info in infos)
                and len({view(node) for node in self.nodes}) == 1
            )

        await until(is_whole)

    def primary_of(self, chat_id: str) -> Node:
        """The node that has the chat, as the nodes that answer say."""
        slot = slot_of(f"{{{chat_id}}}")
        for node in self.nodes:
            if node.process.poll() is None and node.answers():
                for first, last, (_, port, *_), *_ in node.call("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(each for each in self.nodes if each.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    def replica_of(self, primary: Node) -> Node:
        ports = {int(port) for _, port, _ in primary.role()[2]}
        return next(node for node in self.nodes if node.port in ports)

    async def promoted(self, replica: Node) -> None:
        """Wait until *replica* is a primary that serves slots."""

        async def is_primary() -> bool:
            return await asyncio.to_thread(replica.is_primary)

        await until(is_primary)

    def chats_on(self, primary: Node, count: int, prefix: str) -> list[str]:
        """Ids of chats that are on *primary*."""
        shares = [
            (first, last)
            for first, last, (_, port, *_), *_ in primary.call("CLUSTER", "SLOTS")
            if port == primary.port
        ]
        names = (f"{prefix}{number}" for number in itertools.count())
        fitting = (
            name
            for name in names
            if any(first <= slot_of(f"{{{name}}}") <= last for first, last in shares)
        )
        return list(itertools.islice(fitting, count))

    def migrate(self, slot: int, source: Node, target: Node) -> Iterator[None]:
        """Move a slot, key by key; yields between the steps, for whoever wants to look."""
        source_id, target_id = (n.call("CLUSTER", "MYID") for n in (source, target))
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        yield
        while keys := source.call("CLUSTER", "GETKEYSINSLOT", slot, 1):
            source.call("MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5000)
            yield
        for node in (target, source):
            node.call("CLUSTER", "SETSLOT", slot, "NODE", target_id)


def known(node: Node) -> list[str]:
    """The nodes that *node* has shaken hands with, itself included."""
    lines = node.call("CLUSTER", "NODES").decode().splitlines()
    return [line for line in lines if "handshake" not in line and "noaddr" not in line]


def view(node: Node) -> frozenset[tuple[int, int, int]]:
    """First slot, last slot and primary's port, as *node* sees them."""
    slots = node.call("CLUSTER", "SLOTS")
    return frozenset((first, last, primary[1]) for first, last, primary, *_ in slots)


def free_ports(count: int) -> list[int]:
    """Ports that are free together."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


class Sentinel(Node):
    """A sentinel process; knows nothing but where the primary is at the start."""

    def __init__(self, binary: str, folder: Path, primary: Node, service: str, auth: str) -> None:
        super().__init__(binary, folder)
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            "logfile sentinel.log",
            f"sentinel monitor {service} 127.0.0.1 {primary.port} 2",
            f"sentinel auth-pass {service} {auth}",
            f"sentinel down-after-milliseconds {service} 500",
            f"sentinel failover-timeout {service} 1500",
            f"requirepass of-{auth}",
        ]
        conf = folder / "sentinel.conf"
        conf.write_text("\n".join(lines) + "\n")
        self._command = [binary, str(conf), "--sentinel"]
        self.password = f"of-{auth}"


class Sentinels:
    """A primary, two replicas and three sentinels that watch over them; everything has a password."""

    service = "rd-primary"
    password = "secret"

    def __init__(self, binary: str, folder: Path) -> None:
        options = (
            *("--requirepass", self.password, "--masterauth", self.password),
            *("--appendonly", "yes", "--repl-diskless-sync-delay", "0"),
        )
        self.servers = [Node(binary, folder / f"server{n}", *options) for n in range(3)]
        for server in self.servers:
            server.password = self.password
        self.sentinels = [
            Sentinel(binary, folder / f"s{n}", self.servers[0], self.service, self.password)
            for n in range(3)
        ]
        listed = ",".join(sentinel.address for sentinel in self.sentinels)
        self.url = (
            f"redis+sentinel://:{self.password}@{listed}/{self.service}"
            f"?sentinel_password=of-{self.password}"
        )

    async def start(self) -> None:
        primary, *replicas = self.servers
        for server in self.servers:
            server.start()
        for replica in replicas:
            replica.call("REPLICAOF", "127.0.0.1", primary.port)
        for sentinel in self.sentinels:
            sentinel.start()

        async def complete() -> bool:
            if len(primary.role()[2]) < len(replicas):
                return False
            replies = [s.call("SENTINEL", "MASTER", self.service) for s in self.sentinels]
            facts = [dict(zip(t[::2], t[1::2], strict=True)) for t in replies]
            return all((f[b"num-slaves"], f[b"num-other-sentinels"]) == (b"2", b"2") for f in facts)

        await until(complete)

    def stop(self) -> None:
        for process in (*self.sentinels, *self.servers):
            process.kill()

    def primary(self) -> Node:
        """The primary that the sentinels name."""
        _, port = self.sentinels[0].call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return next(server for server in self.servers if server.port == int(port))
