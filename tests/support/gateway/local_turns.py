"""Turns inside the test's own process, or in one that can be killed; and backends that misbehave."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from riverdelta import ChatView, Settings, Subscriber
from riverdelta.core.events import SnapshotMessage
from riverdelta_gateway.backends.base import BackendError, Question, ToolAnswer
from riverdelta_gateway.turns.queue import TurnQueue, arq_pool
from riverdelta_gateway.turns.runner import TurnRunner
from riverdelta_gateway.turns.settings import TurnSettings
from riverdelta_gateway.turns.worker import bring_turns
from tests.support.reading import view_of
from tests.support.servers import DEADLINE_S

SAYS = "tests.support.gateway.local_turns:SaysWhatItIsTold"


class SaysWhatItIsTold:
    """A backend whose prompt says what it does, one word a chunk; it remembers how its calls ended."""

    source = "text"
    calls: list[str]

    def __init__(self, settings: TurnSettings) -> None:
        self.calls = CALLS

    async def reply(self, question: Question) -> AsyncGenerator[object, None]:
        self.calls.append(f"began {question.prompt}")
        try:
            for word in question.prompt.split():
                match word:
                    case "FAIL":
                        raise BackendError("The model is not well") from OSError("secret 123")
                    case "BUG":
                        raise ZeroDivisionError("secret 123")
                    case "HANG":
                        await asyncio.Event().wait()
                    case "HISTORY":
                        yield "|".join(f"{said.role}: {said.text}" for said in question.history)
                    case "ASSET":
                        yield "none" if question.asset is None else question.asset.name
                    case "TOOL":
                        yield ToolAnswer("nobody", {"a": 1})
                    case _:
                        yield f"{word} "
        finally:
            self.calls.append(f"ended {question.prompt}")

    async def title(self, question: Question) -> AsyncGenerator[str, None]:
        if "UNTITLED" in question.prompt:
            raise BackendError("No title today")
        if "BADTITLE" in question.prompt:
            raise ZeroDivisionError
        if "SLOWTITLE" in question.prompt:
            await asyncio.Event().wait()
        yield "A "
        yield "title"

    async def aclose(self) -> None:
        self.calls.append("closed")


CALLS: list[str] = []
"""What the backends of this process did."""


def turn_settings(**more: Any) -> TurnSettings:
    settings: dict[str, Any] = {"backend": SAYS, "scripted_pace_ms": 0} | more
    return TurnSettings(**settings)


@contextlib.asynccontextmanager
async def local_turns(settings: Settings, **more: Any) -> AsyncIterator[TurnRunner]:
    """Run turns on this loop."""
    CALLS.clear()
    stop = asyncio.Event()
    async with TurnRunner(settings, turn_settings(**more)) as runner:
        loop = asyncio.create_task(bring_turns(runner, stop))
        try:
            yield runner
        finally:
            stop.set()
            await loop


@contextlib.asynccontextmanager
async def turn_queue(settings: Settings) -> AsyncIterator[TurnQueue]:
    async with arq_pool(settings) as pool:
        yield TurnQueue(pool, settings)


@contextlib.contextmanager
def turn_process(settings: Settings, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process of turns, to be killed."""
    environment = os.environ | {
        "RIVERDELTA_REDIS_URL": settings.redis_url,
        "RIVERDELTA_KEY_PREFIX": settings.key_prefix,
        "RIVERDELTA_PRODUCER_LEASE_S": str(settings.producer_lease_s),
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    for name, value in turn_settings(**more).model_dump(exclude_defaults=True).items():
        environment[f"RIVERDELTA_TURNS_{name.upper()}"] = str(value)
    code = (
        "import asyncio; from riverdelta import Settings; "
        "from riverdelta_gateway.turns.settings import TurnSettings; "
        "from riverdelta_gateway.turns.worker import run_turns; "
        "asyncio.run(run_turns(Settings(), TurnSettings()))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def until_message(
    subscriber: Subscriber, chat_id: str, message_id: str, *, text: str | None = None
) -> SnapshotMessage:
    """Follow a chat until a message is over, or has *text* in it."""
    view = ChatView()
    async with (
        asyncio.timeout(DEADLINE_S),
        contextlib.aclosing(subscriber.events(chat_id)) as events,
    ):
        async for event in events:
            view.apply(event)
            for message in view.messages:
                if message["message"] == message_id:
                    over = message["status"] != "open"
                    if over if text is None else text in view.text(message_id):
                        return message
    raise AssertionError("events never end")


__all__ = ["CALLS", "SAYS", "local_turns", "turn_process", "turn_queue", "until_message", "view_of"]
