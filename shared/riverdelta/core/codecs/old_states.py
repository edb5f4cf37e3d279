"""
States that codecs of the version before dumped, as those of this version load them.

A worker takes over chats that an older one has begun. What the old state does not say, such as how far a
call's arguments are, is taken to be in order: nothing that goes on is lost, and nothing fails for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from riverdelta.core.codecs.pieces import CodecState, Kind

_EMPTY = [False, 0, False, False]
"""Of `Arguments`: nothing has come."""
_UNDER_WAY = [True, 1, False, False]
"""Of `Arguments`: something has come, and more will."""
_CHANNELS = {
    "text": "message",
    "refusal": "message",
    "summary": "reasoning",
    "reasoning": "reasoning",
}


def is_old(state: CodecState) -> bool:
    """Whether a codec of the version before dumped *state*."""
    return "shown" not in state


def upgrade(state: CodecState, kind_of: Callable[[str], Kind | None]) -> CodecState:
    """Give what all codecs share; *kind_of* tells a chunk's kind by its key, None: not known."""
    chunks = []
    for key, unsaid in state["open"]:
        kind = kind_of(key)
        empty = kind == "tool_call" and unsaid != ""
        chunks.append(
            [key, kind, "" if unsaid == "{}" else unsaid, _EMPTY if empty else None, False, False]
        )
    nothing: CodecState = {"lost": {}, "lost_in_all": {}}
    shared = {"shown": True, **nothing, "odd": True, "failed": state.get("failed", False)}
    return {**state, **shared, "open": chunks}


def upgrade_chat(state: CodecState) -> CodecState:
    """Give the state of an `openai-chat` codec."""
    unsaid = dict(state["open"])
    calls = []
    for index, key, custom, call_id, name, held in state["calls"]:
        empty = unsaid.get(key) == "{}" or held == ""
        arguments = _EMPTY if empty else _UNDER_WAY
        ids = [] if call_id is None else [call_id]
        text = None if held is None else json.dumps(held)
        calls.append([key, custom, call_id, name, text, arguments, [index], ids])
    more = {
        "id_chunks": 2,
        "rotating": False,
        "settled": False,
        "complete": False,
        "calls": [len(calls) - 1 if calls else None, calls],
        "choices": [0, True, False, False, []],
        "sent": [],
        "reasoning_name": "",
        "said": sorted("calls" if key.startswith("tool:") else key for key in unsaid),
        "done": False,
    }
    return {**upgrade(state, _chat_kind), **more}


def upgrade_anthropic(state: CodecState) -> CodecState:
    """Give the state of an `anthropic` codec."""
    kinds: dict[str, Kind | None] = {
        key: "tool_call" if unsaid else None for key, unsaid in state["open"]
    }
    blocks = [[key, int(key), kind, None, 0, False, False, None] for key, kind in kinds.items()]
    return {**upgrade(state, kinds.get), "over": None, "blocks": blocks, "begun": len(blocks)}


def upgrade_responses(state: CodecState) -> CodecState:
    """Give the state of an `openai-responses` codec: there an item's index was its number."""
    groups = {
        int(key.split(":")[0]): key.split(":")[1] for key, *_ in [*state["open"], *state["sent"]]
    }
    calls = {index: call for index, *call in state["items"]}
    items: list[Any] = []
    for number in range(max([*groups, *calls, *state["done"]], default=-1) + 1):
        done = number in state["done"] or not (number in groups or number in calls)
        group = "call" if number in calls else _CHANNELS.get(groups.get(number, "text"), "call")
        kind, item_id, *progress = calls.get(number, [None, None])
        call = None if kind is None else [kind, None, *progress]
        ids = [] if item_id is None else [item_id]
        items.append(["old" if done else group, number, ids, call, None, done, False])
    return {**upgrade(state, _responses_kind), "items": [False, items]}


def _chat_kind(key: str) -> Kind | None:
    return "tool_call" if key.startswith("tool:") else key  # type: ignore[return-value]  # a kind's name


def _responses_kind(key: str) -> Kind | None:
    channel = key.split(":")[1]
    if channel in ("text", "refusal"):
        return channel  # type: ignore[return-value]  # one of the two
    return "tool_call" if channel == "call" else "reasoning"
