"""``riverdelta stop``: stops a reply from the side of a reader."""

from __future__ import annotations

from riverdelta import Settings, Subscriber
from riverdelta.core.ids import check_id
from riverdelta_cli.errors import DONE, NOT_DONE
from riverdelta_cli.output.say import say
from riverdelta_cli.session import Interrupt


async def stop(
    chat_id: str,
    message_id: str | None,
    *,
    settings: Settings,
    reason: str,
    interrupt: Interrupt,
) -> int:
    """Mark a chat's open message (or all of them) for its producer to stop; the exit code."""
    check_id("chat_id", chat_id)
    async with Subscriber(settings) as subscriber:
        marked = await interrupt.unless(subscriber.stop(chat_id, message_id, reason=reason))
    if marked is None:
        return interrupt.exit_code
    for message in marked:
        print(message)
    if not marked:
        what = f"message {message_id}" if message_id else "nothing"
        say(f"chat {chat_id}: {what} is {'not ' if message_id else ''}open")
        return NOT_DONE
    say(
        f"chat {chat_id}: marked; the producer ends what is marked at its next push, or in a second"
    )
    return DONE
