"""Source chunks: agents name the chunks themselves."""

import json
from typing import Any

import pytest

from riverdelta.core.codecs import make_codec
from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkStart,
    Piece,
    Rejected,
    StepEnd,
    StepStart,
    Text,
)
from tests.support.core.codec_tools import RECORDINGS, lines_of, run


def _run(*documents: Any) -> list[Piece]:
    return run(make_codec("chunks"), [json.dumps(document).encode() for document in documents])


def test_the_recording_gives_every_chunk_in_its_form() -> None:
    lines = lines_of(RECORDINGS / "chunks" / "mixed.jsonl")
    assert run(make_codec("chunks"), lines) == [
        StepStart(None),
        ChunkStart("r", "reasoning"),
        Text("r", "Think"),
        ChunkStart("a", "text"),
        Text("a", "Hello "),
        Text("r", "ing."),
        ChunkEnd("r"),
        ChunkStart("call", "tool_call", "json", "find_tide", "call_1", "json"),
        Text("call", '{"port":'),
        Text("call", '"Brest"}'),
        ChunkEnd("call"),
        ChunkStart("result", "tool_result", "text", None, "call_1"),
        Text("result", "6:00"),
        ChunkEnd("result"),
        ChunkStart("none", "tool_call", "json", "no_arguments"),
        Text("none", "{}"),
        ChunkEnd("none"),
        ChunkStart("draft", "text", mode="snapshot"),
        Text("draft", "a"),
        Text("draft", "a b"),
        Text("a", "🌊"),
        ChunkEnd("a"),
        ChunkEnd("draft"),
        StepEnd("stop", None, None),
    ]


def test_a_name_is_free_again_after_done() -> None:
    pieces = _run({"chunk": "a", "text": "1", "done": True}, {"chunk": "a", "kind": "reasoning"})
    assert pieces[1:5] == [
        ChunkStart("a", "text"),
        Text("a", "1"),
        ChunkEnd("a"),
        ChunkStart("a", "reasoning"),
    ]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({}, "bad_shape"),
        ({"chunk": ""}, "bad_shape"),
        ({"chunk": 1, "text": "x"}, "bad_shape"),
        ({"chunk": "a", "kind": "song"}, "bad_shape"),
        ({"chunk": "a", "kind": ["text"]}, "bad_shape"),
        ({"chunk": "a", "mode": "both"}, "bad_shape"),
        ({"chunk": "a", "text": 5}, "bad_shape"),
        ({"chunk": "a", "tool_name": {}}, "bad_shape"),
        ({"chunk": "a", "done": "yes"}, "bad_shape"),
        ([], "not_an_object"),
        ("text", "not_an_object"),
        (None, "not_an_object"),
    ],
)
def test_a_wrong_shape_is_rejected_and_changes_nothing(document: Any, code: str) -> None:
    codec = make_codec("chunks")
    before = codec.dump()
    (piece,) = codec.decode(json.dumps(document).encode())
    assert isinstance(piece, Rejected)
    assert piece.code == code
    assert codec.dump() == before


def test_a_chunk_keeps_its_kind() -> None:
    pieces = _run({"chunk": "a", "text": "x"}, {"chunk": "a", "kind": "reasoning", "text": "y"})
    assert [piece.code for piece in pieces if isinstance(piece, Rejected)] == ["bad_shape"]


def test_halves_are_joined_in_increments_and_cut_from_snapshots() -> None:
    pieces = _run(
        {"chunk": "a", "text": "x\ud83d"},
        {"chunk": "a", "text": "\ude00"},
        {"chunk": "s", "mode": "snapshot", "text": "x\ud83d"},
        {"chunk": "s", "text": "x😀 y"},
    )
    assert [piece for piece in pieces if isinstance(piece, Text)] == [
        Text("a", "x"),
        Text("a", "😀"),
        Text("s", "x"),
        Text("s", "x😀 y"),
    ]
