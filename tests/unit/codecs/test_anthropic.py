"""Source anthropic: what recordings do not show."""

import json
from typing import Any

import pytest

from riverdelta.core.codecs import make_codec
from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkFail,
    ChunkStart,
    Piece,
    StepEnd,
    StepFail,
    StepStart,
    Text,
    Usage,
)
from tests.support.core.codec_tools import RECORDINGS, check_order, fold, lines_of, run

START = {"type": "message_start", "message": {"id": "m1", "model": "m"}}
STOP = {"type": "message_stop"}


def block(index: int, **content: Any) -> dict[str, Any]:
    """Begin a block."""
    return {"type": "content_block_start", "index": index, "content_block": content}


def delta(index: int, **content: Any) -> dict[str, Any]:
    """Add to a block."""
    return {"type": "content_block_delta", "index": index, "delta": content}


def end(index: int) -> dict[str, Any]:
    """End a block."""
    return {"type": "content_block_stop", "index": index}


def stopped(reason: str | None, **usage: Any) -> dict[str, Any]:
    """Say why the message stops."""
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


def pieces_of(*documents: Any) -> list[Piece]:
    """Give all pieces of a message."""
    raws = [json.dumps(document).encode() for document in documents]
    pieces = run(make_codec("anthropic"), raws)
    check_order(pieces)
    return pieces


def test_a_tool_result_is_a_chunk_with_the_id_of_its_call() -> None:
    content = {"type": "bash_code_execution_result", "stdout": "é"}
    kind = "bash_code_execution_tool_result"
    pieces = pieces_of(
        START, block(0, type=kind, tool_use_id="srv1", content=content), end(0), STOP
    )
    assert pieces[1:4] == [
        ChunkStart("0", "tool_result", "json", "bash_code_execution", "srv1"),
        Text("0", '{"type":"bash_code_execution_result","stdout":"é"}'),
        ChunkEnd("0"),
    ]


def test_input_in_the_start_counts_unless_deltas_say_it() -> None:
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}
    assert fold(pieces_of(START, block(0, **call), end(0)))[0].tool_calls == [("t", "f", '{"a":1}')]
    assert fold(pieces_of(START, block(0, **call)))[0].tool_calls == [("t", "f", '{"a":1}')]
    said = delta(0, type="input_json_delta", partial_json='{"b":2}')
    assert fold(pieces_of(START, block(0, **call), said, end(0)))[0].tool_calls == [
        ("t", "f", '{"b":2}')
    ]


def test_a_call_that_broke_off_does_not_look_complete() -> None:
    call = block(0, type="mcp_tool_use", id="t", name="f", input={})
    for cut in ([], [STOP], [end(0), STOP], [end(0), stopped("max_tokens"), STOP]):
        pieces = pieces_of(START, call, *cut)
        assert fold(pieces)[0].tool_calls == [("t", "f", "")]
        assert [piece.key for piece in pieces if isinstance(piece, ChunkFail)] == ["0"]
    whole = pieces_of(START, call, stopped("tool_use"), STOP)
    assert fold(whole)[0].tool_calls == [("t", "f", "{}")]
    assert not [piece for piece in whole if isinstance(piece, ChunkFail)]


def test_text_in_the_start_of_a_block_counts() -> None:
    pieces = pieces_of(
        START,
        block(0, type="thinking", thinking="Hm"),
        block(1, type="text", text="Hi"),
        delta(1, type="text_delta", text=" you"),
        STOP,
    )
    (step,) = fold(pieces)
    assert (step.reasoning, step.text) == ("Hm", "Hi you")


def test_blocks_without_text_are_no_chunks() -> None:
    codec = make_codec("anthropic")
    pieces = run(codec, lines_of(RECORDINGS / "anthropic" / "thinking.jsonl"))
    assert [piece.key for piece in pieces if isinstance(piece, ChunkStart)] == ["0", "3"]
    assert codec.skipped == 4  # two signatures, one opaque block, one citation


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_blocks_may_end_in_any_order(order: tuple[int, int]) -> None:
    pieces = pieces_of(
        START,
        block(0, type="text", text="a"),
        block(1, type="text", text="b"),
        end(order[0]),
        delta(order[1], type="text_delta", text="c"),
        end(order[1]),
        STOP,
    )
    assert [piece.key for piece in pieces if isinstance(piece, ChunkEnd)] == [str(n) for n in order]


def test_input_tokens_count_what_the_cache_took_and_gave() -> None:
    usage = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": 100,
        "cache_creation": {"ephemeral_5m_input_tokens": 3},
        "output_tokens": 1,
    }
    start = {"type": "message_start", "message": {"id": "m1", "usage": usage}}
    more = {
        "output_tokens": 20,
        "input_tokens": None,
        "output_tokens_details": {"thinking_tokens": 8},
    }
    last = pieces_of(start, stopped("end_turn", **more), STOP)[-1]
    raw = {**usage, "output_tokens": 20, "output_tokens_details": {"thinking_tokens": 8}}
    assert last == StepEnd("stop", "end_turn", Usage(113, 20, 8, 100, raw))


def test_a_message_that_broke_off() -> None:
    text = block(0, type="text", text="a")
    assert pieces_of(START, text)[-2:] == [ChunkEnd("0"), StepEnd(None, None, None)]
    assert pieces_of(START, text, stopped("max_tokens"))[-1] == StepEnd(
        "length", "max_tokens", None
    )
    other = {"type": "message_start", "message": {"id": "m2", "model": "n"}}
    assert pieces_of(START, text, other, STOP)[3:] == [
        ChunkEnd("0"),
        StepEnd(None, None, None),
        StepStart("n"),
        StepEnd(None, None, None),
    ]


def test_text_without_the_start_of_its_message_is_not_lost() -> None:
    pieces = pieces_of(block(0, type="text", text="a"), delta(0, type="text_delta", text="b"))
    assert [step.text for step in fold(pieces)] == ["ab"]


def test_what_says_nothing_and_belongs_to_no_message_is_skipped() -> None:
    codec = make_codec("anthropic")
    strays = [end(0), stopped("end_turn"), STOP, {"type": "ping"}]
    assert run(codec, [json.dumps(stray).encode() for stray in strays]) == []
    assert codec.skipped == 4


def test_an_error_fails_the_step() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    text = block(0, type="text", text="a")
    failed = StepFail("overloaded_error", "Overloaded")
    assert pieces_of(START, text, error, STOP)[-1] == failed
    assert pieces_of(error) == [StepStart(None), failed]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [("pause_turn", "pause"), ("refusal", "refusal"), ("brand_new", "other"), (None, None)],
)
def test_stop_reasons(raw: str | None, reason: str | None) -> None:
    last = pieces_of(START, stopped(raw), STOP)[-1]
    assert isinstance(last, StepEnd)
    assert (last.finish_reason, last.raw_finish_reason) == (reason, raw)
