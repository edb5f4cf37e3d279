"""
What every child process of the harness runs: ``python -m faults.entry ROLE SPEC``.

It takes the wall clock into its hands before anything of riverdelta is imported, breaks what it was
told to break (`faults.sabotage`), and then plays its role with riverdelta as it is. Orders come as
JSON lines on stdin, reports go as JSON lines to stdout.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


class Clock:
    """
    The wall clock of this process, with an offset that can be changed. `time.monotonic` stays.

    Attributes:
        offset_s: Added to what the machine says.
    """

    def __init__(self, offset_s: float) -> None:
        self.offset_s = offset_s
        self._time, self._time_ns = time.time, time.time_ns

    def install(self) -> None:
        """Take the place of `time.time` and `time.time_ns`, for all who import them from now on."""
        time.time = lambda: self._time() + self.offset_s
        time.time_ns = lambda: self._time_ns() + int(self.offset_s * 1e9)


def report(**fields: Any) -> None:
    """Tell the harness; what was reported is told even if we are killed at the next instruction."""
    fields["t"] = time.monotonic()
    line = json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    while line:
        line = line[os.write(1, line) :]


def listen(clock: Clock, on_order: Callable[[dict[str, Any] | None], None]) -> None:
    """Hand orders to *on_order*, in a thread; those for the clock are obeyed here. None: the end."""

    def read() -> None:
        for line in sys.stdin:
            order = json.loads(line)
            if order["do"] == "clock":
                clock.offset_s = order["offset_s"]
            else:
                on_order(order)
        on_order(None)

    threading.Thread(target=read, name="orders", daemon=True).start()


def main() -> None:
    """Play the role, until told to end or killed."""
    role, spec = sys.argv[1], json.loads(sys.argv[2])
    clock = Clock(spec["clock_s"])
    clock.install()
    from faults import roles, sabotage  # noqa: PLC0415  # after the clock

    sabotage.commit(spec["sabotage"])
    roles.ROLES[role](spec, clock)


if __name__ == "__main__":
    main()
