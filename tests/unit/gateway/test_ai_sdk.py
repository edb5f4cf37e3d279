"""The UI message stream, read by a strict client, from every place to begin."""

from typing import Any

import orjson
import pytest

from riverdelta.core.events import Event
from riverdelta_gateway.backends import script
from riverdelta_gateway.backends.tokens import Step
from riverdelta_gateway.routes.ai_sdk import UIMessageStream
from tests.support.gateway.ai_sdk_client import fold_parts
from tests.support.gateway.turn_events import Log, snapshot_at, whole_turn


def parts_of(events: list[Event], message_id: str = "m") -> list[dict[str, Any]]:
    stream = UIMessageStream(message_id)
    parts = [part for event in events for part in stream.apply(event)]
    assert stream.done == any(part["type"] in {"finish", "error", "abort"} for part in parts)
    return parts


def test_a_whole_turn() -> None:
    message = fold_parts(parts_of(whole_turn()))
    assert message["id"] == "m"
    assert message["end"] == {"type": "finish", "finishReason": "stop"}
    assert [part["type"] for part in message["parts"]] == [
        "reasoning",
        "text",
        "tool-search_data_catalog",
        "data-search_data_catalog",
        "tool-create_plan",
        "data-plan",
        "tool-create_metrics",
        "data-metric",
        "text",
    ]
    reasoning, text, search, found, plan, planned, create, metrics, answer = message["parts"]
    assert (reasoning["text"], reasoning["state"]) == (script.REASONING, "done")
    assert text["text"] == script.GREETING
    assert (search["input"], search["output"]) == (script.SEARCH, script.FOUND)
    assert found["data"]["title"] == "2 data catalog items found"
    assert (plan["input"], planned["data"]["message"]) == ({"plan": script.PLAN}, script.PLAN)
    assert (create["input"], create["output"]) == ({"files": script.METRICS}, script.CREATED)
    assert metrics["data"]["status"] == "completed"
    assert answer["text"].startswith("I made two metrics")


@pytest.mark.parametrize("how", ["end", "fail", "stop"])
def test_a_replay_from_anywhere_comes_to_the_same_message(how: str) -> None:
    events = whole_turn(how)
    whole = fold_parts(parts_of(events))
    for count in range(1, len(events) + 1, 3):
        assert fold_parts(parts_of([snapshot_at(events, count), *events[count:]])) == whole


def test_a_reader_that_lost_its_place_goes_on_where_it_was() -> None:
    events = whole_turn()
    whole = fold_parts(parts_of(events))
    for lost in range(1, len(events), 11):
        for found in (lost, lost + 9, len(events)):
            seen = [*events[:lost], snapshot_at(events, found), *events[found:]]
            assert fold_parts(parts_of(seen)) == whole


@pytest.mark.parametrize("most", [0, 1, 60, 70, 150, 250])
@pytest.mark.parametrize(
    ("how", "end"),
    [
        ("fail", {"type": "error", "errorText": "It failed. The id of this error is 1."}),
        ("stop", {"type": "abort", "reason": "enough"}),
    ],
)
def test_a_turn_that_is_cut_off_leaves_nothing_open(
    how: str, end: dict[str, Any], most: int
) -> None:
    message = fold_parts(parts_of(whole_turn(how, most)))
    assert message["end"] == end
    assert "streaming" not in [part.get("state") for part in message["parts"]]
    for part in message["parts"]:
        if part["type"].startswith("tool-"):
            assert "input" in part or "error" in part


def test_a_growing_card_is_not_sent_whole_each_time() -> None:
    log = Log()
    log.start("m")
    step = Step("s")
    files = [{"name": "Long", "yml_content": "- a line of the file\n" * 2000}]
    for item in step.call("x", "create_metrics", {"files": files}):
        log.push("m", item)
    outputs = [event for event in log.events if event.type == "chunk.output"]
    sizes = [
        len(orjson.dumps(part)) for part in parts_of(log.events) if part["type"] == "data-metric"
    ]
    assert len(outputs) > 4000
    assert 20 < len(sizes) < 100
    assert sum(sizes) < 10 * sizes[-1]


