"""Start and end child processes; none of them outlives us, however we end."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

_PR_SET_PDEATHSIG: Final = 1
_POLL_S: Final = 0.02
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def start(
    command: Sequence[str | Path],
    *,
    if_we_die: signal.Signals,
    output: IO[bytes] | int | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    keep_open: Sequence[int] = (),
    private: bool = False,
) -> subprocess.Popen[bytes]:
    """
    Start a child in a process group of its own, so that Ctrl-C reaches only us; we end it in order.

    On Linux the kernel sends it *if_we_die* when this process is gone, ``kill -9`` included. Limits:
    the kernel watches the thread that starts the child, so call this from one that stays (the main
    thread); elsewhere (macOS) a child outlives our ``kill -9``.

    Args:
        command: Program and arguments.
        if_we_die: Signal that the child gets when this process is gone.
        output: Where stdout and stderr go. None: ours.
        folder: The child's working directory. None: ours.
        environment: The child's environment. None: ours.
        keep_open: Descriptors that the child inherits.
        private: Files that the child makes are for its owner only.
    """
    parent = os.getpid()
    return subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=folder,
        env=environment,
        pass_fds=keep_open,
        umask=0o077 if private else -1,
        process_group=0,
        preexec_fn=bind_to(parent, if_we_die),  # noqa: PLW1509  # one system call, no lock
    )


def bind_to(parent: int, number: signal.Signals) -> Callable[[], None] | None:
    """Make the function that a child runs first: it gets signal *number* when *parent* is gone."""
    if _LIBC is None:
        return None
    prctl = _LIBC.prctl

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before the call above: no signal would come
            os._exit(1)

    return bind


async def wait(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for a child's end; False: it still runs after *timeout_s*."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while process.poll() is None:
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True


async def end(processes: Sequence[subprocess.Popen[bytes]], deadline_s: float) -> None:
    """
    Ask children to end (SIGTERM), and kill those that have not after *deadline_s*.

    None is left when this returns, even if it is cancelled.
    """
    try:
        for process in processes:
            _send(process, signal.SIGTERM)
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline_s
        for process in processes:
            await wait(process, until - loop.time())
    finally:
        for process in processes:
            _send(process, signal.SIGKILL)
        for process in processes:
            process.wait()


def _send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            process.send_signal(number)
