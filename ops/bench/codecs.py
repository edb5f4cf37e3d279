"""
CPU time per raw chunk of each provider's codec, beside reading the same JSON and nothing else.

The chunks are the tests' recordings, with a chunk in the middle of a text or of a call's arguments
repeated, as in a long reply. Run as a script, or as one of run.py's measurements. To compare with
another version, run it as a script with that version's `shared` folder first in PYTHONPATH.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import orjson

if __name__ == "__main__":  # as run.py, which finds its siblings through its own folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.result import Row, row, table
from riverdelta.core.codecs import SOURCES, make_codec

_RECORDINGS: Final = Path(__file__).resolve().parents[2] / "tests" / "recordings"
_CHUNKS: Final = 2000
"""Copies of the repeated chunk: few enough that a garbage collection is not the figure."""

_MORE: Final = rb" more words"
"""What a copy adds: plain text, which is also the middle of a string in JSON."""


class _Reply(NamedTuple):
    """A long reply: *file* of *source*, with the chunk that adds *piece* repeated before it comes."""

    what: str
    source: str
    file: str
    piece: bytes
    """As it stands in the file, between its quotes."""

    def raws(self) -> tuple[list[bytes], list[bytes]]:
        """Make the raw chunks before the repeated one, and its copies."""
        lines = (_RECORDINGS / self.source / f"{self.file}.jsonl").read_bytes().splitlines()
        quoted = b'"' + self.piece + b'"'
        at = next(number for number, line in enumerate(lines) if quoted in line)
        return lines[:at], [lines[at].replace(quoted, b'"' + _MORE + b'"')] * _CHUNKS


_REPLIES: Final = (
    _Reply("text", "openai-chat", "text", b" meet"),
    _Reply("call", "openai-chat", "interleaved-tools", rb":1,\"s\":\"" + "é".encode() + rb"\"}"),
    _Reply("text", "openai-responses", "text", b" meet the sea: "),
    _Reply("call", "openai-responses", "interleaved-tools", b":1}"),
    _Reply("text", "anthropic", "text", b" meet the sea: "),
    _Reply("call", "anthropic", "interleaved-tools", rb"\"" + "é".encode() + rb"\"}"),
    _Reply("text", "gemini", "text", b"flow "),
    _Reply("call", "gemini", "partial-arguments", rb"Down the \""),
    _Reply("text", "bedrock-converse", "text", b"is a river "),
    _Reply("call", "bedrock-converse", "tool-calls", rb"\"Nile\"}"),
)


def measure(_server: object = None, *, quick: bool = False) -> tuple[list[Row], list[str]]:
    """Measure every source that the version has; see the module."""
    repeats = 2 if quick else 9
    rows = []
    for reply in _REPLIES:
        if reply.source in SOURCES:
            pairs = [_measure(reply) for _ in range(repeats)]
            best = (min(ours for ours, _ in pairs), min(read for _, read in pairs))
            what = f"codec {reply.source}, {reply.what}"
            rows.append(row(what, "orjson.loads alone", "us/chunk", [best]))
    return rows, [
        f"codecs: CPU time of {_CHUNKS} raw chunks, one at a time; the best of {repeats} runs"
    ]


def _measure(reply: _Reply) -> tuple[float, float]:
    """Take the reply to where the copies come; give the CPU time per copy, and that of reading it."""
    before, copies = reply.raws()
    codec = make_codec(reply.source)
    for raw in before:
        codec.decode(raw)
    return _per_chunk(codec.decode, copies), _per_chunk(orjson.loads, copies)


def _per_chunk(take: Callable[[bytes], object], raws: list[bytes]) -> float:
    """Give µs of CPU per raw chunk."""
    started = time.process_time_ns()
    for raw in raws:
        take(raw)
    return (time.process_time_ns() - started) / 1e3 / len(raws)


if __name__ == "__main__":
    rows, notes = measure()
    print(table(rows), "", *notes, sep="\n")
