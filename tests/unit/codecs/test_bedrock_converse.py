"""Source bedrock-converse: what recordings do not show."""

import json
from typing import Any

import pytest

from riverdelta.core.codecs import make_codec
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
from tests.support.core.codec_tools import RECORDINGS, check_order, fold, lines_of, merged, run

START = {"messageStart": {"role": "assistant"}}
USAGE = {"metadata": {"usage": {"inputTokens": 7, "outputTokens": 5}, "metrics": {"latencyMs": 1}}}


def begun(index: Any, **start: Any) -> dict[str, Any]:
    return {"contentBlockStart": {"contentBlockIndex": index, "start": start}}


def call(index: Any, call_id: str = "t", name: str = "f") -> dict[str, Any]:
    return begun(index, toolUse={"toolUseId": call_id, "name": name})


def delta(index: Any, **content: Any) -> dict[str, Any]:
    return {"contentBlockDelta": {"contentBlockIndex": index, "delta": content}}


def given(index: Any, text: Any) -> dict[str, Any]:
    """Give more input to a call."""
    return delta(index, toolUse={"input": text})


def stop(index: Any) -> dict[str, Any]:
    return {"contentBlockStop": {"contentBlockIndex": index}}


def stopped(reason: Any) -> dict[str, Any]:
    return {"messageStop": {"stopReason": reason}}


def pieces_of(*documents: Any) -> list[Piece]:
    """Give all pieces of a message."""
    raws = [json.dumps(document).encode() for document in documents]
    pieces = run(make_codec("bedrock-converse"), raws)
    check_order(pieces)
    return pieces


def skipped(*documents: Any) -> int:
    codec = make_codec("bedrock-converse")
    run(codec, [json.dumps(document).encode() for document in documents])
    return codec.skipped


def ends(pieces: list[Piece]) -> list[Piece]:
    return [piece for piece in pieces if isinstance(piece, StepEnd | StepFail)]


def failed_calls(pieces: list[Piece]) -> int:
    return sum(isinstance(piece, ChunkFail) for piece in pieces)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("malformed_model_output", "error"),
        ("malformed_tool_use", "error"),
        ("something_new", "other"),
        ("END_TURN", "stop"),
    ],
)
def test_stop_reasons_are_normalised_with_the_word_beside(word: str, reason: str) -> None:
    (end,) = ends(pieces_of(START, delta(0, text="x"), stop(0), stopped(word), USAGE))
    assert isinstance(end, StepEnd)
    assert end[:2] == (reason, word)
    assert end.usage is not None
    assert end.usage[:2] == (7, 5)


@pytest.mark.parametrize("tail", [[stopped("end_turn"), USAGE], [USAGE, stopped("end_turn")]])
def test_the_step_ends_when_its_stop_and_its_usage_have_come(tail: list[Any]) -> None:
    codec = make_codec("bedrock-converse")
    pieces = [
        piece
        for document in [START, delta(0, text="x"), *tail]
        for piece in codec.decode(json.dumps(document).encode())
    ]
    assert len(ends(pieces)) == 1
    assert codec.finish() == []


def test_cached_input_is_input() -> None:
    usage = {"inputTokens": 3, "outputTokens": 1, "cacheReadInputTokens": 10}
    usage["cacheWriteInputTokens"] = 20
    (end,) = ends(
        pieces_of(delta(0, text="x"), stopped("end_turn"), {"metadata": {"usage": usage}})
    )
    assert isinstance(end, StepEnd)
    assert end.usage == (33, 1, 0, 10, usage)


def test_messages_without_metadata_or_start_are_steps_of_their_own() -> None:
    one = [delta(0, text="A"), stop(0), stopped("tool_use")]
    two = [delta(0, text="B"), stop(0), stopped("end_turn")]
    for between in ([START], []):
        steps = fold(pieces_of(START, *one, *between, *two))
        assert [(step.text, step.finish) for step in steps] == [
            ("A", "tool_use"), ("B", "end_turn")
        ]  # fmt: skip
    assert len(fold(pieces_of(START, START, *one))) == 1  # said twice


