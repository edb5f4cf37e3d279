"""Source openai-responses: what recordings do not show."""

import json
from typing import Any

import pytest

from riverdelta.core.codecs import make_codec
from riverdelta.core.codecs.pieces import ChunkStart, Piece, StepEnd, StepFail, StepStart
from tests.support.core.codec_tools import check_order, fold, run

CREATED = {"type": "response.created", "response": {"id": "r1", "model": "m"}}
COMPLETED = {"type": "response.completed", "response": {"id": "r1", "status": "completed"}}
SHELL = "response.shell_call_command"
DIFF = "response.apply_patch_call_operation_diff"


def event(kind: str, index: int = 0, **more: Any) -> dict[str, Any]:
    """Make an event of one output item."""
    return {"type": kind, "output_index": index, **more}


def added(kind: str, index: int = 0, **more: Any) -> dict[str, Any]:
    """Announce an item."""
    item = {"id": f"i{index}", "type": kind, "call_id": f"call{index}", **more}
    return event("response.output_item.added", index, item=item)


def done(kind: str, index: int = 0, **more: Any) -> dict[str, Any]:
    """Finish an item."""
    return {**added(kind, index, **more), "type": "response.output_item.done"}


def pieces_of(*documents: Any) -> list[Piece]:
    """Give all pieces of a message."""
    raws = [json.dumps(document).encode() for document in documents]
    pieces = run(make_codec("openai-responses"), raws)
    check_order(pieces)
    return pieces


def arguments_of(*documents: Any) -> list[Any]:
    """Give the arguments of all calls in a response with these events."""
    (step,) = fold(pieces_of(CREATED, *documents, COMPLETED))
    return [json.loads(arguments) for _, _, arguments in step.tool_calls]


def test_full_texts_add_only_what_deltas_left_out() -> None:
    text = "Hello you"
    part = {"type": "output_text", "text": text}
    pieces = pieces_of(
        CREATED,
        added("message"),
        event("response.output_text.delta", content_index=0, delta="Hel"),
        event("response.output_text.delta", content_index=0, delta="lo"),
        event("response.output_text.done", content_index=0, text=text),
        event("response.content_part.done", content_index=0, part=part),
        done("message", content=[part]),
        COMPLETED,
    )
    assert [step.text for step in fold(pieces)] == ["Hello you"]
    assert len([piece for piece in pieces if isinstance(piece, ChunkStart)]) == 1


def test_another_full_text_does_not_undo_what_went_out() -> None:
    pieces = pieces_of(
        CREATED,
        event("response.output_text.delta", content_index=0, delta="Hello"),
        event("response.output_text.done", content_index=0, text="Goodbye"),
        done("message", content=[{"type": "output_text", "text": "Hell"}]),
    )
    assert fold(pieces)[0].text == "Hello"


def test_a_finished_item_alone_is_enough() -> None:
    pieces = pieces_of(
        done("reasoning", 0, summary=[{"type": "summary_text", "text": t} for t in ("a", "b")]),
        done("message", 1, content=[{"type": "output_text", "text": "c"}, {"type": "new"}]),
        done("function_call", 2, name="f", arguments='{"x":1}'),
        done("function_call", 3, name="g", arguments=""),
        COMPLETED,
    )
    (step,) = fold(pieces)
    assert (step.reasoning, step.text) == ("a\n\nb", "c")
    assert step.tool_calls == [("call2", "f", '{"x":1}'), ("call3", "g", "{}")]


def test_text_after_its_item_was_finished_is_shown_but_nothing_twice() -> None:
    pieces = pieces_of(
        CREATED,
        done("message", content=[{"type": "output_text", "text": "all"}]),
        event("response.output_text.delta", content_index=0, delta="again"),
        event("response.output_text.done", content_index=0, text="again"),
        done("message", content=[{"type": "output_text", "text": "again"}]),
        added("message"),
    )
    assert fold(pieces)[0].text == "allagain"


def test_a_finished_response_alone_is_enough() -> None:
    item = {"type": "message", "content": [{"type": "output_text", "text": "all"}]}
    response = {"id": "r1", "model": "m", "output": [item], "usage": {"input_tokens": 1}}
    pieces = pieces_of({"type": "response.completed", "response": response})
    assert pieces[0] == StepStart("m")
    assert [step.text for step in fold(pieces)] == ["all"]


