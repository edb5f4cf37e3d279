"""Print events: as running text for people, or as they are, one JSON per line."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol

import orjson
from rich.style import Style
from rich.text import Text

from riverdelta.core.codecs.provider import NOT_UNDERSTOOD
from riverdelta.core.events import END_TYPES, Event
from riverdelta_cli.output.console import Console
from riverdelta_cli.output.say import say
from riverdelta_cli.output.wrap import Wrapper, printable

_LABELS: Final = {"reasoning": "thinking", "tool_result": "result", "refusal": "refused"}
_STYLES: Final = {
    "text": Style(),
    "reasoning": Style(dim=True, italic=True),
    "tool_call": Style(color="cyan"),
    "tool_result": Style(color="cyan", dim=True),
    "refusal": Style(color="red"),
}
_TOOL_NAME: Final = Style(color="cyan", bold=True)
_QUIET: Final = Style(dim=True)
_ENDS: Final = {
    "message.completed": Style(color="green"),
    "message.failed": Style(color="red", bold=True),
    "message.stopped": Style(color="yellow"),
}
_WARNINGS_OF_A_KIND: Final = 5
"""Most rejected chunks of one code that are named; the others are counted."""
_PLACE_IN_CHUNK: Final = re.compile(r": line 1 column (\d+) \(char \d+\)$")

NameRejected = Callable[[], str]
"""Returns the name of the chunk that the next ``input.rejected`` is about."""


class Printer(Protocol):
    """The interface of a class that shows events."""

    def show(self, event: Event) -> None:
        """Show the next event."""

    def notice(self, text: str) -> None:
        """Print a note beside the reply."""


class JsonPrinter:
    """Print one event per line on stdout, exactly as stored, and nothing else."""

    def __init__(self, name_rejected: NameRejected) -> None:
        self._rejections = _Rejections(name_rejected)

    def show(self, event: Event) -> None:
        """Print one event."""
        sys.stdout.buffer.write(event.raw + b"\n")
        sys.stdout.buffer.flush()
        for line in self._rejections.lines(event):
            self.notice(line)

    def notice(self, text: str) -> None:
        """Print a note on stderr."""
        say(text)


class TextPrinter:
    """
    Print the reply as it streams: plain text, dimmed reasoning, tool calls as they grow.

    On a terminal, lines break between words. Elsewhere (a pipe, a file) no control codes are
    written. Control characters of the reply itself are never passed on.

    Args:
        name_rejected: See `NameRejected`.
        name_messages: Print where a message begins, and its role (a chat has many).
    """

    def __init__(self, name_rejected: NameRejected, *, name_messages: bool = False) -> None:
        self._rejections = _Rejections(name_rejected)
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._wrapper = Wrapper(self._console.width if live else None)
        self._name_messages = name_messages
        self._kinds: dict[str, tuple[str, str]] = {}
        self._shown: dict[str, list[str]] = {}
        self._ended: set[str] = set()
        self._section: str | None = None

    def learn(self, snapshot: Event) -> None:
        """Read the chunks of a snapshot without showing them."""
        for message in snapshot.data["messages"]:
            for chunk in message["chunks"]:
                self._kinds[chunk["chunk"]] = (chunk["kind"], chunk["tool_name"] or "")

    def show(self, event: Event) -> None:
        """Show one event; skips those with nothing to show."""
        data = event.data
        for line in self._rejections.lines(event):
            self.notice(line)
        if event.type == "snapshot":
            self._snapshot(event)
        elif event.type == "message.started":
            self._begin(event.message or "", data["role"])
        elif event.type in END_TYPES and event.message:
            self._end(event.message, event.type, data)
        elif event.type == "step.failed":
            self._line(f"step {data['step']} failed: {data['code']}: {data['detail']}", _QUIET)
        elif event.chunk is not None:
            self._chunk(event.chunk, event.type, data)

    def notice(self, text: str) -> None:
        """Print a line on stderr, not into the middle of a line of the reply."""
        if self._console.is_terminal:
            self._break_line()
            self._section = None
        say(printable(text))

    # -- parts of a reply ------------------------------------------------------------------------

    def _chunk(self, chunk_id: str, type_: str, data: dict[str, Any]) -> None:
        if type_ == "chunk.started":
            self._kinds[chunk_id] = (data["kind"], data["tool_name"] or "")
            self._shown[chunk_id] = []
            if data["kind"] == "tool_call":
                self._enter(chunk_id)
        elif type_ == "chunk.delta":
            self._text(chunk_id, data["text"])
        elif type_ == "chunk.reset":
            self._line(f"(starts over: {data['reason']})", _QUIET)
            self._shown[chunk_id] = []

    def _text(self, chunk_id: str, text: str) -> None:
        if text:
            self._enter(chunk_id)
            self._shown.setdefault(chunk_id, []).append(text)
            self._write(text, _STYLES.get(self._kinds[chunk_id][0], Style()))

    def _enter(self, chunk_id: str) -> None:
        """Start a paragraph with the chunk's label, unless the last output was of this chunk."""
        if self._section == chunk_id:
            return
        if self._section is not None:
            self._break_line()
            self._write("\n", Style())
        self._section = chunk_id
        kind, tool_name = self._kinds.setdefault(chunk_id, ("text", ""))
        if kind == "tool_call":
            self._write("calls ", _QUIET)
            self._write(f"{tool_name or '?'} ", _TOOL_NAME)
        elif kind in _LABELS:
            self._write(f"{_LABELS[kind]} ", _QUIET)

    def _snapshot(self, event: Event) -> None:
        for message in event.data["messages"]:
            message_id, chunks = message["message"], message["chunks"]
            restarted = message_id not in self._ended and not any(
                chunk["chunk"] in self._shown for chunk in chunks
            )
            if restarted:
                self._begin(message_id, message["role"])
            for chunk in chunks:
                self._kinds[chunk["chunk"]] = (chunk["kind"], chunk["tool_name"] or "")
                shown = "".join(self._shown.get(chunk["chunk"], ()))
                if not chunk["text"].startswith(shown):
                    self._line("(the text was different; here it is again)", _QUIET)
                    self._shown[chunk["chunk"]], shown = [], ""
                self._text(chunk["chunk"], chunk["text"][len(shown) :])
            if message["status"] != "open":
                failure = message["error"] or {"code": "failed", "detail": ""}
                words = {**message, **failure, "reason": message["stop_reason"]}
                self._end(message_id, f"message.{message['status']}", words)

    def _begin(self, message_id: str, role: str) -> None:
        if self._name_messages:
            self._break_line()
            if self._ended:
                self._write("\n", Style())
            self._line(f"── message {message_id} ({role})", _QUIET)

    def _end(self, message_id: str, type_: str, data: dict[str, Any]) -> None:
        if message_id in self._ended:
            return
        self._ended.add(message_id)
        if self._section is not None:
            self._break_line()
            self._write("\n", Style())
        self._line(closing_line(type_, data), _ENDS[type_])
        self._section = None

    # -- onto the terminal -----------------------------------------------------------------------

    def _line(self, text: str, style: Style) -> None:
        self._break_line()
        self._write(text, style)
        self._break_line()
        self._section = None

    def _break_line(self) -> None:
        if self._wrapper.column:
            self._write("\n", Style())

    def _write(self, text: str, style: Style) -> None:
        for back, out in self._wrapper.feed(printable(text)):
            if back:
                self._console.file.write("\b" * back + "\x1b[K")
            self._console.print(Text(out, style=style), end="")
        self._console.file.flush()