def test_a_delta_never_goes_into_a_chunk_of_another_kind() -> None:
    pieces = pieces_of(
        START, call(0), given(0, '{"a":'), delta(0, text="A"), given(0, "1}"),
        delta(0, reasoningContent={"text": "hm"}), delta(0, text="B"), stop(0),
        stopped("end_turn"), USAGE,
    )  # fmt: skip
    (step,) = fold(pieces)
    assert (step.text, step.reasoning) == ("AB", "hm")
    assert step.tool_calls == [("t", "f", '{"a":1}')]
    assert failed_calls(pieces) == 0


@pytest.mark.parametrize("index", [None, "0", 1.5, [], -1])
def test_odd_or_missing_indices_lose_nothing(index: Any) -> None:
    pieces = pieces_of(
        START, delta(index, text="A"), stop(index), call(index), given(index, '{"a"'),
        given(index, ":1}"), stop(index), stopped("tool_use"), USAGE,
    )  # fmt: skip
    (step,) = fold(pieces)
    assert (step.text, step.tool_calls) == ("A", [("t", "f", '{"a":1}')])
    assert failed_calls(pieces) == 0


def test_input_goes_to_the_only_open_call_or_nowhere() -> None:
    (step,) = fold(pieces_of(START, call(1), given(None, "{}"), stop(1), stopped("tool_use")))
    assert step.tool_calls == [("t", "f", "{}")]
    two = [START, call(1, "a"), call(2, "b"), given(None, '{"x":1}'), stopped("tool_use")]
    assert [arguments for _, _, arguments in fold(pieces_of(*two))[0].tool_calls] == ["{}", "{}"]
    assert skipped(*two) == 1


def test_a_start_ends_the_block_before_it_unless_it_is_the_same_again() -> None:
    again = pieces_of(START, call(0), given(0, '{"a"'), call(0), given(0, ":1}"), stop(0))
    assert fold(again)[0].tool_calls == [("t", "f", '{"a":1}')]
    other = pieces_of(
        START, call(0, "a"), given(0, '{"a":1}'), call(0, "b"), stop(0), call(0, "b"), stop(0),
        stopped("tool_use"),
    )  # fmt: skip
    assert fold(other)[0].tool_calls == [
        ("a", "f", '{"a":1}'), ("b", "f", "{}"), ("b", "f", "{}")
    ]  # fmt: skip
    assert failed_calls(other) == 0


@pytest.mark.parametrize(
    "reason", ["max_tokens", "guardrail_intervened", "malformed_tool_use", None, ""]
)
@pytest.mark.parametrize("said", [[], ['{"a":"x']])
def test_a_call_that_was_cut_does_not_look_whole(reason: Any, said: list[str]) -> None:
    pieces = pieces_of(
        START, call(0), *(given(0, text) for text in said), stop(0), stopped(reason), USAGE
    )
    assert failed_calls(pieces) == 1
    assert fold(pieces)[0].tool_calls == [("t", "f", "".join(said))]


def test_a_call_that_something_follows_was_not_cut_by_the_end() -> None:
    pieces = pieces_of(START, call(0), stop(0), delta(1, text="x"), stop(1), stopped("max_tokens"))
    assert fold(pieces)[0].tool_calls == [("t", "f", "{}")]
    assert failed_calls(pieces) == 0


def test_a_call_whose_message_breaks_off_fails() -> None:
    assert failed_calls(pieces_of(START, call(0), given(0, '{"a"'))) == 1
    assert failed_calls(pieces_of(START, call(0))) == 1
    assert failed_calls(pieces_of(START, call(0), given(0, '{"a":1}'))) == 0


def test_results_of_tools_that_aws_runs() -> None:
    result = {"toolUseId": "t", "type": "web_search", "status": "success"}
    pieces = pieces_of(
        START, begun(0, toolResult=result), delta(0, toolResult=[{"text": "A "}, {"json": {"n": 1}}]),
        stop(0), stopped("end_turn"),
    )  # fmt: skip
    assert merged(pieces)[1:4] == [
        ChunkStart("0", "tool_result", "text", None, "t"),
        Text("0", 'A {"n":1}'),
        ChunkEnd("0"),
    ]


