"""Supervise child processes: start them, restart those that die, end them in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final, Self

from riverdelta import Settings
from riverdelta_cli.errors import NOT_DONE, UNUSABLE, CliError
from riverdelta_cli.processes import children

_BACKOFF_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_STEADY_S: Final = 10.0
"""After a run of this length, the next death counts as the first."""
_LOOK_S: Final = 0.05
_END_S: Final = 3.0
"""Workers hand over their chats within a second; one that needs three is stuck."""


class _Slot:
    """One place for a worker, and the process that runs there now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.start_at = 0.0
        self.deaths = 0


class WorkerPool:
    """
    *count* processes of ``riverdelta worker``, or of another command; an async context manager.

    Args:
        settings: Names the servers; what else they use is in the environment.
        command: What they run.
        without: Variables of our environment that they do not get.
        extra: Variables that they get beside them.
        log: File for their output. Unset: our stderr.
        notify: Called with a line when one died.
        max_deaths: Stop (`failed` is set) when one died this often in a row. Unset: never.
        advice: What the user can do then.

    If one ends at its first start because a setting or an address is unusable, `failed` is set at
    once: it would end in the same way each time.
    """

    def __init__(
        self,
        settings: Settings,
        count: int,
        *,
        notify: Callable[[str], None],
        command: Sequence[str] = ("worker",),
        without: Collection[str] = (),
        extra: Mapping[str, str] = MappingProxyType({}),
        log: Path | None = None,
        max_deaths: int | None = None,
        advice: str = "",
    ) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in without}
        self._environment = (
            kept
            | dict(extra)
            | {
                # Not arguments: a URL may contain a password, and all users can see arguments.
                "RIVERDELTA_REDIS_URL": settings.redis_url,
                "RIVERDELTA_QUEUE_URL": settings.effective_queue_url,
            }
        )
        self._slots = [_Slot(number) for number in range(1, count + 1)]
        self._notify = notify
        self._command = command
        self._what = command[0]
        self._log_path = log
        self._log: IO[bytes] | None = None
        self._max_deaths = max_deaths
        self._advice = advice
        self._watcher: asyncio.Task[None] | None = None
        self.failed: asyncio.Future[CliError] = asyncio.get_running_loop().create_future()

    @property
    def pids(self) -> list[int]:
        """Process ids of those that are running."""
        return [slot.process.pid for slot in self._slots if slot.process is not None]

    async def __aenter__(self) -> Self:
        """Start them; they are ready a moment later."""
        if self._log_path is not None:
            self._log = self._log_path.open("ab")
        for slot in self._slots:
            self._start(slot)
        self._watcher = asyncio.create_task(self._watch(), name="riverdelta-workers")
        return self

    async def __aexit__(self, *_: object) -> None:
        """End them in order; kill those that do not."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        self.failed.cancel()
        try:
            running = [slot.process for slot in self._slots if slot.process is not None]
            await children.end(running, _END_S)
        finally:
            if self._log is not None:
                self._log.close()

    def _start(self, slot: _Slot) -> None:
        slot.starts += 1
        slot.started_at = asyncio.get_running_loop().time()
        slot.process = children.start(
            # -P: modules in the user's current folder are not ours.
            [sys.executable, "-P", "-m", "riverdelta_cli", *self._command],
            if_we_die=signal.SIGKILL,  # its chats are in Redis; without us no process waits for its end
            output=None if self._log is None else self._log.fileno(),
            environment=self._environment,
        )

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_S)
            for slot in self._slots:
                if slot.process is None:
                    if loop.time() >= slot.start_at:
                        self._start(slot)
                elif slot.process.poll() is not None:
                    self._note_end(slot, slot.process, loop.time())

    def _note_end(self, slot: _Slot, process: subprocess.Popen[bytes], now: float) -> None:
        if now - slot.started_at > _STEADY_S:
            slot.deaths = 0
        slot.deaths += 1
        wait_s = _BACKOFF_S[min(slot.deaths, len(_BACKOFF_S)) - 1]
        slot.start_at, slot.process = now + wait_s, None
        how = _how_it_ended(process.returncode)
        unusable = slot.starts == 1 and process.returncode == UNUSABLE
        if unusable or slot.deaths == self._max_deaths:
            text = f"the {self._what} {how}{self._last_words()}"
            if not unusable:
                text = f"{text} (death {slot.deaths} in a row); {self._advice}"
            if not self.failed.done():
                self.failed.set_result(CliError(text, UNUSABLE if unusable else NOT_DONE))
        else:
            self._notify(
                f"{self._what} {slot.number} (pid {process.pid}) {how}; another one in {wait_s:g} s"
            )

    def _last_words(self) -> str:
        if self._log_path is None:
            return ": it said why above"
        lines = self._log_path.read_text("utf-8", "replace").splitlines()
        return f": {lines[-1]}" if lines else ""


def _how_it_ended(returncode: int) -> str:
    if returncode < 0:
        return f"was killed by signal {-returncode}"
    return f"ended with exit code {returncode}"
