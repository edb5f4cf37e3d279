"""A provider call that is made again, as entries of a stream."""

from typing import Any

from tests.support.core.fold_tools import (
    chunk,
    control,
)

Steps = list[tuple[str, bytes]]

DELIVERED = "Hello, dear world"


def restart(rule: str = "stitch") -> tuple[str, bytes]:
    return control("restart", on_overlap=rule)


def texts(*pieces: str) -> Steps:
    return [chunk(piece) for piece in pieces]


TABLE = [
    ("Hello, dear world! A", "Hello, dear world! A", False),
    ("dear world! A", "Hello, dear world! A", False),
    ("Hello, cruel world", "Hello, cruel world", True),
    ("Good night", "Good night", True),
    ("Hello", "Hello", True),
]
"""What the new call says, what readers end with, and whether the text starts over for them."""


# -- chunks that have ended, and calls of tools --------------------------------------------------


def block(index: int, kind: str, *pieces: str, stop: bool = True, **more: Any) -> Steps:
    """Encode a content block as Anthropic does."""
    field = {"text": "text", "thinking": "thinking", "tool_use": "partial_json"}[kind]
    of_delta = {"tool_use": "input_json_delta"}.get(kind, f"{kind}_delta")
    begun = {"type": kind, **({} if kind == "tool_use" else {field: ""}), **more}
    events: list[dict[str, Any]] = [
        {"type": "content_block_start", "index": index, "content_block": begun}
    ]
    for piece in pieces:
        change = {"type": of_delta, field: piece}
        events.append({"type": "content_block_delta", "index": index, "delta": change})
    if stop:
        events.append({"type": "content_block_stop", "index": index})
    return [chunk(event) for event in events]


def call(index: int, call_id: str, *pieces: str, **more: Any) -> Steps:
    return block(index, "tool_use", *pieces, id=call_id, name="create_metrics", input={}, **more)


BEGIN = chunk({"type": "message_start", "message": {"id": "m1", "model": "c"}})
AGAIN = chunk({"type": "message_start", "message": {"id": "m2", "model": "c"}})
STOP = [
    chunk({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}),
    chunk({"type": "message_stop"}),
]
THOUGHT = block(0, "thinking", "Let me ", "think.")


RESULT = {"files": [{"name": "sales", "id": "f1"}]}
