"""Source openai-chat: what recordings of one provider do not show."""

import json
from typing import Any

import pytest

from riverdelta.core.codecs import make_codec
from riverdelta.core.codecs.openai_chat import OpenAIChatCodec
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
from riverdelta.core.codecs.provider import ProviderCodec
from tests.support.core.codec_tools import check_order, fold, run

USAGE = {"prompt_tokens": 3, "completion_tokens": 2}
KNOWN = Usage(3, 2, 0, 0, USAGE)


def chunk(
    delta: dict[str, Any] | None, finish: str | None = None, /, id_: str | None = "c1", **more: Any
) -> dict[str, Any]:
    """Make a chunk; *delta* None: one without choices."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": id_, "model": "m", "choices": choices, **more}


def call(
    arguments: str = "", id_: str | None = None, name: str | None = None, index: Any = 0
) -> dict[str, Any]:
    """Make the delta of one tool call."""
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": index, "id": id_, "function": function}]}


def pieces_of(*documents: Any) -> list[Piece]:
    """Give all pieces of a message."""
    pieces = run(
        make_codec("openai-chat"), [json.dumps(document).encode() for document in documents]
    )
    check_order(pieces)
    return pieces


def test_kinds_alternate_without_closing_each_other() -> None:
    pieces = pieces_of(
        chunk({"role": "assistant", "content": "", "reasoning": ""}),
        chunk({"reasoning": "r1"}),
        chunk({"content": "t1"}),
        chunk({"reasoning": "r2", "reasoning_content": "r2"}),
        chunk({"content": "t2"}, "stop", usage=USAGE),
    )
    assert pieces == [
        StepStart("m"),
        ChunkStart("reasoning", "reasoning"),
        Text("reasoning", "r1"),
        ChunkStart("text", "text"),
        Text("text", "t1"),
        Text("reasoning", "r2"),
        Text("text", "t2"),
        ChunkEnd("reasoning"),
        ChunkEnd("text"),
        StepEnd("stop", "stop", KNOWN),
    ]


@pytest.mark.parametrize(
    ("late", "usage"),
    [
        ([], None),
        ([chunk(None, usage=USAGE)], KNOWN),
        ([chunk({"role": "assistant", "content": ""}, usage=USAGE)], KNOWN),
        ([chunk(None, id_="other", usage=USAGE)], KNOWN),
        ([chunk(None, usage=USAGE), chunk({"content": ""}), chunk({})], KNOWN),
        ([chunk(None, usage={"prompt_tokens": 9}), chunk(None, usage=USAGE)], KNOWN),
        ([chunk(None, usage=USAGE), chunk(None, usage={"prompt_tokens": 0})], KNOWN),
        ([chunk(None, usage=None), chunk(None, usage="many")], None),
    ],
)
def test_a_finish_waits_for_its_usage(late: list[Any], usage: Usage | None) -> None:
    pieces = pieces_of(chunk({"content": "a"}), chunk({}, "length"), *late)
    assert pieces[-1] == StepEnd("length", "length", usage)
    assert len(fold(pieces)) == 1


def test_usage_with_every_chunk_is_known_at_the_end() -> None:
    early = {"prompt_tokens": 1, "completion_tokens": 1}
    pieces = pieces_of(
        chunk({"content": "a"}, usage=early), chunk({}, "stop"), chunk(None, usage=USAGE)
    )
    assert pieces[-1] == StepEnd("stop", "stop", KNOWN)
    pieces = pieces_of(chunk({"content": "a"}, usage=USAGE), chunk({}, "stop"))
    assert pieces[-1] == StepEnd("stop", "stop", KNOWN)


@pytest.mark.parametrize("first_of_next", [{"role": "assistant", "content": ""}, {"content": "b"}])
def test_a_new_id_after_a_finish_is_a_new_step(first_of_next: dict[str, Any]) -> None:
    pieces = pieces_of(
        chunk({"content": "a"}, "stop"),
        chunk(first_of_next, id_="c2"),
        chunk({"content": "c"}, "stop", id_="c2"),
    )
    assert [step.finish for step in fold(pieces)] == ["stop", "stop"]


def test_a_response_that_broke_off_ends_where_the_next_begins() -> None:
    pieces = pieces_of(
        chunk({"role": "assistant", "content": "a"}),
        chunk(call("", "call_1", "f")),
        chunk({"role": "assistant", "content": ""}, id_="c2"),
        chunk({"content": "b"}, "stop", id_="c2"),
    )
    assert StepEnd(None, None, None) in pieces
    first, second = fold(pieces)
    assert first.tool_calls == [("call_1", "f", "")]
    assert (first.text, second.text) == ("a", "b")


def test_ids_that_change_without_a_role_are_one_response() -> None:
    pieces = pieces_of(*[chunk({"content": text}, id_=text) for text in "abc"])
    assert [step.text for step in fold(pieces)] == ["abc"]


def test_responses_without_ids() -> None:
    role = {"role": "assistant", "content": ""}
    pieces = pieces_of(
        *[chunk(role, id_=""), chunk({"content": "a"}, "stop", id_=""), chunk(role, id_="")],
        *[chunk({"content": "b"}, "stop", id_=None), chunk(role, id_="", usage=USAGE)],
    )
    assert [(step.text, step.usage) for step in fold(pieces)] == [("a", None), ("b", USAGE)]


def test_done_without_a_finish_reason_ends_the_chunks() -> None:
    codec = make_codec("openai-chat")
    codec.decode(json.dumps(chunk(call("", "call_1", "f"))).encode())
    start, cut = codec.decode(b" [DONE]\n")
    assert start == ChunkStart("tool:0", "tool_call", "json", "f", "call_1")
    assert isinstance(cut, ChunkFail)  # nobody said that it has no arguments
    assert codec.decode(b"[DONE]") == []
    assert codec.finish() == [StepEnd(None, None, None)]


@pytest.mark.parametrize("finish", ["", None, 5, []])
def test_what_is_no_finish_reason_ends_nothing(finish: Any) -> None:
    pieces = pieces_of(chunk({"content": "a"}, finish), chunk({"content": "b"}))
    assert fold(pieces)[0].text == "ab"
    assert pieces[-1] == StepEnd(None, None, None)


def test_an_unknown_finish_reason_is_other() -> None:
    assert pieces_of(chunk({"content": "a"}, "bored"))[-1] == StepEnd("other", "bored", None)


def test_text_after_the_finish_reason_is_not_lost() -> None:
    pieces = pieces_of(chunk({"content": "a"}, "stop"), chunk({"content": "b"}))
    assert [step.text for step in fold(pieces)] == ["ab"]


class LongWayCodec(OpenAIChatCodec):
    """The codec without its short path for plain text."""

    decode = ProviderCodec.decode


HALF, OTHER_HALF = "\ud83d", "\ude00"


@pytest.mark.parametrize(
    "document",
    [
        chunk({"content": "b"}),
        chunk({"content": ""}),
        chunk({"content": ["b"]}),
        chunk({"content": "b"}, "stop"),
        chunk({"content": "b"}, usage=USAGE),
        chunk({"content": "b"}, id_="c2"),
        chunk({"content": "b"}, id_=None),
        chunk({"content": "b", "role": "assistant"}, id_="c2"),
        chunk({"content": "b", "role": "assistant", "tool_calls": None, "refusal": None}),
        chunk({"content": "b", **call('{"x":1}', "call_1", "f")}),
        chunk({"content": "b", "refusal": "no"}),
        chunk({"content": "b", "reasoning": "r"}),
        chunk({"content": HALF}),
        chunk({"content": OTHER_HALF}),
        chunk({"content": "b"}, error={"code": "x"}),
        {**chunk({}), "choices": [{"index": 1, "delta": {"content": "b"}}]},
        {**chunk({}), "choices": [{"delta": {"content": "b"}}]},
        {**chunk({}), "choices": [{"index": 0, "delta": {"content": "b"}}] * 2},
    ],
)
@pytest.mark.parametrize(
    "before",
    [
        [chunk({"content": "a"})],
        [chunk({"content": "a" + HALF})],
        [chunk({"content": "a"}, "stop")],
        [chunk({"content": "a"}, "stop"), chunk({"content": "a"})],
        [chunk({"content": "a"}, "stop", usage=USAGE)],
    ],
)
def test_the_short_path_does_what_the_long_one_does(before: list[Any], document: Any) -> None:
    raws = [
        json.dumps(part).encode() for part in [*before, document, document, chunk({"content": "z"})]
    ]
    short, long = OpenAIChatCodec(), LongWayCodec()
    for raw in raws:
        assert short.decode(raw) == long.decode(raw)
        assert short.dump() == long.dump()
    assert short.finish() == long.finish()


def test_a_half_that_is_alone_when_the_step_fails() -> None:
    pieces = pieces_of(chunk({"content": "a" + HALF}), {"error": {"code": "x"}})
    assert pieces[-2:] == [Text("text", "\ufffd"), StepFail("x", "")]


def test_only_choice_0_is_read() -> None:
    codec = make_codec("openai-chat")
    document = chunk({"content": "a"})
    document["choices"].append({"index": 1, "delta": {"content": "other"}})
    document["choices"].append("nonsense")
    assert fold(run(codec, [json.dumps(document).encode()]))[0].text == "a"
    assert codec.skipped == 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"message": "no", "code": "rate_limit", "type": "t"}, StepFail("rate_limit", "no")),
        ({"message": "no", "code": 502}, StepFail("502", "no")),
        ({"message": None, "type": "server_error"}, StepFail("server_error", "")),
        ("overloaded", StepFail("provider_error", "overloaded")),
        ([1], StepFail("provider_error", "")),
    ],
)
def test_errors(error: Any, expected: StepFail) -> None:
    assert pieces_of({"error": error}) == [StepStart(None), expected]
    late = {**chunk({"content": "b"}), "error": error}
    pieces = pieces_of(chunk({"content": "a"}), late)
    assert pieces[-2:] == [Text("text", "b"), expected]
    assert not any(isinstance(piece, StepFail) for piece in pieces_of({"error": None}))


def test_calls_that_say_their_id_or_name_late_or_twice() -> None:
    pieces = pieces_of(
        chunk(call("", None, "first")),
        chunk(call("", "call_1", "")),
        chunk(call('{"a":', "call_1", "first")),
        chunk(call("1}", "", None)),
        chunk(call('{"b"', "call_2", None, 1)),
        chunk(call(":2}", None, "second", 1)),
        chunk(call('{"c":3}', None, "third", 2)),
        chunk(call("", "call_3", None, 2)),
        chunk({}, "tool_calls"),
    )
    assert fold(pieces)[0].tool_calls == [
        ("call_1", "first", '{"a":1}'),
        ("call_2", "second", '{"b":2}'),
        (None, "third", '{"c":3}'),
    ]


def test_a_new_id_at_the_same_index_is_a_new_call() -> None:
    pieces = pieces_of(
        chunk(call("", "call_1", "f")),
        chunk(call('{"x":1}', "call_2", "g")),
        chunk(call("", "call_3", "h", None)),
        chunk({}, "tool_calls"),
    )
    assert [piece for piece in pieces if not isinstance(piece, StepStart)] == [
        ChunkStart("tool:0", "tool_call", "json", "f", "call_1"),
        ChunkStart("tool:1", "tool_call", "json", "g", "call_2"),
        Text("tool:1", '{"x":1}'),
        ChunkStart("tool:2", "tool_call", "json", "h", "call_3"),
        Text("tool:0", "{}"),
        ChunkEnd("tool:0"),
        ChunkEnd("tool:1"),
        Text("tool:2", "{}"),
        ChunkEnd("tool:2"),
        StepEnd("tool_calls", "tool_calls", None),
    ]


def test_a_call_that_never_says_its_name_is_not_lost_but_cannot_be_run() -> None:
    pieces = pieces_of(chunk(call('{"a":1}', "call_1")), chunk({}, "tool_calls"))
    assert [piece.code for piece in pieces if isinstance(piece, ChunkFail)] == ["incomplete"]
    assert fold(pieces)[0].tool_calls == [("call_1", None, '{"a":1}')]


def test_arguments_given_as_an_object_are_encoded() -> None:
    pieces = pieces_of(chunk(call({"a": ["é"]}, "call_1", "f")), chunk(call({}, "call_2", "g", 1)))  # type: ignore[arg-type]
    assert fold(pieces)[0].tool_calls == [("call_1", "f", '{"a":["é"]}'), ("call_2", "g", "{}")]


def test_custom_tools_and_the_old_function_call() -> None:
    custom = {"index": 0, "id": "call_1", "type": "custom", "custom": {"name": "sql", "input": ""}}
    pieces = pieces_of(
        chunk({"tool_calls": [custom]}),
        chunk({"tool_calls": [{"index": 0, "custom": {"input": "SELECT"}}]}),
        chunk({"tool_calls": [{"index": 1, "id": "call_2", "custom": {"name": "noop"}}]}),
        chunk({"function_call": {"name": "old", "arguments": ""}}),
        chunk({"function_call": {"arguments": '{"x":1}'}}),
        chunk({}, "function_call"),
    )
    starts = [piece for piece in pieces if isinstance(piece, ChunkStart)]
    assert [start.format for start in starts] == ["text", "text", "json"]
    assert fold(pieces)[0].tool_calls == [
        ("call_1", "sql", "SELECT"),
        ("call_2", "noop", ""),
        (None, "old", '{"x":1}'),
    ]


def test_content_as_a_list_of_parts() -> None:
    thinking = [{"type": "text", "text": "hm "}, {"type": "reference", "reference_ids": [1]}]
    codec = make_codec("openai-chat")
    document = chunk(
        {
            "content": [
                {"type": "thinking", "thinking": thinking},
                {"type": "thinking", "thinking": "well"},
                {"type": "text", "text": "Hi"},
                {"type": "image_url", "image_url": "x"},
            ]
        }
    )
    (step,) = fold(run(codec, [json.dumps(document).encode()]))
    assert (step.reasoning, step.text, codec.skipped) == ("hm well", "Hi", 1)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": None, "completion_tokens": "7"}, (0, 0, 0, 0)),
        ({"prompt_tokens": 5.0, "completion_tokens": True}, (5, 0, 0, 0)),
        ({"prompt_tokens": -1, "completion_tokens": 10**30}, (0, 0, 0, 0)),
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 4}, (9, 0, 0, 4)),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 8}}, (9, 0, 0, 8)),
        (
            {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 8}},
            (0, 9, 8, 0),
        ),
        ({"prompt_tokens": 1, "prompt_tokens_details": [], "x": {}}, (1, 0, 0, 0)),
    ],
)
def test_usage_is_made_of_numbers(usage: dict[str, Any], expected: tuple[int, ...]) -> None:
    end = pieces_of(chunk({"content": "a"}, "stop", usage=usage))[-1]
    assert isinstance(end, StepEnd)
    assert end.usage is not None
    assert end.usage[:4] == expected
    assert end.usage.raw.keys() == usage.keys()


def test_text_goes_on_behind_a_done_marker_without_a_finish() -> None:
    text = json.dumps(chunk({"content": "a"})).encode()
    pieces = run(make_codec("openai-chat"), [text, text, text, b"[DONE]", text])
    check_order(pieces)
    assert [piece.text for piece in pieces if isinstance(piece, Text)] == ["a"] * 4
