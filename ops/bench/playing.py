"""Starts a role of `bench.roles` in a process of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_HOME = Path(__file__).parent.parent
"""Where ``-m bench.roles`` is found, whatever the current folder holds."""


@contextlib.contextmanager
def role(name: str, url: str, *args: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Play *name* against the server at *url*; the process, and what it said when it was ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.roles", name, url, *args], stdout=subprocess.PIPE, cwd=_HOME
    )
    try:
        said = b""
        if name != "worker" and process.stdout is not None:
            said = process.stdout.readline()
        yield process, said.decode().strip()
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