def test_a_call_that_was_not_finished_is_finished_by_its_response() -> None:
    item = {"id": "i0", "type": "function_call", "name": "f", "arguments": '{"x":1}'}
    pieces = pieces_of(
        CREATED,
        added("function_call", name="f", arguments=""),
        event("response.function_call_arguments.delta", delta='{"x"'),
        {"type": "response.completed", "response": {"id": "r1", "output": [item]}},
    )
    assert fold(pieces)[0].tool_calls == [("call0", "f", '{"x":1}')]


def test_full_reasoning_and_its_summary_are_two_chunks() -> None:
    pieces = pieces_of(
        CREATED,
        added("reasoning"),
        event("response.reasoning_text.delta", content_index=0, delta="raw"),
        event("response.reasoning_text.delta", content_index=1, delta=""),
        event("response.reasoning_text.delta", content_index=1, delta="more"),
        event("response.reasoning_summary_text.delta", summary_index=0, delta="short"),
        done("reasoning", summary=[], content=[]),
    )
    starts = [piece for piece in pieces if isinstance(piece, ChunkStart)]
    assert [start.kind for start in starts] == ["reasoning", "reasoning"]
    assert fold(pieces)[0].reasoning == "raw\n\nmoreshort"


@pytest.mark.parametrize(
    "operation",
    [
        {"type": "update_file", "path": "a", "diff": ""},
        {"type": "update_file", "path": "a", "diff": "+x", "mode": {"new": [1]}},
        {"type": "delete_file", "path": "a"},
        {"diff": "+x\n", "path": 'a"b', "type": "create_file"},
    ],
)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("with_deltas", [True, False])
def test_patches_are_encoded_whole(operation: Any, known: Any, with_deltas: Any) -> None:
    diff = operation.get("diff", "")
    first = {**operation, "diff": ""} if known else {}
    deltas = [event(f"{DIFF}.delta", delta=char) for char in diff] if with_deltas else []
    documents = [added("apply_patch_call", operation=first), *deltas]
    full = event(f"{DIFF}.done", diff=diff)
    assert arguments_of(*documents, full, done("apply_patch_call", operation=operation)) == [
        operation
    ]
    assert arguments_of(*documents, done("apply_patch_call", operation=operation)) == [operation]


@pytest.mark.parametrize("commands", [[], ["ls"], ["ls", 'echo "é"', "x"]])
@pytest.mark.parametrize("streamed", [0, 1, 2, 3])
@pytest.mark.parametrize("verbs", [("added", "delta", "done"), ("delta",), ("done",), ("added",)])
def test_shell_actions_are_encoded_whole(
    commands: list[str], streamed: int, verbs: tuple[str, ...]
) -> None:
    action = {"commands": commands, "timeout_ms": None, "max_output_length": 5}
    events = []
    for number, command in enumerate(commands[:streamed]):
        fields = {"command_index": number}
        events += [event(f"{SHELL}.added", command="", **fields)] * ("added" in verbs)
        events += [event(f"{SHELL}.delta", delta=c, **fields) for c in command if "delta" in verbs]
        events += [event(f"{SHELL}.done", command=command, **fields)] * ("done" in verbs)
    documents = [added("shell_call", action={"commands": []}), *events]
    last_can_grow = "done" in verbs or "delta" in verbs or streamed < 2
    if last_can_grow:
        assert arguments_of(*documents, done("shell_call", action=action)) == [action]


@pytest.mark.parametrize(
    ("item", "name", "arguments"),
    [
        ({"type": "computer_call", "action": {"type": "wait"}}, "computer", {"action": {"type": "wait"}}),
        ({"type": "web_search_call", "action": {"query": "q"}}, "web_search", {"query": "q"}),
        ({"type": "file_search_call", "queries": ["q"], "results": [1]}, "file_search", {"queries": ["q"]}),
        ({"type": "program", "code": "1+1", "fingerprint": "x"}, "program", {"code": "1+1"}),
        ({"type": "tool_search_call", "arguments": {"a": 1}}, "tool_search", {"a": 1}),
        ({"type": "local_shell_call", "action": {"command": ["ls"]}}, "local_shell", {"command": ["ls"]}),
        ({"type": "image_generation_call", "size": "l", "result": "…"}, "image_generation", {"size": "l"}),
        ({"type": "mcp_approval_request", "name": "n", "arguments": '{"a":1}'}, "n", {"a": 1}),
        ({"type": "brand_new_call", "what": [1], "status": "completed"}, "brand_new", {"what": [1]}),
    ],
)  # fmt: skip
def test_calls_that_come_at_once(item: dict[str, Any], name: str, arguments: Any) -> None:
    (step,) = fold(pieces_of(CREATED, done(**{"kind": item.pop("type"), **item}), COMPLETED))
    ((call_id, tool, encoded),) = step.tool_calls
    assert (call_id, tool, json.loads(encoded)) == ("call0", name, arguments)


