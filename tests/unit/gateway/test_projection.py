"""The frames of `/chats/post`, from every kind of end and every place to begin reading."""

import json
from typing import Any

import pytest

from riverdelta.core.events import Event
from riverdelta.core.outputs import reduce_output
from riverdelta_gateway.assets import Asset
from riverdelta_gateway.backends import script
from riverdelta_gateway.backends.opening import opening_reply
from riverdelta_gateway.posting.projection import PostFrame, Projection
from tests.support.gateway.turn_events import CHAT, Log, snapshot_at, whole_turn


def project(events: list[Event], projection: Projection | None = None) -> list[PostFrame]:
    projection = projection or Projection(CHAT)
    return [frame for event in events for frame in projection.apply(event)]


def names(frames: list[PostFrame]) -> list[str]:
    return [frame.event for frame in frames]


def folded(frames: list[PostFrame], field: str) -> list[dict[str, Any]]:
    """Put the parts that frames carry together, as a client does."""
    parts: dict[str, dict[str, Any]] = {}
    for frame in frames:
        if field in frame.payload:
            part = frame.payload[field]
            parts[part["id"]] = reduce_output(parts.get(part["id"]), part)
    return list(parts.values())


def test_a_turn_from_its_beginning_to_its_end() -> None:
    frames = project(whole_turn())
    assert names(frames)[0] == "initializeChat"
    assert names(frames)[-1] == "complete"
    assert set(names(frames)[1:-1]) == {
        "generatingTitle",
        "generatingReasoningMessage",
        "generatingResponseMessage",
    }
    assert {frame.payload.get("chat_id", CHAT) for frame in frames} == {CHAT}
    assert {frame.payload["message_id"] for frame in frames} == {"m"}
    begun, done = frames[0].payload, frames[-1].payload
    assert (begun["id"], begun["status"], begun["title"]) == (CHAT, "open", None)
    assert begun["messages"][0]["request_message"]["prompt"] == "Hello?"
    assert (done["status"], done["title"]) == ("completed", "Sales")
    assert frames[-1].failure is None
    json.dumps([frame.payload for frame in frames])


def test_what_was_generated_is_what_the_complete_chat_has() -> None:
    frames = project(whole_turn())
    (message,) = frames[-1].payload["messages"]
    assert folded(frames, "response_message") == message["response_messages"]
    assert folded(frames, "reasoning") == message["reasoning_messages"]
    kinds = [(part["type"], part["title"]) for part in message["reasoning_messages"]]
    assert kinds == [
        ("text", "Thinking"),
        ("pills", "2 data catalog items found"),
        ("text", "Plan"),
        ("files", "Created 2 metrics"),
    ]
    assert message["reasoning_messages"][2]["message"] == script.PLAN
    files = message["reasoning_messages"][3]["files"].values()
    assert [file["file"]["text"] for file in files] == [m["yml_content"] for m in script.METRICS]
    assert message["response_messages"][0]["message"] == script.GREETING


def test_a_title_comes_in_parts_and_whole() -> None:
    titles = [f.payload for f in project(whole_turn()) if f.event == "generatingTitle"]
    assert [(t["title_chunk"], t["title"], t["progress"]) for t in titles] == [
        ("Sal", None, "in_progress"),
        (None, "Sales", "completed"),
    ]


@pytest.mark.parametrize("how", ["end", "fail", "stop"])
@pytest.mark.parametrize("most", [0, 3, 100, 200, None])
def test_complete_comes_once_however_the_turn_ends(how: str, most: int | None) -> None:
    frames = project(whole_turn(how, most))
    assert names(frames).count("complete") == 1
    assert names(frames).count("initializeChat") == 1
    assert names(frames)[-1] == "complete"
    status = {"end": "completed", "fail": "failed", "stop": "stopped"}[how]
    assert frames[-1].payload["status"] == status
    (message,) = frames[-1].payload["messages"]
    parts = message["reasoning_messages"] + message["response_messages"]
    assert "loading" not in [part["status"] for part in parts]
    if how == "fail":
        failure = {"code": "provider_error", "detail": "It failed. The id of this error is 1."}
        assert frames[-1].failure == failure
        assert message["error"] == failure


