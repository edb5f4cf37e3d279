"""
What every child process of the harness has: a clock that can be set, orders in, reports out.

Imports nothing of riverdelta: the clock has to be installed before that.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final

ORDER_BYTES: Final = 64 * 1024
"""Longest order to fork a child, in bytes."""


class Clock:
    """
    The wall clock of this process, with an offset that can be changed. `time.monotonic` stays.

    Attributes:
        offset_s: Added to what the machine says.
    """

    def __init__(self) -> None:
        self.offset_s = 0.0
        self._time, self._time_ns = time.time, time.time_ns

    def install(self) -> None:
        """Replace `time.time` and `time.time_ns` for all modules that import them from now on."""
        time.time = lambda: self._time() + self.offset_s
        time.time_ns = lambda: self._time_ns() + int(self.offset_s * 1e9)


def report(**fields: Any) -> None:
    """Send a report to the harness, unbuffered: it arrives even if this process is killed right after."""
    fields["t"] = time.monotonic()
    line = json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    while line:
        line = line[os.write(1, line) :]


def listen(clock: Clock, on_order: Callable[[dict[str, Any] | None], None]) -> None:
    """Read orders in a thread and pass them to *on_order*; None: the end. Clock orders are obeyed here."""

    def read() -> None:
        with open(0, encoding="utf-8", closefd=False) as orders:  # a descriptor
            for line in orders:
                order = json.loads(line)
                if order["do"] == "clock":
                    clock.offset_s = order["offset_s"]
                else:
                    on_order(order)
        on_order(None)

    threading.Thread(target=read, name="orders", daemon=True).start()
