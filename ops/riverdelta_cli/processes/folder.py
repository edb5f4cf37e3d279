"""The folder of an ``up``: its lock, and the address of its server."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from pathlib import Path
from typing import Any, Final, Self

from riverdelta_cli.errors import CliError
from riverdelta_cli.output.words import redacted

DEFAULT_FOLDER: Final = Path(".riverdelta")
_FILE: Final = "up.json"
_PATIENCE_S: Final = 1.0
"""`running_url`, and the server of a killed ``up``, hold the lock for some milliseconds."""


class DataFolder:
    """
    Hold a folder for one ``up``, as an async context manager.

    The lock is an flock on ``up.json``; the file counts only while a process holds the lock, so a
    stale file does no harm. The embedded server inherits the lock (`lock_fd`): two servers
    never write one append-only file, even if the first one's ``up`` is gone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock_fd = -1

    async def __aenter__(self) -> Self:
        """
        Make the folder if need be (for its owner only, mode 0700), and lock it.

        An existing folder keeps its mode: others may use it, too. Our files in it are always for
        their owner only.

        Raises:
            CliError: Another ``up`` has it, or it cannot be written.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.lock_fd = os.open(self.path / _FILE, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise CliError(f"cannot use {self.path} as data folder: {error.strerror}") from error
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_S
        while not _lock(self.lock_fd, fcntl.LOCK_EX):
            if loop.time() > deadline:
                os.close(self.lock_fd)
                raise CliError(self._taken())
            await asyncio.sleep(0.02)
        os.ftruncate(self.lock_fd, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Release the folder."""
        os.ftruncate(self.lock_fd, 0)
        os.close(self.lock_fd)

    def announce(self, url: str) -> None:
        """Store the URL of the server; other commands in this folder read it with `running_url`."""
        text = json.dumps({"pid": os.getpid(), "url": url}) + "\n"
        os.ftruncate(self.lock_fd, 0)
        os.pwrite(self.lock_fd, text.encode(), 0)

    def _taken(self) -> str:
        first = _read(self.path / _FILE)
        if first is None:
            return f"another riverdelta up has {self.path}, and is just starting: use that one"
        return (
            f"riverdelta up already runs on {self.path} (pid {first['pid']}, {redacted(first['url'])}): "
            "use that one, stop it, or give another --data-dir"
        )


def running_url(path: Path) -> str | None:
    """Read the URL of the server of the ``up`` on *path*; None: none runs there."""
    try:
        descriptor = os.open(path / _FILE, os.O_RDONLY)
    except OSError:
        return None
    try:
        if _lock(descriptor, fcntl.LOCK_SH):
            return None  # no process holds the lock: the file is stale
    finally:
        os.close(descriptor)
    found = _read(path / _FILE)
    return None if found is None else str(found["url"])


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"pid", "url"} <= found.keys() else None