def closing_line(type_: str, data: dict[str, Any]) -> str:
    """Return one line about the end of a message: reason, usage and time."""
    if type_ == "message.failed":
        return f"failed · {data['code']}: {data['detail']}"
    if type_ == "message.stopped":
        return f"stopped · {data['reason']}" if data.get("reason") else "stopped"
    parts = ["completed"]
    if data["finish_reason"]:
        parts.append(f"finish reason {data['finish_reason']}")
    if usage := data["usage"]:
        extra = f" ({usage['reasoning_tokens']} reasoning)" if usage["reasoning_tokens"] else ""
        parts.append(f"{usage['input_tokens']} tokens in, {usage['output_tokens']} out{extra}")
    if timings := data.get("timings"):
        if timings["ttft_ms"] is not None:
            parts.append(f"first token {timings['ttft_ms']} ms")
        parts.append(f"{timings['duration_ms'] / 1000:.1f} s")
    return " · ".join(parts)


class _Rejections:
    """Describe rejected chunks: the first few of each code, and the count of the others at the end."""

    def __init__(self, name: NameRejected) -> None:
        self._name = name
        self._counts: dict[str | None, Counter[str]] = {}

    def lines(self, event: Event) -> list[str]:
        """Return the lines about rejected chunks at *event*."""
        if event.type == "input.rejected":
            if event.data["code"] == NOT_UNDERSTOOD:  # about all chunks; it names none
                return [f"warning: {event.data['detail']}"]
            counts = self._counts.setdefault(event.message, Counter())
            code, name = event.data["code"], self._name()
            counts[code] += 1
            if counts[code] > _WARNINGS_OF_A_KIND:
                return []
            detail = _PLACE_IN_CHUNK.sub(r" at column \1", event.data["detail"])
            return [f"warning: {name} was rejected ({code}): {detail}"]
        if event.type not in END_TYPES:
            return []
        return [
            f"warning: {number - _WARNINGS_OF_A_KIND} more rejected ({code})"
            for code, number in self._counts.pop(event.message, Counter()).items()
            if number > _WARNINGS_OF_A_KIND
        ]


def say_dimmed(text: str) -> None:
    """Print a note on stderr: useful, but not part of the output."""
    Console(stderr=True, highlight=False, markup=False).print(text, style=_QUIET)


def print_json(value: object) -> None:
    """Print one JSON value on stdout, on one line."""
    sys.stdout.buffer.write(orjson.dumps(value, default=str) + b"\n")
    sys.stdout.buffer.flush()


def make_printer(
    *, as_json: bool, name_messages: bool = False, name_rejected: NameRejected = lambda: "a chunk"
) -> Printer:
    """Choose how events are shown."""
    if as_json:
        return JsonPrinter(name_rejected)
    return TextPrinter(name_rejected, name_messages=name_messages)
