"""
What a reader pays for one delta, patch or part of a card: at 1 MB of text against at 1 KB.

CPU time of `ChatView.apply`, in one process, in turns. Run as one of run.py's measurements.
"""

from __future__ import annotations

import time
from typing import Any, Final

from bench.result import Row, row
from riverdelta.core.events import Event, EventType, encode_event
from riverdelta.core.view import ChatView

_SMALL: Final = 1024
_LARGE: Final = 1024 * 1024
_PIECE: Final = "abcd"


def measure(_server: object = None, *, quick: bool = False) -> tuple[list[Row], list[str]]:
    """Measure what grows a chat's view: a delta, a part of a card of files, a patch of a JSON card."""
    repeats, pieces = (1, 200) if quick else (7, 5000)
    rows = []
    for what, first, grow in _KINDS:
        figures = [
            (_us_per_event(first, grow, _LARGE, pieces), _us_per_event(first, grow, _SMALL, pieces))
            for _ in range(repeats)
        ]
        name = f"ChatView, {what} at 1 MB"
        rows.append(row(name, "the same at 1 KB", "us/event", figures, at_most=1.2))
    return rows, []


def _us_per_event(first: list[Event], grow: Any, size: int, pieces: int) -> float:
    view = ChatView()
    for event in [*_BEGINNING, *first, grow(_PIECE * (size // len(_PIECE)))]:
        view.apply(event)
    events = [grow(_PIECE) for _ in range(pieces)]
    for event in events:
        _ = event.data  # decoded before: the JSON of an event costs the same at any length
    began = time.process_time()
    for event in events:
        view.apply(event)
    return (time.process_time() - began) / pieces * 1e6


def _event(type_: EventType, data: Any, chunk: str | None = "m.0") -> Event:
    return Event(
        encode_event(
            seq=1, epoch="e", chat="c", message="m", chunk=chunk, type_=type_, ts_ms=0, data=data
        )
    )


def _delta(text: str) -> Event:
    return _event("chunk.delta", {"offset": 0, "text": text})


def _card(text: str) -> Event:
    part = {"type": "files", "files": {"f": {"file": {"text": None, "text_chunk": text}}}}
    return _event("chunk.output", {"processor": "metric", "output": part})


def _json(patches: list[Any]) -> Event:
    part = {"type": "json", "value": None, "patches": patches}
    return _event("chunk.output", {"processor": "json", "output": part})


def _patch(text: str) -> Event:
    return _json([[["a"], "append", text]])


_BEGINNING: Final = [
    _event("message.started", {"role": "assistant", "metadata": {}}, None),
    _event(
        "chunk.started",
        {
            "kind": "text",
            "format": "text",
            "tool_name": None,
            "tool_call_id": None,
            "section": None,
        },
    ),
]
_KINDS: Final = [
    ("a delta", [], _delta),
    ("a part of a card", [], _card),
    ("a patch of a card", [_json([[[], "set", {}], [["a"], "set", ""]])], _patch),
]