def test_the_text_of_code_custom_tools_and_mcp() -> None:
    pieces = pieces_of(
        CREATED,
        added("code_interpreter_call", 0, call_id=None, code=""),
        event("response.code_interpreter_call_code.delta", 0, delta="print(1)"),
        event("response.code_interpreter_call_code.done", 0, code="print(1)\n"),
        done("code_interpreter_call", 0, call_id=None, code="print(1)\n"),
        added("mcp_call", 1, call_id=None, name="find", arguments=""),
        event("response.mcp_call_arguments.done", 1, arguments='{"q":1}'),
        done("mcp_call", 1, call_id=None, name="find", arguments='{"q":1}', output="x"),
        COMPLETED,
    )
    assert fold(pieces)[0].tool_calls == [
        ("i0", "code_interpreter", "print(1)\n"),
        ("i1", "find", '{"q":1}'),
    ]
    assert isinstance(pieces[-1], StepEnd)
    assert pieces[-1].finish_reason == "stop"  # the provider ran them itself


@pytest.mark.parametrize(
    "failure",
    [
        {"type": "error", "code": "server_error", "message": "no"},
        {"type": "error", "error": {"code": "server_error", "message": "no"}},
        {"type": "error", "error": {"type": "server_error", "message": "no"}},
        {
            "type": "response.failed",
            "response": {"id": "r1", "error": {"code": "server_error", "message": "no"}},
        },
    ],
)
def test_an_error_fails_the_step_once(failure: dict[str, Any]) -> None:
    again = {"type": "response.failed", "response": {"id": "r1", "error": {"code": "x"}}}
    late = done("message", content=[{"type": "output_text", "text": "late"}])
    assert pieces_of(CREATED, failure, late, again) == [
        StepStart("m"),
        StepFail("server_error", "no"),
    ]
    assert [type(piece) for piece in pieces_of(failure)] == [StepStart, StepFail]
    assert pieces_of(CREATED, failure, again, CREATED, COMPLETED)[-1] == StepEnd(
        "stop", "completed", None
    )


@pytest.mark.parametrize(
    ("kind", "details", "reason", "raw"),
    [
        ("incomplete", {"reason": "max_output_tokens"}, "length", "max_output_tokens"),
        ("incomplete", {"reason": "content_filter"}, "content_filter", "content_filter"),
        ("incomplete", {"reason": "steered"}, "pause", "steered"),
        ("incomplete", {"reason": 5}, "other", "incomplete"),
        ("incomplete", None, "other", "incomplete"),
        ("cancelled", None, "other", "cancelled"),
        ("completed", None, "stop", "completed"),
    ],
)
def test_ends(kind: str, details: Any, reason: str, raw: str) -> None:
    response = {"id": "r1", "incomplete_details": details}
    end = pieces_of(CREATED, {"type": f"response.{kind}", "response": response})[-1]
    assert isinstance(end, StepEnd)
    assert (end.finish_reason, end.raw_finish_reason) == (reason, raw)


def test_a_call_cut_by_the_end_does_not_look_complete() -> None:
    response = {"id": "r1", "incomplete_details": {"reason": "max_output_tokens"}}
    start = [CREATED, added("function_call", name="f", arguments="")]
    for end in ([], [{"type": "response.incomplete", "response": response}]):
        assert fold(pieces_of(*start, *end))[0].tool_calls == [("call0", "f", "")]


def test_a_response_said_twice_is_one_and_one_that_broke_off_ends() -> None:
    second = {"type": "response.created", "response": {"id": "r2"}}
    pieces = pieces_of(CREATED, CREATED, second, COMPLETED | {"response": {"id": "r2"}})
    assert pieces == [
        StepStart("m"),
        StepEnd(None, None, None),
        StepStart(None),
        StepEnd("stop", "completed", None),
    ]
