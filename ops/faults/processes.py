"""Child processes of the harness: started through `faults.entry`, told by JSON lines, killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from riverdelta_cli.children import bind_to

_LINE_BYTES: Final = 16 * 1024 * 1024
_END_S: Final = 5.0

Report = dict[str, Any]


class Child:
    """
    One child process. `start` it once.

    Attributes:
        name: Slot and how many there were in it: ``worker-2.7``.
        slot: Its place; the one that replaces it has the same.
        ids: Worker ids it took.
        ready: Set when it may be given something to do.
        wanted: Its end is not a surprise.
    """

    def __init__(self, role: str, slot: int, number: int) -> None:
        self.role = role
        self.slot = slot
        self.name = f"{role}-{slot}.{number}"
        self.ids: list[str] = []
        self.ready = asyncio.Event()
        self.wanted = False
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(
        self, spec: dict[str, Any], on_report: Callable[[Child, Report], None], logs: Path
    ) -> None:
        """Start it; *on_report* gets what it says."""
        command = [sys.executable, "-m", "faults.entry", self.role, json.dumps(spec)]
        with (logs / f"{self.name}.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_LINE_BYTES,
                process_group=0,
                preexec_fn=bind_to(os.getpid(), signal.SIGKILL),
            )
        self._reading = asyncio.create_task(self._read(on_report))

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    @property
    def alive(self) -> bool:
        """Whether it runs (or stands still)."""
        return self.process.returncode is None

    def tell(self, **order: Any) -> None:
        """Give it an order."""
        if self.process.stdin is not None and not self.process.stdin.is_closing():
            self.process.stdin.write(json.dumps(order).encode() + b"\n")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.alive:
            self.process.send_signal(number)

    async def kill(self) -> None:
        """``kill -9``; returns when it is gone, and all it had said is taken in."""
        self.wanted = True
        self.send(signal.SIGKILL)
        await self.gone()

    async def gone(self) -> None:
        """Wait for its end, and for the last thing it said."""
        await self.process.wait()
        if self._reading is not None:
            await self._reading

    async def end(self) -> None:
        """Let it finish what it does; kill it if it does not end."""
        self.wanted = True
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(_END_S):
                await self.gone()
        except TimeoutError:
            await self.kill()

    async def _read(self, on_report: Callable[[Child, Report], None]) -> None:
        stdout = self.process.stdout
        while stdout is not None and (line := await stdout.readline()):
            if line.endswith(b"\n"):  # else it was killed in the middle of it
                on_report(self, json.loads(line.decode("utf-8", "surrogatepass")))
