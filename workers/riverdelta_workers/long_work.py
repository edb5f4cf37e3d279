"""Run long folds in threads, so that the event loop goes on with other chats meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from riverdelta.core.state import Entry

LONG_BYTES: Final = 32 * 1024
"""
Raw bytes of a batch from which on it is folded in a thread. Hostile text costs a few microseconds a byte,
so a shorter batch holds the loop for some tens of milliseconds; batches of tokens are far below.
"""

_THREADS: Final = 2
"""They share one interpreter, so more make nothing faster. Two: a long batch does not wait for another."""

_Result = TypeVar("_Result")


def is_long(entries: Sequence[Entry]) -> bool:
    """Tell whether folding *entries* may hold the event loop for too long."""
    return sum(len(entry.data) for entry in entries) > LONG_BYTES


class LongWork:
    """
    Threads for long work on a chat.

    Only the task that drains a chat touches its state, and it waits here meanwhile: the state needs no
    lock. Cancelling that task does not stop the work; its result is dropped, and so must be the state.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="riverdelta-fold")

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Call *work* in a thread and return its result, or raise what it raised."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Take no more work; what is under way runs to its end."""
        self._threads.shutdown(wait=False)