@pytest.mark.parametrize("how", ["end", "fail", "stop"])
def test_a_reader_that_comes_at_any_time_gets_the_chat_and_one_complete(how: str) -> None:
    events = whole_turn(how)
    whole = project(events)[-1].payload
    for count in range(1, len(events), 13):
        frames = project([snapshot_at(events, count), *events[count:]])
        assert names(frames)[0] == "initializeChat"
        assert names(frames).count("complete") == 1
        assert frames[-1].payload == whole


def test_a_reader_that_lost_its_place_gets_the_chat_again_and_one_complete() -> None:
    events = whole_turn()
    whole = project(events)[-1].payload
    for lost in range(1, len(events), 31):
        for found in (lost, lost + 5, len(events)):
            seen = [*events[:lost], snapshot_at(events, found), *events[found:]]
            frames = project(seen)
            assert names(frames).count("complete") == 1, (lost, found)
            assert frames[-1].payload == whole


def test_old_turns_are_skipped_and_awaited_ones_are_not() -> None:
    events = whole_turn()
    over = snapshot_at(events, len(events))
    assert project([over]) == []
    waiting = Projection(CHAT)
    waiting.expect("m")
    idle = [waiting.idle]
    assert names(project([over], waiting)) == ["initializeChat", "complete"]
    idle.append(waiting.idle)
    waiting.expect("m")
    assert [*idle, waiting.idle] == [False, True, True]


def test_messages_of_other_producers_are_no_turns() -> None:
    log = Log()
    log.start("x", source="text", metadata={"turn": "no"})
    log.add("x", "chunk", b"hi")
    log.end("x")
    assert project(log.events) == []


def test_a_turn_that_replaces_others_begins_without_them_and_completes_those_still_open() -> None:
    log = Log()
    log.start("old", source="text")
    log.add("old", "chunk", b"old")
    log.end("old")
    log.start("open", source="text")
    log.add("open", "chunk", b"half")
    log.start("new", source="text", replaces=["old", "open"])
    log.add("new", "chunk", b"new")
    log.end("new")
    frames = project(log.events)
    begun = [f for f in frames if f.event == "initializeChat" and f.payload["message_id"] == "new"]
    assert [[m["id"] for m in frame.payload["messages"]] for frame in begun] == [["new"]]
    completes = [f.payload["message_id"] for f in frames if f.event == "complete"]
    assert completes == ["old", "open", "new"]


def test_two_turns_at_once_do_not_mix() -> None:
    log = Log()
    log.start("a", source="text")
    log.start("b", source="text")
    log.add("b", "chunk", b"for b")
    log.add("a", "chunk", b"for a")
    log.end("b")
    log.end("a", "stop")
    frames = project(log.events)
    assert [f.payload["message_id"] for f in frames if f.event == "complete"] == ["b", "a"]
    parts = [
        (f.payload["message_id"], f.payload["response_message"]["message_chunk"])
        for f in frames
        if f.event == "generatingResponseMessage" and f.payload["response_message"]["message_chunk"]
    ]
    assert parts == [("b", "for b"), ("a", "for a")]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("producer_lost", "The process that wrote this reply was lost"),
        ("producer_error", "Something went wrong while this reply was written"),
        ("source_error", "The language model reported an error"),
    ],
)
def test_readers_get_nothing_internal(code: str, sentence: str) -> None:
    log = Log()
    log.start("m", source="text")
    log.add("m", "fail", {"code": code, "detail": "postgres://root:secret@db"})
    (frame,) = [frame for frame in project(log.events) if frame.event == "complete"]
    assert frame.failure == {"code": code, "detail": f"{sentence}. The id of this error is m."}
    assert "secret" not in json.dumps(frame.payload)


async def test_an_opened_asset_is_a_file_message_then_a_text_message() -> None:
    log = Log()
    log.start("m", None, asset_type="metric", asset_id="a1")
    async for item in opening_reply(Asset("metric", "a1", "Revenue", "name: Revenue\n")):
        log.push("m", item)
    log.end("m")
    frames = project(log.events)
    assert "generatingReasoningMessage" not in names(frames)
    file, text = folded(frames, "response_message")
    assert (file["type"], file["title"], file["status"]) == (
        "files",
        "Opened 1 metric",
        "completed",
    )
    assert file["file_ids"] == ["a1"]
    assert file["files"]["a1"]["file_name"] == "Revenue"
    assert file["files"]["a1"]["file"]["text"] == "name: Revenue\n"
    assert "Revenue" in text["message"]
    types = [frame.payload["response_message"]["type"] for frame in frames[1:-1]]
    assert types == sorted(types)  # every part of the file, then every part of the text
