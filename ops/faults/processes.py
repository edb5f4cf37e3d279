"""Child processes of the harness: forked by `faults.entry`, commanded by JSON lines, killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from faults.child import ORDER_BYTES
from riverdelta_cli.processes.children import bind_to

_LINE_BYTES: Final = 16 * 1024 * 1024
_END_S: Final = 5.0

Report = dict[str, Any]


class Nursery:
    """
    The process that all children are forked from. Close it when they are gone.

    It has everything imported, so a child costs milliseconds of CPU, not a second.
    """

    def __init__(self) -> None:
        self._one_by_one = threading.Lock()
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "faults.entry", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                process_group=0,
                preexec_fn=bind_to(os.getpid(), signal.SIGKILL),  # noqa: PLW1509  # one system call
            )

    def fork(self, spec: dict[str, Any]) -> tuple[int, int, int]:
        """Fork a child; its pid, where to read its reports, where to write its orders. Blocks."""
        orders, to_child = os.pipe()
        from_child, reports = os.pipe()
        with self._one_by_one:  # or one would take another's pid for its own
            try:
                socket.send_fds(self._ours, [json.dumps(spec).encode()], [orders, reports])
            finally:
                os.close(orders)
                os.close(reports)
            return int(self._ours.recv(ORDER_BYTES)), from_child, to_child

    def close(self) -> None:
        """End it, and its children that are left."""
        self._ours.close()
        self._process.wait()


class Child:
    """
    One child process. `start` it once.

    Attributes:
        name: Place and how many there were in it: ``worker-2.7``.
        slot: Its place; the one that replaces it has the same.
        ids: Worker ids it took.
        ready: Set when it may be given something to do.
        alive: Whether it runs (or is frozen).
        wanted: Its end is not a surprise.
    """

    def __init__(self, role: str, slot: int, number: int) -> None:
        self.role = role
        self.slot = slot
        self.name = f"{role}-{slot}.{number}"
        self.ids: list[str] = []
        self.ready = asyncio.Event()
        self.alive = False
        self.wanted = False
        self._pid = 0
        self._orders: asyncio.WriteTransport | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(
        self, nursery: Nursery, spec: dict[str, Any], on_report: Callable[[Child, Report], None]
    ) -> None:
        """Start it; *on_report* gets what it says."""
        self._pid, reports, orders = await asyncio.to_thread(
            nursery.fork, spec | {"role": self.role}
        )
        self.alive = True
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(_LINE_BYTES)
        incoming, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reports, "rb")
        )
        self._orders, _ = await loop.connect_write_pipe(
            asyncio.BaseProtocol, os.fdopen(orders, "wb")
        )
        self._reading = asyncio.create_task(self._read(reader, incoming, on_report))

    def tell(self, **order: Any) -> None:
        """Give it an order."""
        if self._orders is not None and not self._orders.is_closing():
            self._orders.write(json.dumps(order).encode() + b"\n")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    async def kill(self) -> None:
        """``kill -9``; returns when it is gone, and all it had said is taken in."""
        self.wanted = True
        self.send(signal.SIGKILL)
        await self.gone()

    async def gone(self) -> None:
        """Wait for its end: then the last thing it said has been taken in."""
        if self._reading is not None:
            await asyncio.wait((self._reading,))

    async def end(self) -> None:
        """Ask it to end (SIGTERM); kill it if it does not."""
        self.wanted = True
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(_END_S):
                await self.gone()
        except TimeoutError:
            await self.kill()

    async def _read(
        self,
        reader: asyncio.StreamReader,
        incoming: asyncio.BaseTransport,
        on_report: Callable[[Child, Report], None],
    ) -> None:
        """Take in reports until the pipe closes: that is its death."""
        while (line := await reader.readline()).endswith(b"\n"):  # else killed in the middle of one
            on_report(self, json.loads(line.decode("utf-8", "surrogatepass")))
        self.alive = False
        incoming.close()
        if self._orders is not None:
            self._orders.close()
