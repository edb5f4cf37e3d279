"""What the tests of codecs share: recordings, and pieces folded to what a reader would have."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkFail,
    ChunkStart,
    Codec,
    Piece,
    Rejected,
    StepEnd,
    StepFail,
    StepStart,
    Text,
)
from tests.support.core.assembled import Assembled

RECORDINGS = Path(__file__).parents[2] / "recordings"


def recordings(*sources: str) -> list[Path]:
    """List our recordings of *sources*, and those in the folder RIVERDELTA_STREAMS names."""
    roots = [RECORDINGS]
    if os.environ.get("RIVERDELTA_STREAMS"):
        roots.append(Path(os.environ["RIVERDELTA_STREAMS"]))
    return [
        path
        for root in roots
        for source in sources
        for path in sorted(root.glob(f"{source}/*.jsonl"))
    ]


def lines_of(path: Path) -> list[bytes]:
    """Read the raw chunks of a recording."""
    return [line for line in path.read_bytes().splitlines() if line.strip()]


def run(codec: Codec, raws: Iterable[bytes]) -> list[Piece]:
    """Give all pieces of a message, to its end."""
    pieces = [piece for raw in raws for piece in codec.decode(raw)]
    return pieces + codec.finish()


def merged(pieces: Iterable[Piece]) -> list[Piece]:
    """Join neighbouring texts of one key: how text is split says nothing."""
    out: list[Piece] = []
    for piece in pieces:
        last = out[-1] if out else None
        if isinstance(piece, Text) and isinstance(last, Text) and piece.key == last.key:
            out[-1] = Text(piece.key, last.text + piece.text)
        else:
            out.append(piece)
    return out


def check_order(pieces: Iterable[Piece]) -> None:
    """Fail unless steps and chunks begin before they go on and end, once, and text is text."""
    in_step = False
    open_keys: set[str] = set()
    for piece in pieces:
        match piece:
            case StepStart():
                assert not in_step
                in_step = True
            case ChunkStart(key):
                assert in_step
                assert key not in open_keys
                open_keys.add(key)
            case Text(key, text):
                assert key in open_keys
                assert text
                text.encode()
            case ChunkEnd(key) | ChunkFail(key):
                open_keys.remove(key)
            case StepEnd() | StepFail():
                assert in_step
                in_step = False
                open_keys.clear()
            case Rejected():
                pass
    assert not in_step


def fold(pieces: Iterable[Piece]) -> list[Assembled]:
    """Fold pieces to one result per step, in the oracle's words."""
    steps: list[Assembled] = []
    order: list[ChunkStart] = []
    texts: list[str] = []
    current: dict[str, int] = {}
    for piece in pieces:
        match piece:
            case StepStart():
                steps.append(Assembled())
                order, texts, current = [], [], {}
            case ChunkStart(key):
                current[key] = len(order)
                order.append(piece)
                texts.append("")
            case Text(key, text):
                texts[current[key]] += text
            case StepEnd(_, raw_reason, usage):
                _add_chunks(steps[-1], order, texts)
                steps[-1].finish = raw_reason
                steps[-1].usage = None if usage is None else dict(usage.raw)
            case StepFail(code):
                _add_chunks(steps[-1], order, texts)
                steps[-1].error = code
            case _:
                pass
    return steps


def _add_chunks(step: Assembled, order: list[ChunkStart], texts: list[str]) -> None:
    for start, text in zip(order, texts, strict=True):
        if start.kind == "text":
            step.text += text
        elif start.kind == "reasoning":
            step.reasoning += text
        elif start.kind == "refusal":
            step.refusal += text
        elif start.kind == "tool_call":
            step.tool_calls.append((start.tool_call_id, start.tool_name, text))
