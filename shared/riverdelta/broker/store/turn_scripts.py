"""The scripts of turns: messages that are accepted first, and get their producer later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from riverdelta.broker.redis.commands import Commands
from riverdelta.broker.store.fields import OPENED_FORMAT
from riverdelta.broker.store.keys import ChatKeys
from riverdelta.broker.store.scripts import Script, Stored, push_reply, stop_entry, stored
from riverdelta.core.outgoing import PushReply

_accept_turn = Script("accept_turn")
_adopt = Script("adopt")
_release_turn = Script("release_turn")
_expire_turn = Script("expire_turn")

TurnPolicy = Literal["queue", "reject", "interrupt"]
"""What happens to a turn that is accepted while another one of its chat is open."""


class TurnStart(NamedTuple):
    """
    What opens a turn.

    Attributes:
        message_id: Id of its message; the same id is the same turn.
        user: Id of the user who asks: the chat's owner, or of a chat made here, for its life.
        start: First entry of the message, as JSON.
        policy: What happens while another turn of the chat is open.
        replaces: Ids of messages whose place it takes; those that are open are not waited for.
        wait_ms: How long it may wait for a producer.
        max_open: Most turns that may be open before it.
        begins: Whether a chat that does not exist is begun.
    """

    message_id: str
    user: str
    start: bytes
    policy: TurnPolicy
    replaces: Sequence[str]
    wait_ms: int
    max_open: int
    begins: bool


class AcceptedTurn(NamedTuple):
    """
    The reply of `accept_turn`.

    Attributes:
        status: accepted, repeat, ended, moved, foreign, busy, full; see ``accept_turn.lua``.
        behind: Ids of the open turns before it; with ``moved``: of the turns that the head has.
        pushed, processed: Entries of the chat so far, and how many of them workers are done with.
        owner: Worker that has the chat; "": none.
        term: Fencing number of the last owner.
    """

    status: str
    behind: list[str]
    pushed: int
    processed: int
    owner: str
    term: int


INTERRUPTED: Final = "interrupted by the next question"
"""Reason of a stop with the policy ``interrupt``."""


async def accept_turn(
    executor: Commands, keys: ChatKeys, turn: TurnStart, *, known: Sequence[str]
) -> AcceptedTurn:
    """
    Store the start of a turn, which waits for its producer; *known*: turns that the head has.

    See ``accept_turn.lua``.
    """
    reply = await _accept_turn(
        executor,
        (
            keys.head,
            keys.chunks,
            keys.producers,
            keys.message(turn.message_id),
            keys.wake,
            keys.deltas,
            keys.dead,
            keys.outbox,
            *map(keys.message, known),
        ),
        (
            turn.message_id,
            OPENED_FORMAT,
            turn.user,
            turn.start,
            turn.policy,
            " ".join(known),
            f" {' '.join(turn.replaces)} " if turn.replaces else "",
            turn.wait_ms,
            turn.max_open,
            int(turn.begins),
            INTERRUPTED,
            stop_entry(INTERRUPTED),
        ),
    )
    status, behind, pushed, processed, owner, term = reply
    return AcceptedTurn(
        status.decode(),
        behind.decode().split(),
        int(pushed),
        int(processed),
        owner.decode(),
        int(term),
    )


async def adopt(
    executor: Commands, keys: ChatKeys, *, producer: str, message_id: str, entry: bytes
) -> PushReply:
    """Make *producer* the one that writes an accepted turn. See ``adopt.lua``."""
    reply = await _adopt(
        executor,
        (keys.head, keys.chunks, keys.message(message_id), keys.wake),
        (producer, message_id, entry),
    )
    return push_reply(reply)


async def release_turn(
    executor: Commands, keys: ChatKeys, *, producer: str, message_id: str, entry: bytes, last: int
) -> Stored:
    """
    Let a turn wait for another producer; ``released``, or ``refused``: more is stored than *last* says.

    See ``release_turn.lua``.
    """
    reply = await _release_turn(
        executor,
        (keys.head, keys.chunks, keys.message(message_id), keys.wake),
        (producer, message_id, entry, last),
    )
    return stored(reply) if reply[0] == b"released" else Stored("refused")


class Expired(NamedTuple):
    """The reply of `expire_turn`: *status* is ``failed``, ``waiting`` or ``over``."""

    status: str
    left_ms: int = 0
    owner: str = ""
    term: int = 0


async def expire_turn(
    executor: Commands, keys: ChatKeys, *, message_id: str, entry: bytes
) -> Expired:
    """Fail a turn that waited for too long. See ``expire_turn.lua``."""
    reply = await _expire_turn(
        executor,
        (keys.head, keys.chunks, keys.message(message_id), keys.wake),
        (message_id, entry),
    )
    match reply:
        case [b"failed", owner, term]:
            return Expired("failed", 0, owner.decode(), int(term))
        case [b"waiting", left_ms]:
            return Expired("waiting", int(left_ms))
    return Expired("over")
