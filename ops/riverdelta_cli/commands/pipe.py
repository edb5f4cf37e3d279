"""``riverdelta pipe``: runs the whole pipeline once, on a temporary server and worker."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from riverdelta import BrokerUnavailable, Message, Producer, Settings, Subscriber
from riverdelta.broker.client import Client
from riverdelta.broker.store import members
from riverdelta.core.events import END_TYPES
from riverdelta_cli.errors import DONE, NOT_DONE, CliError, require_extras
from riverdelta_cli.input.pushing import Feeder, Input
from riverdelta_cli.output.say import say
from riverdelta_cli.output.show import Printer, make_printer, say_dimmed
from riverdelta_cli.processes.embedded import EmbeddedServer
from riverdelta_cli.processes.servers import embedded_settings
from riverdelta_cli.processes.supervise import WorkerPool
from riverdelta_cli.session import Interrupt, cancel

_CHAT: Final = "pipe"
_MESSAGE: Final = "m1"
_MAX_DEATHS: Final = 3
_LOOK_S: Final = 0.1
_SLOW_S: Final = 10.0
"""After this long without a worker a line says what is awaited."""
_PAUSE_S: Final = 0.01
_OWN_TIMEOUT_S: Final = 60.0
"""A server of our own that dies is seen at once; one that is slow is on a busy machine."""
_AGAIN: Final = (
    "run it again; if that fails, too, please report it, with what "
    "`riverdelta pipe --anonymize` makes of the input"
)
_LAST_WORDS_S: Final = 5.0
"""How long the reader may take to show the end of a message that we failed or stopped."""
_INTERRUPTED_S: Final = 1.0
"""The same after Ctrl-C, where somebody waits for the prompt."""


async def pipe(what: Input, *, as_json: bool, interrupt: Interrupt) -> int:
    """Push an input and print the events that come out; returns the exit code."""
    require_extras("riverdelta pipe", "embedded", "workers")
    feeder = Feeder(what)
    timeout_s = Settings().command_timeout_s  # a variable that cannot be used is found here
    try:
        status = await _run(feeder, what, timeout_s, as_json=as_json, interrupt=interrupt)
    except BrokerUnavailable as error:  # the server is ours: this is no bad usage
        raise CliError(
            f"the embedded server did not answer: {error}; {_AGAIN}", NOT_DONE
        ) from error
    if interrupt.asked.is_set():
        return interrupt.exit_code
    if status != "completed":
        return NOT_DONE
    if complaint := feeder.understanding.complaint():
        say(complaint)
    return NOT_DONE if feeder.understanding.nothing else DONE


async def _run(
    feeder: Feeder, what: Input, timeout_s: float, *, as_json: bool, interrupt: Interrupt
) -> str:
    """Run the pipeline; returns the status of the message."""
    async with EmbeddedServer() as server:
        log = server.folder / "worker.log"
        settings = embedded_settings(server.url, command_timeout_s=max(timeout_s, _OWN_TIMEOUT_S))
        pool = WorkerPool(
            settings,
            1,
            notify=say,
            # The only reader is the operator that runs this command: show the provider's own words.
            extra={"RIVERDELTA_FAILURE_TEXTS": "true"},
            log=log,
            max_deaths=_MAX_DEATHS,
            advice=_AGAIN,
        )
        async with (
            pool,
            contextlib.AsyncExitStack() as stack,
            Producer(settings) as producer,
            Subscriber(settings) as subscriber,
        ):
            watching = asyncio.create_task(_watch(server, pool.failed))
            stack.push_async_callback(cancel, watching)
            if not await interrupt.unless(_ready(settings, pool)):
                return "interrupted"
            if sys.stderr.isatty():
                say_dimmed(
                    f"Valkey {server.pid} · worker {pool.pids[0]} · "
                    f"{what.source} chunks in, deltas out\n"
                )
            printer = make_printer(
                as_json=as_json, name_rejected=feeder.understanding.next_rejected
            )
            message = what.message(producer, _CHAT, _MESSAGE)
            reply = _Reply(message, subscriber, printer)
            feed = feeder.feed(message, settings.max_chunk_bytes)
            return await reply.run(feed, pool.failed, interrupt)


async def _ready(settings: Settings, pool: WorkerPool) -> bool:
    """Wait for the worker, so that the printed times are those of a running system."""
    async with Client(settings) as client:
        await wait_for_worker(lambda: members.count_workers(client.queue, client.keys), pool.failed)
    return True


async def wait_for_worker(
    count: Callable[[], Awaitable[int]],
    failed: asyncio.Future[CliError],
    *,
    pause_s: float = _PAUSE_S,
) -> None:
    """
    Wait until there is a worker, however long its machine takes to start it.

    Args:
        count: Counts the workers that are registered.
        failed: Why there will be none.
        pause_s: Between two looks.

    Raises:
        CliError: *failed* is set; it says what to do.
    """
    loop = asyncio.get_running_loop()
    slow_at = loop.time() + _SLOW_S if sys.stderr.isatty() else None
    while True:
        if failed.done():
            raise failed.result()
        with contextlib.suppress(BrokerUnavailable):  # a busy server; a dead one sets `failed`
            if await count():
                return
        if slow_at is not None and loop.time() > slow_at:
            say("still waiting for the worker to start; Ctrl-C ends")
            slow_at = None
        await asyncio.sleep(pause_s)


async def _watch(server: EmbeddedServer, failed: asyncio.Future[CliError]) -> None:
    """Fail at once if the server dies; a push would wait for it, and it keeps no data."""
    while True:
        await asyncio.sleep(_LOOK_S)
        if not server.alive:
            break
    if not failed.done():
        failed.set_result(
            CliError(f"the embedded server died, and the reply with it; {_AGAIN}", NOT_DONE)
        )


class _Reply:
    """One message on its way: fed at one end, shown at the other."""

    def __init__(self, message: Message, subscriber: Subscriber, printer: Printer) -> None:
        self._message = message
        self._subscriber = subscriber
        self._printer = printer
        self._listening = asyncio.Event()

    async def run(
        self,
        feed: Coroutine[Any, Any, None],
        failed: asyncio.Future[CliError],
        interrupt: Interrupt,
    ) -> str:
        """Feed and show until the message ends; its status."""
        showing = asyncio.create_task(self._show(), name="riverdelta-show")
        listening = asyncio.create_task(self._listening.wait())
        asked = asyncio.create_task(interrupt.asked.wait())
        feeding = asyncio.create_task(self._feed(feed, listening, asked))
        try:
            await asyncio.wait((showing, feeding, failed), return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                raise failed.result()
            if showing.done():
                return showing.result()
            if feeding.exception() is None:
                ends = (showing, failed)
                await asyncio.wait((*ends, asked), return_when=asyncio.FIRST_COMPLETED)
                if asked.done():  # a worker that cannot show the end must not keep us
                    await asyncio.wait(
                        ends, timeout=_INTERRUPTED_S, return_when=asyncio.FIRST_COMPLETED
                    )
            else:
                # Show how the message ended before we say why.
                await asyncio.wait((showing,), timeout=_LAST_WORDS_S)
                feeding.result()
            if failed.done():
                raise failed.result()
            return showing.result() if showing.done() else "interrupted"
        finally:
            await cancel(feeding, showing, listening, asked)

    async def _feed(
        self,
        feed: Coroutine[Any, Any, None],
        listening: asyncio.Task[Any],
        asked: asyncio.Task[Any],
    ) -> None:
        """Open the message, feed it, end it; on Ctrl-C stop it."""
        await listening
        async with self._message as message:
            feeding = asyncio.create_task(feed, name="riverdelta-feed")
            try:
                await asyncio.wait((feeding, asked), return_when=asyncio.FIRST_COMPLETED)
                if feeding.done() and not asked.done():
                    return feeding.result()
            finally:
                await cancel(feeding)
            await self._subscriber.stop(message.chat_id, message.id, reason="interrupted")
            await message.check()  # obey it now, not at the next heartbeat
            return None

    async def _show(self) -> str:
        events = self._subscriber.events(self._message.chat_id)
        async with contextlib.aclosing(events):
            async for event in events:
                self._listening.set()
                if event.seq:  # else: the empty snapshot before the first push
                    self._printer.show(event)
                if event.type in END_TYPES:
                    return END_TYPES[event.type]
                if event.type == "snapshot":
                    for message in event.data["messages"]:
                        if message["status"] != "open":
                            return str(message["status"])
        raise CliError("the reply ended without an end")
