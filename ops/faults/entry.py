"""
Start every child process of the harness: ``python -m faults.entry FD``.

It replaces the wall clock before it imports riverdelta, imports everything, and then forks a child for
each order that comes over the socket FD: so a child starts at once, also on a slow machine, and its
start does not disturb measurements. The child breaks what its arguments
name (`faults.sabotage`), and plays its role with unchanged riverdelta. It gets its commands as JSON
lines on stdin, and reports by JSON lines on stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.child import ORDER_BYTES, Clock


def main() -> None:
    """Fork children until the harness closes the socket."""
    clock = Clock()
    clock.install()
    from faults import roles  # noqa: PLC0415  # after the clock

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the harness's to handle
    with socket.socket(fileno=int(sys.argv[1])) as harness:
        while True:
            order, descriptors, _, _ = socket.recv_fds(harness, ORDER_BYTES, 2)
            if not order:
                return
            _reap()
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                harness.close()
                _play(json.loads(order), descriptors, clock, parent, roles.play)
            for descriptor in descriptors:
                os.close(descriptor)
            harness.send(str(pid).encode())


def _reap() -> None:
    """Take note of the dead, so that none stays a zombie for long."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _play(
    spec: dict[str, Any],
    descriptors: list[int],
    clock: Clock,
    parent: int,
    play: Callable[[dict[str, Any], Clock], None],
) -> None:
    """Be a child, to its end."""
    code = 1
    try:
        os.setsid()
        from riverdelta_cli.processes.children import bind_to  # noqa: PLC0415  # after the clock

        if (bind := bind_to(parent, signal.SIGKILL)) is not None:
            bind()
        orders, reports = descriptors
        with Path(spec["log"]).open("wb") as log:
            for source, target in ((orders, 0), (reports, 1), (log.fileno(), 2)):
                os.dup2(source, target)
        os.close(orders)
        os.close(reports)
        clock.offset_s = spec["clock_s"]
        play(spec, clock)
        code = 0
    except BaseException:  # noqa: BLE001  # nothing may get back into the parent's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
