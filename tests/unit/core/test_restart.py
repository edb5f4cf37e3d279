"""A provider call that is made again: what readers have at the end, and that nothing is said twice."""

import itertools
import json
import re
from typing import Any

import pytest

from riverdelta.broker.producer.message import Message
from riverdelta.core.events import Event
from riverdelta.core.fold import ChatFold
from riverdelta.pipeline import Pipeline
from tests.support.core.cutting import CUT_ALL
from tests.support.core.fold_tools import (
    ARGUMENTS,
    NOW_MS,
    chunk,
    control,
    delta,
    entries,
    fold,
    new_state,
    start,
    view_of,
)
from tests.support.core.restart_tools import (
    AGAIN,
    BEGIN,
    DELIVERED,
    RESULT,
    STOP,
    TABLE,
    THOUGHT,
    Steps,
    block,
    call,
    restart,
    texts,
)


def emitted(steps: Steps, pipeline: Pipeline | None = None) -> list[Event]:
    """Fold *steps* one by one; a reader's final view must be the same however they are batched."""
    whole = entries(steps)
    events = fold([[entry] for entry in whole], pipeline=pipeline)
    for size in (len(whole), 3):
        batches = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert view_of(fold(batches, pipeline=pipeline)).messages == view_of(events).messages
    return events


def of_type(events: list[Event], type_: str) -> list[dict[str, Any]]:
    return [event.data for event in events if event.type == type_]


def chunks_of(events: list[Event]) -> list[tuple[str, str, str]]:
    (message,) = view_of(events).messages
    return [(c["kind"], c["status"], c["text"]) for c in message["chunks"]]


@pytest.mark.parametrize(("again", "end", "reset"), TABLE)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_table_of_the_docs(again: str, end: str, size: int, *, reset: bool) -> None:
    pieces = [again[at : at + size] for at in range(0, len(again), size)]
    events = emitted([start("text"), *texts(DELIVERED), restart(), *texts(*pieces), control("end")])
    assert chunks_of(events) == [("text", "completed", end)]
    assert of_type(events, "chunk.reset") == [{"reason": "restarted"}] * reset
    added = "".join(data["text"] for data in of_type(events, "chunk.delta"))
    assert added == DELIVERED + (again if reset else "! A")
    assert [data["step"] for data in of_type(events, "step.started")] == [0]


def test_the_docs_have_that_table() -> None:
    lines = (Message.restart.__doc__ or "").splitlines()
    _, first, last = (at for at, line in enumerate(lines) if "====" in line)
    rows = [re.split(" {2,}", line.strip()) for line in lines[first + 1 : last]]
    assert [(row[0], row[3], "chunk.reset" in row[2]) for row in rows] == TABLE


def test_while_it_is_held_readers_keep_what_they_have() -> None:
    steps = [start("text"), *texts(DELIVERED), restart(), *texts("Hello", ", dear")]
    events = emitted(steps)
    assert chunks_of(events) == [("text", "open", DELIVERED)]
    for end, status in (
        (control("stop", reason="user"), "completed"),
        (control("fail", code="producer_lost", detail=""), "failed"),
    ):
        events = emitted([*steps, end])
        assert chunks_of(events) == [("text", status, DELIVERED)]
        assert of_type(events, "chunk.reset") == []


def test_a_restart_without_a_new_call_takes_nothing_away() -> None:
    for rule in ("stitch", "append"):
        events = emitted([start("text"), *texts("Hello"), restart(rule), control("end")])
        assert chunks_of(events) == [("text", "completed", "Hello")]
        assert events[-1].type == "message.completed"


def test_append_goes_on_where_the_last_call_stopped() -> None:
    steps = [start("text"), *texts("Hello "), restart("append"), *texts("Hello "), control("end")]
    events = emitted(steps)
    assert chunks_of(events) == [("text", "completed", "Hello Hello ")]
    assert [data["step"] for data in of_type(events, "step.started")] == [0]


def test_append_lets_go_what_may_have_been_a_marker() -> None:
    steps = [start("text"), *texts("1 <th"), restart("append"), *texts("2"), control("end")]
    assert chunks_of(emitted(steps, CUT_ALL)) == [("text", "completed", "1 <th2")]
    steps[2] = restart("stitch")
    assert chunks_of(emitted(steps, CUT_ALL)) == [("text", "completed", "2")]


