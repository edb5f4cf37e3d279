"""Runs entries through a fold, without Redis: what a chat would see."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from jsonschema_rs import Draft202012Validator

from riverdelta.core import events as events_module
from riverdelta.core.events import Event
from riverdelta.core.fold import ChatFold
from riverdelta.core.state import ChatState, Entry, LogWindow
from riverdelta.core.view import ChatView
from riverdelta.pipeline import Pipeline

SCHEMA = Path(events_module.__file__).with_name("events.schema.json")
VALIDATOR = Draft202012Validator(json.loads(SCHEMA.read_text()))
NOW_MS = 1_763_600_000_123


def new_state() -> ChatState:
    return ChatState(chat="c", epoch="e1", log=LogWindow(1 << 24))


def start(source: str, **options: Any) -> tuple[str, bytes]:
    data: dict[str, Any] = {
        "source": source,
        "producer": "p",
        "mode": "snapshot" if source == "text-snapshot" else "append",
        "on_mismatch": "emit",
        "metadata": {},
    }
    return "start", orjson.dumps(data | options)


def chunk(data: bytes | str | dict[str, Any]) -> tuple[str, bytes]:
    if isinstance(data, dict):
        data = orjson.dumps(data)
    return "chunk", data.encode() if isinstance(data, str) else data


def control(type_: str, **data: Any) -> tuple[str, bytes]:
    return type_, orjson.dumps(data)


def entries(steps: Sequence[tuple[str, bytes]], message: str = "m", first: int = 1) -> list[Entry]:
    return [Entry(first + i, message, type_, 10 * i, data) for i, (type_, data) in enumerate(steps)]


def fold(
    batches: Sequence[Sequence[Entry]],
    state: ChatState | None = None,
    pipeline: Pipeline | None = None,
) -> list[Event]:
    """Fold each batch; every event is checked against the published schema."""
    folder = ChatFold(state or new_state(), pipeline or Pipeline())
    result = []
    for batch in batches:
        for raw in folder.apply(batch, NOW_MS).events:
            event = Event(raw)
            VALIDATOR.validate(orjson.loads(raw))
            result.append(event)
    assert [event.seq for event in result] == list(range(1, len(result) + 1))
    return result


def view_of(events: Sequence[Event]) -> ChatView:
    view = ChatView()
    for event in events:
        view.apply(event)
    return view


def facts(events: Sequence[Event]) -> list[tuple[str, dict[str, Any]]]:
    return [(event.type, event.data) for event in events]


OPENAI_ID = "chatcmpl-1"


def delta(content: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": content, "finish_reason": finish}
    return {"id": OPENAI_ID, "model": "m1", "choices": [choice], **more}


ARGUMENTS = json.dumps({"files": [{"name": "sales", "yml_content": "a: 1\nb: 2\n"}]})


LONG_ARGUMENTS = json.dumps(
    {"files": [{"name": f"f{n}", "yml_content": f"x: {n}\n" * 900} for n in range(3)]}
)


def call(text: str, *, tool: str = "create_metrics", done: bool = False) -> tuple[str, bytes]:
    piece = {"chunk": "t", "kind": "tool_call", "tool_name": tool, "tool_call_id": "call-1"}
    return chunk(piece | {"text": text, "done": done})


def pieces(text: str, size: int = 4) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def steps_of(
    text: str, *after: tuple[str, bytes], tool: str = "create_metrics", size: int = 4
) -> list[Any]:
    calls = [call(piece, tool=tool) for piece in pieces(text, size)]
    return [start("chunks"), *calls, call("", tool=tool, done=True), *after, control("end")]
