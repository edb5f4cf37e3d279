"""Join surrogate halves that arrive in two deltas of one chunk, before readers get them."""

from __future__ import annotations

from riverdelta.core.codecs.json_text import REPLACEMENT, clean, join_pairs
from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkFail,
    ChunkStart,
    Piece,
    Rejected,
    StepEnd,
    StepFail,
    StepStart,
    Text,
)

Halves = dict[str, str]
"""Chunk key → the high half its text ended with, not given out yet."""


def join_halves(pieces: list[Piece], halves: Halves) -> list[Piece]:
    """
    Copy *pieces* so that no text holds a lone half.

    A high half at the end of a text waits in *halves* for the next text of the same chunk. One
    that gets no partner becomes U+FFFD, at the latest where its chunk or its step ends. Called
    only when a half may be there, so that ordinary text pays nothing.
    """
    out: list[Piece] = []
    for piece in pieces:
        match piece:
            case Text(key, text):
                _add_text(key, text, halves, out)
            case ChunkEnd(key) | ChunkFail(key):
                if halves.pop(key, None) is not None:
                    out.append(Text(key, REPLACEMENT))
                out.append(piece)
            case StepEnd() | StepFail():
                out.extend(Text(key, REPLACEMENT) for key in halves)
                halves.clear()
                out.append(_cleaned(piece))
            case _:
                out.append(_cleaned(piece))
    return out


def dump_halves(halves: Halves) -> dict[str, int]:
    """Encode *halves* as numbers: JSON has no lone half."""
    return {key: ord(half) for key, half in halves.items()}


def load_halves(state: dict[str, int]) -> Halves:
    """Undo `dump_halves`."""
    return {key: chr(half) for key, half in state.items()}


def _add_text(key: str, text: str, halves: Halves, out: list[Piece]) -> None:
    text = join_pairs(halves.pop(key, "") + text)
    if "\ud800" <= text[-1:] <= "\udbff":
        halves[key] = text[-1]
        text = text[:-1]
    if text:
        out.append(Text(key, clean(text)))


def _cleaned(piece: Piece) -> Piece:
    match piece:
        case StepStart(model):
            return StepStart(_clean(model))
        case ChunkStart():
            return piece._replace(
                tool_name=_clean(piece.tool_name),
                tool_call_id=_clean(piece.tool_call_id),
                processor=_clean(piece.processor),
            )
        case StepFail(code, detail):
            return StepFail(clean(code), clean(detail))
        case Rejected():
            return piece._replace(detail=clean(piece.detail))
        case _:
            return piece


def _clean(text: str | None) -> str | None:
    return None if text is None else clean(text)