def test_reset_voids_what_was_delivered_at_once() -> None:
    steps = [start("text"), *texts("Hello"), restart("reset")]
    assert chunks_of(emitted(steps)) == [("text", "open", "")]
    events = emitted([*steps, *texts("Hello"), control("end")])
    assert chunks_of(events) == [("text", "completed", "Hello")]


def test_with_snapshots() -> None:
    first = [start("text-snapshot"), *texts("Hel", "Hello, dear")]
    again = texts("He", "Hello, d", "Hello, dear wor", "Hello, dear world")
    events = emitted([*first, restart(), *again, control("end")])
    assert chunks_of(events) == [("text", "completed", "Hello, dear world")]
    assert [data["text"] for data in of_type(events, "chunk.delta")] == [
        "Hel",
        "lo, dear",
        " wor",
        "ld",
    ]
    events = emitted([*first, restart("append"), *texts(" a", " and"), control("end")])
    assert chunks_of(events) == [("text", "completed", "Hello, dear and")]
    mismatch = start("text-snapshot", on_mismatch="reset")
    again = texts("Hello, d", "Good", "Good night")
    events = emitted([mismatch, *first[1:], restart(), *again, control("end")])
    assert chunks_of(events) == [("text", "completed", "Good night")]
    assert of_type(events, "chunk.reset") == [{"reason": "restarted"}]
    events = emitted([mismatch, *first[1:], restart(), *again, *texts("Bye"), control("end")])
    assert [data["reason"] for data in of_type(events, "chunk.reset")] == ["restarted", "mismatch"]
    assert chunks_of(events) == [("text", "completed", "Bye")]


def test_twice_and_while_text_is_held() -> None:
    steps = [start("text"), *texts("Hello, "), restart(), restart(), *texts("Hel"), restart()]
    steps += [*texts("Hello, wor"), restart(), *texts("Hello, wor", "ld"), control("end")]
    events = emitted(steps)
    assert chunks_of(events) == [("text", "completed", "Hello, world")]
    assert [data["text"] for data in of_type(events, "chunk.delta")] == ["Hello, ", "wor", "ld"]
    for last, end in (("append", "Hello, lo"), ("reset", "lo")):
        steps = [start("text"), *texts("Hello, "), restart(), *texts("Hel"), restart(last)]
        assert chunks_of(emitted([*steps, *texts("lo"), control("end")]))[0][2] == end


def test_before_anything_came_and_after_the_end() -> None:
    steps = [start("text"), restart(), *texts("Hello"), control("end")]
    assert chunks_of(emitted(steps)) == [("text", "completed", "Hello")]
    events = emitted([*steps, restart(), *texts("more")])
    assert events[-1].type == "message.completed"


def test_an_unknown_rule_is_a_dead_letter() -> None:
    events = emitted(
        [start("text"), *texts("Hello"), restart("guess"), *texts("!"), control("end")]
    )
    assert of_type(events, "input.rejected") == [
        {
            "code": "bad_restart",
            "detail": "The rule of a retried call is unknown. The id of this error is m:3.",
        }
    ]
    assert chunks_of(events) == [("text", "completed", "Hello!")]


def test_a_cut_character_of_the_first_call_is_forgotten() -> None:
    first, again = "Grü".encode(), "Grüße".encode()
    steps = [start("text"), ("chunk", first[:3]), restart(), ("chunk", again), control("end")]
    events = emitted(steps)
    assert chunks_of(events) == [("text", "completed", "Grüße")]
    assert of_type(events, "input.rejected") == []


def test_a_step_that_was_completed_stays() -> None:
    def said(text: str, call_id: str, finish: str | None = None) -> tuple[str, bytes]:
        return chunk(delta({"role": "assistant", "content": text}, finish) | {"id": call_id})

    done = chunk("[DONE]")
    steps = [start("openai-chat"), said("One.", "a", "stop"), done, restart()]
    events = emitted([*steps, said("One.", "b", "stop"), done, control("end")])
    assert [text for _, _, text in chunks_of(events)] == ["One.", "One."]
    assert [data["step"] for data in of_type(events, "step.started")] == [0, 1]


