"""``riverdelta tail``: follows a chat."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Final

from riverdelta import Event, RiverdeltaError, Settings, Subscriber
from riverdelta.broker.client import name_of
from riverdelta.core.events import END_TYPES
from riverdelta.core.ids import check_id
from riverdelta.core.positions import Position
from riverdelta_cli.errors import DONE, NOT_DONE
from riverdelta_cli.output.show import Printer, TextPrinter, make_printer, say_dimmed
from riverdelta_cli.session import Interrupt

_LOST: Final = ("riverdelta.pubsub", "riverdelta.subscriber")
"""Loggers that warn when Redis is away; the subscriber goes on by itself."""
_ASK_S: Final = 0.2


async def tail(
    chat_id: str,
    after: str | None,
    *,
    settings: Settings,
    as_json: bool,
    until_end: bool,
    interrupt: Interrupt,
) -> int:
    """Print a chat's events until somebody interrupts, or its reply ends; the exit code."""
    check_id("chat_id", chat_id)
    if after is not None:
        Position.parse(after)
    printer = make_printer(as_json=as_json, name_messages=True)
    async with Subscriber(settings) as subscriber:
        if sys.stderr.isatty():
            say_dimmed(f"following {chat_id} on {name_of(settings.redis_url)}; Ctrl-C ends\n")
        follower = _Follower(subscriber, chat_id, after, printer)
        with _watch_outages(subscriber, chat_id, printer):
            status = await interrupt.unless(follower.run(until_end=until_end))
    if status is not None:
        return DONE if status == "completed" else NOT_DONE
    printer.notice(follower.farewell())
    return interrupt.exit_code


class _Follower:
    def __init__(
        self, subscriber: Subscriber, chat_id: str, after: str | None, printer: Printer
    ) -> None:
        self._subscriber = subscriber
        self._chat_id = chat_id
        self._position = after
        self._printer = printer

    async def run(self, *, until_end: bool) -> str:
        """Show events; the status of the message that ended, where that ends us."""
        if self._position is not None and isinstance(self._printer, TextPrinter):
            # Deltas alone do not say whether they are text or reasoning; the snapshot does.
            self._printer.learn(await self._subscriber.snapshot(self._chat_id))
        events = self._subscriber.events(self._chat_id, after=self._position)
        first = True
        async with _closing(events):
            async for event in events:
                if event.type == "snapshot" and first and self._position is not None:
                    self._printer.notice("that position is void; here is a snapshot")
                first = False
                self._printer.show(event)
                if event.seq:  # else: the empty snapshot before the first push
                    self._position = event.position
                ended = _end_status(event)
                if until_end and ended is not None:
                    return ended
        return "completed"  # not reached: the iterator does not end by itself

    def farewell(self) -> str:
        """Print how to continue from here."""
        if self._position is None:
            return "interrupted before the first event"
        return (
            f"interrupted; continue with:\nriverdelta tail {self._chat_id} --after {self._position}"
        )


def _end_status(event: Event) -> str | None:
    """Whether all is said: how a message ended, or that a snapshot's last one has."""
    if event.type == "snapshot":
        messages = event.data["messages"]
        if not messages or any(message["status"] == "open" for message in messages):
            return None
        return str(messages[-1]["status"])
    return END_TYPES.get(event.type)


@contextlib.asynccontextmanager
async def _closing(events: AsyncIterator[Event]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await events.aclose()  # type: ignore[attr-defined]  # it is a generator


class _Outages(logging.Handler):
    """Says once that Redis is away, and once that it is back, whatever is logged in between."""

    def __init__(self, subscriber: Subscriber, chat_id: str, printer: Printer) -> None:
        super().__init__(logging.WARNING)
        self._subscriber = subscriber
        self._chat_id = chat_id
        self._printer = printer
        self.asking: asyncio.Task[None] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take a warning of the subscriber's."""
        if self.asking is None or self.asking.done():
            self._printer.notice(f"{record.getMessage()}; waiting for it")
            self.asking = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        while True:
            await asyncio.sleep(_ASK_S)
            with contextlib.suppress(RiverdeltaError):
                await self._subscriber.snapshot(self._chat_id)
                break
        self._printer.notice("Redis is back, continuing")


@contextlib.contextmanager
def _watch_outages(subscriber: Subscriber, chat_id: str, printer: Printer) -> Iterator[None]:
    handler = _Outages(subscriber, chat_id, printer)
    loggers = [logging.getLogger(name) for name in _LOST]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True
        if handler.asking is not None:
            handler.asking.cancel()
