"""
JsonStream on a tool call of 97 KB in pieces of 4 characters, its value asked for at each.

Against jiter, which has to read the whole prefix again at each piece, and jsonriver. Run as a script,
or as one of run.py's measurements. All figures are of CPU time, in one process, in turns.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import jiter
import jsonriver

if __name__ == "__main__":  # as run.py, which finds its siblings through its own folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.result import Row, row, table
from riverdelta.core.json_stream import JsonStream

_PIECE: Final = 4
_TOOL_CALL: Final = 97 * 1024
_SMALL: Final = 6 * 1024
_LARGE: Final = 1024 * 1024
_FILES: Final = 4
_BATCH: Final = 200
"""Prefixes made at a time, outside of what is measured: reading a clock costs too."""

Reader = Callable[[str, list[str]], float]
"""Reads a text that comes in pieces, and gives µs of CPU per piece."""


def tool_call(size: int) -> str:
    """Arguments of a call that creates metrics: *size* characters, most of them YAML in strings."""
    metric = (
        "name: Monthly revenue of region {0}\n"
        'description: "Gross bookings, less refunds; see §{0} of the handbook"\n'
        "sql: |\n"
        "  SELECT date_trunc('month', o.created_at) AS month, sum(o.total_cents) / 100.0 AS revenue\n"
        "  FROM public.orders o JOIN public.regions r ON r.id = o.region_id\n"
        "  WHERE r.code = 'R-{0}' AND o.status <> 'refunded'\n"
        "chart: {{type: line, x: month, y: revenue, colors: ['#1f77b4', '#ff7f0e']}}\n"
    )
    content = ""
    number = 0
    while len(json.dumps(content)) < size // _FILES:
        content += metric.format(number)
        number += 1
    files = [{"name": f"revenue_{at}", "yml_content": content} for at in range(_FILES)]
    return json.dumps({"files": files})


def long_string(size: int) -> str:
    """Arguments of one string of *size* characters."""
    return json.dumps({"plan": "Look at revenue by region, then by product. " * (size // 44)})


def measure(_server: object = None, *, quick: bool = False) -> tuple[list[Row], list[str]]:
    """Measure JsonStream against its rivals, and at 1 MB against itself at 6 KB."""
    repeats = 1 if quick else 5
    text = tool_call(_TOOL_CALL)
    what = f"JSON of {len(text) // 1024} KB in pieces of {_PIECE}, value at each"
    rivals: list[tuple[str, Reader, float]] = [
        ("jiter, whole prefix again", _jiter, 15),
        ("jsonriver", _jsonriver, 1.5),
    ]
    notes = [f"JSON: {len(text) // _PIECE:,} pieces; CPU time; speed-up = rival / ours"]
    rows = []
    for name, read, bar in rivals:
        pairs = [(_ours_per(text), _per_piece(read, text)) for _ in range(repeats)]
        rates = [(1e6 / ours, 1e6 / rival) for ours, rival in pairs]
        rows.append(row(what, name, "pieces/s", rates, at_least=bar))
    for make, label in ((tool_call, "tool call"), (long_string, "one string")):
        small, large = make(_SMALL), make(_LARGE)
        pairs = [(_ours_per(large), _ours_per(small, times=20)) for _ in range(repeats)]
        rows.append(
            row(f"JsonStream, {label} of 1 MB", "the same at 6 KB", "us/piece", pairs, at_most=1.2)
        )
    plain = long_string(_TOOL_CALL)
    hot = min(_ours_per(plain) for _ in range(repeats))
    notes.append(
        f"JSON: a piece inside a long plain string costs {hot:.2f} us, value and loop included"
    )
    return rows, notes


def _per_piece(read: Reader, text: str) -> float:
    return read(text, [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)])


def _ours_per(text: str, *, times: int = 1) -> float:
    return sum(_per_piece(_ours, text) for _ in range(times)) / times


def _ours(text: str, pieces: list[str]) -> float:
    stream = JsonStream()
    feed = stream.feed
    value = None
    started = time.process_time_ns()
    for piece in pieces:
        feed(piece)
        value = stream.value
    return _checked(started, text, pieces, value)


def _jiter(text: str, pieces: list[str]) -> float:
    read = jiter.from_json
    value: Any = None
    spent_ns = 0
    for begin in range(0, len(pieces), _BATCH):
        ends = range(begin + 1, min(begin + _BATCH, len(pieces)) + 1)
        prefixes = [text[: end * _PIECE].encode() for end in ends]  # a reader may have them at hand
        started = time.process_time_ns()
        for prefix in prefixes:
            value = read(prefix, partial_mode="trailing-strings")
        spent_ns += time.process_time_ns() - started
    return _checked(time.process_time_ns() - spent_ns, text, pieces, value)


def _jsonriver(text: str, pieces: list[str]) -> float:
    async def arriving() -> AsyncIterator[str]:
        for piece in pieces:
            yield piece

    async def read() -> Any:
        value = None
        async for grown in jsonriver.parse(arriving()):
            value = grown
        return value

    with asyncio.Runner() as runner:
        started = time.process_time_ns()
        value = runner.run(read())
        return _checked(started, text, pieces, value)


def _checked(started_ns: int, text: str, pieces: list[str], value: Any) -> float:
    """µs per piece since *started_ns*, if *value* is right."""
    spent_us = (time.process_time_ns() - started_ns) / 1000
    if value != json.loads(text):
        raise RuntimeError("a reader got it wrong: this measured something else")
    return spent_us / len(pieces)


if __name__ == "__main__":
    found_rows, found_notes = measure(quick="--quick" in sys.argv)
    print(table(found_rows))
    print()
    for note in found_notes:
        print(note)
