"""``riverdelta push``: one message onto a running server."""

from __future__ import annotations

from typing import Any

from riverdelta import Message, Producer, Settings
from riverdelta_cli.errors import DONE
from riverdelta_cli.input.pushing import Feeder, Input, end
from riverdelta_cli.output.say import say
from riverdelta_cli.output.show import print_json
from riverdelta_cli.output.words import count
from riverdelta_cli.session import Interrupt


async def push(  # the options of the command
    chat_id: str,
    what: Input,
    *,
    settings: Settings,
    message_id: str | None,
    as_json: bool,
    interrupt: Interrupt,
) -> int:
    """Push an input as one message; the exit code."""
    feeder = Feeder(what)
    producer = Producer(settings)
    message = what.message(producer, chat_id, message_id)  # refuses a wrong id before we connect
    async with producer, message:
        fed = await interrupt.unless(_feed(feeder, message, settings.max_chunk_bytes))
        if fed:
            await end(message)
        else:
            await message.fail("producer_interrupted", "riverdelta push was interrupted")
    if not fed:
        return interrupt.exit_code
    _report(feeder, message, as_json=as_json)
    if complaint := feeder.understanding.complaint():
        say(complaint)
    return DONE


async def _feed(feeder: Feeder, message: Message, limit: int) -> bool:
    await feeder.feed(message, limit)
    return True


def _report(feeder: Feeder, message: Message, *, as_json: bool) -> None:
    counted: dict[str, Any] = {"chunks": feeder.chunks, "bytes": feeder.bytes}
    if as_json:
        print_json({"chat": message.chat_id, "message": message.id} | counted)
    else:
        say(
            f"chat {message.chat_id}: message {message.id} stored and ended, "
            f"{count(feeder.chunks, 'raw chunk')}, {count(feeder.bytes, 'byte')}"
        )
