"""Run a command: an event loop, signals that end it in order, errors as one line."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

import typer

from riverdelta_cli.errors import BROKEN_PIPE, explain
from riverdelta_cli.output.say import say, silence

T = TypeVar("T")


class Interrupt:
    """
    SIGINT (Ctrl-C), SIGTERM and SIGHUP: the first sets `asked`, the second ends the command at once.

    Attributes:
        asked: Set by the first SIGINT, SIGTERM or SIGHUP.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.number = 0
        self._task = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._take, number)

    @property
    def exit_code(self) -> int:
        """Exit code that a shell shows for a program ended by this signal: 130 for Ctrl-C."""
        return 128 + self.number

    def _take(self, number: int) -> None:
        if self.asked.is_set() and self._task is not None:
            self._task.cancel()
        if number == signal.SIGINT and sys.stderr.isatty():
            sys.stderr.write("\n")  # the terminal has just written ^C
        self.number = number
        self.asked.set()

    async def unless(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Run *work*; None: it was interrupted, and has been cancelled."""
        working = asyncio.ensure_future(work)
        asking = asyncio.ensure_future(self.asked.wait())
        try:
            await asyncio.wait((working, asking), return_when=asyncio.FIRST_COMPLETED)
            # Both at once: the same Ctrl-C ended the program that writes our input.
            return None if asking.done() else working.result()
        finally:
            await cancel(asking, working)


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have ended; their exceptions are dropped."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


Command = Callable[[Interrupt], Coroutine[Any, Any, int]]


def run(command: Command) -> NoReturn:
    """
    Run a command to its end.

    Raises:
        typer.Exit: Always; with the command's exit code, or that of its error.
    """
    log_to_stderr("riverdelta: %(message)s", logging.WARNING)
    end_with(lambda: asyncio.run(_run(command)))


def end_with(work: Callable[[], int]) -> NoReturn:
    """
    Do the work of a command, then exit.

    Raises:
        typer.Exit: Always; with what `exit_code_of` says.
    """
    # A command has sockets: a broken pipe is an error to handle, not the end of the process.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # Ctrl-C before the event loop runs: typer turns the exception into exit code 130.
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    raise typer.Exit(exit_code_of(work))


def exit_code_of(work: Callable[[], int]) -> int:
    """Do *work*; an expected error becomes one line on stderr and its exit code."""
    try:
        code = work()
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        known = explain(error)
        if known is None:
            raise
        say(str(known))
        _drop_what_cannot_be_written()
        return known.exit_code
    return code


def _drop_what_cannot_be_written() -> None:
    """Suppress Python's own message at exit about a closed stdout."""
    try:
        sys.stdout.flush()
    except OSError:
        silence(sys.stdout.fileno())


async def _run(command: Command) -> int:
    interrupt = Interrupt()
    try:
        return await command(interrupt)
    except asyncio.CancelledError:
        if interrupt.asked.is_set():
            return interrupt.exit_code
        raise


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Choose the event loop of a server: uvloop where it is installed."""
    try:
        from uvloop import new_event_loop  # noqa: PLC0415  # not on every machine
    except ImportError:
        return asyncio.new_event_loop
    return new_event_loop


def log_to_stderr(line: str, level: int) -> None:
    """Show log records of *level* and above; of arq only warnings and errors."""
    logging.basicConfig(format=line, level=level, stream=sys.stderr, force=True)
    logging.getLogger("arq").setLevel(logging.WARNING)
