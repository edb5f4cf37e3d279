"""What a post becomes in its chat: a new turn, the same one again, or one in the place of others. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from riverdelta.core.events import SnapshotMessage
from riverdelta_gateway.errors import RequestError
from riverdelta_gateway.posting.request import Post
from riverdelta_gateway.turn import from_message_on, title_of, turn_of


class Plan(NamedTuple):
    """
    The place of a turn in its chat.

    Attributes:
        reply_number: How many replies to the same prompt came before.
        replaces: Ids of the messages that it replaces.
        title: The title of what stays of the chat; None: it has none.
    """

    reply_number: int
    replaces: Sequence[str] = ()
    title: str | None = None


def plan_turn(
    messages: Sequence[SnapshotMessage], post: Post, prompt_id: str | None, *, again: bool
) -> Plan:
    """
    Find out what *post* becomes.

    A prompt whose reply is open is the same turn. One whose reply has ended is replied to once more: the
    turn replaces that reply, and all behind it.

    Args:
        messages: The chat so far.
        post: The request.
        prompt_id: The client's own id of the prompt; None: it has none.
        again: The user asks for another reply, also while one is open.

    Raises:
        RequestError: NOT_FOUND: the message that *post* edits is not in the chat.
    """
    replies = [one for one in messages if prompt_id is not None and _prompt_id(one) == prompt_id]
    if replies and replies[-1]["status"] == "open" and not again and _asks(replies[-1], post):
        turn = turn_of(replies[-1]["metadata"]) or {}
        return Plan(turn.get("reply_number", 0), turn.get("replaces", ()), turn.get("title"))
    ids = {one["message"] for one in replies} | {post.message_id}
    first = next((one["message"] for one in messages if one["message"] in ids), None)
    if first is None and post.message_id is not None:
        raise RequestError("NOT_FOUND", "message_id: there is no message with this id in the chat")
    replaces = from_message_on(messages, first)
    number = 0
    if replies:
        number = (turn_of(replies[-1]["metadata"]) or {}).get("reply_number", 0) + 1
    title = title_of([one for one in messages if one["message"] not in replaces])
    return Plan(number, replaces, title)


def _prompt_id(message: SnapshotMessage) -> str | None:
    return (turn_of(message["metadata"]) or {}).get("prompt_id")


def _asks(message: SnapshotMessage, post: Post) -> bool:
    """Whether a turn is what *post* asks for."""
    turn = turn_of(message["metadata"]) or {}
    asset = (None, None) if post.asset is None else (post.asset.type, post.asset.id)
    asked = (turn.get("prompt"), (turn.get("asset_type"), turn.get("asset_id")))
    return asked == (post.prompt, asset)
