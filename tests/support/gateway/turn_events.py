"""Turns as a worker would log them, without Redis: what projections are fed in the tests."""

import json
from collections.abc import Sequence
from typing import Any

import orjson

from riverdelta.core.events import Event, encode_event
from riverdelta.core.fold import ChatFold
from riverdelta.core.state import ChatState, Entry, LogWindow
from riverdelta.core.view import ChatView
from riverdelta.pipeline import Pipeline
from riverdelta_gateway.backends.base import Question, ToolAnswer
from riverdelta_gateway.backends.scripted import _play
from riverdelta_gateway.turn import Turn

CHAT = "c"
NOW_MS = 1_763_600_000_123


class Log:
    """A chat's log, written entry by entry: every entry is a batch of its own."""

    def __init__(self) -> None:
        self._fold = ChatFold(ChatState(chat=CHAT, epoch="e1", log=LogWindow(1 << 24)), Pipeline())
        self._number = 0
        self.events: list[Event] = []

    def add(self, message_id: str, type_: str, data: Any) -> None:
        self._number += 1
        raw = data if isinstance(data, bytes) else orjson.dumps(data)
        entry = Entry(self._number, message_id, type_, self._number, raw)
        self.events += [Event(raw) for raw in self._fold.apply([entry], NOW_MS).events]

    def start(
        self,
        message_id: str,
        prompt: str | None = "Hello?",
        *,
        source: str = "openai-chat",
        replaces: Sequence[str] = (),
        metadata: dict[str, Any] | None = None,
        **turn: Any,
    ) -> None:
        if metadata is None:
            asked = Turn(CHAT, message_id, "dev", prompt, **turn)
            metadata = asked.metadata(list(replaces), None)
        start: dict[str, Any] = {
            "source": source,
            "producer": "p",
            "mode": "append",
            "on_mismatch": "emit",
            "metadata": metadata,
        }
        self.add(message_id, "start", start | ({"replaces": list(replaces)} if replaces else {}))

    def play(self, message_id: str, most: int | None = None) -> None:
        """Play the scripted reply, or its first *most* chunks."""
        for item in list(_play(Question("How are sales?")))[:most]:
            self.push(message_id, item)

    def push(self, message_id: str, item: object) -> None:
        if isinstance(item, ToolAnswer):
            self.add(message_id, "tool_result", item._asdict())
        else:
            self.add(message_id, "chunk", item)

    def note(self, message_id: str, name: str, data: Any) -> None:
        self.add(message_id, "annotate", {"name": name, "data": data})

    def end(self, message_id: str, how: str = "end") -> None:
        data = {
            "end": {},
            "fail": {"code": "provider_error", "detail": "It failed. The id of this error is 1."},
            "stop": {"reason": "enough"},
        }[how]
        self.add(message_id, how, data)


def whole_turn(how: str = "end", most: int | None = None) -> list[Event]:
    """The events of a scripted turn with a title, ended as *how* says."""
    log = Log()
    log.start("m")
    log.note("m", "title", {"title_chunk": "Sal"})
    log.play("m", most)
    log.note("m", "title", {"title": "Sales"})
    log.end("m", how)
    return log.events


def snapshot_at(events: Sequence[Event], count: int) -> Event:
    """The snapshot that a reader gets who comes after the first *count* events."""
    view = ChatView()
    for event in events[:count]:
        view.apply(event)
    return Event(
        encode_event(
            seq=count,
            epoch="e1",
            chat=CHAT,
            message=None,
            chunk=None,
            type_="snapshot",
            ts_ms=NOW_MS,
            data=json.loads(json.dumps({"messages": view.messages})),
        )
    )