def test_what_is_a_title_or_a_citation_is_a_data_part() -> None:
    log = Log()
    log.start("m", source="text")
    log.note("m", "title", {"title_chunk": "Sal"})
    log.note("m", "title", {"title": "Sales"})
    log.note("m", "citation", {"url": "x"})
    log.end("m")
    notes = [part for part in parts_of(log.events) if part["type"].startswith("data-")]
    assert notes == [
        {"type": "data-title", "data": {"title_chunk": "Sal"}, "transient": True},
        {"type": "data-title", "data": {"title": "Sales"}, "transient": True},
        {"type": "data-citation", "data": {"url": "x"}},
    ]


def chunk(key: str, **fields: Any) -> dict[str, Any]:
    return {"chunk": key, **fields}


def test_calls_that_are_odd_do_not_break_the_client() -> None:
    log = Log()
    log.start("m", source="chunks")
    log.add("m", "chunk", chunk("a", kind="tool_call", tool_call_id="x", text="{", done=True))
    log.add("m", "chunk", chunk("b", kind="tool_call", tool_call_id="x", tool_name="t", done=True))
    log.add("m", "chunk", chunk("c", kind="tool_call", text='{"a":1}', done=True))
    log.add("m", "tool_result", {"tool_call_id": "nobody's", "content": 1})
    log.add("m", "tool_result", {"tool_call_id": "x", "content": "fine"})
    log.end("m")
    first, second, third = fold_parts(parts_of(log.events))["parts"]
    assert (first["type"], first["error"]) == (
        "tool-tool",
        "The arguments of this call are not valid JSON",
    )
    assert (second["type"], second["input"], second["output"]) == ("tool-t", {}, "fine")
    assert third["input"] == {"a": 1}


def test_a_text_that_starts_over_is_a_new_part() -> None:
    log = Log()
    log.add(
        "m",
        "start",
        {
            "source": "text-snapshot",
            "producer": "p",
            "mode": "snapshot",
            "on_mismatch": "reset",
            "metadata": {},
        },
    )
    log.add("m", "chunk", b"Hello")
    log.add("m", "chunk", b"Bye")
    log.end("m")
    texts = [part["text"] for part in fold_parts(parts_of(log.events))["parts"]]
    assert texts == ["Hello", "Bye"]


def test_a_call_that_is_made_again_fits_what_the_client_has() -> None:
    """A block that had ended is void, an open text starts over, and a call keeps its id."""

    def said(kind: str, field: str, text: str, index: int, *, stop: bool = True) -> None:
        block = {"type": kind, field: ""}
        of_delta = {"type": f"{kind}_delta", field: text}
        log.add(
            "m", "chunk", {"type": "content_block_start", "index": index, "content_block": block}
        )
        log.add("m", "chunk", {"type": "content_block_delta", "index": index, "delta": of_delta})
        if stop:
            log.add("m", "chunk", {"type": "content_block_stop", "index": index})

    log = Log()
    log.start("m", source="anthropic")
    log.add("m", "chunk", {"type": "message_start", "message": {"id": "a"}})
    said("thinking", "thinking", "One way.", 0)
    said("text", "text", "Hello", 1, stop=False)
    log.add("m", "restart", {"on_overlap": "stitch"})
    log.add("m", "chunk", {"type": "message_start", "message": {"id": "b"}})
    said("thinking", "thinking", "Another.", 0)
    said("text", "text", "Hello you", 1)
    log.add("m", "chunk", {"type": "message_stop"})
    log.end("m")
    parts = [part for part in fold_parts(parts_of(log.events))["parts"] if "text" in part]
    assert [(part["type"], part["text"]) for part in parts] == [
        ("reasoning", "One way."),
        ("text", "Hello you"),
        ("reasoning", "Another."),
    ]
    assert {part["state"] for part in parts} == {"done"}


def test_a_message_that_is_replaced_aborts() -> None:
    log = Log()
    log.start("m", source="text")
    log.add("m", "chunk", b"half")
    begun = list(log.events)
    log.start("n", source="text", replaces=["m"])
    end = {"type": "abort", "reason": "replaced"}
    assert fold_parts(parts_of(log.events))["end"] == end
    lost = [*begun, snapshot_at(log.events, len(log.events))]
    assert fold_parts(parts_of(lost))["end"] == end


def test_other_messages_of_the_chat_are_not_in_it() -> None:
    log = Log()
    log.start("m", source="text")
    log.start("other", source="text")
    log.add("other", "chunk", b"other")
    log.add("m", "chunk", b"mine")
    log.end("other")
    log.end("m")
    (text,) = fold_parts(parts_of(log.events))["parts"]
    assert text["text"] == "mine"
