"""How every command runs: an event loop, signals that end it in order, errors as one line."""

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
    Ctrl-C and its kin. The first asks (`asked`), the second ends the command at once.

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
        """What a shell says of a program that this signal ended: 130 for Ctrl-C."""
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
            # Both at once: an upstream that the same Ctrl-C ended has ended our input.
            return None if asking.done() else working.result()
        finally:
            await cancel(asking, working)


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they are gone; what they raised is of no interest any more."""
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
        typer.Exit: Always; with the command's exit code, or that of the error it met.
    """
    log_to_stderr("riverdelta: %(message)s", logging.WARNING)
    end_with(lambda: asyncio.run(_run(command)))


def end_with(work: Callable[[], int]) -> NoReturn:
    """
    Do the work of a command, and end.

    Raises:
        typer.Exit: Always; with what `exit_code_of` says.
    """
    # A command has sockets: a broken pipe is an error to handle, not the end of the process.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # Ctrl-C before there is a loop to take it: typer makes exit code 130 of the exception.
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    raise typer.Exit(exit_code_of(work))


def exit_code_of(work: Callable[[], int]) -> int:
    """Do *work*; errors that are to be expected become one line on stderr, and their exit code."""
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
    """Keep Python from saying at exit, in its own words, that stdout takes nothing."""
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
    """Choose how a server's event loop is made: uvloop where it is installed."""
    try:
        from uvloop import new_event_loop  # noqa: PLC0415  # not on every machine
    except ImportError:
        return asyncio.new_event_loop
    return new_event_loop


def log_to_stderr(line: str, level: int) -> None:
    """Show log records of *level* and above; arq's own only where they warn."""
    logging.basicConfig(format=line, level=level, stream=sys.stderr, force=True)
    logging.getLogger("arq").setLevel(logging.WARNING)