EXCEPTIONS = [
    (
        {"modelStreamErrorException": {"originalMessage": "died"}},
        "modelStreamErrorException",
        "died",
    ),
    ({"internalServerException": {"message": "oops"}}, "internalServerException", "oops"),
    ({"throttlingException": {"message": "slow down"}}, "throttlingException", "slow down"),
    ({"serviceUnavailableException": {}}, "serviceUnavailableException", ""),
    ({"validationException": "bad"}, "validationException", "bad"),
    ({"__type": "ThrottlingException", "message": "slow down"}, "ThrottlingException", "slow down"),
    ({"error": {"message": "gone", "code": "x"}}, "x", "gone"),
]


@pytest.mark.parametrize(("document", "code", "detail"), EXCEPTIONS)
def test_exceptions_fail_with_the_providers_words(
    document: dict[str, Any], code: str, detail: str
) -> None:
    failure = StepFail(code, detail)
    assert ends(pieces_of(document)) == [failure]
    pieces = pieces_of(START, delta(0, text="A"), document, delta(0, text="late"), stop(0))
    assert ends(pieces) == [failure]
    assert fold(pieces)[0].text == "A"


@pytest.mark.parametrize(
    ("document", "count"),
    [
        (delta(0, reasoningContent={"signature": "AAAA"}), 1),
        (delta(0, reasoningContent={"redactedContent": "AAAA"}), 1),
        (delta(0, citation={"title": "t"}), 1),
        (delta(0, image={"source": {}}), 1),
        (delta(0, text=5), 1),
        (delta(0, text=""), 0),
        (begun(0, image={"format": "png"}), 1),
        (begun(0), 0),
        ({"metadata": {"usage": {}, "trace": {"guardrail": {"x": 1}}}}, 1),
        ({"brandNew": {}}, 1),
        ({}, 1),
    ],
)
def test_what_is_not_taken_is_counted(document: dict[str, Any], count: int) -> None:
    assert skipped(START, delta(1, text="A"), document) == count


def test_a_reply_of_which_nothing_was_understood_says_so() -> None:
    pieces = pieces_of(START, delta(0, image={"source": {}}), stop(0), stopped("end_turn"), USAGE)
    assert [piece.code for piece in pieces if isinstance(piece, Rejected)] == ["not_understood"]


@pytest.mark.parametrize("name", ["text", "reasoning", "tool-calls", "steps", "length"])
def test_bare_events_and_events_by_type_say_the_same(name: str) -> None:
    lines = lines_of(RECORDINGS / "bedrock-converse" / f"{name}.jsonl")
    documents = [json.loads(line) for line in lines]
    plain = pieces_of(*documents)
    events = [next(iter(document.items())) for document in documents]
    assert pieces_of(*(body for _, body in events)) == plain
    assert pieces_of(*({"type": kind, **body} for kind, body in events)) == plain


def test_events_that_a_gateway_names_in_its_event_stream() -> None:
    frames = [
        ("messageStart", b'{"role":"assistant"}'),
        ("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"A"}}'),
        ("throttlingException", b'{"message":"slow down"}'),
    ]
    codec = make_codec("bedrock-converse")
    pieces = [piece for name, data in frames for piece in codec.decode_event(data, name)]
    assert pieces == [
        StepStart(None),
        ChunkStart("0", "text"),
        Text("0", "A"),
        StepFail("throttlingException", "slow down"),
    ]


def test_a_whole_answer_is_read() -> None:
    content = [
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "AAAA"}}},
        {"text": "A"},
        {"citationsContent": {"content": [{"text": "B"}], "citations": [{"title": "t"}]}},
        {"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": 1}}},
        {"toolUse": {"toolUseId": "u", "name": "g", "input": {}}},
    ]
    answer = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "tool_use",
        "usage": {"inputTokens": 7, "outputTokens": 5},
    }
    pieces = pieces_of(answer)
    (step,) = fold(pieces)
    assert (step.text, step.reasoning, step.finish) == ("AB", "hm", "tool_use")
    assert step.tool_calls == [("t", "f", '{"a":1}'), ("u", "g", "{}")]
    assert step.usage == answer["usage"]
    assert failed_calls(pieces) == 0


def test_a_call_that_another_one_replaces_before_its_stop_does_not_look_whole() -> None:
    pieces = pieces_of(START, call(0, "a"), call(0, "b"), stop(0), stopped("tool_use"))
    assert failed_calls(pieces) == 1
    assert sum(isinstance(piece, ChunkEnd) for piece in pieces) == 1