OPENAI_END = chunk(delta({}, "stop"))
OPENAI_USAGE = {"usage": {"prompt_tokens": 7, "completion_tokens": 12}}
ANTHROPIC_TEXT = [BEGIN, *block(0, "text", "One.")]
GEMINI_END = {"content": {"parts": [{"text": "One."}]}, "finishReason": "STOP"}
CONVERSE_TEXT = [
    chunk({"messageStart": {"role": "assistant"}}),
    chunk({"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "One."}}}),
    chunk({"messageStop": {"stopReason": "end_turn"}}),
]
CONVERSE_USAGE = chunk({"metadata": {"usage": {"inputTokens": 7, "outputTokens": 12}}})
ENDS: dict[str, tuple[str, Steps, bool]] = {
    "openai, its usage missing": ("openai-chat", [OPENAI_END], False),
    "openai, usage at once": ("openai-chat", [chunk(delta({}, "stop") | OPENAI_USAGE)], True),
    "openai, usage behind": (
        "openai-chat",
        [OPENAI_END, chunk({"choices": []} | OPENAI_USAGE)],
        True,
    ),
    "openai, [DONE]": ("openai-chat", [OPENAI_END, chunk("[DONE]")], True),
    "openai, text behind a [DONE] without a finish": (
        "openai-chat",
        [chunk("[DONE]"), chunk(delta({"content": " Two."}))],
        False,
    ),
    "anthropic, its stop missing": ("anthropic", STOP[:1], False),
    "anthropic, whole": ("anthropic", STOP, True),
    "gemini": ("gemini", [chunk({"candidates": [GEMINI_END]})], True),
    "bedrock-converse, its usage missing": ("bedrock-converse", [], False),
    "bedrock-converse, whole": ("bedrock-converse", [CONVERSE_USAGE], True),
}
"""How a call ends: its source, the chunks behind its text, and whether it is complete."""
TEXTS: dict[str, Steps] = {
    "openai-chat": [chunk(delta({"role": "assistant", "content": "One."}))],
    "anthropic": ANTHROPIC_TEXT,
    "gemini": [],
    "bedrock-converse": CONVERSE_TEXT,
}


@pytest.mark.parametrize("name", ENDS)
def test_a_step_goes_on_until_its_call_is_complete(name: str) -> None:
    """What is cut behind its finish repeats no text; behind a complete call comes another one."""
    source, end, complete = ENDS[name]
    call = [*TEXTS[source], *end]
    events = emitted([start(source), *call, restart(), *call, control("end")])
    assert len(of_type(events, "step.completed")) == 1 + complete
    plain = chunks_of(emitted([start(source), *call, control("end")]))
    assert chunks_of(events) == plain * (1 + complete)


@pytest.mark.parametrize("source", ["openai-chat+sse", "openai-chat"])
def test_what_was_skipped_is_counted_over_all_calls(source: str) -> None:
    state = new_state()
    unknown = ("chunk", b'data: {"choices":[]}\n\n' if "sse" in source else b'{"choices":[]}')
    fold([entries([start(source), unknown, unknown, restart(), unknown])], state)
    message = state.messages["m"]
    assert (message.skipped, message.codec.skipped) == (2, 1)


def test_a_chunk_that_ended_and_is_the_same_again_is_not_sent_again() -> None:
    first = [start("anthropic"), BEGIN, *THOUGHT, *block(1, "text", "Hel", stop=False)]
    again = [AGAIN, *THOUGHT, *block(1, "text", "Hello"), *STOP, control("end")]
    events = emitted([*first, restart(), *again])
    assert chunks_of(events) == [
        ("reasoning", "completed", "Let me think."),
        ("text", "completed", "Hello"),
    ]
    added = "".join(data["text"] for data in of_type(events, "chunk.delta"))
    assert added == "Let me think.Hello"
    assert len(of_type(events, "chunk.completed")) == 2


@pytest.mark.parametrize("thought", ["Let me think. More.", "Let me", "Something else."])
def test_a_chunk_that_ended_and_is_not_the_same_again_is_replaced(thought: str) -> None:
    first = [start("anthropic"), BEGIN, *THOUGHT, *block(1, "text", "Hel", stop=False)]
    again = [AGAIN, *block(0, "thinking", *thought), *block(1, "text", "Hello"), *STOP]
    events = emitted([*first, restart(), *again, control("end")])
    assert chunks_of(events) == [
        ("reasoning", "completed", ""),
        ("text", "completed", "Hello"),
        ("reasoning", "completed", thought),
    ]


def test_what_the_new_call_does_not_say_is_void() -> None:
    first = [start("anthropic"), BEGIN, *THOUGHT, *block(1, "text", "Hel", stop=False)]
    again = [AGAIN, *call(0, "t1", '{"a":1}'), *STOP, control("end")]
    events = emitted([*first, restart(), *again])
    assert chunks_of(events) == [
        ("reasoning", "completed", ""),
        ("text", "failed", ""),
        ("tool_call", "completed", '{"a":1}'),
    ]
    assert [data["code"] for data in of_type(events, "chunk.failed")] == ["superseded"]
    assert len(of_type(events, "step.completed")) == 1


def test_a_new_call_that_fails_takes_nothing_away() -> None:
    error = chunk({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})
    first = [start("anthropic"), BEGIN, *THOUGHT, *block(1, "text", "Hel", stop=False)]
    events = emitted([*first, restart(), AGAIN, *THOUGHT[:2], error, control("end")])
    assert chunks_of(events) == [
        ("reasoning", "completed", "Let me think."),
        ("text", "failed", "Hel"),
    ]
    assert events[-1].type == "message.failed"


def test_after_an_error_of_the_provider_the_new_call_is_a_step_of_its_own() -> None:
    error = chunk({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})
    first = [start("anthropic"), BEGIN, *THOUGHT, *block(1, "text", "Hel", stop=False), error]
    again = [AGAIN, *THOUGHT, *block(1, "text", "Hello"), *STOP, control("end")]
    events = emitted([*first, restart(), *again])
    assert chunks_of(events) == [
        ("reasoning", "completed", ""),
        ("text", "failed", ""),
        ("reasoning", "completed", "Let me think."),
        ("text", "completed", "Hello"),
    ]
    assert [data["step"] for data in of_type(events, "step.started")] == [0, 1]
    assert events[-1].type == "message.completed"


def test_a_call_of_a_tool_keeps_the_id_that_readers_know() -> None:
    half = len(ARGUMENTS) // 2
    first = [start("anthropic"), BEGIN, *call(0, "old", ARGUMENTS[:half], stop=False), restart()]
    again = [AGAIN, *call(0, "new", ARGUMENTS), *STOP]
    result = control("tool_result", tool_call_id="new", content=RESULT)
    events = emitted([*first, *again, result, control("end")])
    plain = emitted(
        [
            *[start("anthropic"), BEGIN, *call(0, "old", ARGUMENTS), *STOP],
            control("tool_result", tool_call_id="old", content=RESULT),
            control("end"),
        ]
    )
    assert view_of(events).messages == view_of(plain).messages
    assert of_type(events, "chunk.reset") == []
    ids = [data["tool_call_id"] for data in of_type(events, "chunk.started")]
    assert ids == ["old", "old"]


def test_a_call_with_other_arguments_starts_its_json_and_its_card_over() -> None:
    other = ARGUMENTS.replace("sales", "costs")
    first = [start("anthropic"), BEGIN, *call(0, "old", ARGUMENTS[:60], stop=False), restart()]
    events = emitted([*first, AGAIN, *call(0, "new", *other), *STOP, control("end")])
    plain = emitted([start("anthropic"), BEGIN, *call(0, "old", *other), *STOP, control("end")])
    assert view_of(events).messages == view_of(plain).messages


@pytest.mark.parametrize("rule", ["stitch", "reset"])
def test_a_call_that_ended_and_has_other_arguments_is_replaced_with_its_card(rule: str) -> None:
    other = ARGUMENTS.replace("sales", "costs")
    first = [start("anthropic"), BEGIN, *call(0, "old", ARGUMENTS), *block(1, "text", "x")]
    result = control("tool_result", tool_call_id="old", content=RESULT)
    again = [AGAIN, *call(0, "new", *other), *block(1, "text", "x"), *STOP]
    late = control("tool_result", tool_call_id="new", content=RESULT)
    events = emitted([*first, result, restart(rule), *again, late, control("end")])
    (message,) = view_of(events).messages
    by_id = {c["chunk"]: c for c in message["chunks"]}
    assert (by_id["m.0"]["text"], by_id["m.0"]["outputs"]) == ("", {})
    (new,) = [c for c in message["chunks"] if c["text"] == other]
    assert new["tool_call_id"] == "new"
    assert new["outputs"]
    results = [c for c in message["chunks"] if c["kind"] == "tool_result"]
    assert [c["tool_call_id"] for c in results] == ["old", "new"]
    assert results[1]["tool_name"] == "create_metrics"


def test_a_result_of_the_providers_own_that_changed_leaves_its_call_alone() -> None:
    def result(content: str, call_id: str) -> Steps:
        of_server = {"type": "web_search_tool_result", "tool_use_id": call_id, "content": content}
        begun = {"type": "content_block_start", "index": 1, "content_block": of_server}
        return [chunk(begun), chunk({"type": "content_block_stop", "index": 1})]

    first = [start("anthropic"), BEGIN, *call(0, "old", ARGUMENTS), *result("one", "old")]
    again = [AGAIN, *call(0, "new", ARGUMENTS), *result("two", "new"), *STOP]
    late = control("tool_result", tool_call_id="new", content=RESULT)
    events = emitted([*first, restart(), *again, late, control("end")])
    (message,) = view_of(events).messages
    assert [(c["text"], c["tool_call_id"], c["tool_name"]) for c in message["chunks"]] == [
        (ARGUMENTS, "old", "create_metrics"),
        ("", "old", "web_search"),
        ('"two"', "old", "web_search"),
        (json.dumps(RESULT, separators=(",", ":")), "old", "create_metrics"),
    ]


def test_tools_are_kept_apart_by_name_and_calls_by_their_order() -> None:
    def tool(index: int, name: str, arguments: str, call_id: str) -> dict[str, Any]:
        function = {"name": name, "arguments": arguments}
        return {"index": index, "id": call_id, "function": function}

    first = [tool(0, "f", '{"x":1', "a"), tool(1, "g", '{"y":2', "b"), tool(2, "f", '{"z"', "c")]
    again = [
        tool(0, "g", '{"y":2}', "d"),
        tool(1, "f", '{"x":1}', "e"),
        tool(2, "f", '{"z":3}', "f"),
    ]
    steps = [start("openai-chat"), chunk(delta({"role": "assistant", "tool_calls": first}))]
    steps += [restart(), chunk(delta({"role": "assistant", "tool_calls": again}) | {"id": "n"})]
    events = emitted([*steps, chunk(delta({}, "tool_calls") | {"id": "n"}), control("end")])
    assert of_type(events, "chunk.reset") == []
    (message,) = view_of(events).messages
    assert [(c["tool_name"], c["tool_call_id"], c["text"]) for c in message["chunks"]] == [
        ("f", "a", '{"x":1}'),
        ("g", "b", '{"y":2}'),
        ("f", "c", '{"z":3}'),
    ]


def test_a_call_of_another_tool_under_the_same_key_takes_nothing_away() -> None:
    def tool(name: str, arguments: str, call_id: str) -> tuple[str, bytes]:
        function = {"name": name, "arguments": arguments}
        calls = [{"index": 0, "id": call_id, "function": function}]
        return chunk(delta({"role": "assistant", "tool_calls": calls}))

    steps = [start("openai-chat"), tool("f", '{"x"', "a"), restart(), tool("g", '{"y"', "b")]
    both = [("tool_call", "completed", '{"x"'), ("tool_call", "completed", '{"y"')]
    assert chunks_of(emitted([*steps, control("stop", reason="user")])) == both
    events = emitted([*steps, restart(), tool("f", '{"x":1}', "c"), tool("g", '{"y":2}', "d")])
    assert [text for _, _, text in chunks_of(events)] == ['{"x":1}', '{"y":2}']


def test_chunks_of_an_agent_go_by_their_names() -> None:
    def say(name: str, text: str, *, done: bool = False) -> tuple[str, bytes]:
        return chunk({"chunk": name, "kind": "text", "text": text, "done": done})

    steps = [start("chunks"), say("plan", "1, 2", done=True), say("a", "An"), say("b", "Bo")]
    events = emitted([*steps, restart(), say("b", "Both"), say("a", "And"), control("end")])
    assert [text for _, _, text in chunks_of(events)] == ["1, 2", "And", "Both"]
    assert of_type(events, "chunk.reset") == []
    events = emitted([*steps, restart(), say("b", "Both"), control("end")])
    assert chunks_of(events) == [
        ("text", "completed", "1, 2"),
        ("text", "failed", ""),
        ("text", "completed", "Both"),
    ]


def test_what_an_agent_has_done_is_not_sent_again() -> None:
    def say(name: str, text: str, *, done: bool = True) -> tuple[str, bytes]:
        return chunk({"chunk": name, "kind": "text", "text": text, "done": done})

    steps = [start("chunks"), say("plan", "1, 2"), say("a", "Ann"), say("b", "Bo", done=False)]
    again = [say("a", "Ann"), say("plan", "1, 3"), say("b", "Both"), control("end")]
    events = emitted([*steps, restart(), *again])
    assert [text for _, _, text in chunks_of(events)] == ["", "Ann", "Both", "1, 3"]
    events = emitted([*steps, restart("reset"), say("b", "Both"), control("end")])
    assert [text for _, _, text in chunks_of(events)] == ["1, 2", "Ann", "Both"]


def test_what_is_kept_for_an_agent_is_bounded() -> None:
    state = new_state()
    folder = ChatFold(state, Pipeline())
    many = [chunk({"chunk": str(n), "text": "x", "done": True}) for n in range(100)]
    long = chunk({"chunk": "long", "text": "x" * (1 << 20), "done": True})
    whole = entries([start("chunks"), *many, long])
    folder.apply(whole[:-1], NOW_MS)
    assert [key for key, _ in state.messages["m"].closed] == [str(n) for n in range(36, 100)]
    folder.apply(whole[-1:], NOW_MS)
    assert [key for key, _ in state.messages["m"].closed] == ["long"]


def test_what_is_kept_of_ended_chunks_goes_with_their_step() -> None:
    state = new_state()
    folder = ChatFold(state, Pipeline())
    steps = [start("anthropic"), BEGIN, *THOUGHT, *block(1, "text", "Hello"), *STOP]
    whole = entries(steps)
    folder.apply(whole[:-1], NOW_MS)
    assert len(state.messages["m"].closed) == 2
    folder.apply(whole[-1:], NOW_MS)
    assert state.messages["m"].closed == []


@pytest.mark.parametrize("cut", range(1, 60, 7))
@pytest.mark.parametrize("source", ["text", "text-snapshot", "chunks"])
def test_a_reply_that_is_cut_into_sections(source: str, cut: int) -> None:
    text = "So. <think>Well, well.</think>Here:\n```py\nx = 1\n```\nDone."

    def said(pieces: list[str]) -> Steps:
        if source == "text-snapshot":
            pieces = list(itertools.accumulate(pieces))
        if source != "chunks":
            return texts(*pieces)
        return [chunk({"chunk": "a", "text": p, "processor": "sections"}) for p in pieces]

    whole = said([text[at : at + 5] for at in range(0, len(text), 5)])
    plain = emitted([start(source), *whole, control("end")], CUT_ALL)
    events = emitted(
        [start(source), *said(list(text[:cut])), restart(), *whole, control("end")], CUT_ALL
    )
    assert view_of(events).messages == view_of(plain).messages
    assert of_type(events, "chunk.reset") == []
    other = text.replace("Well", "Hmm")
    rewritten = emitted(
        [start(source), *said(list(text[:cut])), restart(), *said([other]), control("end")],
        CUT_ALL,
    )
    left = [text for _, _, text in chunks_of(rewritten) if text]
    assert sorted(left) == sorted(["So. ", "Hmm, well.", "Here:\n", "x = 1\n", "\nDone."])


def test_json_of_a_stitched_call_is_patched_once() -> None:
    text = json.dumps({"files": [{"name": "a", "rows": [1, 2, 3]}]})
    first = [start("anthropic"), BEGIN, *call(0, "old", text[:20], stop=False)]
    events = emitted([*first, restart(), AGAIN, *call(0, "new", *text), *STOP, control("end")])
    plain = emitted([start("anthropic"), BEGIN, *call(0, "old", *text), *STOP, control("end")])

    def patches(events: list[Event]) -> Any:
        found = [patch for data in of_type(events, "chunk.patch") for patch in data["patches"]]
        return [patch for patch in found if patch[1] == "set"]

    assert patches(events) == patches(plain)
