"""A thread that sends a process's heartbeat while its event loop is too busy to send it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Final

from redis.exceptions import RedisError

from riverdelta.broker.redis.executor import Executor
from riverdelta.broker.settings import Settings
from riverdelta.broker.store import scripts
from riverdelta.core.errors import RiverdeltaError
from riverdelta.core.lease import stands_in

_LOOKS_PER_PERIOD: Final = 2
_JOIN_S: Final = 1.0
"""How long `shutdown` waits for the thread; it ends by itself if Redis keeps it longer."""


class Standby:
    """
    Raises the counter of one member while the loop's own beats are late (`stands_in`).

    The thread has a connection of its own, open only while it sends. It never registers the member: one
    that was declared dead stays dead until its loop registers it again. A process that is stopped sends
    nothing, since the thread is stopped, too.

    Args:
        settings: Of the process; for the queue's Redis.
        members_key: Hash of the counters.
        period_s: Time between two beats of the loop.
        lease_s: Time without a beat after which others declare the member dead.
        log: Gets one line for each time that the thread had to send.
    """

    def __init__(
        self,
        settings: Settings,
        members_key: str,
        *,
        period_s: float,
        lease_s: float,
        log: logging.Logger,
    ) -> None:
        self._settings = settings
        self._members_key = members_key
        self._period_s = period_s
        self._lease_s = lease_s
        self._log = log
        # Written by the loop, read by the thread, as one object: who beat last, and when.
        self._last_beat = ("", time.monotonic())
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="riverdelta-standby", daemon=True)

    def loop_beat(self, member: str) -> None:
        """Note that the loop raised the counter of *member*; the first call starts the thread."""
        self._last_beat = (member, time.monotonic())
        if self._thread.ident is None:
            self._thread.start()

    async def shutdown(self) -> None:
        """Send nothing more."""
        self._ended.set()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join, _JOIN_S)

    # -- in the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended.wait(self._period_s / _LOOKS_PER_PERIOD):
            if self._is_needed():
                asyncio.run(self._stand_in())

    def _is_needed(self) -> bool:
        quiet_ms = int((time.monotonic() - self._last_beat[1]) * 1000)
        return not self._ended.is_set() and stands_in(
            quiet_ms, period_ms=int(self._period_s * 1000), lease_ms=int(self._lease_s * 1000)
        )

    async def _stand_in(self) -> None:
        """Beat until the loop does again."""
        url, timeout_s = self._settings.effective_queue_url, self._settings.command_timeout_s
        executor, sent = Executor(url, timeout_s), 0
        try:
            while self._is_needed():
                member = self._last_beat[0]
                if await scripts.beat(executor, self._members_key, member, first=False) is None:
                    return  # declared dead already; the loop will find out
                sent += 1
                if sent == 1:
                    self._log.warning(
                        "%s: the event loop is late; a thread sends its heartbeat", member
                    )
                await asyncio.sleep(self._period_s)
        except (RiverdeltaError, RedisError) as error:
            self._log.debug("no heartbeat from the thread: %s", error)
        finally:
            await executor.aclose()
