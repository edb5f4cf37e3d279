"""``riverdelta dead``: shows the dead letters of a chat, and pushes them again."""

from __future__ import annotations

import base64
from collections import Counter
from typing import Any, Final

from riverdelta import Settings
from riverdelta.broker.client import Client
from riverdelta.broker.dead_letters import DeadLetter, read_dead_letters, requeue
from riverdelta.broker.store.inspection import exists
from riverdelta.broker.store.messages import read_status
from riverdelta.core.ids import check_id
from riverdelta.core.text import truncate_message
from riverdelta_cli.errors import DONE, NOT_DONE
from riverdelta_cli.output.console import Console
from riverdelta_cli.output.say import say
from riverdelta_cli.output.show import print_json
from riverdelta_cli.output.words import count
from riverdelta_cli.output.wrap import printable
from riverdelta_cli.session import Interrupt

_SHOWN: Final = 200
"""Characters of an entry that people are shown; programs get all of it."""

_WHY_LEFT: Final = {
    "absent": "another command pushed it again",
    "unknown": "its message is gone",
    "completed": "its message has completed",
    "failed": "its message has failed",
    "stopped": "its message was stopped",
    "stopping": "its message is being stopped",
}
"""Why a letter was not pushed again, by the answer of `requeue`."""


async def dead(
    chat_id: str, *, requeued: bool, settings: Settings, as_json: bool, interrupt: Interrupt
) -> int:
    """Print a chat's dead letters, and push each again if *requeued*; returns the exit code."""
    check_id("chat_id", chat_id)
    async with Client(settings) as client:
        work = _go_through(client, chat_id, requeued=requeued, as_json=as_json)
        code = await interrupt.unless(work)
    return interrupt.exit_code if code is None else code


async def _go_through(client: Client, chat_id: str, *, requeued: bool, as_json: bool) -> int:
    keys = client.keys.chat(chat_id)
    if not await exists(client.chats, keys.head, keys.dead):
        say(f"chat {chat_id} is unknown: nothing was pushed, or its keys have expired")
        return NOT_DONE
    outcomes: Counter[str | None] = Counter()
    statuses: dict[str, str] = {}
    async for letter in read_dead_letters(client, chat_id):
        if letter.message not in statuses:
            status = await read_status(client.chats, keys, letter.message)
            statuses[letter.message] = "gone" if status is None else status
        outcome = await requeue(client, chat_id, letter) if requeued else None
        outcomes[outcome] += 1
        described = _described(letter, statuses[letter.message], outcome)
        if as_json:
            print_json(described)
        else:
            _print(described)
    if not outcomes:
        say(f"chat {chat_id} has no dead letters")
    elif requeued:
        left = outcomes.total() - outcomes["requeued"]
        say(f"{count(outcomes['requeued'], 'dead letter')} put back, {left} left")
        return NOT_DONE if left else DONE
    return DONE


def _described(letter: DeadLetter, status: str, outcome: str | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "id": letter.id,
        "message": letter.message,
        "status": status,
        "type": letter.type,
        "code": letter.code,
        "detail": letter.detail,
        "bytes": len(letter.data),
    }
    try:
        described["data"] = letter.data.decode()
    except UnicodeDecodeError:
        described["data_base64"] = base64.b64encode(letter.data).decode()
    return described if outcome is None else described | {"outcome": outcome}


def _print(described: dict[str, Any]) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    about = f"{described['type']} of message {described['message']} ({described['status']})"
    console.print(f"{described['id']}  {about}, {count(described['bytes'], 'byte')}", style="bold")
    console.print(printable(f"  {described['code']}: {described['detail']}"))
    data = described.get("data", f"base64 {described.get('data_base64')}")
    console.print("  " + printable(truncate_message(data, _SHOWN)).replace("\n", "\n  "))
    if outcome := described.get("outcome"):
        line = "put back" if outcome == "requeued" else f"left here: {_WHY_LEFT[outcome]}"
        console.print(f"  {line}", style="green" if outcome == "requeued" else "yellow")
