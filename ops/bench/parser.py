"""
What a tool call's card costs while it arrives: tracker, JSON and processor.

Against the seed's way, which reads all of the text again at each chunk. Run as a script, or as one of
run.py's measurements. Figures are of CPU time, in one process, in turns.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":  # as run.py, which finds its siblings through its own folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.json_stream import tool_call
from bench.result import Row, row, table
from riverdelta.core.outputs import Output
from riverdelta.streaming_parser import StreamingParser

_PIECE: Final = 4
_TOOL_CALL: Final = 97 * 1024
_SMALL: Final = 6 * 1024
_LARGE: Final = 1024 * 1024


def measure(_server: object = None, *, quick: bool = False) -> tuple[list[Row], list[str]]:
    """Measure a card of metrics: against the seed's way, and at 1 MB against itself at 6 KB."""
    repeats = 1 if quick else 5
    small, large = tool_call(_SMALL), tool_call(_LARGE)
    text = small if quick else tool_call(_TOOL_CALL)
    pairs = [
        (1e6 / _us_per_chunk(text, Ours), 1e6 / _us_per_chunk(text, Seed)) for _ in range(repeats)
    ]
    flat = [
        (_us_per_chunk(large, Ours), sum(_us_per_chunk(small, Ours) for _ in range(20)) / 20)
        for _ in range(repeats)
    ]
    size = f"{len(text) // 1024} KB"
    return [
        row(
            f"tracker + parser, {size} tool call in pieces of {_PIECE}",
            "seed: whole text again",
            "chunks/s",
            pairs,
            at_least=20,
        ),
        row("tracker + parser, tool call of 1 MB", "the same at 6 KB", "us/chunk", flat),
    ], []


def _us_per_chunk(text: str, make: Callable[[], Ours | Seed]) -> float:
    """Stream *text*; µs of CPU a chunk, if the files are right in the end."""
    pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
    parser = make()
    add = parser.add
    started = time.process_time_ns()
    for piece in pieces:
        add(piece)
    spent_us = (time.process_time_ns() - started) / 1000
    if parser.texts() != [file["yml_content"] for file in json.loads(text)["files"]]:
        raise RuntimeError("a parser got it wrong: this measured something else")
    return spent_us / len(pieces)


class Ours:
    """The parser as producers' workers use it, its outputs made into plain JSON."""

    def __init__(self) -> None:
        self._parser = StreamingParser(mode="append")
        self._last: dict[str, Any] = {}

    def add(self, chunk: str) -> None:
        """Take a chunk."""
        output, _ = self._parser.process_chunk_with_tracking("c", chunk, "metric")
        if isinstance(output, Output):
            self._last = output.wire()

    def texts(self) -> list[str]:
        """Texts of the files, at the end."""
        return [file["file"]["text"] for file in self._last["files"].values()]


class Seed:
    """
    The seed's way, literally: keep the text, and at each chunk complete and parse all of it again.

    A scan over all of the text finds what is open (with one compiled pattern: as fast as Python has
    it), ``json.loads`` reads it with that closed, the files that have a name and content are pulled
    out, and the new part of a file is what its content gained since the last chunk.
    """

    def __init__(self) -> None:
        self._text = ""
        self._sent: dict[str, str] = {}

    def add(self, chunk: str) -> list[tuple[str, str]]:
        """Take a chunk; name and new text of each file that grew."""
        self._text += chunk
        value = _loads(self._text)
        files = value.get("files") if isinstance(value, dict) else None
        new_parts = []
        for file in files if isinstance(files, list) else []:
            if not isinstance(file, dict):
                continue
            name, content = file.get("name"), file.get("yml_content")
            if not isinstance(name, str) or not isinstance(content, str):
                continue
            sent = self._sent.get(name, "")
            if content != sent:
                new_parts.append((name, content[len(sent) :]))
                self._sent[name] = content
        return new_parts

    def texts(self) -> list[str]:
        """Texts of the files, at the end."""
        return list(self._sent.values())


_repairs: Final[list[Callable[[str], str]]] = [
    lambda text: text,
    lambda text: text.rstrip().rstrip(","),  # a comma that nothing follows
    lambda text: text.rstrip() + "null",  # a colon that nothing follows
]
_strings_and_brackets: Final = re.compile(
    r'"[^"\\]*(?:\\.[^"\\]*)*("?)|[{}\[\]]', re.DOTALL
).finditer


def _loads(text: str) -> Any:
    """Parse *text* with what it leaves open closed; None where that takes more than closing."""
    open_string, closers = _open_ends(text)
    if open_string:
        text += '"'
    for repair in _repairs:
        try:
            return json.loads(repair(text) + closers)
        except ValueError:
            continue
    return None


def _open_ends(text: str) -> tuple[bool, str]:
    closers: list[str] = []
    open_string = False
    for match in _strings_and_brackets(text):
        char = match[0][0]
        if char == '"':
            open_string = not match[1]
        elif char in "{[":
            closers.append("}" if char == "{" else "]")
        else:
            closers.pop()
    return open_string, "".join(reversed(closers))


if __name__ == "__main__":
    found_rows, _ = measure(quick="--quick" in sys.argv)
    print(table(found_rows))
